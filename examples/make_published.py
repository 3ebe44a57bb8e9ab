"""Make a miniature of the published files, with its videos: the formats are real, the content is moving shapes.

    python examples/make_published.py --output published

writes `videorefer-short-caption-500k.json`, `videorefer-detailed-caption-125k.json`, `videorefer-qa-75k.json`,
`VideoRefer-Bench-D.json`, `VideoRefer-Bench-Q.json` and their video files, in some seconds and without network. With them
the builders, the export and the `videorefer data` commands can be tried before gigabytes are fetched.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers_videorefer.data import (
    Clip,
    bench_d_rows,
    bench_q_rows,
    conversation_rows,
    make_clip,
    to_published,
    write_clip,
)


CAPTION_TURN = "<video>\nPlease describe the object <region> in the video in brief."
DETAIL_TURN = "<video>\nPlease describe in detail the object <region> in the video."


def caption_rows(clip: Clip, prompt: str) -> list[dict[str, Any]]:
    """Return a conversation about each object: the prompt and the description."""
    return [
        {
            **{name: row[name] for name in ("id", "video", "regions")},
            "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": row["caption"]}],
        }
        for row in bench_d_rows(clip)
    ]


FILES: dict[str, Callable[[Clip], list[dict[str, Any]]]] = {
    "videorefer-short-caption-500k.json": lambda clip: caption_rows(clip, CAPTION_TURN),
    "videorefer-detailed-caption-125k.json": lambda clip: caption_rows(clip, DETAIL_TURN),
    "videorefer-qa-75k.json": conversation_rows,
    "VideoRefer-Bench-D.json": bench_d_rows,
    "VideoRefer-Bench-Q.json": bench_q_rows,
}


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to be written")
    parser.add_argument("--num-clips", type=int, default=4, metavar="N", help="clips (default: 4)")
    options = parser.parse_args()
    clips = [make_clip(seed) for seed in range(options.num_clips)]
    for clip in clips:
        write_clip(clip, options.output)
    for name, rows_of in FILES.items():
        records = [to_published(row) for clip in clips for row in rows_of(clip)]
        (options.output / name).write_text(json.dumps(records), encoding="utf-8")
        print(f"{name}: {len(records)} records")


if __name__ == "__main__":
    main()
