"""`videorefer eval similarity`: how alike an object looks to the model from frame to frame, as a picture."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from PIL import Image

from transformers_videorefer.evaluation.similarity import SimilarityMap, measure_similarity
from transformers_videorefer.evaluation.similarity_picture import choose_thumbnails, draw_similarity
from transformers_videorefer.preview.drawing import MarkedFrame, read_marked_frames
from transformers_videorefer.regions.values import DEFAULT
from transformers_videorefer.video.opening import open_video
from transformers_videorefer.video.options import EDIT_LISTS

from .answer import ADDRESS_PREFIXES, errors_name_flags
from .ask import add_region_options
from .eval_models import load_checkpoint
from .model_flags import add_model_flags, check_device_flag, check_model_flag
from .progress import quiet_libraries, report_when_slow
from .region_flags import REGION_FORMS, AppendRegion, MarkedRegion, build_region, group_flags


DESCRIPTION = """\
Draws the cosine similarity of an object's tokens over time, and which frames the model joins (Fig. 7 of the paper):
  videorefer eval similarity dog.mp4 --masklet dog.npz --model DAMO-NLP-SG/VideoRefer-7B --output map.png
All flags mark the same object, on as many frames as you like: --box 300,0,800,430@0 --box 310,0,810,430@1.5s"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags.

    Args:
        parser (`argparse.ArgumentParser`): Parser of the command.
    """
    parser.add_argument("video", metavar="VIDEO", help="video file, folder of frames, or http(s) address")
    parser.add_argument("--output", required=True, type=Path, metavar="PICTURE", help="picture to write")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers too")
    _add_region_flags(parser.add_argument_group("object"))
    video = parser.add_argument_group("video")
    video.add_argument("--fps", type=float, metavar="FPS", help="frames per second of a folder of frames")
    video.add_argument(
        "--edit-list",
        choices=EDIT_LISTS,
        help="count frames as players do (apply, the default) or as the published annotations do (ignore)",
    )
    add_model_flags(parser.add_argument_group("model"))


def _add_region_flags(group: Any) -> None:
    for option, form in REGION_FORMS.items():
        group.add_argument(option, dest="region_flags", action=AppendRegion, metavar=form, default=[])
    add_region_options(group)


def run(arguments: argparse.Namespace, stream: TextIO) -> None:
    """Measure and draw.

    Args:
        arguments (`argparse.Namespace`): Flags of `videorefer eval similarity`.
        stream (`TextIO`): Where a summary is written.

    Raises:
        ValueError: If flags contradict each other, or the object does not fit the video.
        OSError: If a file or the model cannot be read.
    """
    marked = _check_flags(arguments)
    quiet_libraries(arguments.debug)
    reader_options = {"fps": arguments.fps, "edit_list": arguments.edit_list}
    reader_options = {name: value for name, value in reader_options.items() if value is not None}
    region = build_region(marked, is_image=False, frame_times=lambda: _frame_times(arguments.video, reader_options))
    if arguments.region_size is not None:
        region["size"] = arguments.region_size
    options = {"empty_masks": arguments.empty_masks, "num_region_tokens": arguments.region_tokens}
    options["num_region_frames"] = DEFAULT if arguments.region_frames is None else arguments.region_frames
    model, processor, _ = load_checkpoint(arguments)
    source = {"url" if arguments.video.startswith(ADDRESS_PREFIXES) else "path": arguments.video}
    with report_when_slow(f"encoding {arguments.video}"), errors_name_flags(arguments, [marked]):
        similarity = measure_similarity(
            model, processor, {"type": "video", **source, **reader_options}, region, **options
        )
    frames = _read_thumbnails(arguments, similarity, region, reader_options)
    name = marked.name or "an object"
    draw_similarity(similarity, frames, title=f"Similarity of the tokens of {name} over time").save(arguments.output)
    if arguments.json is not None:
        content = {"video": arguments.video, "object_id": marked.name, "model": arguments.model}
        arguments.json.write_text(json.dumps(content | similarity.to_dict()) + "\n", encoding="utf-8")
    stream.write(_summarize(similarity))


def _check_flags(arguments: argparse.Namespace) -> MarkedRegion:
    """Find what is wrong with the flags alone, and join all of them to one object."""
    check_model_flag(arguments)
    names = {flag.name for flag in arguments.region_flags}
    if not names:
        raise ValueError("No object is marked. Pass --masklet, or --box, --mask and the like for several frames.")
    if len(names) > 1:
        given = "; ".join(flag.typed for flag in arguments.region_flags)
        raise ValueError(f"The flags mark several objects: {given}. Draw one map for each object.")
    check_device_flag(arguments)
    if not arguments.video.startswith(ADDRESS_PREFIXES) and not Path(arguments.video).exists():
        raise ValueError(f"There is no video {arguments.video}. Check the path.")
    Image.init()
    if arguments.output.suffix.lower() not in Image.EXTENSION:
        raise ValueError(f"`--output {arguments.output}`: this is no picture format. Use a name such as map.png.")
    for flag, path in (("--output", arguments.output), ("--json", arguments.json)):
        if path is not None and not path.absolute().parent.is_dir():
            raise ValueError(f"`{flag} {path}`: the folder does not exist. Create it first.")
    # Without names each flag would be an object of its own.
    (name,) = names
    (marked,) = group_flags([replace(flag, name=name or "object") for flag in arguments.region_flags])
    return MarkedRegion(name, marked.flags)


def _frame_times(video: str, reader_options: dict[str, Any]) -> Any:
    with open_video(video, **reader_options) as reader:
        return reader.frame_times


def _read_thumbnails(
    arguments: argparse.Namespace, similarity: SimilarityMap, region: dict[str, Any], reader_options: dict[str, Any]
) -> dict[int, MarkedFrame]:
    """Read the frames along the axis, by their position among the object's frames."""
    positions = choose_thumbnails(similarity)
    wanted = [similarity.frame_indices[position] for position in positions]
    frames = read_marked_frames(
        arguments.video,
        {"object": region},
        frame_indices={"object": wanted},
        max_frames=len(wanted),
        **reader_options,
    )
    of_index = {marked.frame_index: marked for marked in frames}
    return {position: of_index[index] for position, index in zip(positions, wanted, strict=True)}


def _summarize(similarity: SimilarityMap) -> str:
    """Write the map in a few lines."""
    adjacent, frames = similarity.adjacent, similarity.frame_indices
    lowest = int(adjacent.argmin())
    lines = [
        f"{len(frames)} frames, similarity of neighbours: mean {adjacent.mean():.4f}, lowest {adjacent.min():.4f} "
        f"(frames {frames[lowest]} and {frames[lowest + 1]})",
        f"{int(similarity.is_joined.sum())} of {len(adjacent)} pairs joined:",
    ]
    for number, union in enumerate(similarity.unions, start=1):
        span = f"frame {union[0]}" if len(union) == 1 else f"{len(union)} frames, {union[0]} to {union[-1]}"
        lines.append(f"  token {number}: {span}")
    return "\n".join(lines) + "\n"
