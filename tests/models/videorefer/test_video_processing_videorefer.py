"""The video processor against the recorded pixels of the published pipeline."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import load_arrays, load_json
from huggingface_hub.errors import StrictDataclassFieldValidationError
from PIL import Image
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.video_utils import VideoMetadata
from video_files import decode_all, hide_first_frames, moving_texture, truncate, write_video

from transformers_videorefer.models.videorefer.configuration_videorefer import VideoReferConfig
from transformers_videorefer.models.videorefer.video_processing_videorefer import VideoReferVideoProcessor
from transformers_videorefer.video.opening import open_video


SIDE = 56
FOLDER_FPS = 3  # what the published code assumes for folders
CASES = {case["name"]: case for case in load_json("preprocess/process_video.json")}
# Left out here: `pad` and fps mode (not offered), failed calls, pictures, and in-memory frames, which the published
# code neither samples nor repeats (what we do with them is tested below).
SCENE_CASES = [
    name
    for name, case in CASES.items()
    if case["ok"] and case["source"]["kind"] == "path" and case["kwargs"].get("aspect_ratio") != "pad"
    if case["kwargs"].get("num_frames", 8) is not None and name not in ("gif_default", "long_40_gt_max32")
]


@pytest.fixture
def processor() -> VideoReferVideoProcessor:
    return VideoReferVideoProcessor(size={"height": SIDE, "width": SIDE}, num_frames=8)


def published_options(case: dict[str, Any]) -> dict[str, Any]:
    names = {"num_frames": "num_frames", "s": "start_seconds", "e": "end_seconds"}
    return {names[name]: value for name, value in case["kwargs"].items() if name in names}


def to_pixels(frames: np.ndarray) -> np.ndarray:
    """Resize and normalise by hand: PIL bicubic, then values from -1 to 1, channels first."""
    resized = [np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for frame in frames]
    return np.stack(resized).transpose(0, 3, 1, 2) / 127.5 - 1


@pytest.mark.parametrize("name", SCENE_CASES)
def test_scene_pixels_equal_the_published_ones(
    processor: VideoReferVideoProcessor, reference: Path, name: str
) -> None:
    case = CASES[name]
    path = reference / case["source"]["path"]
    fps = FOLDER_FPS if path.is_dir() else None
    features = processor(path, fps=fps, return_metadata=True, **published_options(case))
    expected = load_arrays("preprocess/process_video.npz")[f"{name}/scene"]
    assert features["pixel_values_videos"].shape == (1, *expected.shape)
    assert features["pixel_values_videos"].dtype == torch.float32
    assert np.abs(features["pixel_values_videos"][0].numpy() - expected).max() <= 1e-5
    if case["decoder_requests"]:
        assert features["video_metadata"][0].frames_indices == case["decoder_requests"][0]


def test_cases_cover_files_folders_and_gifs() -> None:
    assert len(SCENE_CASES) == 18
    assert {"clip_s_gt_e", "short_16", "gif_4", "dir_s_e"} <= set(SCENE_CASES)


@pytest.mark.parametrize("name", ["clip_cfgframes_regionk", "clip_region_duplicates", "long_16_region2"])
def test_region_pixels_equal_the_published_ones(
    processor: VideoReferVideoProcessor, reference: Path, name: str
) -> None:
    case = CASES[name]
    wanted = case["kwargs"]["frame_idx"]
    with open_video(reference / case["source"]["path"]) as reader:
        frames = {index: processor.preprocess_frame(picture) for index, picture in reader.read(wanted)}
    pixels = processor.normalize_frames([frames[index] for index in wanted])
    expected = load_arrays("preprocess/process_video.npz")[f"{name}/region"]
    assert np.abs(pixels.numpy() - expected).max() <= 1e-5


def test_more_than_32_frames_are_allowed(processor: VideoReferVideoProcessor, reference: Path) -> None:
    case = CASES["long_40_gt_max32"]
    features = processor(reference / case["source"]["path"], num_frames=40, return_metadata=True)
    assert features["video_metadata"][0].frames_indices == case["sampled_positions"][0]
    # The published code cuts the same 40 frames to 32.
    expected = load_arrays("preprocess/process_video.npz")["long_40_gt_max32/scene"]
    assert np.abs(features["pixel_values_videos"][0, :32].numpy() - expected).max() <= 1e-5


def test_short_gif_repeats_frames_instead_of_black_ones(processor: VideoReferVideoProcessor, reference: Path) -> None:
    features = processor(reference / "media/anim.gif", return_metadata=True)
    assert features["video_metadata"][0].frames_indices == [0, 1, 2, 2, 3, 3, 4, 5]
    published = load_arrays("preprocess/process_video.npz")["gif_default/scene"]
    pixels = features["pixel_values_videos"][0].numpy()
    assert np.abs(pixels[[0, 1, 2, 4, 6, 7]] - published[:6]).max() <= 1e-5
    assert np.array_equal(pixels[3], pixels[2])


@pytest.mark.parametrize("kind", ["array", "tensor", "list of arrays", "list of pictures"])
def test_in_memory_frames_are_sampled_like_files(
    processor: VideoReferVideoProcessor, reference: Path, kind: str
) -> None:
    frames = load_arrays("preprocess/decoded_frames.npz")["clip"]
    video = {
        "array": frames,
        "tensor": torch.from_numpy(frames),
        "list of arrays": list(frames),
        "list of pictures": [Image.fromarray(frame) for frame in frames],
    }[kind]
    features = processor(video, return_metadata=True)
    published = load_arrays("preprocess/process_video.npz")["clip_default/scene"]
    assert np.abs(features["pixel_values_videos"][0].numpy() - published).max() <= 1e-5
    assert features["video_metadata"][0].frames_indices == [2, 7, 12, 17, 22, 27, 32, 37]


def test_frames_taken_as_they_are(processor: VideoReferVideoProcessor) -> None:
    frames = np.stack(list(moving_texture(5)))
    numbers = [3, 9, 9, 20, 40]
    features = processor(
        frames,
        do_sample_frames=False,
        video_metadata={"frames_indices": numbers, "total_num_frames": 60, "fps": 30.0},
        return_metadata=True,
    )
    assert np.abs(features["pixel_values_videos"][0].numpy() - to_pixels(frames)).max() <= 1e-5
    metadata = features["video_metadata"][0]
    assert (metadata.frames_indices, metadata.total_num_frames, metadata.fps) == (numbers, 60, 30.0)
    plain = processor(frames, do_sample_frames=False, return_metadata=True)["video_metadata"][0]
    assert (plain.frames_indices, plain.total_num_frames, plain.fps) == ([0, 1, 2, 3, 4], 5, None)


def test_sampling_from_frames_of_a_longer_video(processor: VideoReferVideoProcessor) -> None:
    frames = np.stack(list(moving_texture(5)))
    metadata = VideoMetadata(total_num_frames=50, frames_indices=[0, 10, 20, 30, 40])
    (described,) = processor(frames, num_frames=2, video_metadata=[metadata], return_metadata=True)["video_metadata"]
    # Midpoints of two parts of 0 to 4: frames 1 and 3.
    assert described.frames_indices == [10, 30]
    assert described.total_num_frames == 50


def test_metadata_that_does_not_fit(processor: VideoReferVideoProcessor) -> None:
    frames = np.stack(list(moving_texture(5)))
    with pytest.raises(ValueError, match="names 2 `frames_indices` for video 0, which has 5 frames"):
        processor(frames, video_metadata={"frames_indices": [1, 2], "total_num_frames": 9}, do_sample_frames=False)


def test_whole_file_without_sampling(processor: VideoReferVideoProcessor, reference: Path) -> None:
    features = processor(reference / "media/short.mp4", do_sample_frames=False, return_metadata=True)
    assert features["pixel_values_videos"].shape == (1, 5, 3, SIDE, SIDE)
    assert features["video_metadata"][0].frames_indices == [0, 1, 2, 3, 4]


def test_batch_of_mixed_kinds_equals_single_calls(processor: VideoReferVideoProcessor, reference: Path) -> None:
    media = reference / "media"
    array = np.stack(list(moving_texture(20, 30, 40)))
    videos = [media / "clip.mp4", array, str(media / "frames"), [Image.fromarray(array[0])], media / "anim.gif"]
    batch = processor(videos, return_metadata=True)
    assert batch["pixel_values_videos"].shape == (5, 8, 3, SIDE, SIDE)
    for number, video in enumerate(videos):
        single = processor([video], return_metadata=True)
        assert torch.equal(batch["pixel_values_videos"][number], single["pixel_values_videos"][0])
        assert batch["video_metadata"][number] == single["video_metadata"][0]


def test_metadata_describes_the_file(processor: VideoReferVideoProcessor, reference: Path) -> None:
    (metadata,) = processor(reference / "media/clip.mp4", return_metadata=True)["video_metadata"]
    assert isinstance(metadata, VideoMetadata)
    assert (metadata.total_num_frames, metadata.fps, metadata.duration) == (40, 10.0, 4.0)
    assert (metadata.height, metadata.width, metadata.video_backend) == (64, 96, "pyav")
    assert "video_metadata" not in processor(reference / "media/clip.mp4")


def test_options_per_video(processor: VideoReferVideoProcessor, reference: Path, tmp_path: Path) -> None:
    cut = hide_first_frames(write_video(tmp_path / "a.mp4", 40, gop=12), tmp_path / "cut.mp4", 5)
    features = processor(
        [cut, cut, reference / "media/frames"],
        edit_list=["apply", "ignore", "apply"],
        start_seconds=[None, None, 0.5],
        end_seconds=[None, None, 2.0],
        fps=[None, None, FOLDER_FPS],
        num_frames=3,
        return_metadata=True,
    )
    assert [metadata.total_num_frames for metadata in features["video_metadata"]] == [35, 40, 10]
    # Frames 0 to 5: int(0.5 * 3) - 1 and int(2.0 * 3) - 1.
    assert features["video_metadata"][2].frames_indices == [1, 3, 4]
    for number, ignore in ((0, False), (1, True)):
        frames = np.stack(decode_all(cut, ignore_edit_list=ignore))[features["video_metadata"][number].frames_indices]
        assert np.abs(features["pixel_values_videos"][number].numpy() - to_pixels(frames)).max() <= 1e-5


def test_same_source_is_read_once(
    processor: VideoReferVideoProcessor, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def count(source: Any, **options: Any) -> Any:
        opened.append(source)
        return open_video(source, **options)

    monkeypatch.setattr("transformers_videorefer.models.videorefer.video_processing_videorefer.open_video", count)
    path = reference / "media/clip.mp4"
    features = processor([path, str(path), path], start_seconds=[None, None, 1.0], return_metadata=True)
    assert len(opened) == 2
    assert torch.equal(features["pixel_values_videos"][0], features["pixel_values_videos"][1])
    first, second, _ = features["video_metadata"]
    assert first == second
    assert first is not second


def test_videos_of_different_lengths_cannot_be_stacked(processor: VideoReferVideoProcessor) -> None:
    frames = np.stack(list(moving_texture(5)))
    with pytest.raises(ValueError, match="Videos of 5, 3 frames cannot share a batch"):
        processor([frames, frames[:3]], do_sample_frames=False)


@pytest.mark.parametrize("num_frames", [1, 0])
def test_too_few_frames(processor: VideoReferVideoProcessor, reference: Path, num_frames: int) -> None:
    with pytest.raises(ValueError, match=f"`num_frames` is {num_frames}. Pass an integer of at least 2"):
        processor(reference / "media/clip.mp4", num_frames=num_frames)
    with pytest.raises(ValueError, match="at least 2"):
        VideoReferVideoProcessor(num_frames=num_frames)


def test_bad_options(processor: VideoReferVideoProcessor, reference: Path) -> None:
    path = reference / "media/clip.mp4"
    for options, message in (
        ({"edit_list": "drop"}, "`edit_list` is 'drop'"),
        ({"edit_list": ["apply", "apply"]}, "`edit_list` has 2 values for 1 videos"),
        ({"resize_backend": "cv2"}, "`resize_backend` is 'cv2'"),
        ({"start_seconds": 60.0}, "holds no frame"),
        ({"end_seconds": 1.0, "do_sample_frames": False}, "`do_sample_frames` is False"),
        ({"do_center_crop": True}, "`do_center_crop` is True"),
        ({"data_format": "channels_last"}, "only 'channels_first'"),
    ):
        with pytest.raises(ValueError, match=message):
            processor(path, **options)
    with pytest.raises(StrictDataclassFieldValidationError, match="num_frames"):
        processor(path, num_frames="8")
    with pytest.raises(TypeError, match="frame_count"):
        processor(path, frame_count=8)


def test_seconds_of_a_folder_need_a_rate(processor: VideoReferVideoProcessor, reference: Path) -> None:
    with pytest.raises(ValueError, match=r"`start_seconds` is 0.5 .*Pass `fps`"):
        processor(reference / "media/frames", start_seconds=0.5)


def test_missing_and_truncated_files(processor: VideoReferVideoProcessor, reference: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing.mp4"):
        processor([reference / "media/clip.mp4", tmp_path / "missing.mp4"])
    whole = write_video(tmp_path / "whole.mp4", 60, gop=12, container_options={"movflags": "faststart"})
    with pytest.raises(OSError, match=r"cut.mp4 is truncated: it ends after \d+ of 60 frames"):
        processor(truncate(whole, tmp_path / "cut.mp4", 0.6))


def test_sample_frames(processor: VideoReferVideoProcessor) -> None:
    metadata = VideoMetadata(total_num_frames=40, fps=10.0)
    assert processor.sample_frames(metadata).tolist() == [2, 7, 12, 17, 22, 27, 32, 37]
    chosen = processor.sample_frames(metadata, num_frames=4, start_seconds=0.9, end_seconds=2.3, fps=None)
    assert chosen.tolist() == [10, 13, 17, 20]
    assert isinstance(chosen, np.ndarray)


def test_torch_resize_is_close_but_not_the_default(processor: VideoReferVideoProcessor) -> None:
    frame = next(moving_texture(1, 180, 320))
    exact = processor.preprocess_frame(frame)
    assert np.array_equal(exact, Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    fast = processor.preprocess_frame(frame, resize_backend="torch")
    assert fast.shape == exact.shape
    assert fast.dtype == np.uint8
    assert np.abs(fast.astype(int) - exact).max() <= 2
    with pytest.raises(ValueError, match='which `resize_backend="torch"` does not offer'):
        processor.preprocess_frame(frame, resize_backend="torch", resample=Image.Resampling.LANCZOS)


def test_frames_without_resizing(processor: VideoReferVideoProcessor, reference: Path) -> None:
    frame = next(moving_texture(1))
    assert processor.preprocess_frame(frame, do_resize=False) is frame
    features = processor(reference / "media/clip.mp4", do_resize=False, num_frames=2)
    assert features["pixel_values_videos"].shape == (1, 2, 3, 64, 96)
    with pytest.raises(ValueError, match=r"sizes \[\(48, 64\), \(64, 96\)\].*Leave `do_resize` on"):
        processor([frame[None], reference / "media/clip.mp4"], do_resize=False)


def test_normalize_frames_by_hand(processor: VideoReferVideoProcessor) -> None:
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[0, 1] = (255, 51, 0)
    pixels = processor.normalize_frames([frame, frame])
    assert pixels.shape == (2, 3, 2, 2)
    assert pixels[1, :, 0, 1].tolist() == pytest.approx([1.0, -0.6, -1.0], abs=1e-6)
    assert processor.normalize_frames([frame], do_normalize=False).max() == 1
    assert processor.normalize_frames([frame], do_normalize=False, do_rescale=False).max() == 255
    shifted = processor.normalize_frames([frame], image_mean=[0.0, 0.2, 0.0], image_std=[1.0, 1.0, 2.0])
    assert shifted[0, :, 0, 1].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)
    assert frame[0, 1].tolist() == [255, 51, 0]


def test_numpy_output(processor: VideoReferVideoProcessor, reference: Path) -> None:
    features = processor(reference / "media/clip.mp4", return_tensors="np")
    assert isinstance(features["pixel_values_videos"], np.ndarray)
    assert features["pixel_values_videos"].shape == (1, 8, 3, SIDE, SIDE)


def test_defaults() -> None:
    settings = VideoReferVideoProcessor().to_dict()
    expected = {
        "size": {"height": 384, "width": 384},
        "resample": 3,
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
        "do_convert_rgb": True,
        "num_frames": 16,
        "do_sample_frames": True,
        "edit_list": "apply",
        "resize_backend": "pil",
    }
    assert {name: settings[name] for name in expected} == expected
    assert VideoReferVideoProcessor.model_input_names == ["pixel_values_videos"]


def test_save_and_load(processor: VideoReferVideoProcessor, reference: Path, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    loaded = VideoReferVideoProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert VideoReferVideoProcessor.from_pretrained(tmp_path, num_frames=4, edit_list="ignore").num_frames == 4
    path = reference / "media/clip.mp4"
    assert torch.equal(loaded(path)["pixel_values_videos"], processor(path)["pixel_values_videos"])


def test_calls_leave_the_processor_as_it_was(processor: VideoReferVideoProcessor, reference: Path) -> None:
    before = copy.deepcopy(processor.to_dict())
    processor(reference / "media/clip.mp4", num_frames=4, size={"height": 28, "width": 28}, edit_list="ignore")
    assert processor.to_dict() == before


def test_auto_class(processor: VideoReferVideoProcessor, tmp_path: Path) -> None:
    AutoVideoProcessor.register(VideoReferConfig, VideoReferVideoProcessor, exist_ok=True)
    processor.save_pretrained(tmp_path)
    assert isinstance(AutoVideoProcessor.from_pretrained(tmp_path, num_frames=4), VideoReferVideoProcessor)


def test_one_description_for_several_videos(processor: VideoReferVideoProcessor) -> None:
    frames = np.stack(list(moving_texture(4)))
    options = {"do_sample_frames": False, "return_metadata": True}
    metadata = {"frames_indices": [0, 5, 9, 12], "total_num_frames": 20}
    described = processor([frames, frames[::-1]], video_metadata=metadata, **options)["video_metadata"]
    assert [one.frames_indices for one in described] == [[0, 5, 9, 12]] * 2


def test_frames_are_normalised_in_their_order(processor: VideoReferVideoProcessor) -> None:
    frames = [np.full((2, 3, 3), level, np.uint8) for level in (0, 255)]
    frames[0][1, 2] = (255, 0, 51)
    for frame in frames:
        frame.setflags(write=False)  # as pictures of PIL are
    pixels = processor.normalize_frames(frames)
    assert pixels.is_contiguous()
    # (value / 255 - 0.5) / 0.5
    expected = torch.full((2, 3, 2, 3), -1.0)
    expected[1] = 1.0
    expected[0, :, 1, 2] = torch.tensor([1.0, -1.0, -0.6])
    assert torch.allclose(pixels, expected, atol=1e-6)
    raw = processor.normalize_frames(frames, do_rescale=False, do_normalize=False)
    assert raw[0, :, 1, 2].tolist() == [255.0, 0.0, 51.0]
    shifted = processor.normalize_frames(frames, do_rescale=False, image_mean=[1.0, 2.0, 3.0], image_std=2.0)
    assert shifted[0, :, 1, 2].tolist() == [127.0, -1.0, 24.0]
