"""Data of VideoRefer: published files as rows, rows as chat messages and batches, and synthetic clips with exact answers."""

from transformers_videorefer.regions.rle import encode_rle, encode_runs

from .batches.chat import to_chat
from .batches.collator import VideoReferDataCollator
from .defects import BAD_ROWS, DEFECT_KINDS, Defect, DefectReport, RecordError
from .json_files.json_stream import iterate_records, split_file
from .rle_checks import broken_rles
from .rows.hc_stvg import salvage_hc_stvg
from .rows.records import from_published, record_defects, salvage, to_published
from .rows.row_checks import row_defects
from .segmentations import segmentation_to_rle
from .sources.reading import iterate_row_batches, iterate_rows
from .synthetic.clips import (
    Clip,
    bench_d_rows,
    bench_q_rows,
    conversation_rows,
    encode_video,
    iterate_clips,
    make_clip,
    object_region,
    write_clip,
)


__all__ = [
    "BAD_ROWS",
    "DEFECT_KINDS",
    "Clip",
    "Defect",
    "DefectReport",
    "RecordError",
    "VideoReferDataCollator",
    "bench_d_rows",
    "bench_q_rows",
    "broken_rles",
    "conversation_rows",
    "encode_rle",
    "encode_runs",
    "encode_video",
    "from_published",
    "iterate_clips",
    "iterate_records",
    "iterate_row_batches",
    "iterate_rows",
    "make_clip",
    "object_region",
    "record_defects",
    "row_defects",
    "salvage",
    "salvage_hc_stvg",
    "segmentation_to_rle",
    "split_file",
    "to_chat",
    "to_published",
    "write_clip",
]
