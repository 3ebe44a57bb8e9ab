"""The processor: counts, text options, settings, saving and loading."""

import json
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REFERENCE, load_arrays, load_json
from tiny import NUM_FRAMES, SIZE, TOKENIZER, box_region, noise_video, tiny_config, tiny_processor
from transformers import AutoTokenizer, BatchFeature
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from transformers_videorefer import VideoReferProcessor, VideoReferVideoProcessor
from transformers_videorefer.regions.values import DEFAULT


MEDIA = REFERENCE / "media"
CLIP = str(MEDIA / "clip.mp4")
MARKED = "<video>\nWhat is <region> doing?"


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def fresh_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(TOKENIZER)


def count(inputs: BatchFeature, token: int) -> list[int]:
    return [torch.as_tensor(row).tolist().count(token) for row in inputs["input_ids"]]


# ---------------------------------------------------------------------------------------------------------------------
# What comes out
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "video_single_frame",
        "video_single_frame_cfgframes",
        "video_multi_frame_one_object",
        "video_two_objects_different_frames",
        "video_two_objects_same_frame",
        "video_multi_frame_k3",
        "video_no_region",
        "image_one_region",
        "image_no_region",
        "video_multi_turn_instruct",
    ],
)
def test_inputs_are_the_published_ones(name):
    case = next(case for case in load_json("e2e/cases.json") if case["name"] == name)
    recorded = load_arrays(f"e2e/{name}.npz")
    is_video = case["modal"] == "video"
    num_frames = 16 if "cfgframes" in name else 8
    if is_video:
        regions = [
            {"frames": [{"frame_index": int(i), "rle": one["segmentation"]} for i, one in annotation.items()]}
            for annotation in case.get("annotation") or []
        ]
        media = {"videos": CLIP}
    else:
        regions = [{"frames": [{"rle": rle}]} for rle in case.get("segmentation") or []]
        media = {"images": MEDIA / "image.png"}
    processor = tiny_processor(num_image_frames=16)
    inputs = processor(
        text=case["prompt"], **media, regions=regions, num_frames=num_frames, empty_masks="keep", return_tensors="pt"
    )
    # Ids: -201 and -200 stand for the scene, and every <region> (329) for the tokens of its object.
    expected, lengths = [], iter(case["region_token_nums"] or [])
    for token in recorded["input_ids"][0].tolist():
        scene = {-201: [330] * (num_frames * 2), -200: [331] * 32}
        expected += scene.get(token) or ([329] * next(lengths) if token == 329 else [token])
    assert inputs["input_ids"][0].tolist() == expected
    scene = torch.from_numpy(load_arrays("e2e/scenes.npz")[case["scene"]])
    made = inputs["pixel_values_videos"][0] if is_video else inputs["pixel_values"]
    torch.testing.assert_close(made, scene, atol=1e-6, rtol=0)
    if not regions:
        assert "region_masks" not in inputs
        return
    cells = [cells for sample in case["mask_cells_selected"] for cells in sample]
    assert inputs["region_masks"].sum(dim=1).tolist() == cells
    frames = torch.cat([made, inputs.get("region_pixel_values", made[:0])])
    wanted = torch.from_numpy(recorded["region_frames"])
    rows = [row for region in case["ann_indices"][0] for row in region]
    torch.testing.assert_close(frames[inputs["region_frame_index"]], wanted[rows], atol=1e-6, rtol=0)


def test_labels_are_the_published_ones():
    """Ids and supervised ids of the recorded training samples, from conversations in our form."""
    processor = tiny_processor(num_image_frames=16)
    for sample in load_json("train/labels.json")["sft"]:
        ids, labels = sample["input_ids"], sample["labels"]
        roles = {"human": "user", "gpt": "assistant"}
        messages = [{"role": roles[one["from"]], "content": one["value"]} for one in sample["conversations_used"]]
        messages = messages[messages[0]["role"] == "assistant" :]  # a leading answer is dropped
        num_regions = sum(one["content"].count("<region>") for one in messages)
        made = processor.apply_chat_template(
            messages,
            videos=CLIP if sample["modal_token"] == "<video>" else None,
            images=MEDIA / "image.png" if sample["modal_token"] == "<image>" else None,
            regions=[{"frames": [{"frame_index": 0, "box": [0, 0, 40, 40]}]}] * num_regions,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        scene = {-201: [330] * 8, -200: [331] * 32}
        expected = [(i, label) for token, label in zip(ids, labels, strict=True) for i in scene.get(token, [token])]
        own = [
            token if mask else -100
            for token, mask in zip(made["input_ids"][0], made["assistant_masks"][0], strict=True)
        ]
        assert made["input_ids"][0] == [token for token, _ in expected]
        own_expected = [-100 if token in (330, 331) else label for token, label in expected]
        assert own == own_expected


def test_counts_by_hand(processor):
    # Frames of 56 pixels have 4 x 4 patches; two frames, two rows and two columns are joined each.
    assert processor.grid_size == 4
    assert [processor.num_scene_tokens(n) for n in (2, 4, 5, 16)] == [4, 8, 8, 32]
    inputs = processor(
        text=["<video><region><region>", "<image><region>", "Hi"],
        videos=noise_video(),
        images=noise_video(1)[0],
        regions=[[box_region([0]), box_region([1, 2, 3, 4, 5, 6])], [box_region([0])], []],
        return_tensors="pt",
    )
    assert count(inputs, processor.video_token_id) == [8, 0, 0]
    assert count(inputs, processor.image_token_id) == [0, 8, 0]
    assert count(inputs, processor.region_token_id) == [1 + 4, 1, 0]
    # Keys of videos are only there where a video comes again.
    assert set(inputs) == set(processor.model_input_names) - {"video_ids", "video_row_ids"}
    assert inputs["region_masks"].dtype == torch.bool
    assert inputs["region_masks"].shape == (8, 16)


def test_kinds_that_are_absent_have_no_key(processor):
    text = {"input_ids", "attention_mask", "sample_counts"}
    assert set(processor(text="Hi", return_tensors="pt")) == text
    assert set(processor(text="<video>", videos=noise_video())) == text | {"pixel_values_videos"}
    assert set(processor(text="<image>", images=noise_video(1)[0])) == text | {"pixel_values"}
    of_regions = {"region_masks", "region_frame_index", "region_lengths", "region_num_tokens"}
    inputs = processor(text=MARKED, videos=noise_video(4), regions=[box_region([0])])
    assert set(inputs) == text | {"pixel_values_videos"} | of_regions


def test_number_of_frames_and_tokens(processor):
    def made(**options: Any) -> BatchFeature:
        return processor(
            text=MARKED, videos=noise_video(50), regions=[box_region(list(range(50)))], return_tensors="pt", **options
        )

    assert made()["region_lengths"].tolist() == [32]
    assert made(num_region_frames=None)["region_lengths"].tolist() == [50]
    assert made(num_region_frames="all")["region_lengths"].tolist() == [50]
    assert made(num_region_frames=DEFAULT)["region_lengths"].tolist() == [32]
    assert made(num_region_frames=np.int64(7))["region_lengths"].tolist() == [7]
    assert made(num_region_tokens=9)["region_num_tokens"].tolist() == [9]
    assert count(made(num_region_tokens=9), 329) == [9]
    assert count(made(num_region_frames=3, num_region_tokens=9), 329) == [3]
    inputs = made(num_frames=40)
    assert inputs["pixel_values_videos"].shape[1] == 40
    assert count(inputs, 330) == [20 * 4]
    assert made(num_frames=np.int64(6))["pixel_values_videos"].shape[1] == 6
    assert made()["pixel_values_videos"].shape[1] == NUM_FRAMES


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"num_frames": 1}, ValueError, "`num_frames` must be a whole number of at least 2, got 1"),
        ({"num_region_frames": 0}, ValueError, "`num_region_frames` must be a whole number of at least 1, got 0"),
        ({"num_region_tokens": 0}, ValueError, "`num_region_tokens` must be a whole number of at least 1, got 0"),
        ({"num_region_tokens": 2.0}, TypeError, "`num_region_tokens` must be a whole number of at least 1, got 2.0"),
        ({"num_region_frames": "many"}, TypeError, "`num_region_frames` must be a whole number"),
        ({"empty_masks": "skip"}, ValueError, '`empty_masks` must be "error", "drop" or "keep"'),
        ({"edit_list": "both"}, ValueError, "`edit_list` is 'both'"),
        ({"edit_list": ["apply", "ignore"]}, ValueError, "`edit_list` has 2 values for 1 videos"),
        ({"fps": -1.0}, ValueError, "`fps` is -1.0"),
        ({"num_region_token": 2}, TypeError, "The processor has no argument `num_region_token`. Did you mean `num_region_tokens`"),
        ({"masks": [1]}, TypeError, "The processor has no argument `masks`"),
        ({"audio": [0.0]}, ValueError, "`audio` is given, but VideoRefer takes no sound"),
        ({"media": []}, ValueError, "`media` takes the place of `videos`"),
        ({"size": {"height": 28, "width": 28}}, ValueError, "`size` cannot change from call to call"),
        ({"videos_kwargs": {"do_resize": False}}, ValueError, "`do_resize` cannot change from call to call"),
        ({"device": "cpu"}, ValueError, r"`device` cannot change from call to call.*`\.to\(device\)`"),
        ({"num_frames": 4, "videos_kwargs": {"num_frames": 6}}, ValueError, "num_frames was passed two times"),
        ({"fps": 3.0, "videos_kwargs": {"fps": 6.0}}, ValueError, "fps was passed two times"),
    ],
)  # fmt: skip
def test_bad_options(processor, options, error, match):
    with pytest.raises(error, match=match):
        processor(text=MARKED, videos=noise_video(), regions=[box_region([0])], **options)


def test_empty_masks_is_checked_without_regions(processor):
    for media in ({"text": "Hi"}, {"text": "<video>", "videos": noise_video()}):
        with pytest.raises(ValueError, match='`empty_masks` must be "error", "drop" or "keep", got \'kep\''):
            processor(**media, empty_masks="kep")


def test_settings_of_images_are_fixed_too(processor):
    for options in ({"do_rescale": False}, {"images_kwargs": {"do_resize": False}}, {"image_mean": [0.0, 0.0, 0.0]}):
        with pytest.raises(ValueError, match="cannot change from call to call"):
            processor(text="<image>", images=noise_video(1)[0], **options)
        processor(text="Hi", **options)


@pytest.mark.parametrize("text", [None, [], 3, ["Hi", None], {"text": "Hi"}])
def test_bad_text(processor, text):
    with pytest.raises(ValueError, match="`text` must be a string or a non-empty list of strings"):
        processor(text=text, videos=noise_video())


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"text": MARKED}, r"Sample 0 has 0 video\(s\) but 1 `<video>` mark"),
        ({"text": MARKED, "videos": CLIP}, r"Sample 0 has 0 region\(s\) but 1 `<region>` mark"),
        ({"text": "Hi", "videos": CLIP}, r"Sample 0 has 1 video\(s\) but 0 `<video>` mark"),
        ({"text": "<video>", "videos": CLIP, "regions": [box_region([0])]}, r"Sample 0 has 1 region\(s\) but 0"),
        ({"text": [MARKED, MARKED], "videos": [CLIP] * 2, "regions": [[box_region([0])] * 2, []]}, r"Sample 0 has 2 region\(s\) but 1"),
        ({"text": [MARKED, MARKED], "videos": [CLIP] * 2, "regions": [[box_region([0])], []]}, r"Sample 1 has 0 region\(s\) but 1"),
        ({"text": ["<video>", "<image>"], "videos": [CLIP], "images": [None, None]}, r"Sample 1 has 0 image\(s\) but 1"),
    ],
)  # fmt: skip
def test_marks_and_payloads_differ(processor, given, match):
    with pytest.raises(ValueError, match=match):
        processor(**given)


# ---------------------------------------------------------------------------------------------------------------------
# Text options
# ---------------------------------------------------------------------------------------------------------------------

BATCH = {
    "text": ["Hi", "<video>\nA longer text with <region>."],
    "videos": noise_video(),
    "regions": [[], [box_region([3])]],
}


def test_padding_is_left_whatever_the_tokenizer_file_says():
    tokenizer = fresh_tokenizer()
    tokenizer.padding_side = "right"
    processor = VideoReferProcessor(
        SiglipImageProcessorPil(size=SIZE),
        tokenizer,
        VideoReferVideoProcessor(size=SIZE, num_frames=4),
        num_image_frames=4,
    )
    inputs = processor(**BATCH, return_tensors="pt")
    assert inputs["attention_mask"][0].tolist() == [0] * (inputs["input_ids"].shape[1] - 2) + [1, 1]
    right = processor(**BATCH, padding_side="right", return_tensors="pt")
    assert right["attention_mask"][0].tolist() == [1, 1] + [0] * (inputs["input_ids"].shape[1] - 2)
    assert processor.tokenizer.padding_side == "left"
    processor.tokenizer.padding_side = "right"  # an explicit wish
    assert torch.equal(processor(**BATCH, return_tensors="pt")["input_ids"], right["input_ids"])


def test_padding_options(processor):
    ragged = processor(**BATCH, padding=False)
    assert [len(row) for row in ragged["input_ids"]][0] == 2
    longest = len(ragged["input_ids"][1])
    assert (
        processor(**BATCH, pad_to_multiple_of=16, return_tensors="pt")["input_ids"].shape[1] == -(-longest // 16) * 16
    )
    fixed = processor(**BATCH, padding="max_length", max_length=100, return_tensors="pt")
    assert fixed["input_ids"].shape == (2, 100)
    assert count(fixed, 330) == [0, 8]


@pytest.mark.parametrize("kind", ["video", "region", "image"])
@pytest.mark.parametrize("return_tensors", ["pt", None])
def test_truncation_that_cuts_a_placeholder(processor, kind, return_tensors):
    given = {
        "video": {"text": "<video>", "videos": noise_video()},
        "image": {"text": "<image>", "images": noise_video(1)[0]},
        "region": {"text": "<video><region>", "videos": noise_video(), "regions": [box_region([0, 1])]},
    }[kind]
    whole = len(processor(**given)["input_ids"][0])
    with pytest.raises(ValueError, match=f"Mismatch in `{kind}` token count between text and `input_ids`"):
        processor(**given, truncation=True, max_length=whole - 1, return_tensors=return_tensors)
    # Text behind the placeholders may go.
    given["text"] += " and so on and on"
    inputs = processor(**given, truncation=True, max_length=whole, return_tensors=return_tensors)
    assert len(inputs["input_ids"][0]) == whole


def test_type_ids_and_offsets(processor):
    inputs = processor(
        **BATCH, return_mm_token_type_ids=True, return_text_replacement_offsets=True, return_tensors="pt"
    )
    assert torch.equal(inputs["mm_token_type_ids"] == 2, inputs["input_ids"] == 330)
    assert set(inputs["mm_token_type_ids"].unique().tolist()) == {0, 2}
    image = processor(text="<image>", images=noise_video(1)[0], text_kwargs={"return_mm_token_type_ids": True})
    assert image["mm_token_type_ids"] == [[1] * 8]
    first, second = inputs["text_replacement_offsets"]
    assert first == []
    assert [(one["type"], one["span"], one["replacement"]) for one in second] == [
        ("video", (0, 7), "<video>" * 8),
        ("region", (27, 35), "<region>"),
    ]


def test_metadata(processor):
    inputs = processor(
        text=["<video><region>", "<video>"],
        videos=[CLIP, str(MEDIA / "short.mp4")],
        regions=[[box_region([3, 7], object_id="dog")], None],
        num_frames=6,
        num_region_frames=1,
        return_metadata=True,
        return_tensors="pt",
    )
    first, second = inputs["video_metadata"]
    assert (first.total_num_frames, first.fps, first.frames_indices) == (40, 10, [3, 10, 16, 23, 29, 36])
    assert (second.total_num_frames, second.frames_indices) == (5, [0, 1, 2, 2, 3, 4])
    # One frame of two: the midpoint between both is rounded up.
    assert inputs["region_metadata"] == [
        {"sample": 0, "object_id": "dog", "media": 0, "frame_indices": [7], "num_tokens": 1}
    ]
    assert "video_metadata" not in processor(text="Hi")
    nested = processor(text="Hi", videos_kwargs={"return_metadata": True})
    assert nested["video_metadata"] == nested["region_metadata"] == []


@pytest.mark.parametrize(
    "nest", [lambda one: one, lambda one: [one], lambda one: [[one]]], ids=["one", "flat", "nested"]
)
def test_frames_that_were_sampled_before(processor, nest):
    """Regions go on naming frames of the source."""
    frames = noise_video(6)
    metadata = nest({"frames_indices": [0, 10, 20, 30, 40, 50], "fps": 10.0, "total_num_frames": 60})
    boxes = [{"frames": [{"time_seconds": 3.05, "box": [0, 0, 30, 30]}]}, box_region([50, 10])]
    options = {"do_sample_frames": False, "video_metadata": metadata, "return_metadata": True, "return_tensors": "pt"}
    inputs = processor(text="<video><region><region>", videos=frames, regions=boxes, **options)
    assert inputs["pixel_values_videos"].shape[1] == 6
    assert count(inputs, 330) == [12]
    assert inputs["region_frame_index"].tolist() == [3, 5, 1]
    assert [one["frame_indices"] for one in inputs["region_metadata"]] == [[30], [50, 10]]
    assert inputs["video_metadata"][0].frames_indices == [0, 10, 20, 30, 40, 50]
    parts = [{"type": "video", "video": frames}, *({"type": "region", **box} for box in boxes)]
    chat = processor.apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=True, return_dict=True, **options
    )
    assert torch.equal(chat["region_frame_index"], inputs["region_frame_index"])
    assert torch.equal(chat["pixel_values_videos"], inputs["pixel_values_videos"])


@pytest.mark.parametrize("return_tensors", ["pt", "np", None])
def test_kinds_of_tensors(processor, return_tensors):
    inputs = processor(**BATCH, return_tensors=return_tensors)
    text = {"input_ids", "attention_mask"}
    expected = {"pt": torch.Tensor, "np": np.ndarray, None: list}[return_tensors]
    media = torch.Tensor if return_tensors is None else expected
    assert {name: type(value) for name, value in inputs.items()} == {
        name: expected if name in text else media for name in inputs
    }
    assert inputs["region_masks"].dtype in (torch.bool, np.bool_)


def test_moving_keeps_masks_and_counts(processor):
    inputs = processor(**BATCH, return_metadata=True, return_tensors="pt")
    moved = inputs.to("meta", dtype=torch.bfloat16)
    kinds = {name: value.dtype for name, value in moved.items() if isinstance(value, torch.Tensor)}
    assert all(value.device.type == "meta" for value in moved.values() if isinstance(value, torch.Tensor))
    assert {name for name, dtype in kinds.items() if dtype == torch.bfloat16} == {
        "pixel_values_videos",
        "region_pixel_values",
    }
    assert kinds["region_masks"] == torch.bool
    assert kinds["sample_counts"] == kinds["input_ids"] == torch.long


# ---------------------------------------------------------------------------------------------------------------------
# No hidden state
# ---------------------------------------------------------------------------------------------------------------------


def test_calls_do_not_influence_each_other(processor):
    plain = processor(**BATCH, return_tensors="pt")
    state = json.dumps(processor.to_dict(), sort_keys=True, default=str)
    for options in (
        {"num_frames": 8, "num_region_tokens": 1, "num_region_frames": None, "padding_side": "right"},
        {"truncation": True, "max_length": 30, "empty_masks": "keep", "return_metadata": True},
        {"fps": 3.0, "end_seconds": 2.0, "resize_backend": "torch", "return_mm_token_type_ids": True},
        {"do_sample_frames": False, "padding": "max_length", "max_length": 60},
    ):
        processor(**BATCH, **options)
        with pytest.raises(ValueError, match=r"Sample 0 has"):
            processor(text=MARKED, **options)
    again = processor(**BATCH, return_tensors="pt")
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert json.dumps(processor.to_dict(), sort_keys=True, default=str) == state


# ---------------------------------------------------------------------------------------------------------------------
# Settings, saving and loading
# ---------------------------------------------------------------------------------------------------------------------


def build(**settings: Any) -> VideoReferProcessor:
    parts = {
        "image_processor": SiglipImageProcessorPil(size=SIZE),
        "tokenizer": fresh_tokenizer(),
        "video_processor": VideoReferVideoProcessor(size=SIZE, num_frames=NUM_FRAMES),
    }
    return VideoReferProcessor(**{**parts, **settings})


def test_tokens():
    tokenizer = fresh_tokenizer()
    assert len(tokenizer) == 330
    processor = build(tokenizer=tokenizer)
    ids = (processor.region_token_id, processor.video_token_id, processor.image_token_id)
    assert ids == (329, 330, 331)
    assert (processor.region_token, processor.video_token, processor.image_token) == ("<region>", "<video>", "<image>")
    config = tiny_config()
    assert ids == (config.region_token_id, config.video_token_id, config.image_token_id)
    # Once more over the same tokenizer changes nothing.
    assert build(tokenizer=tokenizer).image_token_id == 331
    assert len(tokenizer) == 332
    assert tokenizer("a<video><region>b").input_ids[1:3] == [330, 329]


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"tokenizer": None}, ValueError, "`tokenizer` is missing"),
        ({"image_processor": None}, ValueError, "`image_processor` is missing"),
        ({"video_processor": None}, ValueError, "`video_processor` is missing"),
        ({"num_region_tokens": 0}, ValueError, "`num_region_tokens` must be a whole number of at least 1"),
        ({"num_region_frames": 0}, ValueError, "`num_region_frames` must be a whole number of at least 1"),
        ({"num_image_frames": 1}, ValueError, "`num_image_frames` must be a whole number of at least 2"),
        ({"num_image_frames": 2, "connector_downsample": (4, 2, 2)}, ValueError, "`num_image_frames` must be .* at least 4"),
        ({"patch_size": 14.0}, TypeError, "`patch_size` must be a whole number"),
        ({"image_processor": SiglipImageProcessorPil(size={"height": 28, "width": 28})}, ValueError, r"`size` is \[56, 56\] for videos and \[28, 28\] for images"),
        ({"video_processor": VideoReferVideoProcessor(size={"height": 56, "width": 28})}, ValueError, r"`size` is \[56, 28\] for videos"),
        ({"video_processor": SiglipImageProcessorPil(size=SIZE)}, TypeError, "Received a SiglipImageProcessorPil for argument video_processor"),
        ({"tokenizer": SiglipImageProcessorPil(size=SIZE)}, TypeError, "Received a SiglipImageProcessorPil for argument tokenizer"),
    ],
)  # fmt: skip
def test_bad_settings(settings, error, match):
    with pytest.raises(error, match=match):
        build(**settings)


def test_every_setting_is_saved(tmp_path):
    settings = {
        "num_region_frames": None,
        "num_region_tokens": 7,
        "num_image_frames": 8,
        "patch_size": 28,
        "connector_downsample": (2, 1, 1),
        "chat_template": "{{ messages[0]['content'] }}!",
    }
    processor = build(**settings)
    processor.video_processor.edit_list = "ignore"
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == settings["chat_template"]
    written = json.loads((tmp_path / "processor_config.json").read_text())
    assert written["num_region_frames"] is None
    assert "video_token_id" not in written  # it belongs to the tokenizer
    loaded = VideoReferProcessor.from_pretrained(tmp_path)
    for name, value in settings.items():
        made = getattr(loaded, name)
        assert (tuple(made) if name == "connector_downsample" else made) == value
    assert loaded.video_processor.edit_list == "ignore"
    assert loaded.video_processor.num_frames == NUM_FRAMES
    ours, theirs = processor.to_dict(), loaded.to_dict()
    theirs["video_processor"].pop("auto_map")  # added on saving, for loading without the package
    assert theirs == ours
    assert type(loaded.image_processor) is SiglipImageProcessorPil
    twice = tmp_path / "twice"
    loaded.save_pretrained(twice)
    assert json.loads((twice / "processor_config.json").read_text()) == written


def test_reloaded_processors_make_the_same_inputs(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    tokenizer_config = tmp_path / "tokenizer_config.json"
    assert json.loads(tokenizer_config.read_text())["padding_side"] == "left"
    tokenizer_config.write_text(tokenizer_config.read_text().replace('"left"', '"right"'))
    expected = processor(**BATCH, return_tensors="pt")
    first, second = (VideoReferProcessor.from_pretrained(tmp_path) for _ in range(2))
    second.save_pretrained(tmp_path / "again")
    for loaded in (first, second, VideoReferProcessor.from_pretrained(tmp_path / "again")):
        assert (loaded.region_token_id, loaded.video_token_id, loaded.image_token_id) == (329, 330, 331)
        assert len(loaded.tokenizer) == 332
        assert loaded.tokenizer.padding_side == "left"
        made = loaded(**BATCH, return_tensors="pt")
        assert made.keys() == expected.keys()
        assert all(torch.equal(made[name], expected[name]) for name in made)


def test_settings_changed_while_loading(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = VideoReferProcessor.from_pretrained(
        tmp_path, num_frames=8, num_region_tokens=2, num_region_frames=None, edit_list="ignore"
    )
    assert loaded.video_processor.num_frames == 8
    assert loaded.video_processor.edit_list == "ignore"
    assert loaded.num_image_frames == NUM_FRAMES
    assert (loaded.num_region_tokens, loaded.num_region_frames) == (2, None)
    inputs = loaded(
        text="<video><image><region>",
        videos=noise_video(40),
        images=noise_video(1)[0],
        regions=[box_region(list(range(40)), media=0)],
        return_tensors="pt",
    )
    assert [count(inputs, token) for token in (330, 331, 329)] == [[16], [8], [2]]
    assert inputs["region_lengths"].tolist() == [40]


def test_torchvision_processor_is_replaced(processor):
    """Whatever image processor comes, pixels are those of the PIL version."""

    class Other:
        def to_dict(self) -> dict:
            return {
                **SiglipImageProcessorPil(size=SIZE, image_mean=[0.1] * 3).to_dict(),
                "image_processor_type": "Other",
            }

    made = build(image_processor=Other()).image_processor
    assert type(made) is SiglipImageProcessorPil
    assert list(made.image_mean) == [0.1] * 3


def test_processor_travels_to_workers(processor):
    inputs = pickle.loads(pickle.dumps(processor))(**BATCH, return_tensors="pt")
    inputs = pickle.loads(pickle.dumps(inputs))
    expected = processor(**BATCH, return_tensors="pt")
    assert all(torch.equal(inputs[name], expected[name]) for name in expected)


def test_counts_for_serving_engines(processor):
    counted = processor._get_num_multimodal_tokens(image_sizes=[(9, 9), (20, 3)], video_sizes=[(100, 9, 9)])
    assert counted["num_image_tokens"] == [8, 8]
    assert counted["num_image_patches"] == [1, 1]
    assert counted["num_video_tokens"] == [8]
    assert processor._get_num_multimodal_tokens(video_sizes=[(100, 9, 9)], num_frames=6)["num_video_tokens"] == [12]
    # Frames taken as they are: 7 join to 3, times 2 x 2 cells. The call makes as many.
    taken = processor._get_num_multimodal_tokens(video_sizes=[(7, 40, 60)], do_sample_frames=False)
    made = processor(text="<video>", videos=noise_video(7), do_sample_frames=False, return_tensors="pt")
    assert taken["num_video_tokens"] == [12] == [int((made["input_ids"] == processor.video_token_id).sum())]
    assert re.search("num_image_tokens", str(processor._get_num_multimodal_tokens(image_sizes=[])))


@pytest.mark.parametrize("value", ["8", 2.5])
def test_number_of_a_wrong_kind(value):
    with pytest.raises(TypeError, match="num_frames"):
        tiny_processor()(text="<video>\nWhat?", videos=noise_video(), num_frames=value)
