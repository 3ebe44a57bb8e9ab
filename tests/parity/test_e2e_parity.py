"""Whole prompts against the recorded inference: from recorded tensors, and from the media files."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import load_arrays, load_json
from recorded import (
    GRID_SIZE,
    LOGITS,
    LOGITS_FROM_FILES,
    MODULES,
    PIXELS,
    REGION,
    assert_close,
    assert_logits,
    cells,
    expand_row,
    fill_rows,
    media_file,
    record_embeddings,
    regions_of,
    tensor,
)
from transformers import PreTrainedModel, ProcessorMixin


pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

CASES = {case["name"]: case for case in load_json("e2e/cases.json")}
FAILING = {call["name"]: call for call in load_json("e2e/failing_calls.json")}
SURPLUS, BEFORE = "video_surplus_object", "region_before_video"
SAME = [name for name in CASES if name not in (SURPLUS, BEFORE)]
NUM_FRAMES = {"video_single_frame_cfgframes": 16}  # the released scripts pass no number and get 8
NUM_IMAGE_FRAMES = 16
MAX_NEW_TOKENS = 12
SINGLE, TRIPLE = CASES["video_single_frame"], CASES["video_multi_frame_k3"]


def num_frames_of(case: dict[str, Any]) -> int:
    return NUM_FRAMES.get(case["name"], 8)


def num_scene_tokens(case: dict[str, Any]) -> int:
    """Frames, rows and columns are joined in pairs."""
    num_frames = NUM_IMAGE_FRAMES if case["modal"] == "image" else num_frames_of(case)
    return num_frames // 2 * (GRID_SIZE // 2) ** 2


def regions_of_case(case: dict[str, Any]) -> list[dict[str, Any]]:
    if "segmentation" in case:  # still image
        return regions_of({"0": {"segmentation": mask}} for mask in case["segmentation"])
    return regions_of(case.get("annotation"))


def expanded_ids(case: dict[str, Any], arrays: dict[str, np.ndarray], config: Any) -> torch.Tensor:
    row = arrays["input_ids"][0]
    return torch.tensor([expand_row(row, None, num_scene_tokens(case), case["region_token_nums"] or [], config)])


def recorded_inputs(case: dict[str, Any], arrays: dict[str, np.ndarray], config: Any) -> dict[str, torch.Tensor]:
    """Build the inputs of our model from recorded pixels, masks and ids; every region frame is an extra frame."""
    inputs = {"input_ids": expanded_ids(case, arrays, config)}
    if case["scene"]:
        scene = tensor(load_arrays("e2e/scenes.npz")[case["scene"]])
        inputs.update({"pixel_values": scene} if case["modal"] == "image" else {"pixel_values_videos": scene[None]})
    if case["region_token_nums"]:
        regions = case["ann_indices"][0]
        frame_index = torch.tensor(sum(regions, []))
        if case["modal"] == "video":
            inputs["region_pixel_values"] = tensor(arrays["region_frames"])
            frame_index += num_frames_of(case)
        else:
            assert torch.equal(inputs["pixel_values"], tensor(arrays["region_frames"]))
        inputs["region_masks"] = cells(arrays["masks"][0])
        inputs["region_frame_index"] = frame_index
        inputs["region_lengths"] = torch.tensor([len(region) for region in regions])
        inputs["region_num_tokens"] = torch.tensor(case["region_token_nums"])
    return inputs


def file_inputs(case: dict[str, Any], processor: ProcessorMixin, **changes: Any) -> Any:
    """Make the inputs from prompt, media file and annotation, by the published rule for empty masks."""
    kinds = {"video": {"videos": media_file("clip.mp4")}, "image": {"images": media_file("image.png")}, "text": {}}
    settings = {"regions": regions_of_case(case) or None, "num_frames": num_frames_of(case), "empty_masks": "keep"}
    settings.update(kinds[case["modal"]], text=case["prompt"])
    return processor(**{**settings, **changes}, return_tensors="pt")


def placeholder_ids(config: Any) -> dict[str, int]:
    return {"video": config.video_token_id, "image": config.image_token_id, "region": config.region_token_id}


def assert_embeddings(
    model: PreTrainedModel, case: dict[str, Any], arrays: dict[str, np.ndarray], output: Any, received: torch.Tensor,
    input_ids: torch.Tensor,
) -> None:  # fmt: skip
    """Compare scene tokens, region tokens, and what the language model receives."""
    ids, expected = placeholder_ids(model.config), {}
    if case["scene"]:
        kind = case["modal"]
        expected[ids[kind]] = tensor(load_arrays("e2e/scenes.npz")[f"{case['scene']}_tokens"])
        assert_close(output[f"{kind}_hidden_states"], expected[ids[kind]], MODULES, "scene tokens")
    if case["region_token_nums"]:
        expected[ids["region"]] = tensor(arrays["region_tokens"])
        assert_close(output["region_hidden_states"], expected[ids["region"]], MODULES, "region tokens")
    table = model.get_input_embeddings().weight.detach()
    assert_close(received, fill_rows(input_ids, table, expected), MODULES, "inputs_embeds")


@pytest.mark.parametrize("name", SAME)
def test_from_recorded_tensors(name: str, published_model: PreTrainedModel) -> None:
    case, arrays = CASES[name], load_arrays(f"e2e/{name}.npz")
    inputs = recorded_inputs(case, arrays, published_model.config)
    output, received = record_embeddings(published_model, inputs)
    assert_embeddings(published_model, case, arrays, output, received, inputs["input_ids"])
    assert_logits(output.logits, arrays, LOGITS)


@pytest.mark.parametrize("name", SAME)
def test_inputs_from_files(name: str, published_processor: ProcessorMixin, published_model: PreTrainedModel) -> None:
    case, arrays = CASES[name], load_arrays(f"e2e/{name}.npz")
    inputs = file_inputs(case, published_processor)
    assert torch.equal(inputs["input_ids"], expanded_ids(case, arrays, published_model.config))
    assert (inputs["attention_mask"] == 1).all()
    expected = recorded_inputs(case, arrays, published_model.config)
    for kind in ("pixel_values", "pixel_values_videos"):
        assert (kind in inputs) == (kind in expected)
        if kind in expected:
            assert_close(inputs[kind], expected[kind], PIXELS, kind)
    if not case["region_token_nums"]:
        assert "region_masks" not in inputs
        return
    for key in ("region_masks", "region_lengths", "region_num_tokens"):
        assert torch.equal(inputs[key], expected[key]), key
    assert inputs["region_masks"].sum(dim=1).tolist() == case["mask_cells_selected"][0]
    frames, recorded = [], []
    for made, target in ((inputs, frames), (expected, recorded)):
        parts = [made[key].flatten(0, -4) for key in ("pixel_values_videos", "pixel_values") if key in made]
        parts += [made["region_pixel_values"]] if "region_pixel_values" in made else []
        target.append(torch.cat(parts)[made["region_frame_index"]])
    assert_close(frames[0], recorded[0], PIXELS, "region frames")


@pytest.mark.parametrize("name", SAME)
def test_logits_from_files(name: str, published_processor: ProcessorMixin, published_model: PreTrainedModel) -> None:
    with torch.no_grad():
        output = published_model(**file_inputs(CASES[name], published_processor))
    assert_logits(output.logits, load_arrays(f"e2e/{name}.npz"), LOGITS_FROM_FILES)


def generate(model: PreTrainedModel, inputs: Any, **options: Any) -> list[int]:
    """Continue greedily; everything else comes from the published `generation_config.json`."""
    output = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, **options)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("name", SAME)
def test_greedy_ids_from_files(
    name: str, published_processor: ProcessorMixin, published_model: PreTrainedModel
) -> None:
    arrays, inputs = load_arrays(f"e2e/{name}.npz"), file_inputs(CASES[name], published_processor)
    assert published_model.generation_config.repetition_penalty == 1.05
    ids = generate(published_model, inputs)
    assert ids == arrays["generated_ids"][0].tolist()
    assert generate(published_model, inputs, repetition_penalty=1.0) == arrays["generated_ids_no_penalty"][0].tolist()
    text = published_processor.batch_decode([ids], skip_special_tokens=True)
    assert text == [CASES[name]["response_text_fast_tokenizer"]]


def messages_of(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Write the question as messages with typed parts."""
    turns = case["question"]
    if isinstance(turns, str):
        # Without a medium the published prompt keeps the newline behind the missing tag.
        turns = [{"role": "user", "content": turns if case["scene"] else f"\n{turns}"}]
    media = {"video": [{"type": "video", "path": media_file("clip.mp4")}], "text": []}
    media["image"] = [{"type": "image", "path": media_file("image.png")}]
    regions = iter(regions_of_case(case))
    messages = []
    for number, turn in enumerate(turns):
        parts = list(media[case["modal"]]) if number == 0 else []
        for position, text in enumerate(turn["content"].split("<region>")):
            parts += [{"type": "region", **next(regions)}] if position else []
            parts += [{"type": "text", "text": text}]
        messages.append({"role": turn["role"], "content": parts})
    return messages


@pytest.mark.parametrize("name", SAME)
def test_chat_template_gives_the_same_inputs(name: str, published_processor: ProcessorMixin) -> None:
    case = CASES[name]
    messages = messages_of(case)
    text = published_processor.apply_chat_template(messages, add_generation_prompt=True)
    assert text == case["prompt"]
    inputs = published_processor.apply_chat_template(
        messages,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        num_frames=num_frames_of(case),
        empty_masks="keep",
    )
    expected = file_inputs(case, published_processor)
    assert inputs.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(inputs[key], value), key


def test_greedy_ids_through_the_chat_template(
    published_processor: ProcessorMixin, published_model: PreTrainedModel
) -> None:
    name = "video_two_objects_different_frames"
    inputs = published_processor.apply_chat_template(
        messages_of(CASES[name]),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        num_frames=8,
    )
    assert generate(published_model, inputs) == load_arrays(f"e2e/{name}.npz")["generated_ids"][0].tolist()


def test_surplus_object(published_processor: ProcessorMixin, published_model: PreTrainedModel) -> None:
    """The published code ignores it; ours says so, and without it gives the recorded answer."""
    case, arrays = CASES[SURPLUS], load_arrays(f"e2e/{SURPLUS}.npz")
    with pytest.raises(ValueError, match=r"2 region\(s\) but 1 `<region>` mark"):
        file_inputs(case, published_processor)
    inputs = recorded_inputs(case, arrays, published_model.config)
    with pytest.raises(ValueError, match=r"1 `<region>` placeholder tokens.*2 region"):
        published_model(**inputs)
    inputs = file_inputs(case, published_processor, regions=regions_of_case(case)[:1])
    with torch.no_grad():
        output = published_model(**inputs)
    assert_close(output.region_hidden_states, arrays["region_tokens"][:1], MODULES)
    assert_logits(output.logits, arrays, LOGITS_FROM_FILES)
    assert generate(published_model, inputs) == arrays["generated_ids"][0].tolist()
    without_penalty = generate(published_model, inputs, repetition_penalty=1.0)
    assert without_penalty == arrays["generated_ids_no_penalty"][0].tolist()


def test_region_before_the_video(published_processor: ProcessorMixin, published_model: PreTrainedModel) -> None:
    """The published code leaves such a mark unfilled and gives its object to the next one; ours fills every mark."""
    case, arrays = CASES[BEFORE], load_arrays(f"e2e/{BEFORE}.npz")
    regions = regions_of(CASES["video_two_objects_same_frame"]["annotation"])
    both = load_arrays("e2e/video_two_objects_same_frame.npz")["region_tokens"]
    inputs = file_inputs(case, published_processor, regions=regions)
    output, received = record_embeddings(published_model, inputs)
    scene = tensor(load_arrays("e2e/scenes.npz")[f"{case['scene']}_tokens"])
    table, ids = published_model.get_input_embeddings().weight.detach(), placeholder_ids(published_model.config)
    filled = fill_rows(inputs["input_ids"], table, {ids["video"]: scene, ids["region"]: tensor(both)})
    assert_close(output.region_hidden_states, both, MODULES)
    assert_close(received, filled, MODULES)
    # The recorded embeddings: the first mark is an ordinary token, the second one holds the first object.
    assert_close(tensor(arrays["region_tokens"]), both[:1], MODULES)
    positions = (inputs["input_ids"][0] == ids["region"]).nonzero().flatten()
    filled[0, positions[0]], filled[0, positions[1]] = table[REGION], tensor(both[0])
    with torch.no_grad():
        published = published_model(inputs_embeds=filled).logits
    assert_logits(published, arrays, LOGITS)
    assert float((output.logits - published)[0, -1].abs().max()) > LOGITS_FROM_FILES


def prompt(question: str) -> str:
    """Put another question into a recorded prompt."""
    return SINGLE["prompt"].replace(SINGLE["question"], question)


BATCH_CALLS = {
    "batch2_equal_length_inference": [SINGLE, SINGLE],
    "batch2_unequal_length_inference": [SINGLE, TRIPLE],
}


@pytest.mark.parametrize("name", BATCH_CALLS)
def test_batches(name: str, published_processor: ProcessorMixin, published_model: PreTrainedModel) -> None:
    """The published code fails on prompts of unequal length; ours gives what each prompt gives alone."""
    cases = BATCH_CALLS[name]
    inputs = published_processor(
        text=[case["prompt"] for case in cases],
        videos=[[media_file("clip.mp4")] for _ in cases],
        regions=[regions_of_case(case) for case in cases],
        num_frames=8,
        return_tensors="pt",
    )
    output = published_model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    for row, case in enumerate(cases):
        expected = load_arrays(f"e2e/{case['name']}.npz")["generated_ids"][0].tolist()
        assert output[row, inputs["input_ids"].shape[1] :].tolist() == expected


REFUSED = {
    "region_marker_without_frames": ({"regions": None}, r"0 region\(s\) but 1 `<region>` mark"),
    "more_markers_than_objects": ({"text": prompt("<region> and <region>?")}, r"1 region\(s\) but 2 `<region>` mark"),
    "scene_one_frame": ({"num_frames": 1}, "`num_frames`.* at least 2.*1"),
    "two_video_tokens": ({"text": prompt("<video> <region>?")}, r"1 video\(s\) but 2 `<video>` mark"),
    "mask_count_mismatch": (
        {"regions": [{"masks": np.ones((2, 64, 96), dtype=bool), "frame_indices": [4, 17, 29]}]},
        "`masks` has 2 masks but `frame_indices` has 3",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_calls_that_cannot_be_answered(name: str, published_processor: ProcessorMixin) -> None:
    """All of these crash in the published code; ours names the numbers."""
    assert not FAILING[name]["ok"]
    changes, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        file_inputs(SINGLE, published_processor, **changes)


SCENE_LENGTHS = {"scene_two_frames": 2, "scene_odd_frames": 5}


@pytest.mark.parametrize(("name", "num_frames"), SCENE_LENGTHS.items())
def test_other_numbers_of_scene_frames(
    name: str, num_frames: int, published_processor: ProcessorMixin, published_model: PreTrainedModel
) -> None:
    """Odd numbers lose the last frame in the connector. (What was asked in the recorded calls is not recorded.)"""
    assert FAILING[name]["ok"]
    inputs = file_inputs(CASES["video_no_region"], published_processor, num_frames=num_frames)
    assert inputs["pixel_values_videos"].shape[1] == num_frames
    assert (inputs["input_ids"] == published_model.config.video_token_id).sum() == num_frames // 2 * 4
    even = inputs["pixel_values_videos"][:, : num_frames // 2 * 2]
    with torch.no_grad():
        expected = published_model(**{**inputs, "pixel_values_videos": even}).logits
        assert_close(published_model(**inputs).logits, expected, MODULES)


def test_two_videos(published_processor: ProcessorMixin, published_model: PreTrainedModel) -> None:
    inputs = file_inputs(
        SINGLE,
        published_processor,
        text=prompt("<video> <region>?"),
        videos=[media_file("clip.mp4"), media_file("short.mp4")],
        regions=[{"media": 0, **regions_of_case(SINGLE)[0]}],
    )
    with torch.no_grad():
        output = published_model(**inputs)
    scene = load_arrays("e2e/scenes.npz")["scene_0_tokens"]
    assert_close(output.video_hidden_states[:1], scene, MODULES)
    assert_close(output.region_hidden_states, load_arrays("e2e/video_single_frame.npz")["region_tokens"], MODULES)


def test_every_recorded_call_is_covered() -> None:
    assert set(FAILING) == {*REFUSED, *SCENE_LENGTHS, *BATCH_CALLS}
