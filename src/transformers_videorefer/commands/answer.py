"""How `videorefer ask` comes to its answer: read the video, load the model, generate, print and draw."""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin, TextStreamer

from transformers_videorefer.bundled import TINY_MODEL, TINY_NOTICE
from transformers_videorefer.inference.generating import Answer, generate_answers
from transformers_videorefer.preview.drawing import draw_preview, read_marked_frames, region_colors
from transformers_videorefer.regions.errors import place_error
from transformers_videorefer.regions.values import DEFAULT
from transformers_videorefer.video.opening import open_video
from transformers_videorefer.video.pictures import is_picture_file_name

from .model_flags import find_model
from .progress import TokenProgress, quiet_libraries, report, report_when_slow
from .region_flags import MarkedRegion, build_region


ADDRESS_PREFIXES = ("http://", "https://")
_FLAGS_OF_ARGUMENTS = {
    "num_frames": "--frames",
    "num_region_frames": "--region-frames",
    "num_region_tokens": "--region-tokens",
    "empty_masks": "--empty-masks",
    "start_seconds": "--start",
    "end_seconds": "--end",
    "fps": "--fps",
    "edit_list": "--edit-list",
    "vision_tower": "--vision-tower",
}
_FLAGS_OF_HINTS = {
    '`"label": int`': "`FILE#LABEL`",
    '`"size": [height, width]`': "`--region-size HEIGHTxWIDTH`",
}


def answer_question(args: argparse.Namespace, pieces: Sequence[str], marked: Sequence[MarkedRegion]) -> None:
    """Answer a question; everything that can be wrong with video and regions is found before weights are loaded.

    Args:
        args (`argparse.Namespace`): Flags of `videorefer ask`.
        pieces (`Sequence[str]`): Text of the question before, between and behind its marks.
        marked (`Sequence[MarkedRegion]`): Regions, one for each mark.

    Raises:
        ValueError: If the regions do not fit the video, or flags do not fit each other.
        OSError: If a file or the model cannot be read.
    """
    quiet_libraries(args.debug)
    is_image = _is_still_picture(args.video)
    media = _media_part(args, is_image)
    regions = [build_region(one, is_image=is_image, frame_times=lambda: _frame_times(args)) for one in marked]
    if args.region_size is not None:
        regions = [{**region, "size": args.region_size} for region in regions]
    if args.model == TINY_MODEL:
        report(TINY_NOTICE)
    checkpoint = find_model(args)
    with report_when_slow(f"loading the processor of {args.model}"), errors_name_flags(args, marked):
        processor = checkpoint.load_processor()
    started = time.perf_counter()
    with report_when_slow(f"reading {args.video}"), errors_name_flags(args, marked):
        inputs = _make_inputs(args, processor, [media, *_interleave(pieces, regions)])
    metadata = {name: inputs.pop(name) for name in ("video_metadata", "region_metadata")}
    seconds = time.perf_counter() - started
    with report_when_slow(f"loading {args.model}"), errors_name_flags(args, marked):
        model = checkpoint.load_model(args.device, args.dtype)
    started = time.perf_counter()
    answer = _generate(args, model, processor, inputs)
    seconds += time.perf_counter() - started
    if args.json:
        sys.stdout.write(_to_json(args, answer.text, metadata, is_image, seconds) + "\n")
    elif not args.stream:
        sys.stdout.write(answer.text + "\n")
    if not answer.is_complete:
        report(f"The answer was cut after {args.max_new_tokens} tokens; --max-new-tokens allows more.")
    if args.save:
        _save_preview(args, answer.text, pieces, marked, regions, metadata, is_image)


def _is_still_picture(source: str) -> bool:
    """Whether VIDEO is one picture; animated WebP and PNG are videos."""
    if source.startswith(ADDRESS_PREFIXES):
        return is_picture_file_name(urlsplit(source).path)
    if not is_picture_file_name(source) or os.path.isdir(source):
        return False
    with Image.open(source) as picture:
        return getattr(picture, "n_frames", 1) == 1


def _media_part(args: argparse.Namespace, is_image: bool) -> dict[str, Any]:
    """Build the part of the message that stands for VIDEO."""
    options = {"start_seconds": args.start, "end_seconds": args.end, **_reader_options(args)}
    options = {name: value for name, value in options.items() if value is not None}
    if is_image and options:
        flags = ", ".join(f"--{name.removesuffix('_seconds').replace('_', '-')}" for name in options)
        raise ValueError(f"{flags}: only videos have these, but {args.video} is an image. Drop them.")
    source = {"url" if args.video.startswith(ADDRESS_PREFIXES) else "path": args.video}
    return {"type": "image" if is_image else "video", **source, **options}


def _reader_options(args: argparse.Namespace) -> dict[str, Any]:
    options = {"fps": args.fps, "edit_list": args.edit_list}
    return {name: value for name, value in options.items() if value is not None}


def _frame_times(args: argparse.Namespace) -> Sequence[float]:
    with open_video(args.video, **_reader_options(args)) as reader:
        return reader.frame_times


def _interleave(pieces: Sequence[str], regions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put each region between two pieces of text."""
    parts: list[dict[str, Any]] = []
    for position, piece in enumerate(pieces):
        if position:
            parts.append(regions[position - 1])
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


def _make_inputs(args: argparse.Namespace, processor: ProcessorMixin, parts: list[dict[str, Any]]) -> BatchFeature:
    """Decode the video and build the inputs of the model."""
    options = {"num_frames": args.frames, "num_region_tokens": args.region_tokens}
    options = {name: value for name, value in options.items() if value is not None}
    options["num_region_frames"] = DEFAULT if args.region_frames is None else args.region_frames
    return processor.apply_chat_template(
        [{"role": "user", "content": parts}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        return_metadata=True,
        empty_masks=args.empty_masks,
        **options,
    )


@contextmanager
def errors_name_flags(args: argparse.Namespace, marked: Sequence[MarkedRegion]) -> Iterator[None]:
    """Put flags where messages of the library name samples, regions and arguments, which mean nothing here.

    Args:
        args (`argparse.Namespace`): Flags, of which `video` is what the first video of the first sample is called.
        marked (`Sequence[MarkedRegion]`): Regions given by flags, one for each region of the first sample.

    Raises:
        ValueError: In the place of a ValueError or OSError.
        TypeError: In the place of a TypeError.
    """
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        message = _name_by_flags(error, args.video, marked)
        for hint, flag in _FLAGS_OF_HINTS.items():
            message = message.replace(hint, flag)
        message = re.sub(r"`(\w+)(?:=(?:\"(\w+)\")?)?`", _name_flag, message)
        # With its place, by which the command tells a refusal from a fault of its own.
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(message).with_traceback(error.__traceback__) from error


def _name_by_flags(error: ValueError | TypeError | OSError, video: str, marked: Sequence[MarkedRegion]) -> str:
    """Word an error with the flags and the video as typed in the place of positions."""
    cause, error = error.__cause__, place_error(error)
    if error.region is not None:
        return str(place_error(error, origin=f"`{marked[error.region].typed}`", region=None))
    if error.video is None and error.image is None:
        return str(error)
    if not error.is_named:
        place_error(error, origin=video, video=None, image=None)
    # The texts about images name one so; what FFmpeg says of a broken file is of no use to those who typed its name.
    return str(error).replace("sample 0, image 0", video).replace(f" ({cause})", "")


def _name_flag(found: re.Match) -> str:
    flag = _FLAGS_OF_ARGUMENTS.get(found[1])
    if flag is None:
        return found[0]
    return f"`{flag} {found[2]}`" if found[2] else f"`{flag}`"


def _generate(
    args: argparse.Namespace, model: PreTrainedModel, processor: ProcessorMixin, inputs: BatchFeature
) -> Answer:
    if args.stream:
        streamer = TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    else:
        streamer = TokenProgress(args.max_new_tokens)
    (answer,) = generate_answers(
        model,
        processor,
        inputs,
        max_new_tokens=args.max_new_tokens,
        sample=args.sample,
        seed=args.seed,
        streamer=streamer,
        memory_advice="Use fewer --frames or --region-frames, or --dtype bfloat16.",
    )
    return answer


def _to_json(
    args: argparse.Namespace, answer: str, metadata: Mapping[str, Any], is_image: bool, seconds: float
) -> str:
    """Write the answer and what it was made from as one JSON object."""
    scene = None if is_image else [int(index) for index in metadata["video_metadata"][0].frames_indices]
    record = {
        "question": args.question,
        "answer": answer,
        "video": args.video,
        "regions": [
            {name: region[name] for name in ("object_id", "frame_indices", "num_tokens")}
            for region in metadata["region_metadata"]
        ],
        "model": args.model,
        "num_frames": None if scene is None else len(scene),
        "frame_indices": scene,
        "seconds": round(seconds, 3),  # reading the video and answering, without loading the model
    }
    return json.dumps(record, ensure_ascii=False)


def _save_preview(
    args: argparse.Namespace,
    answer: str,
    pieces: Sequence[str],
    marked: Sequence[MarkedRegion],
    regions: Sequence[dict[str, Any]],
    metadata: Mapping[str, Any],
    is_image: bool,
) -> None:
    """Draw regions on frames that the model saw."""
    names = [region.name or f"region {position}" for position, region in enumerate(marked)]
    kept = [region["frame_indices"] for region in metadata["region_metadata"]]
    frames = read_marked_frames(
        args.video,
        dict(zip(names, regions, strict=True)),
        frame_indices=dict(zip(names, kept, strict=True)),
        is_image=is_image,
        **_reader_options(args),
    )
    question = pieces[0] + "".join(f"[{name}]{piece}" for name, piece in zip(names, pieces[1:], strict=True))
    picture = draw_preview(frames, exchanges=[(question, answer)], colors=region_colors(names))
    picture.save(Path(args.save))
