"""`videorefer ask`: one question about regions of a video or an image."""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .progress import TokenProgress, quiet_libraries, report, report_when_slow
from .region_flags import REGION_FORMS, AppendRegion, MarkedRegion, build_region, group_flags


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin


PUBLISHED_MODEL = "DAMO-NLP-SG/VideoRefer-7B"
REGION_MARK = "<region>"
DTYPES = ("auto", "float32", "bfloat16", "float16")
# Half the memory where hardware computes in it; processors are slow in it, and float32 gives the reference numbers.
DTYPE_ON_ACCELERATOR, DTYPE_ELSEWHERE = "bfloat16", "float32"

_REGION_HELP = {
    "--box": "a box in pixels of the video frame",
    "--polygon": "a polygon; parts are separated by ';'",
    "--scribble": "a line of WIDTH pixels through points",
    "--mask": "a picture that is 0 outside the object and 1 or 255 inside; #LABEL names another value inside",
    "--masklet": "masks of a tracked object: an .npz file with `masks` (T, height, width) and `frame_indices` (may be "
    "left out when T is the number of frames), or a folder of pictures named by frame number (00012.png)",
}
_EPILOG = """\
The question marks every region with <region>, in the order of the flags:
  videorefer ask dog.mp4 "What is <region> doing?" --box 300,0,800,430@0 --model {model}
  videorefer ask dog.mp4 "Does <region> look at <region>?" --box dog=300,0,800,430@0 \\
      --box dog=310,0,810,430@1.5s --mask laptop=laptop.png@0 --model {model}
Flags with the same NAME are frames of one region; without NAME each flag is a region of its own.
FRAME is a frame number, counted from 0 (@12), or a time in seconds (@1.5s); images need none.
""".format(model=PUBLISHED_MODEL)


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
    parser.add_argument("video", metavar="VIDEO", help="video file, folder of frames, http(s) address, or an image")
    parser.add_argument("question", metavar="QUESTION", help=f'the question, e.g. "What is {REGION_MARK} doing?"')
    regions = parser.add_argument_group("regions")
    for option, form in REGION_FORMS.items():
        regions.add_argument(
            option, dest="region_flags", action=AppendRegion, metavar=form, default=[], help=_REGION_HELP[option]
        )
    regions.add_argument(
        "--region-frames", type=_frame_limit, default=argparse.SUPPRESS, metavar="N|all",
        help="most frames used of a region (default: the model's, 32)",
    )  # fmt: skip
    regions.add_argument(
        "--region-tokens", type=int, metavar="N", help="most tokens of a region (default: the model's, 4)"
    )
    regions.add_argument(
        "--empty-masks",
        choices=("error", "drop", "keep"),
        default="error",
        help="what an empty mask does (default: error)",
    )
    _add_video_flags(parser.add_argument_group("video"))
    _add_model_flags(parser.add_argument_group("model"))
    _add_answer_flags(parser.add_argument_group("answer"))
    parser.set_defaults(run=run_ask)


def _add_video_flags(group: Any) -> None:
    group.add_argument("--frames", type=int, metavar="N", help="frames that show the scene (default: the model's, 16)")
    group.add_argument("--start", type=float, metavar="SECONDS", help="start of the part that shows the scene")
    group.add_argument("--end", type=float, metavar="SECONDS", help="end of the part that shows the scene")
    group.add_argument("--fps", type=float, metavar="FPS", help="frames per second of a folder of frames")
    group.add_argument(
        "--edit-list",
        choices=("apply", "ignore"),
        help="count frames as players do (apply, the default) or as the published annotations do (ignore)",
    )


def _add_model_flags(group: Any) -> None:
    group.add_argument(
        "--model", metavar="ID_OR_DIR", help=f"Hub id or folder of a checkpoint, e.g. {PUBLISHED_MODEL}"
    )
    group.add_argument(
        "--device", default="auto", help="where the model runs (default: an accelerator if there is one)"
    )
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help=f"precision (default: {DTYPE_ON_ACCELERATOR} on an accelerator, otherwise {DTYPE_ELSEWHERE})",
    )
    group.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the checkpoint")


def _add_answer_flags(group: Any) -> None:
    group.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="longest answer (default: 512)")
    group.add_argument("--sample", action="store_true", help="sample words instead of taking the most likely ones")
    group.add_argument("--seed", type=int, help="seed of --sample")
    group.add_argument("--stream", action="store_true", help="print the answer word by word")
    group.add_argument("--json", action="store_true", help="print one JSON object")
    group.add_argument("--save", metavar="PICTURE", help="draw the regions, the question and the answer")


def _frame_limit(text: str) -> int | None:
    return None if text == "all" else int(text)


def run_ask(args: argparse.Namespace) -> None:
    """Answer a question.

    Everything that can be wrong with video and regions is found before the weights are loaded.

    Args:
        args (`argparse.Namespace`): Flags of `videorefer ask`.

    Raises:
        ValueError: If flags contradict each other, or the regions do not fit question and video.
        OSError: If a file or the model cannot be read.
    """
    marked = group_flags(args.region_flags)
    pieces = split_question(args.question, marked)
    _check_flags(args)
    with report_when_slow("starting"):
        quiet_libraries(args.debug)
        import transformers_videorefer  # noqa: F401  (registers the Auto classes)

        media, is_image = media_part(args)
        regions = _build_regions(args, marked, is_image)
    with report_when_slow(f"loading the processor of {args.model}"):
        processor = _load("AutoProcessor", args)
    started = time.perf_counter()
    with report_when_slow(f"reading {args.video}"):
        inputs, metadata = _make_inputs(args, processor, [media, *_interleave(pieces, regions)], marked)
    seconds = time.perf_counter() - started
    with report_when_slow(f"loading {args.model}"):
        model = load_model(args)
    started = time.perf_counter()
    answer, is_complete = _generate(args, model, processor, inputs)
    seconds += time.perf_counter() - started
    _print_answer(args, answer, metadata, is_image, seconds)
    if not is_complete:
        report(f"The answer was cut after {args.max_new_tokens} tokens; --max-new-tokens allows more.")
    if args.save:
        _save_preview(args, answer, marked, regions, metadata, is_image)


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
    """Find what is wrong with the flags without importing anything heavy."""
    if args.model is None:
        raise ValueError(
            f"--model is missing. Pass a Hub id, e.g. --model {PUBLISHED_MODEL}, or a folder with a checkpoint."
        )
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", args.model) and not Path(args.model).is_dir():
        raise ValueError(
            f"`--model {args.model}`: there is no such folder, and a Hub id looks like {PUBLISHED_MODEL}."
        )
    if not _is_address(args.video) and not Path(args.video).exists():
        raise ValueError(f"There is no video or image {args.video}. Check the path.")
    if args.stream and args.json:
        raise ValueError("--stream and --json exclude each other: one JSON object needs the whole answer. Drop one.")
    if args.seed is not None and not args.sample:
        raise ValueError("--seed has no effect without --sample. Add --sample or drop --seed.")
    if args.max_new_tokens < 1:
        raise ValueError(f"`--max-new-tokens {args.max_new_tokens}`: pass at least 1.")
    if args.save:
        from PIL import Image

        Image.init()
        if Path(args.save).suffix.lower() not in Image.EXTENSION:
            raise ValueError(f"`--save {args.save}`: this is no picture format. Use a name such as preview.png.")
        if not Path(args.save).absolute().parent.is_dir():
            raise ValueError(f"`--save {args.save}`: the folder does not exist. Create it first.")


def _is_address(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def media_part(args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Build the part of the message that stands for VIDEO.

    Args:
        args (`argparse.Namespace`): Flags of `videorefer ask`.

    Returns:
        `tuple[dict, bool]`: The part, and whether VIDEO is a still image.

    Raises:
        ValueError: If flags that only videos have are given for an image.
        OSError: If an image cannot be read.
    """
    is_image = _is_still_picture(args.video)
    options = _video_options(args)
    if is_image and options:
        flags = ", ".join(f"--{name.removesuffix('_seconds').replace('_', '-')}" for name in options)
        raise ValueError(f"{flags}: only videos have these, but {args.video} is an image. Drop them.")
    source = {"url" if _is_address(args.video) else "path": args.video}
    return {"type": "image" if is_image else "video", **source, **options}, is_image


def _video_options(args: argparse.Namespace) -> dict[str, Any]:
    options = {"start_seconds": args.start, "end_seconds": args.end, "fps": args.fps, "edit_list": args.edit_list}
    return {name: value for name, value in options.items() if value is not None}


def _is_still_picture(source: str) -> bool:
    """Whether VIDEO is one picture; animated WebP and PNG are videos."""
    from PIL import Image

    from transformers_videorefer.picture_reader_videorefer import is_picture_file_name

    if _is_address(source):
        return is_picture_file_name(urlsplit(source).path)
    if not is_picture_file_name(source) or os.path.isdir(source):
        return False
    with Image.open(source) as picture:
        return getattr(picture, "n_frames", 1) == 1


def _build_regions(args: argparse.Namespace, marked: Sequence[MarkedRegion], is_image: bool) -> list[dict[str, Any]]:
    from transformers_videorefer.video_reader_videorefer import open_video

    def frame_times() -> Sequence[float]:
        with open_video(args.video, **_reader_options(args)) as reader:
            return reader.frame_times

    return [build_region(region, is_image=is_image, frame_times=frame_times) for region in marked]


def _reader_options(args: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in _video_options(args).items() if name in ("fps", "edit_list")}


def _interleave(pieces: Sequence[str], regions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put each region between two pieces of text."""
    parts: list[dict[str, Any]] = []
    for position, piece in enumerate(pieces):
        parts += regions[position - 1 : position] if position else []
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


def _load(auto_class: str, args: argparse.Namespace, **kwargs: Any) -> Any:
    import transformers

    return getattr(transformers, auto_class).from_pretrained(
        args.model, trust_remote_code=args.trust_remote_code, **kwargs
    )


def _make_inputs(
    args: argparse.Namespace, processor: "ProcessorMixin", parts: list[dict[str, Any]], marked: Sequence[MarkedRegion]
) -> tuple[Any, dict[str, Any]]:
    """Decode the video and build the inputs of the model; tell which frames were used."""
    options = {"num_frames": args.frames, "num_region_tokens": args.region_tokens}
    options = {name: value for name, value in options.items() if value is not None}
    if hasattr(args, "region_frames"):  # its value None means "all"
        options["num_region_frames"] = args.region_frames
    try:
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": parts}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            return_metadata=True,
            empty_masks=args.empty_masks,
            **options,
        )
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(_name_flags(str(error), marked)) from error
    return inputs, {name: inputs.pop(name) for name in ("video_metadata", "region_metadata")}


def _name_flags(message: str, marked: Sequence[MarkedRegion]) -> str:
    """Say which flag a message of the processor is about: users of the command never see sample and region numbers."""

    def flags(match: re.Match) -> str:
        return f"`{marked[int(match['region'])].typed}`"

    return re.sub(r"\b[Ss]ample 0, region (?P<region>\d+)", flags, message)


def load_model(args: argparse.Namespace) -> "PreTrainedModel":
    """Load the model where it runs best.

    Args:
        args (`argparse.Namespace`): Flags of `videorefer ask`.

    Returns:
        `PreTrainedModel`: The model, ready for inference.

    Raises:
        ValueError: If the device does not exist.
        OSError: If the model cannot be read.
    """
    from transformers.utils import is_accelerate_available

    device, is_accelerator = _choose_device(args.device)
    dtype = args.dtype
    if dtype == "auto":
        dtype = DTYPE_ON_ACCELERATOR if is_accelerator else DTYPE_ELSEWHERE
    if not is_accelerate_available():
        model = _load("AutoModelForImageTextToText", args, dtype=dtype)
        return model.eval() if device is None else model.to(device).eval()
    # Spreads the model over all accelerators, and beyond where they are too small.
    device_map = args.device if args.device == "auto" and is_accelerator else device
    return _load("AutoModelForImageTextToText", args, dtype=dtype, device_map=device_map).eval()


def _choose_device(name: str) -> tuple["torch.device | None", bool]:
    """Find the device, `None` for where torch puts tensors anyway, and whether it is an accelerator."""
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return accelerator, accelerator is not None
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch built without a device asserts that it was
        found = "no accelerator was found" if accelerator is None else f"this machine has {accelerator.type}"
        raise ValueError(f"`--device {name}`: torch cannot use it; {found}. Leave --device out to choose.") from error
    return device, accelerator is not None and device.type == accelerator.type


def _generate(
    args: argparse.Namespace, model: "PreTrainedModel", processor: "ProcessorMixin", inputs: Any
) -> tuple[str, bool]:
    """Return the answer and whether the model ended it itself."""
    import torch
    from transformers import TextStreamer, set_seed

    if args.seed is not None:
        set_seed(args.seed)
    if args.stream:
        streamer = TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    else:
        streamer = TokenProgress(args.max_new_tokens)
    try:
        output = model.generate(
            **inputs.to(model.device), max_new_tokens=args.max_new_tokens, do_sample=args.sample, streamer=streamer
        )
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            f"The {model.device.type} ran out of memory. Use fewer --frames or --region-frames, or --dtype bfloat16."
        ) from error
    new_ids = output[0, inputs["input_ids"].shape[1] :]
    end_ids = model.generation_config.eos_token_id
    end_ids = end_ids if isinstance(end_ids, list) else [end_ids]
    is_complete = len(new_ids) < args.max_new_tokens or int(new_ids[-1]) in end_ids
    return processor.tokenizer.decode(new_ids, skip_special_tokens=True).strip(), is_complete


def _print_answer(
    args: argparse.Namespace, answer: str, metadata: dict[str, Any], is_image: bool, seconds: float
) -> None:
    """Print the answer alone, or as part of one JSON object; a streamed one is there already."""
    if args.stream:
        return
    if not args.json:
        sys.stdout.write(f"{answer}\n")
        return
    record = {
        "question": args.question,
        "answer": answer,
        "video": args.video,
        "regions": [
            {name: region[name] for name in ("object_id", "frame_indices", "num_tokens")}
            for region in metadata["region_metadata"]
        ],
        "model": args.model,
        "num_frames": None if is_image else len(metadata["video_metadata"][0].frames_indices),
        "frame_indices": None if is_image else [int(index) for index in metadata["video_metadata"][0].frames_indices],
        "seconds": round(seconds, 3),  # reading the video and answering, without loading the model
    }
    sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")


def _save_preview(
    args: argparse.Namespace,
    answer: str,
    marked: Sequence[MarkedRegion],
    regions: Sequence[dict[str, Any]],
    metadata: dict[str, Any],
    is_image: bool,
) -> None:
    """Draw the frames of the regions that the model saw."""
    from transformers_videorefer.preview import draw_preview, read_marked_frames, region_colors

    names = [region.name or f"region {position}" for position, region in enumerate(marked)]
    kept = [region["frame_indices"] for region in metadata["region_metadata"]]
    frames = read_marked_frames(
        args.video,
        dict(zip(names, regions, strict=True)),
        frame_indices=dict(zip(names, kept, strict=True)) or None,
        is_image=is_image,
        **_reader_options(args),
    )
    pieces = iter(args.question.split(REGION_MARK))
    question = next(pieces) + "".join(f"[{name}]{piece}" for name, piece in zip(names, pieces, strict=True))
    picture = draw_preview(frames, question=question, answer=answer, colors=region_colors(names))
    picture.save(args.save)
