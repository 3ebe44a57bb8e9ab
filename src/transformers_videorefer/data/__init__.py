"""Data of VideoRefer: synthetic clips with exact answers."""

from .synthetic import (
    Clip,
    bench_d_rows,
    bench_q_rows,
    conversation_rows,
    encode_rle,
    encode_video,
    iterate_clips,
    make_clip,
    object_region,
    write_clip,
)


__all__ = [
    "Clip",
    "bench_d_rows",
    "bench_q_rows",
    "conversation_rows",
    "encode_rle",
    "encode_video",
    "iterate_clips",
    "make_clip",
    "object_region",
    "write_clip",
]
