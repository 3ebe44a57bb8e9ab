"""Helpers of the parity tests: recorded cases as inputs of our model and processor, and comparisons."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from conftest import LOGITS_COLUMN_STEP, REFERENCE
from torch import nn

from transformers_videorefer.regions.grid import grid_mask


# Tolerances of the reference (fixtures/README.md).
PIXELS = 1e-5
MODULES = 1e-5
LOGITS = 2e-4
LOGITS_FROM_FILES = 1e-3
LOSS = 1e-5

GRID_SIZE = 4
IGNORED = -100
# The published ids of marks in recorded prompts; `<region>` is an ordinary id.
PUBLISHED_IMAGE, PUBLISHED_VIDEO, REGION = -200, -201, 329

# Published parameter names and ours, applied in this order as plain replacements.
RENAMES = (
    *((f"mm_projector.s{stage}.b{block}.", f"connector.stage{stage}.{block - 1}.") for stage in (1, 2) for block in (1, 2, 3, 4)),
    ("mm_projector.sampler.0.", "connector.sampler."),
    ("mm_projector.readout.", "connector.mlp."),
    ("downsample.conv.", "shortcut.conv."),
    ("downsample.bn.", "shortcut.norm."),
    *((f".conv{i}.conv.", f".conv{i}.") for i in (1, 2, 3)),
    *((f".conv{i}.bn.", f".norm{i}.") for i in (1, 2, 3)),
    (".se.", ".squeeze_excitation."),
    ("region_encoder.feat_linear.0.", "region_encoder.linear_1."),
    ("region_encoder.feat_linear.2.", "region_encoder.linear_2."),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.layers.", "model.language_model.layers."),
    ("model.norm.", "model.language_model.norm."),
)  # fmt: skip


def our_name(published_name: str) -> str:
    """Translate the name of a trainable parameter."""
    for old, new in RENAMES:
        published_name = published_name.replace(old, new)
    return published_name


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def cells(masks: np.ndarray) -> torch.Tensor:
    """Bring recorded masks `(n, H, W)` to the patch grid by the published rule: `(n, 16)`."""
    grids = [grid_mask(mask > 0, (GRID_SIZE, GRID_SIZE), keep_vanished=True).reshape(-1) for mask in masks]
    return tensor(np.stack(grids))


def regions_of(annotation: Iterable[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Write a published annotation as regions: frame numbers are strings, a null segmentation is an empty mask."""
    return [
        {"frames": [{"frame_index": int(index), **segmentation(value)} for index, value in region.items()]}
        for region in annotation or ()
    ]


def segmentation(value: dict[str, Any]) -> dict[str, Any]:
    segmentation = value["segmentation"]
    return {"polygon" if isinstance(segmentation, list) else "rle": segmentation}


def media_file(name: str) -> str:
    return str(REFERENCE / "media" / name)


def expand_row(
    row: Sequence[int],
    fill: Sequence[int] | None,
    num_scene_tokens: int,
    num_region_tokens: Iterable[int],
    config: Any,
) -> list[int]:
    """Repeat the marks of one recorded row of ids (or of labels: `fill` then names what stands at marks)."""
    regions, expanded = iter(num_region_tokens), []
    for position, token in enumerate(row):
        token = int(token)
        ours = {PUBLISHED_IMAGE: config.image_token_id, PUBLISHED_VIDEO: config.video_token_id}.get(token, token)
        count = num_scene_tokens if token < 0 else next(regions) if token == REGION else 1
        is_mark = token < 0 or token == REGION
        expanded += [ours if fill is None else IGNORED if is_mark else int(fill[position])] * count
    return expanded


def fill_rows(input_ids: torch.Tensor, table: torch.Tensor, tokens: dict[int, torch.Tensor]) -> torch.Tensor:
    """Return what the language model must receive: embeddings, with the tokens of each placeholder id in order."""
    filled = table[input_ids.clamp(max=len(table) - 1)]
    for token_id, values in tokens.items():
        filled[input_ids == token_id] = values.reshape(-1, values.shape[-1])
    return filled


def record_embeddings(model: nn.Module, inputs: dict[str, Any]) -> tuple[Any, torch.Tensor]:
    """Run the model and return its output with the embeddings that its language model received."""
    received = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: received.append(kwargs["inputs_embeds"].detach()), with_kwargs=True
    )
    try:
        with torch.no_grad():
            output = model(**inputs)
    finally:
        hook.remove()
    return output, received[0]


def assert_close(ours: torch.Tensor, recorded: np.ndarray | torch.Tensor, tolerance: float, what: str = "") -> None:
    recorded = recorded if isinstance(recorded, torch.Tensor) else tensor(recorded)
    assert ours.shape == recorded.shape, what
    worst = float((ours - recorded).abs().max()) if ours.numel() else 0.0
    assert worst <= tolerance, f"{what}: {worst:.2e} off, {tolerance:.0e} allowed"


def assert_logits(
    ours: torch.Tensor, recorded: dict[str, np.ndarray], tolerance: float, attention_mask: np.ndarray | None = None
) -> None:
    """Compare logits `(batch, sequence, vocabulary)` with what is recorded of them, rows padded on the right."""
    columns, last = tensor(recorded["logits_columns"]), tensor(recorded["logits_last"])
    assert ours.shape[:2] == columns.shape[:2]
    valid = torch.ones(ours.shape[:2], dtype=torch.bool) if attention_mask is None else tensor(attention_mask) == 1
    assert_close(ours[..., ::LOGITS_COLUMN_STEP][valid], columns[valid], tolerance, "logits, some columns")
    for row, length in enumerate(valid.sum(dim=1).tolist()):
        assert_close(ours[row, length - last.shape[1] : length], last[row], tolerance, "logits, last positions")
    argmax = tensor(recorded["logits_argmax"]).long()
    is_clear = valid & (argmax >= 0)
    assert torch.equal(ours.argmax(dim=-1)[is_clear], argmax[is_clear])
