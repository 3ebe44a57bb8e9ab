"""Frame sampling, decoding, resizing and masks against the recordings of the published preprocessing."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REFERENCE, load_arrays, load_json
from PIL import Image
from recorded import PIXELS, assert_close, media_file
from transformers import ProcessorMixin

from transformers_videorefer.regions.form import parse_region
from transformers_videorefer.regions.grid import decode_mask
from transformers_videorefer.video.opening import open_video
from transformers_videorefer.video.sampling import uniform_indices


pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

PUBLISHED_NUM_FRAMES = 8  # the default of the published code, whatever the checkpoint says
PUBLISHED_FOLDER_FPS = 3
FULL_BOX = {"size": [1, 1], "box": [0, 0, 1, 1]}

CALLS = {entry["name"]: entry for entry in load_json("preprocess/process_video.json")}
# Calls that ours answers differently on purpose; each has a test of its own below.
PADDING = ("clip_pad_region2", "pil_list_3_pad_mode", "image_pad")
RATE_MODE = ("clip_fps_mode",)
MANY_FRAMES = ("long_40_gt_max32",)
OUT_OF_RANGE = ("short_region_out_of_range",)
IN_MEMORY = (
    "pathlist_all_region1",
    "pil_list_5_zero_padded",
    "pil_list_12_gt_8_not_subsampled",
    "pil_list_36_gt_32_truncated",
    "ndarray_6_zero_padded",
    "ndarray_list_6_zero_padded",
)
ANIMATION = ("gif_default",)
ARRAYS_WITH_REGION = ("ndarray_6_with_region", "ndarray_list_6_with_region")
DIFFERENT = (*PADDING, *RATE_MODE, *MANY_FRAMES, *OUT_OF_RANGE, *IN_MEMORY, *ANIMATION, *ARRAYS_WITH_REGION)
STILL = ("image_square",)
SAME = [name for name in CALLS if name not in DIFFERENT and name not in STILL]

MASKS = {entry["name"]: entry for entry in load_json("preprocess/ann_to_mask.json")}


@pytest.fixture(scope="module")
def pixels() -> dict[str, np.ndarray]:
    return load_arrays("preprocess/process_video.npz")


@pytest.fixture(scope="module")
def decoded() -> dict[str, np.ndarray]:
    return load_arrays("preprocess/decoded_frames.npz")


def source_of(call: dict[str, Any], decoded: dict[str, np.ndarray]) -> Any:
    """Build the video that a recorded call was given."""
    source = call["source"]
    if "path" in source:
        return str(REFERENCE / source["path"])
    if "paths" in source:
        return [str(REFERENCE / path) for path in source["paths"]]
    clip, first, end = re.fullmatch(r"decoded_frames\.npz\[(\w+)\]\[(\d+):(\d+)\]", source["frames"]).groups()
    frames = decoded[clip][int(first) : int(end)]
    if source["kind"] == "list of PIL images":
        return [Image.fromarray(frame) for frame in frames]
    return list(frames) if source["kind"].startswith("list") else frames


def make(processor: ProcessorMixin, call: dict[str, Any], decoded: dict[str, np.ndarray], **changes: Any) -> Any:
    """Make a recorded call with our processor."""
    given = {**call["kwargs"], **changes}
    regions, text = None, "<video>"
    if "frame_idx" in given:
        regions = [{"frames": [{"frame_index": index, **FULL_BOX} for index in given["frame_idx"]]}]
        text = "<video><region>"
    is_folder = call["source"].get("path") == "media/frames"
    return processor(
        text=text,
        videos=source_of(call, decoded),
        regions=regions,
        num_frames=given.get("num_frames", PUBLISHED_NUM_FRAMES),
        start_seconds=given.get("s"),
        end_seconds=given.get("e"),
        fps=PUBLISHED_FOLDER_FPS if is_folder else None,
        return_metadata=True,
        return_tensors="pt",
    )


def region_frames(inputs: dict[str, Any]) -> torch.Tensor:
    """Return the frame of each mask, whether it is a scene frame or an extra one."""
    scene = inputs["pixel_values_videos"][0]
    extra = inputs.get("region_pixel_values", scene[:0])
    return torch.cat([scene, extra])[inputs["region_frame_index"]]


def scene_positions(inputs: dict[str, Any]) -> list[int]:
    return list(inputs["video_metadata"][0].frames_indices)


def recorded_positions(num_total: int, num_wanted: int) -> list[int]:
    """Look up which frames the published code takes of a file of `num_total` frames."""
    for case in load_json("preprocess/frame_sample.json")["uniform"]:
        if (case["duration"], case["num_frames"]) == (num_total, num_wanted):
            return case["indices"]
    raise KeyError((num_total, num_wanted))


def test_uniform_frame_positions() -> None:
    cases = load_json("preprocess/frame_sample.json")["uniform"]
    different = [case for case in cases if uniform_indices(case["duration"], case["num_frames"]) != case["indices"]]
    assert len(cases) == 1694
    assert not different


@pytest.mark.parametrize("name", ["clip", "long", "short"])
def test_decoded_frames_have_the_same_bytes(name: str, decoded: dict[str, np.ndarray]) -> None:
    with open_video(media_file(f"{name}.mp4")) as reader:
        frames = dict(reader.read(range(reader.num_frames)))
    assert np.array_equal(np.stack([frames[index] for index in range(len(frames))]), decoded[name])


@pytest.mark.parametrize("name", SAME)
def test_video_frames(
    name: str, published_processor: ProcessorMixin, pixels: dict[str, np.ndarray], decoded: dict[str, np.ndarray]
) -> None:
    call = CALLS[name]
    inputs = make(published_processor, call, decoded)
    assert_close(inputs["pixel_values_videos"][0], pixels[f"{name}/scene"], PIXELS, "scene frames")
    metadata = inputs["video_metadata"][0]
    assert (metadata.height, metadata.width) == (call["height"], call["width"])
    if call["decoder_requests"]:
        assert scene_positions(inputs) == call["decoder_requests"][0]
    if "frame_idx" in call["kwargs"]:
        assert inputs["region_metadata"][0]["frame_indices"] == call["kwargs"]["frame_idx"]
        assert_close(region_frames(inputs), pixels[f"{name}/region"], PIXELS, "region frames")


def test_image_pixels(published_processor: ProcessorMixin, pixels: dict[str, np.ndarray]) -> None:
    inputs = published_processor(text="<image>", images=media_file("image.png"), return_tensors="pt")
    assert_close(inputs["pixel_values"], pixels["image_square/pixels"], PIXELS)


@pytest.mark.parametrize("name", PADDING)
def test_padding_to_a_square_is_not_offered(
    name: str, published_processor: ProcessorMixin, decoded: dict[str, np.ndarray]
) -> None:
    call = CALLS[name]
    if name == "image_pad":
        media = {"text": "<image>", "images": str(REFERENCE / call["source"]["path"])}
    else:
        media = {"text": "<video>", "videos": source_of(call, decoded)}
    with pytest.raises(ValueError, match="`do_pad`"):
        published_processor(**media, do_pad=True, return_tensors="pt")


@pytest.mark.parametrize("name", RATE_MODE)
def test_sampling_by_rate_is_not_offered(
    name: str, published_processor: ProcessorMixin, decoded: dict[str, np.ndarray]
) -> None:
    """`num_frames=None` means the default number, and `fps` says how fast frames without times are: no mode switch."""
    source = source_of(CALLS[name], decoded)
    with pytest.raises(ValueError, match="`fps` is 1, but .*carries its own times.*`num_frames`"):
        published_processor(text="<video>", videos=source, num_frames=None, fps=1)
    inputs = published_processor(
        text="<video>", videos=source, num_frames=None, return_metadata=True, return_tensors="pt"
    )
    assert scene_positions(inputs) == recorded_positions(40, 16)
    assert scene_positions(inputs) != CALLS[name]["decoder_requests"][0]


@pytest.mark.parametrize("name", MANY_FRAMES)
def test_more_than_32_scene_frames(
    name: str, published_processor: ProcessorMixin, pixels: dict[str, np.ndarray], decoded: dict[str, np.ndarray]
) -> None:
    """The published code cuts the sampled frames off at 32; ours keeps all 40, of which the first 32 are the same."""
    call = CALLS[name]
    inputs = make(published_processor, call, decoded)
    assert scene_positions(inputs) == call["decoder_requests"][0]
    assert inputs["pixel_values_videos"].shape[1] == 40
    assert_close(inputs["pixel_values_videos"][0, :32], pixels[f"{name}/scene"], PIXELS)
    assert (inputs["input_ids"] == published_processor.video_token_id).sum() == 20 * 2 * 2


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_region_frame_outside_the_video(
    name: str, published_processor: ProcessorMixin, decoded: dict[str, np.ndarray]
) -> None:
    with pytest.raises(ValueError, match=r"[Ff]rame 50\b.*5 frames"):
        make(published_processor, CALLS[name], decoded)


@pytest.mark.parametrize("name", [*IN_MEMORY, *ANIMATION])
def test_frames_in_memory_and_animations_are_sampled_like_files(
    name: str, published_processor: ProcessorMixin, pixels: dict[str, np.ndarray], decoded: dict[str, np.ndarray]
) -> None:
    """The published code takes them as they are (at most 32) and fills up with black frames."""
    call = CALLS[name]
    if name in ANIMATION:
        expected = call["sampled_positions"][0]
        with open_video(source_of(call, decoded)) as reader:
            assert recorded_positions(reader.num_frames, PUBLISHED_NUM_FRAMES) == expected
        rows = {position: row for row, position in enumerate(dict.fromkeys(expected))}
    else:
        num_total = len(source_of(call, decoded))
        expected = recorded_positions(num_total, PUBLISHED_NUM_FRAMES)
        rows = {position: position for position in range(min(num_total, 32))}
    inputs = make(published_processor, call, decoded)
    assert scene_positions(inputs) == expected
    compared = [place for place, position in enumerate(expected) if position in rows]
    assert len(compared) >= PUBLISHED_NUM_FRAMES - 1
    scene = inputs["pixel_values_videos"][0]
    wanted = pixels[f"{name}/scene"][[rows[expected[place]] for place in compared]]
    assert_close(scene[compared], wanted, PIXELS, "scene frames")
    assert (scene.flatten(1).max(dim=1).values > -1).all(), "a frame is black"
    if "frame_idx" in call["kwargs"]:
        assert_close(region_frames(inputs), pixels[f"{name}/region"], PIXELS, "region frames")


@pytest.mark.parametrize("name", ARRAYS_WITH_REGION)
def test_arrays_with_a_region(
    name: str, published_processor: ProcessorMixin, pixels: dict[str, np.ndarray], decoded: dict[str, np.ndarray]
) -> None:
    """The published code crashes; the frame must be the one that a call without region shows."""
    inputs = make(published_processor, CALLS[name], decoded)
    plain = pixels[name.replace("_with_region", "_zero_padded") + "/scene"]
    assert_close(region_frames(inputs), plain[CALLS[name]["kwargs"]["frame_idx"]], PIXELS)


def mask_of(annotation: Any, height: int = 37, width: int = 52) -> np.ndarray:
    """Decode a published annotation through our region form."""
    form = "polygon" if isinstance(annotation, list) else "rle"
    region = parse_region({"frames": [{"frame_index": 0, form: annotation}]})
    return decode_mask(region.frames[0], height=height, width=width)


@pytest.mark.parametrize("name", [name for name, entry in MASKS.items() if entry["ok"]])
def test_masks(name: str) -> None:
    annotation = MASKS[name]["ann"]
    if name == "rle_counts_bytes":
        annotation = {"size": annotation["size"], "counts": annotation["counts"].encode()}
    # Our `rle` is one dictionary, where the published code also takes a list of them and joins the masks.
    parts = annotation if name == "list_of_uncompressed" else [annotation]
    recorded = load_arrays("preprocess/ann_to_mask.npz")[name]
    assert np.array_equal(np.any([mask_of(part) for part in parts], axis=0), recorded > 0)


@pytest.mark.parametrize("name", ["rle_wrong_hw_args", "uncompressed_wrong_hw"])
def test_masks_of_another_size_are_refused(name: str) -> None:
    """The published code ignores the size of the frame."""
    entry = MASKS[name]
    with pytest.raises(ValueError, match=r"height 37 and width 52.*10"):
        mask_of(entry["ann"], entry["h"], entry["w"])


def test_masks_need_no_height_and_width_beside_them() -> None:
    """The published code crashes without them; ours takes the frame's."""
    for name, twin in (("uncompressed_hw_none", "uncompressed_disc"), ("polygon_hw_none", "polygon_one")):
        assert not MASKS[name]["ok"]
        assert np.array_equal(mask_of(MASKS[name]["ann"]), load_arrays("preprocess/ann_to_mask.npz")[twin] > 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("polygon_two_points_is_bbox", r"4 numbers.*at least 6.*`box`"),
        ("polygon_empty_list", "`polygon` is empty"),
        ("list_of_rle", r"`polygon\[0\]`"),
    ],
)
def test_malformed_masks(name: str, message: str) -> None:
    assert not MASKS[name]["ok"]
    with pytest.raises((TypeError, ValueError), match=message):
        mask_of(MASKS[name]["ann"])


def test_every_recorded_case_is_covered() -> None:
    assert len(DIFFERENT) == len(set(DIFFERENT))
    assert set(SAME) | set(STILL) | set(DIFFERENT) == set(CALLS)
    covered = {name for name, entry in MASKS.items() if entry["ok"]}
    covered |= {"uncompressed_hw_none", "polygon_hw_none"}
    covered |= {"polygon_two_points_is_bbox", "polygon_empty_list", "list_of_rle"}
    assert covered == set(MASKS)
