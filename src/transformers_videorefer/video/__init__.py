"""Frames of any video by number."""

from transformers_videorefer.video.opening import open_video
from transformers_videorefer.video.reader import VideoReader


__all__ = ["VideoReader", "open_video"]
