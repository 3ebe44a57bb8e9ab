"""Every part of the model against the recordings of the published modules, with the published weights."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import load_arrays, load_json
from recorded import GRID_SIZE, MODULES, assert_close, cells, media_file, tensor
from transformers import PreTrainedModel, ProcessorMixin

from transformers_videorefer.regions.grid import grid_mask


CASES = load_json("modules/cases.json")
LIMITS = (1, 4, 8, 16, 32)  # of region tokens, "u"
# Depends on the last bit of a similarity (the reference says so).
ROUNDING_SENSITIVE = {("ties_pairs_k10", 8)}
# Exact ties at the threshold: the published code joins more pairs than needed, ours exactly k - u, in the order of the
# frames. Groups of frames that ours joins, derived by hand from the tokens, which are named by letters.
TIES = {
    # aaaaaaaa: all similarities are equal, so the first four pairs are joined.
    ("ties_all_equal_k8", 4): [[0, 1, 2, 3, 4], [5], [6], [7]],
    # Equal directions of different length: all similarities are equal, so the first two pairs are joined.
    ("ties_scaled_k6", 4): [[0, 1, 2], [3], [4], [5]],
    # Zero vectors have similarity 0 to anything: the first two pairs are joined.
    ("zeros_all_k6", 4): [[0, 1, 2], [3], [4], [5]],
    # ab00cd0e: one positive similarity comes first, then three of the five zeros.
    ("zeros_some_k8", 4): [[0, 1, 2, 3, 4], [5], [6], [7]],
    # ababababa: cos(a, b) = cos(b, a), so the first five pairs are joined, or the first one only.
    ("alternating_k9", 4): [[0, 1, 2, 3, 4, 5], [6], [7], [8]],
    ("alternating_k9", 8): [[0, 1], [2], [3], [4], [5], [6], [7], [8]],
}


@pytest.fixture(scope="module")
def merge_tokens() -> dict[str, np.ndarray]:
    return load_arrays("modules/token_merge.npz")


def merge(model: PreTrainedModel, tokens: torch.Tensor, num_tokens: int) -> torch.Tensor:
    with torch.no_grad():
        return model.model.region_encoder.temporal_token_merge(
            tokens, torch.tensor([len(tokens)]), torch.tensor([num_tokens])
        )


def group_means(tokens: torch.Tensor, groups: list[list[int]]) -> torch.Tensor:
    assert sum(groups, []) == list(range(len(tokens)))
    return torch.stack([tokens[group].mean(dim=0) for group in groups])


@pytest.mark.parametrize("case", CASES["mask_pooling"], ids=lambda case: case["name"])
def test_mask_pooling(case: dict[str, Any], published_model: PreTrainedModel) -> None:
    arrays, name = load_arrays("modules/mask_pooling.npz"), case["name"]
    features, masks = tensor(arrays[f"{name}/x"]), arrays[f"{name}/mask"]
    grid = features.shape[-1]
    # Soft masks are no masks of ours: what counts of them is where bilinear resizing leaves something above 0.
    is_binary = all(len(np.unique(mask)) <= 2 and mask.min() >= 0 for mask in masks)
    recorded_cells = arrays[f"{name}/cells"] > 0
    if is_binary and not np.array_equal(masks.shape[1:], (grid, grid)):
        ours = np.stack([grid_mask(mask > 0, (grid, grid), keep_vanished=True) for mask in masks])
        assert np.array_equal(ours, recorded_cells)
    frame_index = (
        torch.arange(len(masks)) if len(features) == len(masks) else torch.zeros(len(masks), dtype=torch.long)
    )
    with torch.no_grad():
        pooled = published_model.model.region_encoder.spatial_token_extractor(
            features.flatten(2).transpose(1, 2), tensor(recorded_cells).flatten(1), frame_index
        )
    assert_close(pooled, arrays[f"{name}/out"], MODULES)
    if name in ("first_mask_empty", "thin_line"):
        assert not pooled.any()


@pytest.mark.parametrize("case", CASES["token_merge"], ids=lambda case: case["name"])
def test_token_merge(
    case: dict[str, Any], published_model: PreTrainedModel, merge_tokens: dict[str, np.ndarray]
) -> None:
    name = case["name"]
    tokens = tensor(merge_tokens[f"{name}/in"])[0]
    for limit in LIMITS:
        recorded = case["out"][str(limit)]
        ours = merge(published_model, tokens, min(len(tokens), limit))
        assert len(ours) == min(len(tokens), limit)
        if not recorded["merged"]:
            assert torch.equal(ours, tokens)
        elif (name, limit) not in TIES and (name, limit) not in ROUNDING_SENSITIVE:
            expected = tensor(merge_tokens[f"{name}/u{limit}"])[0]
            scale = float(expected.abs().max()) if name == "huge_scale_k7" else 1.0
            assert_close(ours / scale, expected / scale, MODULES, f"{name}, u = {limit}")


@pytest.mark.parametrize(("name", "limit"), TIES)
def test_exact_ties_are_broken_by_order(
    name: str, limit: int, published_model: PreTrainedModel, merge_tokens: dict[str, np.ndarray]
) -> None:
    """The published code gives fewer tokens here; ours exactly u, whose means are derived by hand."""
    tokens = tensor(merge_tokens[f"{name}/in"])[0]
    assert merge_tokens[f"{name}/u{limit}"].shape[1] < limit
    assert_close(merge(published_model, tokens, limit), group_means(tokens, TIES[name, limit]), MODULES)


@pytest.mark.parametrize("case", CASES["stc_connector"], ids=lambda case: case["name"])
def test_connector(case: dict[str, Any], published_model: PreTrainedModel) -> None:
    arrays, name = load_arrays("modules/stc_connector.npz"), case["name"]
    connector = published_model.model.connector
    if "out" not in case:
        shape = case["x"]
        with pytest.raises(ValueError, match=f"got {shape[1]} frames of {round(shape[2] ** 0.5)} x"):
            connector(torch.zeros(shape))
        return
    features, inner = tensor(arrays[f"{name}/x"]), {}
    hooks = [
        module.register_forward_hook(lambda module, args, output, key=key: inner.update({key: output}))
        for key, module in (("s1", connector.stage1), ("sampler", connector.sampler), ("s2", connector.stage2))
    ]
    with torch.no_grad():
        assert_close(connector(features), arrays[f"{name}/out"], MODULES)
    for hook in hooks:
        hook.remove()
    if name == "b1_t2":
        inner["sampler"] = torch.nn.functional.silu(inner["sampler"])  # recorded with its activation
        for key, output in inner.items():
            assert_close(output.reshape(-1), arrays[f"{name}/{key}"].reshape(-1), MODULES, key)


def test_connector_on_repeated_pictures(published_model: PreTrainedModel) -> None:
    """The short way for still images gives what 16 equal frames give."""
    connector = published_model.model.connector
    features = tensor(load_arrays("modules/stc_connector.npz")["b1_t16_cfg/x"])[:, 0]
    with torch.no_grad():
        expected = connector(features.unsqueeze(1).expand(-1, 16, -1, -1))
        assert_close(connector.forward_images(features), expected, MODULES)


VANISHING = "k6_tiny_masks_vanish"  # six masks of one pixel, of which only the second reaches a cell: exact ties
NO_MASK = "zero_masks_given"
NOT_EXTRACTED = {
    VANISHING,
    "pad_landscape",
    "pad_portrait",
    "mask_count_differs_from_frame_count",
    "one_mask_three_frames",
}
EXTRACTED = [case for case in CASES["mask_extractor"] if case["name"] not in NOT_EXTRACTED]


def extract(
    model: PreTrainedModel, features: torch.Tensor, masks: torch.Tensor, case: dict[str, Any]
) -> tuple[torch.Tensor, list[int]]:
    regions = [region for sample in case["ann_indices"] for region in sample]
    num_tokens = [min(len(region), case["region_token_num"]) for region in regions]
    with torch.no_grad():
        tokens, _ = model.model.region_encoder(
            features,
            masks,
            torch.tensor(sum(regions, [])),
            torch.tensor([len(region) for region in regions]),
            torch.tensor(num_tokens),
        )
    return tokens, num_tokens


def project(model: PreTrainedModel, pooled: torch.Tensor) -> torch.Tensor:
    """Apply the last two layers of the region encoder, from the weights."""
    encoder = model.model.region_encoder
    hidden = torch.nn.functional.gelu(pooled @ encoder.linear_1.weight.T + encoder.linear_1.bias)
    return (hidden @ encoder.linear_2.weight.T + encoder.linear_2.bias).detach()


@pytest.mark.parametrize("case", EXTRACTED, ids=lambda case: case["name"])
def test_region_encoder(case: dict[str, Any], published_model: PreTrainedModel) -> None:
    arrays, name, source = load_arrays("modules/mask_extractor.npz"), case["name"], case["inputs_from"]
    groups = [arrays[f"{source}/masks_{i}"] for i in range(len(case["ann_indices"]))]
    if name == NO_MASK:  # the published code puts an empty mask in
        groups = [np.zeros((1, 336, 336), dtype=np.uint8)]
    masks = torch.cat([cells(group) for group in groups])
    features = tensor(arrays[f"{source}/feats"])
    tokens, num_tokens = extract(published_model, features, masks, case)
    assert num_tokens == case["region_token_nums"]
    assert_close(tokens, arrays[f"{name}/out"], MODULES)
    if name in (NO_MASK, "all_empty_single"):
        assert_close(tokens, project(published_model, torch.zeros(1, features.shape[-1])), MODULES)


def test_vanished_masks_tie(published_model: PreTrainedModel) -> None:
    """One token in the published code, the mean of all six; in ours the first three are joined, the others stay."""
    case = next(case for case in CASES["mask_extractor"] if case["name"] == VANISHING)
    arrays = load_arrays("modules/mask_extractor.npz")
    features, masks = tensor(arrays[f"{VANISHING}/feats"]), cells(arrays[f"{VANISHING}/masks_0"])
    assert masks.sum(dim=1).tolist() == [0, 1, 0, 0, 0, 0]
    visible, nothing = features[1][masks[1]][0], torch.zeros(features.shape[-1])
    assert_close(project(published_model, visible[None] / 6), arrays[f"{VANISHING}/out"], MODULES)
    tokens, num_tokens = extract(published_model, features, masks, case)
    assert num_tokens == [4]
    expected = torch.stack([visible / 3, nothing, nothing, nothing])
    assert_close(tokens, project(published_model, expected), MODULES)


def ask(processor: ProcessorMixin, region: dict[str, Any], **options: Any) -> Any:
    return processor(text="<video><region>", videos=media_file("clip.mp4"), regions=[region], num_frames=2, **options)


def test_sample_without_masks_is_refused(published_processor: ProcessorMixin) -> None:
    """The published code invents an empty mask, with a printed warning."""
    with pytest.raises(ValueError, match="`frames` is empty"):
        ask(published_processor, {"frames": []})
    with pytest.raises(ValueError, match="`masks` is empty"):
        ask(published_processor, {"masks": [], "frame_indices": []})


@pytest.mark.parametrize("num_masks", [1, 2], ids=["one_mask_three_frames", "mask_count_differs_from_frame_count"])
def test_masks_and_frames_that_differ_in_number(num_masks: int, published_processor: ProcessorMixin) -> None:
    """The published code repeats one mask silently and stops in a debugger for two."""
    masks = np.ones((num_masks, 64, 96), dtype=bool)
    with pytest.raises(ValueError, match=rf"`masks` has {num_masks} masks but `frame_indices` has 3"):
        ask(published_processor, {"masks": masks, "frame_indices": [0, 1, 2]})


def test_vanishing_masks_keep_a_cell(published_processor: ProcessorMixin) -> None:
    """Unless asked for the published rule, a mask that is not empty never vanishes (documented difference)."""
    arrays = load_arrays("modules/mask_extractor.npz")
    masks = arrays[f"{VANISHING}/masks_0"] > 0
    region = {"masks": masks, "frame_indices": list(range(len(masks)))}
    kept = ask(published_processor, region, empty_masks="keep", return_tensors="pt")
    assert kept["region_masks"].sum(dim=1).tolist() == [0, 1, 0, 0, 0, 0]
    ours = ask(published_processor, region, return_tensors="pt")["region_masks"]
    centres = np.array([np.argwhere(mask)[0] + 0.5 for mask in masks])  # each mask is one pixel
    rows, columns = (centres * GRID_SIZE / [64, 96]).astype(int).T
    assert ours.nonzero().tolist() == [[i, cell] for i, cell in enumerate(rows * GRID_SIZE + columns)]


def test_vision_tower(published_model: PreTrainedModel) -> None:
    arrays = load_arrays("modules/vision_tower.npz")
    with torch.no_grad():
        features = published_model.get_video_features(tensor(arrays["pixel_values"])[None]).last_hidden_state
    assert_close(features[0], arrays["selected"], MODULES)


def test_every_recorded_case_is_covered(merge_tokens: dict[str, np.ndarray]) -> None:
    assert {case["name"] for case in CASES["mask_extractor"]} == {case["name"] for case in EXTRACTED} | NOT_EXTRACTED
    # Whatever of the merge is not compared gives fewer tokens than u in the published code.
    fewer = {
        (case["name"], limit)
        for case in CASES["token_merge"]
        for limit in LIMITS
        if case["out"][str(limit)]["tokens_out"] < min(case["k"], limit)
    }
    assert fewer == set(TIES) | ROUNDING_SENSITIVE


def test_weights_are_loaded_in_float32(published_model: PreTrainedModel) -> None:
    """They are stored as float16, which holds them exactly; the configuration says float32."""
    assert {parameter.dtype for parameter in published_model.parameters()} == {torch.float32}
