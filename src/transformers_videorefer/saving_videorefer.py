"""Saving: every folder written is a repository that loads without this package."""


class VideoReferSavingMixin:
    """Placeholder."""
