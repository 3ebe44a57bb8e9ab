"""How long it takes to get scene and region frames out of a video, against decoding it from front to back.

    python benchmarks/preprocess.py            # all files, about 5 minutes
    python benchmarks/preprocess.py --quick    # small files, some seconds

Reference: what the published code does, with the same decoder and the same resizing. Scene frames and region frames are
fetched in two passes; each decodes one frame after the other up to the last wanted one, and converts and resizes the
wanted frames only. Ours: one pass over the union of both, decoding from the nearest key frames. Both use one thread, and
the tensors of both must be equal.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL
import torch
from PIL import Image, ImageFilter

from transformers_videorefer.models.videorefer.video_processing_videorefer import VideoReferVideoProcessor
from transformers_videorefer.video.opening import open_video
from transformers_videorefer.video.sampling import time_range_indices, uniform_indices


RESULTS = Path(__file__).parent / "results" / "preprocess.json"
FPS = 30
NUM_SCENE_FRAMES = 16
Paths = tuple[torch.Tensor, torch.Tensor, int]


def moving_scene(num_frames: int, height: int, width: int) -> Iterator[np.ndarray]:
    """Yield uint8 RGB frames: a camera that wanders over a textured ground with objects moving on it."""
    chance = np.random.default_rng(0)
    ground = np.zeros((2 * height, 2 * width, 3), np.float32)
    for cell in (256, 64, 16, 4):
        noise = chance.integers(0, 256, (2 * height // cell + 1, 2 * width // cell + 1, 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize((2 * width, 2 * height), Image.Resampling.BICUBIC)
        ground += np.asarray(layer, np.float32) * (0.1 if cell == 4 else 0.3)
    ground = ground.clip(0, 255).astype(np.uint8)
    side = height // 5
    objects = [
        np.asarray(
            Image.fromarray(chance.integers(0, 256, (side, side, 3), dtype=np.uint8)).filter(
                ImageFilter.GaussianBlur(3)
            )
        )
        for _ in range(4)
    ]
    for number in range(num_frames):
        seconds = number / FPS
        top = int((np.sin(0.7 * seconds) + 1) / 2 * height)
        left = int((np.sin(0.43 * seconds + 1) + 1) / 2 * width)
        frame = ground[top : top + height, left : left + width].copy()
        for place, thing in enumerate(objects):
            y = int((np.sin(1.3 * seconds + place) + 1) / 2 * (height - side))
            x = int((np.cos(0.9 * seconds + 2 * place) + 1) / 2 * (width - side))
            frame[y : y + side, x : x + side] = thing
        yield frame


def write_file(path: Path, num_frames: int, height: int, width: int, gop: int) -> Path:
    """Encode the scene as H.264 with B-frames and a key frame every `gop` frames."""
    options = {"preset": "veryfast", "crf": "23"}
    options["x264-params"] = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes=3:b-pyramid=normal"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in moving_scene(num_frames, height, width):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def repeat_file(source: Path, target: Path, times: int) -> Path:
    """Copy the packets of a file several times into one longer file, without encoding them again."""
    with av.open(str(target), "w") as writer:
        stream, offset = None, 0
        for _ in range(times):
            with av.open(str(source)) as reader:
                video = reader.streams.video[0]
                stream = stream or writer.add_stream_from_template(video)
                for packet in reader.demux(video):
                    if packet.dts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    packet.stream = stream
                    writer.mux(packet)
                offset += video.duration
    return target


def read_front_to_back(path: Path, wanted: list[int], processor: VideoReferVideoProcessor) -> tuple[torch.Tensor, int]:
    """Decode up to the last wanted frame; convert and resize the wanted ones."""
    resized: dict[int, np.ndarray] = {}
    last, num_decoded = max(wanted), 0
    needed = set(wanted)
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for index, frame in enumerate(container.decode(video=0)):
            num_decoded += 1
            if index in needed:
                resized[index] = processor.preprocess_frame(frame.to_ndarray(format="rgb24"))
            if index == last:
                break
    return processor.normalize_frames([resized[index] for index in wanted]), num_decoded


def run_reference(path: Path, scene: list[int], regions: list[int], processor: VideoReferVideoProcessor) -> Paths:
    """Scene frames and region frames, each in a pass of its own."""
    scene_pixels, num_scene = read_front_to_back(path, scene, processor)
    region_pixels, num_regions = read_front_to_back(path, regions, processor)
    return scene_pixels, region_pixels, num_scene + num_regions


def run_ours(path: Path, scene: list[int], regions: list[int], processor: VideoReferVideoProcessor) -> Paths:
    """All frames in one pass over their union."""
    with open_video(path) as reader:
        resized = {index: processor.preprocess_frame(frame) for index, frame in reader.read([*scene, *regions])}
        num_decoded = reader.num_decoded_frames
    scene_pixels = processor.normalize_frames([resized[index] for index in scene])
    return scene_pixels, processor.normalize_frames([resized[index] for index in regions]), num_decoded


def measure(runs: tuple[Callable[..., Paths], ...], repeats: int, *arguments: Any) -> list[tuple[float, float, Paths]]:
    """Run all ways in turn, several times; the best wall time and processor time of each, and what it gave."""
    best = [(float("inf"), float("inf"))] * len(runs)
    outcomes: list[Any] = [None] * len(runs)
    for _ in range(repeats):
        for place, run in enumerate(runs):
            wall, cpu = time.perf_counter(), time.process_time()
            outcomes[place] = run(*arguments)
            spent = time.perf_counter() - wall, time.process_time() - cpu
            best[place] = min(best[place][0], spent[0]), min(best[place][1], spent[1])
    return [(*times, outcome) for times, outcome in zip(best, outcomes, strict=True)]


def compare(
    name: str, path: Path, num_region_frames: int, seconds: tuple[float, float] | None, repeats: int
) -> dict[str, Any]:
    """Measure both ways on one file."""
    processor = VideoReferVideoProcessor()
    with open_video(path) as reader:
        num_frames, fps = reader.num_frames, reader.fps
        height, width = next(reader.read([0]))[1].shape[:2]
    first, last = time_range_indices(num_frames, fps, *(seconds or (None, None)))
    scene = [first + index for index in uniform_indices(last - first + 1, NUM_SCENE_FRAMES)]
    regions = [first + index for index in uniform_indices(last - first + 1, num_region_frames)]
    (reference, reference_cpu, expected), (ours, our_cpu, given) = measure(
        (run_reference, run_ours), repeats, path, scene, regions, processor
    )
    if not (torch.equal(given[0], expected[0]) and torch.equal(given[1], expected[1])):
        raise RuntimeError(f"{name}: the two ways gave different pixels.")
    result = {
        "name": name,
        "video": {"height": height, "width": width, "num_frames": num_frames, "fps": fps},
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "scene_frames": len(scene),
        "region_frames": len(regions),
        "distinct_frames": len({*scene, *regions}),
        "from_second": seconds[0] if seconds else 0,
        "to_second": seconds[1] if seconds else round(num_frames / fps),
        "reference_seconds": round(reference, 3),
        "our_seconds": round(ours, 3),
        "ratio": round(reference / ours, 2),
        "reference_cpu_seconds": round(reference_cpu, 3),
        "our_cpu_seconds": round(our_cpu, 3),
        "cpu_ratio": round(reference_cpu / our_cpu, 2),
        "reference_share_decoded": round(expected[2] / num_frames, 3),
        "our_share_decoded": round(given[2] / num_frames, 3),
    }
    print(
        f"{name:<34} {result['reference_seconds']:>9.3f} s {result['our_seconds']:>9.3f} s {result['ratio']:>7.2f} x "
        f"{result['cpu_ratio']:>7.2f} x   "
        f"decoded {result['reference_share_decoded']:>6.1%} / {result['our_share_decoded']:.1%}"
    )
    return result


def describe_machine() -> dict[str, Any]:
    """What the figures depend on; no names of hosts or users."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(models) or None,
        "system": platform.system(),
        "python": platform.python_version(),
        "av": av.__version__,
        "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
        "pillow": PIL.__version__,
        "numpy": np.__version__,
        "torch": torch.__version__,
    }


def run_all(folder: Path, is_quick: bool, repeats: int) -> list[dict[str, Any]]:
    """Write the files and measure on each."""
    height, width, seconds, times = (360, 640, 12, 3) if is_quick else (720, 1280, 60, 10)
    print(
        f"{'':<34} {'reference':>11} {'ours':>11} {'ratio':>9} {'cpu ratio':>9}   share of frames decoded (reference / ours)"
    )
    results = []
    files = {}
    for gop in (12, 30, 250):
        files[gop] = write_file(folder / f"gop{gop}.mp4", seconds * FPS, height, width, gop)
        results.append(compare(f"{seconds} s, GOP {gop}, 16 + 32 frames", files[gop], 32, None, repeats))
    total = seconds * times
    long = repeat_file(files[30], folder / "long.mp4", times)
    for share, place in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        start = share * (total - 5)
        name = f"{total} s, GOP 30, 16 + 8 in 5 s, {place}"
        results.append(compare(name, long, 8, (start, start + 5), 1 if share else repeats))
    return results


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="small files; no results are written unless --output is given"
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the best counts")
    parser.add_argument("--output", type=Path, help=f"JSON file for the results (default: results/{RESULTS.name})")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results = run_all(Path(folder), arguments.quick, arguments.repeats)
    output = arguments.output or (None if arguments.quick else RESULTS)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        report = {"machine": describe_machine(), "threads": 1, "repeats": arguments.repeats, "results": results}
        output.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written: {output}")


if __name__ == "__main__":
    main()
