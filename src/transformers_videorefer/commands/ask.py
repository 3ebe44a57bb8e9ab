"""`videorefer ask`: one question about regions of a video or an image."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from transformers_videorefer.inference.generating import DEFAULT_MAX_NEW_TOKENS
from transformers_videorefer.regions.selection import EMPTY_MASKS
from transformers_videorefer.regions.values import ALL_FRAMES
from transformers_videorefer.video.options import EDIT_LISTS

from .answer import ADDRESS_PREFIXES, answer_question
from .ask_many import add_many_arguments, answer_requests
from .model_flags import PUBLISHED_MODEL, add_model_flags, check_device_flag, check_model_flag
from .region_flags import REGION_FORMS, AppendRegion, MarkedRegion, group_flags


REGION_MARK = "<region>"

_REGION_HELP = {
    "--box": "a box in pixels of the video frame",
    "--polygon": "a polygon; parts are separated by ';'",
    "--scribble": "a line of WIDTH pixels through points",
    "--mask": "a picture that is 0 outside the object and 1 or 255 inside; #LABEL names another value inside",
    "--masklet": "masks of a tracked object: an .npz file with `masks` (T, height, width) and `frame_indices` (may be "
    "left out when T is the number of frames), or a folder of pictures named by frame number (00012.png)",
}
_EPILOG = f"""\
The question marks every region with <region>, in the order of the flags:
  videorefer ask dog.mp4 "What is <region> doing?" --box 300,0,800,430@0 --model {PUBLISHED_MODEL}
  videorefer ask dog.mp4 "Does <region> look at <region>?" --box dog=300,0,800,430@0 \\
      --box dog=310,0,810,430@1.5s --mask laptop=laptop.png@0 --model {PUBLISHED_MODEL}
Flags with the same NAME are frames of one region; without NAME each flag is a region of its own.
FRAME is a frame number, counted from 0 (@12), or a time in seconds (@1.5s); images need none.
Many questions at once, a row of a dataset in each line, answers as soon as they are ready:
  videorefer ask --input requests.jsonl --output answers.jsonl --model {PUBLISHED_MODEL}
"""


def add_ask_parser(commands: Any, *, parents: list[argparse.ArgumentParser]) -> None:
    """Declare `videorefer ask`.

    Args:
        commands (`argparse._SubParsersAction`): Where commands are added.
        parents (`list[argparse.ArgumentParser]`): Parsers of the flags that all commands share.
    """
    parser = commands.add_parser(
        "ask",
        parents=parents,
        allow_abbrev=False,
        help="ask about regions of a video or an image",
        description="Asks a question about regions of a video or an image. The answer alone goes to stdout.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "video", metavar="VIDEO", nargs="?", help="video file, folder of frames, http(s) address, or an image"
    )
    parser.add_argument(
        "question", metavar="QUESTION", nargs="?", help=f'the question, e.g. "What is {REGION_MARK} doing?"'
    )
    regions = parser.add_argument_group("regions")
    for option, form in REGION_FORMS.items():
        regions.add_argument(
            option, dest="region_flags", action=AppendRegion, metavar=form, default=[], help=_REGION_HELP[option]
        )
    add_region_options(regions)
    _add_video_flags(parser.add_argument_group("video"))
    add_model_flags(parser.add_argument_group("model"))
    _add_answer_flags(parser.add_argument_group("answer"))
    add_many_arguments(parser.add_argument_group("many questions"))
    parser.set_defaults(run=run_ask)


def _add_video_flags(group: Any) -> None:
    group.add_argument("--frames", type=int, metavar="N", help="frames that show the scene (default: the model's, 16)")
    group.add_argument("--start", type=float, metavar="SECONDS", help="start of the part that shows the scene")
    group.add_argument("--end", type=float, metavar="SECONDS", help="end of the part that shows the scene")
    group.add_argument("--fps", type=float, metavar="FPS", help="frames per second of a folder of frames")
    group.add_argument(
        "--edit-list",
        choices=EDIT_LISTS,
        help="count frames as players do (apply, the default) or as the published annotations do (ignore)",
    )


def add_region_options(group: Any) -> None:
    """Declare how regions are read and encoded.

    Args:
        group (`argparse._ArgumentGroup`): Group that gets the flags.
    """
    group.add_argument(
        "--region-size",
        type=parse_size,
        metavar="HEIGHTxWIDTH",
        help="size of the picture that coordinates and masks refer to, 1x1 for coordinates from 0 to 1 (default: the "
        "video's)",
    )
    group.add_argument(
        "--region-frames",
        type=parse_frame_limit,
        metavar="N|all",
        help="most frames used of a region (default: the model's, 32)",
    )
    group.add_argument(
        "--region-tokens", type=int, metavar="N", help="most tokens of a region (default: the model's, 4)"
    )
    group.add_argument(
        "--empty-masks",
        choices=EMPTY_MASKS,
        default="error",
        help="what an empty mask does (default: error)",
    )


def _add_answer_flags(group: Any) -> None:
    group.add_argument(
        "--max-new-tokens",
        type=int,
        default=DEFAULT_MAX_NEW_TOKENS,
        metavar="N",
        help=f"longest answer (default: {DEFAULT_MAX_NEW_TOKENS})",
    )
    group.add_argument("--sample", action="store_true", help="sample words instead of taking the most likely ones")
    group.add_argument("--seed", type=int, help="seed of --sample")
    group.add_argument("--stream", action="store_true", help="print the answer word by word")
    group.add_argument("--json", action="store_true", help="print one JSON object")
    group.add_argument("--save", metavar="PICTURE", help="draw the regions, the question and the answer")


def parse_size(text: str) -> list[int]:
    """Read the value of `--region-size`.

    Args:
        text (`str`): For example 720x1280.

    Returns:
        `list[int]`: Height and width.

    Raises:
        ArgumentTypeError: If the text has another form.
    """
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no HEIGHTxWIDTH, e.g. 720x1280")
    return [int(height), int(width)]


def parse_frame_limit(text: str) -> int | str:
    """Read the value of `--region-frames`.

    Args:
        text (`str`): A number, or "all".

    Returns:
        `int` or `str`: The number, or "all".

    Raises:
        ArgumentTypeError: If the text is neither.
    """
    if text != ALL_FRAMES and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor `{ALL_FRAMES}`")
    return text if text == ALL_FRAMES else int(text)


def run_ask(args: argparse.Namespace) -> None:
    """Answer a question; what is wrong with the flags alone is found before anything is read.

    Args:
        args (`argparse.Namespace`): Flags of `videorefer ask`.

    Raises:
        ValueError: If flags contradict each other, or the regions do not fit question and video.
        OSError: If a file or the model cannot be read.
    """
    if args.input is not None:
        check_model_flag(args)
        check_device_flag(args)
        answer_requests(args)
        return
    if args.video is None or args.question is None:
        missing = "VIDEO, QUESTION" if args.video is None else "QUESTION"
        raise ValueError(
            f"the following arguments are required: {missing}, or --input with a file of requests "
            "(`videorefer ask --help` shows all flags)"
        )
    marked = group_flags(args.region_flags)
    pieces = split_question(args.question, marked)
    _check_flags(args)
    answer_question(args, pieces, marked)


def split_question(question: str, marked: Sequence[MarkedRegion]) -> list[str]:
    """Split a question at its `<region>` marks.

    Args:
        question (`str`): The question.
        marked (`Sequence[MarkedRegion]`): Regions given by flags, one for each mark.

    Returns:
        `list[str]`: The text before, between and behind the marks, one piece more than there are marks.

    Raises:
        ValueError: If marks and regions differ in number, or the question is empty or spells another mark.
    """
    if not question.strip():
        raise ValueError(f'The question is empty. Write one, e.g. "What is {REGION_MARK} doing?".')
    for mark in ("<video>", "<image>"):
        if mark in question:
            raise ValueError(f"The question spells `{mark}`. Leave it out: VIDEO is put in front of the question.")
    pieces = question.split(REGION_MARK)
    num_marks = len(pieces) - 1
    if marked and not num_marks:
        marks = " and ".join([REGION_MARK] * len(marked))
        raise ValueError(
            f"The flags mark {len(marked)} region(s), but the question has no `{REGION_MARK}`. Write {REGION_MARK} "
            f'where it speaks of a region, e.g. "What happens to {marks}?".'
        )
    if num_marks != len(marked):
        given = "; ".join(region.typed for region in marked) or "none"
        raise ValueError(
            f"The question has {num_marks} `{REGION_MARK}` mark(s), but the flags mark {len(marked)} region(s): {given}. "
            "Mark one region for each mark, in their order; flags with the same NAME= are frames of one region."
        )
    return pieces


def _check_flags(args: argparse.Namespace) -> None:
    """Find what is wrong with the flags alone."""
    check_model_flag(args)
    check_device_flag(args)
    if args.output is not None:
        raise ValueError("--output has no effect without --input. Drop it, or pass a file of requests.")
    if not args.video.startswith(ADDRESS_PREFIXES) and not Path(args.video).exists():
        raise ValueError(f"There is no video or image {args.video}. Check the path.")
    if args.stream and args.json:
        raise ValueError("--stream and --json exclude each other: one JSON object needs the whole answer. Drop one.")
    if args.seed is not None and not args.sample:
        raise ValueError("--seed has no effect without --sample. Add --sample or drop --seed.")
    if args.max_new_tokens < 1:
        raise ValueError(f"`--max-new-tokens {args.max_new_tokens}`: pass at least 1.")
    if args.save:
        Image.init()
        if Path(args.save).suffix.lower() not in Image.EXTENSION:
            raise ValueError(f"`--save {args.save}`: this is no picture format. Use a name such as preview.png.")
        if not Path(args.save).absolute().parent.is_dir():
            raise ValueError(f"`--save {args.save}`: the folder does not exist. Create it first.")
