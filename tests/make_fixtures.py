"""Makes the compact copy of the golden reference that the tests use, from a full reference folder.

    python tests/make_fixtures.py REFERENCE_FOLDER [OUTPUT_FOLDER]

The output folder (tests/fixtures/reference by default) is replaced. What is shortened, and how far the copy may differ
from the original, is written down in fixtures/README.md; every step here checks that on the way. The same input gives
the same bytes.
"""

import gzip
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from conftest import FRAMES_SUFFIX, LM_HEAD_GRAD_STEP, LOGITS_COLUMN_STEP, LOGITS_LAST, REFERENCE, levels_to_pixels
from safetensors.torch import load_file, save_file


MAX_TOTAL_BYTES = 2_850_000
# Disk blocks count too: a file fills whole blocks of this many bytes.
BLOCK_BYTES = 4096
LOGITS_STEP = 2.0**-16  # recorded logits are rounded to multiples of this: 8e-6 off, the tolerance is 2e-4
MIN_ARGMAX_MARGIN = 1e-3  # an argmax is recorded where the best two logits lie further apart than this
CONFIG_FILES = ("config.json", "model.safetensors", "generation_config.json", "preprocessor_config.json")
TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
)


class FrameBank:
    """All distinct 56 x 56 frames of the reference as 8-bit levels; other files point into it."""

    def __init__(self) -> None:
        self._positions: dict[bytes, int] = {}

    def add(self, pixels: np.ndarray) -> np.ndarray:
        """Store normalised frames of shape `(..., 3, S, S)` and return their positions of shape `(...)`."""
        levels = np.rint((pixels.astype(np.float64) + 1) * 127.5).astype(np.uint8)
        worst = np.abs(levels_to_pixels(levels) - pixels).max()
        if worst > 1e-6:
            raise ValueError(f"These pixels are no 8-bit levels: {worst} off.")
        frames = levels.reshape(-1, *levels.shape[-3:])
        positions = [self._positions.setdefault(frame.tobytes(), len(self._positions)) for frame in frames]
        return np.array(positions, dtype=np.int16).reshape(levels.shape[:-3])

    def levels(self) -> np.ndarray:
        """Return all frames as a uint8 array of shape `(num_frames, 3, 56, 56)`."""
        return np.stack([np.frombuffer(frame, dtype=np.uint8) for frame in self._positions]).reshape(-1, 3, 56, 56)


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an `.npz` that `np.load` reads, with a stronger compression than numpy's and no time stamps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in sorted(arrays.items()):
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_LZMA
            with archive.open(entry, "w") as file:
                np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)


def save_json(path: Path, content: Any, *, compress: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, separators=(",", ":")) + "\n"
    if compress:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    else:
        path.write_text(text)


def without(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in names}


def require(condition: bool, what: str) -> None:
    """Stop when the reference is not what the compact form relies on."""
    if not condition:
        raise ValueError(f"The compact form relies on this, but it does not hold: {what}.")


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy a checkpoint folder; its float32 weights are exactly representable in float16 and stored so."""
    target.mkdir(parents=True)
    for name in (*CONFIG_FILES, *TOKENIZER_FILES):
        if (source / name).exists() and name != "model.safetensors":
            shutil.copy(source / name, target / name)
    weights = load_file(source / "model.safetensors")
    halves = {name: tensor.half() for name, tensor in weights.items()}
    for name, tensor in weights.items():
        require(torch.equal(halves[name].float(), tensor), f"{name} is exact in float16")
    save_file(halves, target / "model.safetensors", metadata={"format": "pt"})


def copy_preprocess(source: Path, target: Path, bank: FrameBank) -> None:
    uniform = json.loads((source / "frame_sample.json").read_text())["uniform"]
    save_json(target / "frame_sample.json", {"uniform": uniform}, compress=True)
    for name in ("process_video", "ann_to_mask"):
        save_json(target / f"{name}.json", json.loads((source / f"{name}.json").read_text()))
    for name in ("decoded_frames", "ann_to_mask"):
        save_arrays(target / f"{name}.npz", load(source / f"{name}.npz"))
    entries = {entry["name"]: entry for entry in json.loads((source / "process_video.json").read_text())}
    pointers = {}
    for name, pixels in load(source / "process_video.npz").items():
        if entries[name.split("/")[0]]["kwargs"].get("aspect_ratio") != "pad":  # padding is not offered
            pointers[f"{name}{FRAMES_SUFFIX}"] = bank.add(pixels)
    save_arrays(target / "process_video.npz", pointers)


def copy_modules(source: Path, target: Path, weights: dict[str, torch.Tensor]) -> None:
    cases = json.loads((source / "cases.json").read_text())
    save_json(target / "cases.json", cases, compress=True)
    for name in ("mask_pooling", "token_merge"):
        save_arrays(target / f"{name}.npz", load(source / f"{name}.npz"))
    inner = ("b2_t5_odd/s1", "b2_t5_odd/sampler", "b2_t5_odd/s2")
    save_arrays(target / "stc_connector.npz", without(load(source / "stc_connector.npz"), *inner))
    tower = load(source / "vision_tower.npz")
    save_arrays(target / "vision_tower.npz", {name: tower[name] for name in ("pixel_values", "selected")})
    save_arrays(target / "mask_extractor.npz", shorten_extractor(load(source / "mask_extractor.npz"), cases, weights))


def shorten_extractor(
    arrays: dict[str, np.ndarray], cases: dict[str, Any], weights: dict[str, torch.Tensor]
) -> dict[str, np.ndarray]:
    """Replace features that no mask covers by the number of their cell, and check that every output stays."""
    kept = {}
    entries = [entry for entry in cases["mask_extractor"] if "out" in entry and entry["image_aspect_ratio"] != "pad"]
    for entry in entries:
        name, source = entry["name"], entry["inputs_from"]
        masks = [arrays[f"{source}/masks_{i}"] for i in range(len(entry["ann_indices"]))]
        if f"{source}/feats" not in kept:
            rows = [row for sample in entry["ann_indices"] for region in sample for row in region]
            covered = np.zeros(arrays[f"{source}/feats"].shape[:2], dtype=bool)
            for row, cells in zip(rows, [cells for group in masks for cells in cells_of(group)], strict=False):
                covered[row] |= cells
            filler = np.arange(covered.shape[1], dtype=np.float32)[None, :, None]
            kept[f"{source}/feats"] = np.where(covered[..., None], arrays[f"{source}/feats"], filler)
            kept.update({f"{source}/masks_{i}": group for i, group in enumerate(masks)})
        kept[f"{name}/out"] = arrays[f"{name}/out"]
        out = extract(kept[f"{source}/feats"], masks, entry, weights)
        require(np.abs(out - kept[f"{name}/out"]).max() < 5e-6, f"{name} depends on covered cells only")
    return kept


def cells_of(masks: np.ndarray) -> np.ndarray:
    """Apply the published rule to masks `(n, H, W)`: cells above 0 after bilinear resizing, as `(n, 16)`."""
    if len(masks) == 0:
        return np.zeros((1, 16), dtype=bool)
    resized = F.interpolate(torch.from_numpy(masks).float()[None], size=(4, 4), mode="bilinear")[0]
    return (resized > 0).flatten(1).numpy()


def extract(
    features: np.ndarray, masks: list[np.ndarray], entry: dict[str, Any], weights: dict[str, torch.Tensor]
) -> np.ndarray:
    """Compute object tokens by the published rules, region by region."""
    cells = iter(cells for group in masks for cells in cells_of(group))
    tokens = []
    for region in (region for sample in entry["ann_indices"] for region in sample):
        pooled = []
        for row in region:
            covered = next(cells)
            pooled.append(features[row][covered].sum(0) / np.float32(covered.sum() + 1e-8))
        pooled, limit = torch.from_numpy(np.stack(pooled)), entry["region_token_num"]
        if len(pooled) > limit:
            similarity = F.cosine_similarity(pooled[:-1], pooled[1:], dim=-1)
            threshold = similarity.sort(descending=True).values[len(pooled) - limit - 1]
            runs = torch.cat([torch.zeros(1, dtype=torch.long), (similarity < threshold).cumsum(0)])
            pooled = torch.stack([pooled[runs == run].mean(0) for run in range(int(runs[-1]) + 1)])
        tokens.append(pooled)
    hidden = torch.cat(tokens)
    for layer in (0, 2):
        prefix = f"model.region_encoder.feat_linear.{layer}"
        hidden = F.linear(hidden, weights[f"{prefix}.weight"], weights[f"{prefix}.bias"])
        hidden = F.gelu(hidden) if layer == 0 else hidden
    return hidden.numpy()


def shorten_logits(logits: np.ndarray, attention_mask: np.ndarray) -> dict[str, np.ndarray]:
    """Keep every 16th column of all positions, all columns of the last positions, and the argmax where it is clear."""
    require(bool((np.diff(attention_mask.astype(int), axis=1) <= 0).all()), "padding stands on the right")
    ends = attention_mask.astype(int).sum(axis=1)
    rounded = (np.rint(logits / LOGITS_STEP) * LOGITS_STEP).astype(np.float32)
    best = np.sort(logits, axis=-1)
    is_clear = (best[..., -1] - best[..., -2] > MIN_ARGMAX_MARGIN) & (attention_mask == 1)
    columns = rounded[..., ::LOGITS_COLUMN_STEP] * attention_mask[..., None].astype(np.float32)
    return {
        "logits_columns": columns,
        "logits_last": np.stack([row[end - LOGITS_LAST : end] for row, end in zip(rounded, ends, strict=True)]),
        "logits_argmax": np.where(is_clear, logits.argmax(-1), -1).astype(np.int16),
    }


def fill_embeddings(
    input_ids: np.ndarray, table: np.ndarray, scenes: np.ndarray, regions: np.ndarray | None, num_ordinary_regions: int
) -> np.ndarray:
    """Put scene and region tokens, in order, in the place of the marks of one row of ids."""
    scenes, regions = iter(scenes), iter(() if regions is None else regions)
    rows, num_seen = [], 0
    for token in input_ids:
        if token < 0:
            rows.extend(next(scenes))
        elif token == 329 and (num_seen := num_seen + 1) > num_ordinary_regions:
            rows.extend(next(regions))
        else:
            rows.append(table[token])
    return np.stack(rows)


def copy_e2e(source: Path, target: Path, bank: FrameBank, table: np.ndarray) -> None:
    cases = json.loads((source / "cases.json").read_text())
    failing = json.loads((source / "failing_calls.json").read_text())
    scenes = {f"{name}{FRAMES_SUFFIX}": bank.add(pixels) for name, pixels in load(source / "scenes.npz").items()}
    for case in cases:
        arrays = load(source / f"{case['name']}.npz")
        require(bool((arrays["attention_mask_out"] == 1).all()), "inference has no padding")
        kept = {name: arrays[name] for name in ("input_ids", "masks", "region_tokens") if name in arrays}
        kept.update({name: arrays[name] for name in arrays if name.startswith("generated_ids")})
        if "region_frames" in arrays:
            kept[f"region_frames{FRAMES_SUFFIX}"] = bank.add(arrays["region_frames"])
        if "scene_tokens" in arrays:
            tokens = scenes.setdefault(f"{case['scene']}_tokens", arrays["scene_tokens"])
            require(np.array_equal(tokens, arrays["scene_tokens"]), "one scene has one set of tokens")
        tokens = scenes.get(f"{case['scene']}_tokens", arrays["inputs_embeds"][:, :0])
        regions, num_ordinary = kept.get("region_tokens"), 0
        if case["name"] == "region_before_video":
            # The published code leaves the first mark alone; the second one gets the first object.
            position = np.flatnonzero(arrays["input_ids"][0] == 329)[1] + tokens.shape[1] - 1
            regions, num_ordinary = arrays["inputs_embeds"][0, position : position + 1], 1
            kept["region_tokens"] = regions
        if regions is not None:
            regions = np.split(regions, np.cumsum(case.get("region_token_nums", [1]))[:-1])
        filled = fill_embeddings(arrays["input_ids"][0], table, tokens, regions, num_ordinary)
        require(np.array_equal(filled, arrays["inputs_embeds"][0]), f"inputs_embeds of {case['name']} is its parts")
        kept.update(shorten_logits(arrays["logits"], arrays["attention_mask_out"]))
        save_arrays(target / f"{case['name']}.npz", kept)
    save_arrays(target / "scenes.npz", scenes)
    dropped = ("arrays", "generated_ids", "generated_ids_no_penalty", "merge_threshold_gaps", "response_text")
    save_json(target / "cases.json", [without(case, *dropped) for case in cases])
    save_json(target / "failing_calls.json", failing)


def copy_train(source: Path, target: Path, bank: FrameBank, table: np.ndarray) -> None:
    record = json.loads((source / "batches.json").read_text())
    samples = {}
    for name, array in load(source / "samples.npz").items():
        index, kind = int(name[len("sample")]), name.split("/")[1]
        is_dummy = index == 2 and kind in ("scene", "region_frames", "masks")  # the zero picture of a text-only sample
        if kind in ("scene", "region_frames") and not is_dummy:
            samples[f"{name}{FRAMES_SUFFIX}"] = bank.add(array)
        elif kind == "masks" and not is_dummy:
            samples[name] = array
    save_arrays(target / "samples.npz", samples)
    for batch in record["batches"]:
        arrays = load(source / f"{batch['name']}.npz")
        kept = {name: arrays[name] for name in ("input_ids", "labels", "labels_out", "attention_mask_out")}
        kept.update({name: arrays[name] for name in ("scene_tokens", "region_tokens", "loss")})
        kept.update({name: arrays[name] for name in arrays if name.startswith("grad/")})
        if "grad/lm_head.weight" in kept:
            kept["grad/lm_head.weight"] = kept["grad/lm_head.weight"][::LM_HEAD_GRAD_STEP]
        kept.update(shorten_logits(arrays["logits"], arrays["attention_mask_out"]))
        check_train_embeddings(arrays, batch, table)
        save_arrays(target / f"{batch['name']}.npz", kept)
    names = list(record["batches"][0]["grad_norms"])
    dropped_batch = ("arrays", "grad_norms", "merge_threshold_gaps", "vision_tower_has_grad")
    dropped_sample = ("keys", "supervised_positions", "frame_shape", "scene_shape")
    content = {
        "samples": [without(sample, *dropped_sample) for sample in record["samples"]],
        "batches": [without(batch, *dropped_batch) for batch in record["batches"]],
        "grad_norms": {name: [batch["grad_norms"][name] for batch in record["batches"]] for name in names},
        "optimisation": record["optimisation"],
    }
    save_json(target / "batches.json", content, compress=True)
    save_json(target / "labels.json", json.loads((source / "labels.json").read_text()), compress=True)


def copy_bench(source: Path, target: Path) -> None:
    """Keep the prompts, frames and masks that the published benchmark code made of the benchmark records."""
    save_json(target / "inference.json", json.loads((source / "inference.json").read_text()), compress=True)
    arrays = load(source / "dataset_items.npz")
    save_arrays(target / "dataset_items.npz", {name: arrays[name] for name in arrays if name.endswith("/masks")})


def copy_metrics(source: Path, target: Path) -> None:
    """Keep what the published scorers made of made-up answers, in one file; the results repeat the answers."""
    names = ("bench_q_results", "bench_d_results")
    content = {name: json.loads((source / f"{name}.json").read_text()) for name in names}
    save_json(target / "scorers.json", content, compress=True)


def check_train_embeddings(arrays: dict[str, np.ndarray], batch: dict[str, Any], table: np.ndarray) -> None:
    """Check that `inputs_embeds` holds nothing but its parts; region tokens are handed out over the whole batch."""
    regions = iter(np.split(arrays["region_tokens"], np.cumsum(batch["region_token_nums"])[:-1]))
    first_region = np.cumsum([0] + [len(sample) for sample in batch["ann_indices"]])
    all_regions = list(regions)
    used = 0
    for row, input_ids in enumerate(arrays["input_ids"]):
        num_marks = int((input_ids == 329).sum())
        # Dummy regions belong to samples without marks; a surplus region slips into the next sample (batch_6_1).
        start = used if batch["name"] == "batch_6_1" else first_region[row]
        length = int(arrays["attention_mask_out"][row].sum())
        scenes = arrays["scene_tokens"][row : row + 1]
        filled = fill_embeddings(input_ids, table, scenes, all_regions[start : start + num_marks], 0)[:length]
        used = start + num_marks
        same = np.array_equal(filled, arrays["inputs_embeds"][row, :length])
        require(same, f"inputs_embeds of {batch['name']}, row {row}, is its parts")


def total_bytes(folder: Path) -> int:
    """Count the bytes that a folder takes on a disk."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // BLOCK_BYTES) * BLOCK_BYTES for size in sizes)


def main(source: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    bank = FrameBank()
    for name in ("videorefer-tiny", "siglip-tiny-patch14-56"):
        copy_checkpoint(source / name, target / name)
    weights = load_file(source / "videorefer-tiny" / "model.safetensors")
    table = weights["model.embed_tokens.weight"].numpy()
    shutil.copytree(source / "media", target / "media")
    for name in ("train", "bench_d", "bench_q"):
        save_json(target / f"annotations/{name}.json", json.loads((source / f"annotations/{name}.json").read_text()))
    copy_bench(source / "bench", target / "bench")
    copy_preprocess(source / "preprocess", target / "preprocess", bank)
    copy_modules(source / "modules", target / "modules", weights)
    copy_e2e(source / "e2e", target / "e2e", bank, table)
    copy_train(source / "train", target / "train", bank, table)
    copy_metrics(source / "metrics", target / "metrics")
    save_arrays(target / "frames.npz", {"levels": bank.levels()})
    total = total_bytes(target)
    require(total <= MAX_TOTAL_BYTES, f"{total} bytes on the disk are at most {MAX_TOTAL_BYTES}")
    print(f"{target}: {total} bytes on the disk")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else REFERENCE)
