"""Rows to a training step: our collator and trainer against a plain loop in the published way.

    python benchmarks/train_step.py             # about 3 CPU minutes; writes benchmarks/results/train_step.json
    python benchmarks/train_step.py --quick     # a small file and model, under a minute, writes nothing

Reference, on weights of its own that start equal: every row opens its video twice, once for scene and once for region
frames, each time decoding one frame after the other up to the last wanted one; masks are resized at full size; the
region frames of every row pass the vision tower once more beside the scene frames; pooling and merging loop over objects
and frames in Python. Ids and labels, which are the same for both, it gets for nothing. Both use one thread and make
the same optimizer steps; their losses must agree in every one of them, or the run stops. Samples per second and ratio
are those of processor time, which other work on the machine disturbs little; wall-clock times stand beside them.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import torch.nn.functional as F
import transformers
from forward import merge_by_loop
from preprocess import read_front_to_back, write_file
from transformers import AutoTokenizer
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from transformers_videorefer import (
    VideoReferConfig,
    VideoReferForConditionalGeneration,
    VideoReferProcessor,
    VideoReferSFTConfig,
    VideoReferSFTTrainer,
    VideoReferVideoProcessor,
)
from transformers_videorefer.bundled import TINY_CHECKPOINT
from transformers_videorefer.data.tables.features import conversation_features
from transformers_videorefer.regions.pixels import fill_box
from transformers_videorefer.regions.rle import decode_rle, encode_rle
from transformers_videorefer.video.sampling import uniform_indices


RESULTS = Path(__file__).parent / "results" / "train_step.json"
NUM_SCENE_FRAMES, NUM_OBJECTS = 16, 3
ROWS_PER_CLIP = 2


@dataclass(frozen=True)
class Scale:
    """Sizes of a run: height and width of the files, their frames, and the model."""

    height: int
    width: int
    num_frames: tuple[int, ...]
    num_region_frames: int
    image_size: int
    vision_size: int
    text_size: int
    num_text_layers: int


# Tower and language model share the work about as in the published model: some two fifths of it are the tower's.
FULL = Scale(720, 1280, (180, 150), 32, image_size=224, vision_size=192, text_size=384, num_text_layers=6)
QUICK = Scale(120, 160, (60, 50), 32, image_size=56, vision_size=32, text_size=64, num_text_layers=2)


def make_model(scale: Scale) -> VideoReferForConditionalGeneration:
    """Return a model with random weights for the tokenizer of the miniature."""
    torch.manual_seed(0)
    ids = json.loads((TINY_CHECKPOINT / "config.json").read_text())
    vision = {
        "hidden_size": scale.vision_size,
        "intermediate_size": 4 * scale.vision_size,
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "image_size": scale.image_size,
        "patch_size": 14,
    }
    text = {
        "vocab_size": ids["text_config"]["vocab_size"],
        "hidden_size": scale.text_size,
        "intermediate_size": 4 * scale.text_size,
        "num_hidden_layers": scale.num_text_layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    }
    placeholders = {f"{kind}_token_id": ids[f"{kind}_token_id"] for kind in ("region", "video", "image")}
    return VideoReferForConditionalGeneration(
        VideoReferConfig(vision_config=vision, text_config=text, num_frames=NUM_SCENE_FRAMES, **placeholders)
    )


def make_processor(scale: Scale) -> VideoReferProcessor:
    """Return the processor of that model."""
    size = {"height": scale.image_size, "width": scale.image_size}
    return VideoReferProcessor(
        SiglipImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        AutoTokenizer.from_pretrained(TINY_CHECKPOINT),
        VideoReferVideoProcessor(size=size, num_frames=NUM_SCENE_FRAMES),
        num_image_frames=NUM_SCENE_FRAMES,
    )


def clip_name(clip: int) -> str:
    """Name the file of a clip."""
    return f"clip{clip}.mp4"


def make_rows(folder: Path, scale: Scale) -> list[dict[str, Any]]:
    """Write the clips and return two rows for each, about three objects that move through the same annotated frames."""
    rows = []
    for clip, num_frames in enumerate(scale.num_frames):
        path = write_file(folder / clip_name(clip), num_frames, scale.height, scale.width, gop=30)
        annotated = uniform_indices(num_frames, scale.num_region_frames)
        for number in range(ROWS_PER_CLIP):
            regions = [object_region(scale, annotated, shift=number * NUM_OBJECTS + i) for i in range(NUM_OBJECTS)]
            question = "<video>\nWhat do " + ", ".join(["<region>"] * NUM_OBJECTS) + " do?"
            messages = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": "The first moves to the left, and the others stand still. " * 2},
            ]
            blank = {"image": None, "edit_list": "apply", "task": "qa", "source": "benchmark"}
            rows.append(
                {"id": f"{clip}-{number}", "video": path.name, "messages": messages, "regions": regions, **blank}
            )
    return rows


def object_region(scale: Scale, annotated: list[int], shift: int) -> dict[str, Any]:
    """Return a box that wanders over the picture, as a run-length mask in each annotated frame."""
    height, width = scale.height // 3, scale.width // 4
    frames = []
    for step, frame_index in enumerate(annotated):
        top = (step * 5 + shift * 37) % (scale.height - height)
        left = (step * 11 + shift * 71) % (scale.width - width)
        mask = fill_box([left, top, left + width, top + height], scale.height, scale.width)
        frames.append({"frame_index": frame_index, "rle": encode_rle(mask)})
    return {"media": 0, "frames": frames}


class PublishedWay:
    """The reference: one row after the other from file to features, then the language model on all of them.

    Args:
        model ([`VideoReferForConditionalGeneration`]): The model.
        processor ([`VideoReferProcessor`]): Resizes and normalises frames.
        optimizer (`torch.optim.Optimizer`): The optimizer.
        folder (`Path`): Where the clips are.
        num_frames (`dict[str, int]`): Frames of each clip.
        text (`dict[str, torch.Tensor]`): Ids, attention mask and labels of the batch.
    """

    def __init__(
        self,
        model: VideoReferForConditionalGeneration,
        processor: VideoReferProcessor,
        optimizer: torch.optim.Optimizer,
        folder: Path,
        num_frames: dict[str, int],
        text: dict[str, torch.Tensor],
    ):
        self.model, self.processor, self.optimizer = model, processor, optimizer
        self.folder, self.num_frames, self.text = folder, num_frames, text

    def collate(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Read frames and masks of each row."""
        return [self._read_row(row) for row in rows]

    def _read_row(self, row: dict[str, Any]) -> dict[str, Any]:
        path, video_processor = self.folder / row["video"], self.processor.video_processor
        scene_frames = uniform_indices(self.num_frames[row["video"]], NUM_SCENE_FRAMES)
        # The row's objects share one set of region frames, as published.
        region_frames = sorted({entry["frame_index"] for region in row["regions"] for entry in region["frames"]})
        scene, _ = read_front_to_back(path, scene_frames, video_processor)
        frames, _ = read_front_to_back(path, region_frames, video_processor)
        masks = [
            [torch.from_numpy(decode_rle(entry["rle"])).float() for entry in region["frames"]]
            for region in row["regions"]
        ]
        places = [
            [region_frames.index(entry["frame_index"]) for entry in region["frames"]] for region in row["regions"]
        ]
        return {"scene": scene, "frames": frames, "masks": masks, "places": places}

    def _region_tokens(self, row: dict[str, Any]) -> list[torch.Tensor]:
        """Encode the region frames of a row, then pool and merge object by object."""
        features = self.model.model.vision_tower(row["frames"], return_dict=True).last_hidden_state
        encoder, grid, tokens = self.model.model.region_encoder, self.processor.grid_size, []
        for masks, places in zip(row["masks"], row["places"], strict=True):
            pooled = []
            for mask, place in zip(masks, places, strict=True):
                cells = F.interpolate(mask[None, None], size=(grid, grid), mode="bilinear", align_corners=False) > 0
                pooled.append(features[place][cells.flatten()].mean(dim=0))
            merged = merge_by_loop(torch.stack(pooled), self.processor.num_region_tokens)
            tokens.append(encoder.linear_2(encoder.activation(encoder.linear_1(merged))))
        return tokens

    def step(self, batch: list[dict[str, Any]]) -> float:
        """Make a training step and return the loss before it."""
        output = transformers.modeling_outputs.BaseModelOutputWithPooling
        media = {"video": self.model.get_video_features(torch.stack([row["scene"] for row in batch]))}
        tokens = [token for row in batch for token in self._region_tokens(row)]
        media["region"] = output(pooler_output=tuple(tokens))
        counts = torch.tensor([[1, 0, 0, len(row["masks"])] for row in batch])
        loss = self.model(**self.text, sample_counts=counts, mm_encoder_outputs=media).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


class OurWay:
    """What the trainer does for a batch: its collator, its training step, its optimizer.

    Args:
        trainer ([`VideoReferSFTTrainer`]): The trainer.
    """

    def __init__(self, trainer: VideoReferSFTTrainer):
        self.trainer, self.optimizer = trainer, trainer.create_optimizer()
        trainer.model.train()

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch."""
        return self.trainer.data_collator(rows)

    def step(self, batch: dict[str, Any]) -> float:
        """Make a training step and return the loss before it."""
        num_items = (batch["labels"][:, 1:] != -100).sum()  # as the trainer counts them over an optimizer step
        loss = self.trainer.training_step(self.trainer.model, batch, num_items)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def make_ways(folder: Path, rows: list[dict[str, Any]], scale: Scale) -> tuple[PublishedWay, OurWay]:
    """Set both ways up on equal weights."""
    processor = make_processor(scale)
    args = VideoReferSFTConfig(
        output_dir=str(folder / "run"),
        data_root=str(folder),
        per_device_train_batch_size=len(rows),
        multi_frame_ratio=1.0,
        learning_rate=1e-4,
        use_cpu=True,
        bf16=False,
        report_to=[],
        activation_checkpointing=False,
    )
    trainer = VideoReferSFTTrainer(
        make_model(scale),
        args,
        train_dataset=datasets.Dataset.from_list(rows, features=conversation_features()),
        processing_class=processor,
    )
    batch = trainer.data_collator(rows)
    text = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    model = make_model(scale).train()
    model.model.vision_tower.requires_grad_(False)
    learning = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=args.learning_rate, weight_decay=0.0, fused=True)
    num_frames = {clip_name(clip): number for clip, number in enumerate(scale.num_frames)}
    return PublishedWay(model, processor, optimizer, folder, num_frames, text), OurWay(trainer)


@dataclass(frozen=True)
class Run:
    """Wall-clock and processor seconds of making a batch and of the step with it, and the loss."""

    batch: float
    step: float
    cpu: float
    loss: float

    @property
    def seconds(self) -> float:
        """`float`: Wall-clock seconds of both."""
        return self.batch + self.step


def run_once(way: PublishedWay | OurWay, rows: list[dict[str, Any]]) -> Run:
    """Make a batch and a step."""
    start, cpu = time.perf_counter(), time.process_time()
    batch = way.collate(rows)
    middle = time.perf_counter()
    loss = way.step(batch)
    return Run(middle - start, time.perf_counter() - middle, time.process_time() - cpu, loss)


def measure(ways: tuple[PublishedWay, OurWay], rows: list[dict[str, Any]], repeats: int) -> list[tuple[Run, ...]]:
    """Run both ways in turn, so that a busy machine slows both, after one run of each for warming up."""
    pairs = []
    for _ in range(repeats + 1):
        reference, ours = (run_once(way, rows) for way in ways)
        torch.testing.assert_close(ours.loss, reference.loss, atol=1e-3, rtol=1e-3)
        pairs.append((reference, ours))
    return list(zip(*pairs[1:], strict=True))


def describe(runs: tuple[Run, ...], num_rows: int) -> dict[str, Any]:
    """Summarise the runs of one way."""
    cpu_seconds = statistics.median(run.cpu for run in runs)
    return {
        "samples_per_cpu_second": round(num_rows / cpu_seconds, 4),
        "cpu_seconds": round(cpu_seconds, 3),
        "seconds": round(statistics.median(run.seconds for run in runs), 3),
        "seconds_batch": round(statistics.median(run.batch for run in runs), 3),
        "seconds_step": round(statistics.median(run.step for run in runs), 3),
        "losses": [round(run.loss, 5) for run in runs],
    }


def count_tower_frames(rows: list[dict[str, Any]], way: OurWay) -> dict[str, int]:
    """Count the frames that pass the vision tower in a step."""
    batch = way.collate(rows)
    reference = sum(NUM_SCENE_FRAMES + len(row["regions"][0]["frames"]) for row in rows)
    num_scene_frames = NUM_SCENE_FRAMES * len(batch["pixel_values_videos"])
    return {"reference": reference, "ours": num_scene_frames + len(batch.get("region_pixel_values", ()))}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small file and model; writes nothing")
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # libraries with threads of their own stay on one core too
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    scale = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = make_rows(folder, scale)
        ways = make_ways(folder, rows, scale)
        reference, ours = measure(ways, rows, options.repeats)
        pairs = list(zip(reference, ours, strict=True))
        ratios = [theirs.cpu / mine.cpu for theirs, mine in pairs]
        wall_ratios = [theirs.seconds / mine.seconds for theirs, mine in pairs]
        result = {
            "benchmark": "train_step",
            "question": f"{len(rows)} rows on {len(scale.num_frames)} clips of {scale.width}x{scale.height}: "
            f"{NUM_SCENE_FRAMES} scene frames, {NUM_OBJECTS} objects x {scale.num_region_frames} frames",
            "num_parameters": ways[1].trainer.model.num_parameters(),
            "repeats": options.repeats,
            "reference": describe(reference, len(rows)),
            "ours": describe(ours, len(rows)),
            "ratio": round(statistics.median(ratios), 2),
            "ratios": [round(ratio, 2) for ratio in ratios],
            "wall_ratios": [round(ratio, 2) for ratio in wall_ratios],
            "tower_frames": count_tower_frames(rows, ways[1]),
            "machine": {
                "device": platform.processor() or platform.machine(),
                "cores_used": 1,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
        }
    text = json.dumps(result, indent=2)
    print(text)
    if not options.quick:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
