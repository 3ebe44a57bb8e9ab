"""Benchmarks for any model: what answers, what runs and resumes, what scores."""

from .answering import Answerer, PreparingAnswerer, VideoReferAnswerer
from .controls import NoRegion, TextOnly
from .outlines import OutlineAnswerer


__all__ = ["Answerer", "NoRegion", "OutlineAnswerer", "PreparingAnswerer", "TextOnly", "VideoReferAnswerer"]
