"""Prefill with several objects over many frames: one tower pass per frame against the published way.

    python benchmarks/forward.py --output benchmarks/results/forward.json

Reference, in the same run and on the same weights: the distinct frames of all regions pass the vision tower beside the
scene frames, also those that are scene frames, and pooling and merging loop over objects and pairs in Python, as the
published implementation does. Both must give the same object tokens, or the run stops.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers

from transformers_videorefer import VideoReferConfig, VideoReferForConditionalGeneration


SIZES = {
    # A tower of the published shape and a language model in its proportion, small enough for two CPU cores.
    "small": {
        "vision_config": {
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 13,
            "num_attention_heads": 6,
            "image_size": 224,
            "patch_size": 14,
        },
        "text_config": {
            "vocab_size": 2048,
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
        },
        "region_token_id": 2048,
        "video_token_id": 2049,
        "image_token_id": 2050,
    },
    "published": {},
}


def make_inputs(config: VideoReferConfig, num_objects: int, num_region_frames: int) -> dict[str, torch.Tensor]:
    """Return one sample: 16 scene frames and objects that share their frames, half of them scene frames."""
    torch.manual_seed(0)
    size = config.vision_config.image_size
    num_shared = min(num_region_frames // 2, config.num_frames)
    num_extra = num_region_frames - num_shared
    frame_index = torch.cat([torch.arange(num_shared), torch.arange(num_extra) + config.num_frames])
    num_tokens = min(num_region_frames, config.num_region_tokens)
    steps = config.num_frames // config.connector_downsample[0]
    num_scene_tokens = steps * (config.grid_size // 2) ** 2
    ids = [5] * 20 + [config.video_token_id] * num_scene_tokens + [6] * 10
    ids += ([config.region_token_id] * num_tokens + [7]) * num_objects + [8] * 10
    return {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        "pixel_values_videos": torch.rand(1, config.num_frames, 3, size, size) * 2 - 1,
        "region_pixel_values": torch.rand(num_extra, 3, size, size) * 2 - 1,
        "region_masks": torch.rand(num_objects * num_region_frames, config.grid_size**2) > 0.7,
        "region_frame_index": frame_index.repeat(num_objects),
        "region_lengths": torch.full((num_objects,), num_region_frames),
        "region_num_tokens": torch.full((num_objects,), num_tokens),
        "sample_counts": torch.tensor([[1, 0, num_extra, num_objects]]),
    }


def merge_by_loop(tokens: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Join the most similar neighbours, one Python comparison per pair."""
    if len(tokens) <= num_tokens:
        return tokens
    similarity = F.cosine_similarity(tokens[:-1], tokens[1:], dim=-1)
    threshold = similarity.topk(len(tokens) - num_tokens).values[-1]
    runs = [[0]]
    for pair in range(len(similarity)):
        if similarity[pair] >= threshold:
            runs[-1].append(pair + 1)
        else:
            runs.append([pair + 1])
    return torch.stack([tokens[run].mean(dim=0) for run in runs])


def regions_by_loop(
    model: VideoReferForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Encode the distinct frames of all regions anew, then the regions object by object."""
    pixels = torch.cat([inputs["pixel_values_videos"][0], inputs["region_pixel_values"]])
    encoder, tokens, row = model.model.region_encoder, [], 0
    frames, place_of_row = inputs["region_frame_index"].unique(return_inverse=True)
    encoded = model.model.vision_tower(pixels[frames].to(model.dtype), return_dict=True).last_hidden_state
    for length, num_tokens in zip(
        inputs["region_lengths"].tolist(), inputs["region_num_tokens"].tolist(), strict=True
    ):
        rows = slice(row, row + length)
        features = encoded[place_of_row[rows]]
        pooled = [
            frame[mask].float().mean(dim=0) for frame, mask in zip(features, inputs["region_masks"][rows], strict=True)
        ]
        merged = merge_by_loop(torch.stack(pooled), num_tokens).to(features.dtype)
        tokens.append(encoder.linear_2(encoder.activation(encoder.linear_1(merged))))
        row += length
    return tuple(tokens)


def prefill_by_loop(model: VideoReferForConditionalGeneration, inputs: dict[str, torch.Tensor]) -> None:
    """Run one prefill the published way."""
    outputs = {"video": model.get_video_features(inputs["pixel_values_videos"])}
    outputs["region"] = transformers.modeling_outputs.BaseModelOutputWithPooling(
        pooler_output=regions_by_loop(model, inputs)
    )
    text = {name: inputs[name] for name in ("input_ids", "attention_mask", "sample_counts")}
    model(**text, mm_encoder_outputs=outputs, logits_to_keep=1)


def measure(run: Callable[[], None], repeats: int) -> list[float]:
    """Return wall-clock seconds of `repeats` runs after one warm-up."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


@torch.no_grad()
def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--frames", type=int, default=32, help="frames per object")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    with device:
        model = VideoReferForConditionalGeneration(VideoReferConfig(**SIZES[options.size])).to(dtype).eval()
    inputs = {
        name: value.to(device) for name, value in make_inputs(model.config, options.objects, options.frames).items()
    }
    ours = model.get_region_features(
        **{name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
    ).pooler_output
    tolerance = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 5e-2, "rtol": 5e-2}
    torch.testing.assert_close(torch.cat(ours), torch.cat(regions_by_loop(model, inputs)), **tolerance)
    reference_seconds, our_seconds = [], []
    for _ in range(options.repeats):  # alternating, so that a busy machine slows both
        reference_seconds += measure(lambda: prefill_by_loop(model, inputs), 1)
        our_seconds += measure(lambda: model(**inputs, logits_to_keep=1), 1)
    reference, found = statistics.median(reference_seconds), statistics.median(our_seconds)
    result = {
        "benchmark": "forward",
        "question": f"prefill: 16 scene frames, {options.objects} objects x {options.frames} frames",
        "size": options.size,
        "num_parameters": model.num_parameters(),
        "reference_seconds": round(reference, 4),
        "seconds": round(found, 4),
        "ratio": round(reference / found, 2),
        "tower_frames": {
            "reference": 16 + options.frames,
            "ours": 16 + len(inputs["region_pixel_values"]),
        },
        "machine": {
            "device": torch.cuda.get_device_name()
            if device.type == "cuda"
            else platform.processor() or platform.machine(),
            "dtype": str(dtype).removeprefix("torch."),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
