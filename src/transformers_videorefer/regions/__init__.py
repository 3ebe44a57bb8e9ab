"""From "this object in these frames" to cells of a grid."""

from transformers_videorefer.regions.form import parse_region
from transformers_videorefer.regions.rle import decode_rle, encode_rle
from transformers_videorefer.regions.selection import select_frames


__all__ = ["decode_rle", "encode_rle", "parse_region", "select_frames"]
