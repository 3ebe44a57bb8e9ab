"""The files of a model: found, checked, written and pushed."""
