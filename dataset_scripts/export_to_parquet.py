"""Write a published set as Parquet files with a card, which `load_dataset` reads with no code of this project.

    python dataset_scripts/export_to_parquet.py videorefer-700k --source DIR --output videorefer-700k
    python dataset_scripts/export_to_parquet.py videorefer-700k --source DIR --output videorefer-700k --configs qa
    python dataset_scripts/export_to_parquet.py videorefer-bench-q --output videorefer-bench-q --push-to-hub ORG/NAME

Then, in the folder that holds it, `load_dataset("videorefer-700k", "qa")`, and elsewhere with its path. An interrupted export goes on where it stopped
when the same command is given again. Without `--source` the published files are fetched from the Hub.
"""

import argparse
import sys
from pathlib import Path

from transformers_videorefer.data.defects import BAD_ROWS
from transformers_videorefer.data.exporting.export import export_set, format_size
from transformers_videorefer.data.exporting.pushing import check_access, push_folder
from transformers_videorefer.data.sources.published import PUBLISHED_SETS, published_set


CARDS = Path(__file__).parent


def _from_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", help=f"published set: {', '.join(PUBLISHED_SETS)}")
    parser.add_argument("--source", type=Path, metavar="DIR", help="folder with the published files")
    parser.add_argument("--output", type=Path, metavar="DIR", required=True, help="folder to be written")
    parser.add_argument("--configs", nargs="+", metavar="NAME", help="configurations to export (default: all)")
    parser.add_argument("--num-proc", type=_from_one, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--bad-rows", choices=BAD_ROWS, default="raise", help="what to do with them (default: raise)")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="videos, for polygons without height and width")
    parser.add_argument("--revision", help="branch, tag or commit to fetch, without --source")
    parser.add_argument(
        "--shard-megabytes", type=_from_one, default=256, metavar="N", help="JSON of a file (default: 256)"
    )
    parser.add_argument("--push-to-hub", metavar="ORG/NAME", help="then upload the folder to this dataset repository")
    parser.add_argument("--public", action="store_true", help="make the repository public (default: private)")
    parser.add_argument("--quiet", action="store_true", help="draw no progress bars")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Export one set, and upload it where that is asked for."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.public and not options.push_to_hub:
        parser.error("--public says how to push; give --push-to-hub ORG/NAME as well.")
    try:
        published = published_set(options.name)
        card = (CARDS / published.name.replace("-", "_") / "README.md").read_text(encoding="utf-8")
        if options.push_to_hub:
            check_access(options.push_to_hub, public=options.public)
        states = export_set(
            published,
            options.output,
            card,
            source=options.source,
            configs=options.configs,
            bad_rows=options.bad_rows,
            videos=options.videos,
            num_proc=options.num_proc,
            shard_bytes=options.shard_megabytes * 1_000_000,
            revision=options.revision,
            show_progress=not options.quiet,
        )
        for name, state in states.items():
            for split, sums in state["splits"].items():
                skipped, size = sums["num_skipped"], format_size(sums["file_bytes"])
                print(f"{name}/{split}: {sums['num_rows']} rows, {skipped} skipped, {size}")
        if options.push_to_hub:
            print(push_folder(options.output, options.push_to_hub, public=options.public))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
