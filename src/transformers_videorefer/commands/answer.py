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

import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    PreTrainedModel,
    ProcessorMixin,
    TextStreamer,
    set_seed,
)
from transformers.utils import is_accelerate_available

from transformers_videorefer.bundled import TINY_CHECKPOINT, TINY_MODEL, TINY_NOTICE
from transformers_videorefer.preview.drawing import draw_preview, read_marked_frames, region_colors
from transformers_videorefer.regions.values import DEFAULT
from transformers_videorefer.video.opening import open_video
from transformers_videorefer.video.pictures import is_picture_file_name

from .model_lookup import locate_model
from .progress import TokenProgress, quiet_libraries, report, report_when_slow
from .region_flags import MarkedRegion, build_region


ADDRESS_PREFIXES = ("http://", "https://")
# Half the memory where hardware computes in it; processors are slow in it, and float32 gives the reference numbers.
DTYPE_ON_ACCELERATOR, DTYPE_ELSEWHERE = "bfloat16", "float32"
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
# How FFmpeg's errors end up in messages: " ([Errno 1094995529] Invalid data found ...: 'file:a.mp4')".
_FFMPEG_ERROR = re.compile(r""" \(\[Errno -?\d+\] [^:'"]*(?:: (['"]).*?\1)?\)""")
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
    source = args.model
    if source == TINY_MODEL:
        report(TINY_NOTICE)
        source = str(TINY_CHECKPOINT)
    with report_when_slow(f"looking for {args.model}"):
        loading = {"trust_remote_code": args.trust_remote_code, **locate_model(source)}
    if args.vision_tower is not None:
        loading["vision_tower"] = args.vision_tower
    with report_when_slow(f"loading the processor of {args.model}"), errors_name_flags(args, marked):
        processor = AutoProcessor.from_pretrained(source, **loading)
    started = time.perf_counter()
    with report_when_slow(f"reading {args.video}"), errors_name_flags(args, marked):
        inputs = _make_inputs(args, processor, [media, *_interleave(pieces, regions)])
    metadata = {name: inputs.pop(name) for name in ("video_metadata", "region_metadata")}
    seconds = time.perf_counter() - started
    with report_when_slow(f"loading {args.model}"), errors_name_flags(args, marked):
        model = load_model(source, args.device, args.dtype, **loading)
    started = time.perf_counter()
    answer, is_complete = _generate(args, model, processor, inputs)
    seconds += time.perf_counter() - started
    if args.json:
        sys.stdout.write(_to_json(args, answer, metadata, is_image, seconds) + "\n")
    elif not args.stream:
        sys.stdout.write(answer + "\n")
    if not is_complete:
        report(f"The answer was cut after {args.max_new_tokens} tokens; --max-new-tokens allows more.")
    if args.save:
        _save_preview(args, answer, pieces, marked, regions, metadata, is_image)


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
        message = re.sub(r"\bsample 0, (video|image) 0", lambda _: args.video, str(error), flags=re.IGNORECASE)
        message = re.sub(
            r"\bsample 0, region (\d+)", lambda found: f"`{marked[int(found[1])].typed}`", message, flags=re.IGNORECASE
        )
        message = _FFMPEG_ERROR.sub("", message)
        for hint, flag in _FLAGS_OF_HINTS.items():
            message = message.replace(hint, flag)
        message = re.sub(r"`(\w+)(?:=(?:\"(\w+)\")?)?`", _name_flag, message)
        # With its place, by which the command tells a refusal from a fault of its own.
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(message).with_traceback(error.__traceback__) from error


def _name_flag(found: re.Match) -> str:
    flag = _FLAGS_OF_ARGUMENTS.get(found[1])
    if flag is None:
        return found[0]
    return f"`{flag} {found[2]}`" if found[2] else f"`{flag}`"


def check_device(device: str) -> torch.device | None:
    """Find out whether torch can use a device, before anything is read for it.

    Args:
        device (`str`): Device, or "auto".

    Returns:
        `torch.device`: The device; for "auto" an accelerator of this machine, or None without one.

    Raises:
        ValueError: If torch cannot use it.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device == "auto":
        return accelerator
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch that was built without a device asserts that it was
        found = "no accelerator was found" if accelerator is None else f"this machine has {accelerator.type}"
        raise ValueError(f"`--device {device}`: torch cannot use it; {found}. Leave --device out.") from error


def load_model(model_id: str, device: str, dtype: str, **loading: Any) -> PreTrainedModel:
    """Load a model where it runs best.

    Args:
        model_id (`str`): Hub id or folder.
        device (`str`): Device, or "auto" for the accelerators of this machine, if it has any.
        dtype (`str`): Precision, or "auto" for half precision on accelerators and single precision elsewhere.
        loading: Further keywords of `from_pretrained`.

    Returns:
        `PreTrainedModel`: The model, ready for inference.

    Raises:
        ValueError: If torch cannot use the device.
        OSError: If the model cannot be read.
    """
    accelerator, chosen = check_device("auto"), check_device(device)
    if dtype == "auto":
        is_accelerator = chosen is not None and accelerator is not None and chosen.type == accelerator.type
        dtype = DTYPE_ON_ACCELERATOR if is_accelerator else DTYPE_ELSEWHERE
    if chosen is None or not is_accelerate_available():
        model = AutoModelForImageTextToText.from_pretrained(model_id, dtype=dtype, **loading)
        return model.eval() if chosen is None else model.to(chosen).eval()
    # "auto" spreads the model over all accelerators, and beyond where they are too small.
    device_map = device if device == "auto" else chosen
    return AutoModelForImageTextToText.from_pretrained(model_id, dtype=dtype, device_map=device_map, **loading).eval()


def _generate(
    args: argparse.Namespace, model: PreTrainedModel, processor: ProcessorMixin, inputs: BatchFeature
) -> tuple[str, bool]:
    """Return the answer and whether the model ended it itself."""
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
            f"{model.device} ran out of memory. Use fewer --frames or --region-frames, or --dtype bfloat16."
        ) from error
    new_ids = output[0, inputs["input_ids"].shape[1] :]
    end_ids = model.generation_config.eos_token_id
    end_ids = end_ids if isinstance(end_ids, list) else [end_ids]
    is_complete = len(new_ids) < args.max_new_tokens or int(new_ids[-1]) in end_ids
    return processor.tokenizer.decode(new_ids, skip_special_tokens=True).strip(), is_complete


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
