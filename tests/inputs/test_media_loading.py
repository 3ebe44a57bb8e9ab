"""Loading the media of one call: what is opened and decoded how often, and what comes out of every kind of video."""

import io
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REFERENCE, load_arrays
from PIL import Image
from tiny import SIZE, box_region, noise_video
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.video_utils import VideoMetadata
from video_files import hide_first_frames, moving_texture, truncate, write_video

from transformers_videorefer.inputs import loading
from transformers_videorefer.inputs.assembly import LoadedMedia
from transformers_videorefer.inputs.items import SampleMedia, VideoItem
from transformers_videorefer.inputs.layout import rows_per_sample
from transformers_videorefer.inputs.loading import MediaLoader, MediaOptions, load_image
from transformers_videorefer.models.videorefer.video_processing_videorefer import VideoReferVideoProcessor
from transformers_videorefer.regions.errors import MediaError


MEDIA = REFERENCE / "media"
CLIP = MEDIA / "clip.mp4"  # 40 frames of 64 x 96 at 10 per second
SHORT = MEDIA / "short.mp4"  # 5 frames of 64 x 96
GRID = 4  # patches of 14 pixels in frames of 56
PROCESSOR = VideoReferVideoProcessor(size=SIZE, num_frames=4)


def load(*samples: SampleMedia, **options) -> LoadedMedia:
    defaults = {
        "num_frames": 4,
        "num_region_frames": 32,
        "num_region_tokens": 4,
        "empty_masks": "error",
        "grid": (GRID, GRID),
    }
    image_processor = SiglipImageProcessorPil(size=SIZE, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return MediaLoader(PROCESSOR, image_processor, MediaOptions(**{**defaults, **options})).load(samples)


def sample(*videos, regions=(), images=(), **options) -> SampleMedia:
    kinds = ("video",) * len(videos) + ("image",) * len(images)
    return SampleMedia(
        kinds, tuple(VideoItem(video, dict(options)) for video in videos), tuple(images), tuple(regions)
    )


def pixels(frame: Any) -> torch.Tensor:
    """One picture the published way: PIL bicubic to the square, 0 to 255 becomes -1 to 1."""
    resized = Image.fromarray(np.asarray(frame)).resize((SIZE["width"], SIZE["height"]), Image.Resampling.BICUBIC)
    return ((torch.from_numpy(np.array(resized)).double() / 255 - 0.5) / 0.5).permute(2, 0, 1).float()


def assert_frames(tensor: torch.Tensor, frames) -> None:
    torch.testing.assert_close(tensor, torch.stack([pixels(frame) for frame in frames]), atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """All 40 frames of clip.mp4, as recorded."""
    return load_arrays("preprocess/decoded_frames.npz")["clip"]


@pytest.fixture
def opened(monkeypatch) -> list:
    """Every reader that the test opens, which note what is read from them."""
    readers = []
    original = loading.open_video

    def open_video(source: Any, **options: Any) -> Any:
        reader = original(source, **options)
        reads: list[list[int]] = []
        original_read = reader._read

        def _read(wanted):
            reads.append(list(wanted))
            return original_read(wanted)

        reader._read = _read
        readers.append((source, options, reads))
        return reader

    monkeypatch.setattr(loading, "open_video", open_video)
    return readers


# ---------------------------------------------------------------------------------------------------------------------
# Kinds of video
# ---------------------------------------------------------------------------------------------------------------------


def kinds_of_clip(clip: np.ndarray, tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(clip):
        Image.fromarray(frame).save(folder / f"{number + 3}.png")  # sorted by number: 10 comes after 9
    return {
        "str": str(CLIP),
        "path": CLIP,
        "bytes": CLIP.read_bytes(),
        "file": io.BytesIO(CLIP.read_bytes()),
        "folder": str(folder),
        "pil": [Image.fromarray(frame) for frame in clip],
        "arrays": list(clip),
        "tuple": tuple(clip),
        "paths": [folder / f"{number + 3}.png" for number in range(40)],
        "array": clip,
        "tensor": torch.from_numpy(clip),
    }


def test_all_kinds_in_one_batch_give_the_same(clip, tmp_path):
    kinds = kinds_of_clip(clip, tmp_path)
    region = box_region([3, 5, 39])
    loaded = load(*(sample(video, regions=[region]) for video in kinds.values()))
    assert loaded.tensors["sample_counts"].tolist() == [[1, 0, 2, 1]] * len(kinds)
    rows = rows_per_sample(loaded.tensors, "pixel_values_videos")
    for (row,), extras in zip(rows, loaded.tensors["region_pixel_values"].unflatten(0, (-1, 2)), strict=True):
        assert_frames(loaded.tensors["pixel_values_videos"][row], clip[[5, 15, 24, 34]])
        assert_frames(extras, clip[[3, 39]])
    assert loaded.tensors["region_frame_index"].tolist() == [4, 0, 5] * len(kinds)


def test_other_video_processors_choose_and_scale_frames_in_their_way(clip):
    class LastFrames:
        """The video processor of another family: the last frames, in whole numbers and without resizing."""

        edit_list = "ignore"

        def choose_scene_frames(self, reader, *, num_frames, **_options):
            return list(range(reader.num_frames - num_frames, reader.num_frames))

        def preprocess_frame(self, frame, *, resize_backend):
            return frame

        def normalize_frames(self, frames):
            return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float()

    options = MediaOptions(
        num_frames=2, num_region_frames=None, num_region_tokens=4, empty_masks="error", grid=(GRID, GRID)
    )
    loaded = MediaLoader(LastFrames(), None, options).load([sample(CLIP)])
    expected = torch.from_numpy(clip[-2:]).permute(0, 3, 1, 2).float()[None]
    assert torch.equal(loaded.tensors["pixel_values_videos"], expected)


def test_open_file_of_the_caller_stays_open(clip, tmp_path):
    with CLIP.open("rb") as file:
        file.read(100)
        for _ in range(2):
            assert_frames(load(sample(file)).tensors["pixel_values_videos"][0], clip[[5, 15, 24, 34]])
        assert not file.closed


def test_gif_and_short_videos_repeat_frames():
    gif = load(sample(MEDIA / "anim.gif"), num_frames=8)
    assert gif.video_metadata[0].frames_indices == [0, 1, 2, 2, 3, 3, 4, 5]
    assert not (gif.tensors["pixel_values_videos"] == -1).all(dim=(2, 3, 4)).any()  # no black filling
    short = load(sample(SHORT, regions=[box_region([2, 3, 2])]), num_frames=8)
    assert short.video_metadata[0].frames_indices == [0, 1, 1, 2, 2, 3, 3, 4]
    # The first of equal scene frames stands for them, nothing is sent twice, and a frame may be named twice.
    assert short.tensors["region_frame_index"].tolist() == [3, 5, 3]
    assert "region_pixel_values" not in short.tensors
    in_memory = noise_video(3)
    loaded = load(sample(in_memory), num_frames=5)
    assert_frames(loaded.tensors["pixel_values_videos"][0], in_memory[[0, 1, 1, 1, 2]])


def test_more_frames_than_the_published_32():
    loaded = load(sample(MEDIA / "long.mp4"), num_frames=40)
    assert loaded.tensors["pixel_values_videos"].shape == (1, 40, 3, 56, 56)
    assert loaded.num_scene_frames == 40
    assert loaded.video_metadata[0].frames_indices[:3] == [2, 5, 8]
    assert loaded.video_metadata[0].frames_indices[-1] == 127


def test_resize_backend_is_a_choice(clip):
    plain, torch_made = (
        load(sample(clip), resize_backend=backend).tensors["pixel_values_videos"] for backend in (None, "torch")
    )
    assert not torch.equal(plain, torch_made)
    assert (plain - torch_made).abs().max() <= 2 * 2 / 255 + 1e-6


def test_fps_of_a_file_is_refused():
    """Elsewhere in the library `fps` says how densely to sample."""
    load(sample(CLIP, fps=10), sample(noise_video(), fps=2))
    with pytest.raises(ValueError, match=r"`fps` is 1, but .*clip\.mp4 carries its own times.*`num_frames`"):
        load(sample(CLIP, fps=1))
    # What describes a file does not ask for anything.
    loaded = load(sample(CLIP), video_metadata=[{"fps": 1.0}])
    assert loaded.video_metadata[0].fps == 10


# ---------------------------------------------------------------------------------------------------------------------
# Opened and decoded once
# ---------------------------------------------------------------------------------------------------------------------


def test_source_is_opened_and_read_once_for_the_union(opened, clip):
    path = str(CLIP)
    loaded = load(
        sample(path, regions=[box_region([0, 5, 7]), box_region([7, 39])]),
        sample(Path(path), regions=[box_region([7, 20])]),
        sample(path, path, regions=[box_region([1], media=1)]),
        SampleMedia(),
    )
    assert [reads for _, _, reads in opened] == [[[0, 1, 5, 7, 15, 20, 24, 34, 39]]]
    assert loaded.tensors["sample_counts"].tolist() == [[1, 0, 3, 2], [1, 0, 2, 1], [2, 0, 1, 1], [0, 0, 0, 0]]
    # Frame 7 carries both regions of the first sample and is sent to it once.
    assert loaded.tensors["region_frame_index"].tolist() == [4, 0, 5, 5, 6, 4, 5, 8]
    assert_frames(loaded.tensors["region_pixel_values"], clip[[0, 7, 39, 7, 20, 1]])


def test_ranges_share_a_source_and_edit_lists_do_not(opened):
    path = str(CLIP)
    video = [
        VideoItem(path),
        VideoItem(path, {"start_seconds": 1.0}),
        VideoItem(path, {"end_seconds": 2.0, "edit_list": "apply"}),
        VideoItem(path, {"edit_list": "ignore"}),
        VideoItem(path, {"fps": 10}),
    ]
    load(SampleMedia(("video",) * 5, tuple(video)))
    assert [(options.get("edit_list"), options.get("fps")) for _, options, _ in opened] == [
        ("apply", None),
        ("ignore", None),
        ("apply", 10),
    ]


def test_objects_in_memory_are_known_by_identity(opened):
    frames, file = noise_video(), io.BytesIO(CLIP.read_bytes())
    load(sample(frames, file), sample(file, frames), sample(frames.copy()))
    assert len(opened) == 3


def test_one_file_object_with_two_options(tmp_path, opened):
    """Two decoders on one file object must not move its position under each other."""
    # Noise makes the file larger than what a decoder reads ahead.
    whole = write_video(
        tmp_path / "whole.mp4", gop=10, b_frames=0, height=160, width=240, frames=noise_video(60, 160, 240)
    )
    cut = hide_first_frames(whole, tmp_path / "cut.mp4", 7)
    assert cut.stat().st_size > 500_000
    expected = [load(sample(str(cut), edit_list=mode)).tensors["pixel_values_videos"] for mode in ("apply", "ignore")]
    assert not torch.equal(*expected)
    opened.clear()
    file = io.BytesIO(cut.read_bytes())
    loaded = load(
        SampleMedia(
            ("video",) * 3,
            (VideoItem(file), VideoItem(file, {"edit_list": "ignore"}), VideoItem(file, {"edit_list": "apply"})),
        )
    )
    assert len(opened) == 2
    # The first and the third mark show the same frames, which stand in the batch once.
    first, second = loaded.tensors["video_row_ids"].tolist()
    assert loaded.tensors["video_ids"].tolist() == [first, second, first]
    for made, wanted in zip(loaded.tensors["pixel_values_videos"], expected, strict=True):
        assert torch.equal(made, wanted[0])


def test_edit_list_moves_frames(tmp_path):
    """The published annotations count hidden frames: their frame 9 is frame 2 of a player where 7 are hidden."""
    frames = list(moving_texture(40))
    whole = write_video(tmp_path / "whole.mp4", gop=10, b_frames=0, frames=frames)
    cut = hide_first_frames(whole, tmp_path / "cut.mp4", 7)
    played = load(sample(cut, regions=[box_region([2])]))
    counted = load(sample(cut, regions=[box_region([9])], edit_list="ignore"))
    assert played.video_metadata[0].total_num_frames == 33
    assert counted.video_metadata[0].total_num_frames == 40
    torch.testing.assert_close(played.tensors["region_pixel_values"], counted.tensors["region_pixel_values"])


def test_masklet_of_a_long_video_costs_32_frames(monkeypatch, opened):
    """7,200 masks as run lengths: 32 are decoded, and 32 frames beside the scene frames are read."""
    num_frames, height, width = 7200, 48, 64
    frames = np.broadcast_to(noise_video(1, height, width), (num_frames, height, width, 3))
    masks = [
        None
        if number % 3 == 0
        else {"size": [height, width], "counts": [number % 1000, 200, height * width - 200 - number % 1000]}
        for number in range(num_frames)
    ]
    decoded = []
    original = loading.frame_to_grid

    def frame_to_grid(region, entry, **options):
        decoded.append(entry.frame_index)
        return original(region, entry, **options)

    monkeypatch.setattr(loading, "frame_to_grid", frame_to_grid)
    loaded = load(sample(frames, regions=[{"masks": masks}]))
    # 4,800 visible frames in 32 equal parts, the midpoint of each: numbers among the visible ones, hence times 3 / 2.
    visible = [number for number in range(num_frames) if number % 3]
    middles = [int(np.floor((part + 0.5) * (len(visible) - 1) / 32 + 0.5)) for part in range(32)]
    assert decoded == [visible[middle] for middle in middles]
    assert loaded.region_metadata[0]["frame_indices"] == decoded
    ((_, _, reads),) = opened
    assert len(reads) == 1
    assert len(reads[0]) <= 36
    assert loaded.tensors["region_lengths"].tolist() == [32]
    assert loaded.tensors["region_num_tokens"].tolist() == [4]


def test_masklet_of_a_long_video_takes_bounded_memory():
    num_frames, height, width = 7200, 720, 1280
    frames = np.broadcast_to(noise_video(1, height, width), (num_frames, height, width, 3))
    masks = [
        {"size": [height, width], "counts": [number, 500_000, height * width - 500_000 - number]}
        for number in range(num_frames)
    ]
    load(sample(frames[:4], regions=[box_region([0])]))  # caches and lazy imports
    tracemalloc.start()
    loaded = load(sample(frames, regions=[{"masks": masks}]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert loaded.tensors["region_lengths"].tolist() == [32]
    # All masks would be 6.6 GB and the 32 used ones 29 MB; one mask is 0.9 MB and one frame 2.8 MB.
    assert peak < 20e6


def test_frames_of_a_video_are_not_kept_in_full_size(clip, monkeypatch):
    """What stays in memory are resized frames, however large the video is."""
    kept = []
    original = MediaLoader._read

    def _read(self, source):
        original(self, source)
        kept.extend(frame.shape for frame in source.frames.values())

    monkeypatch.setattr(MediaLoader, "_read", _read)
    load(sample(clip, regions=[box_region([0])]))
    assert kept == [(56, 56, 3)] * 5


# ---------------------------------------------------------------------------------------------------------------------
# Frames that were sampled before
# ---------------------------------------------------------------------------------------------------------------------


def test_frames_as_they_are(clip):
    loaded = load(sample(clip[:6]), do_sample_frames=False)
    assert_frames(loaded.tensors["pixel_values_videos"][0], clip[:6])
    assert loaded.num_scene_frames == 6
    assert loaded.video_metadata[0].frames_indices == list(range(6))


def test_regions_refer_to_the_source_of_sampled_frames(clip):
    numbers = [2, 12, 22, 32, 32]
    metadata = {"frames_indices": np.array(numbers), "fps": 10.0, "total_num_frames": 40}
    frames = [{"frame_index": 22, "box": [0, 0, 50, 50]}, {"time_seconds": 3.25, "box": [0, 0, 50, 50]}]
    for given in (metadata, VideoMetadata(**{**metadata, "frames_indices": numbers})):
        loaded = load(
            sample(clip[numbers], regions=[{"frames": frames}]), do_sample_frames=False, video_metadata=[given]
        )
        assert loaded.tensors["region_frame_index"].tolist() == [2, 3]
        assert loaded.region_metadata[0]["frame_indices"] == [22, 32]
        assert loaded.video_metadata[0].frames_indices == numbers
        assert loaded.video_metadata[0].total_num_frames == 40
    # Sampled once more, the numbers still are those of the source.
    loaded = load(sample(clip[numbers], regions=[box_region([2])]), num_frames=2, video_metadata=[metadata])
    assert loaded.video_metadata[0].frames_indices == [12, 32]
    assert loaded.region_metadata[0]["frame_indices"] == [2]
    assert_frames(loaded.tensors["region_pixel_values"], clip[[2]])


def test_rate_of_frames_in_memory_may_stand_in_their_metadata():
    loaded = load(
        sample(noise_video(12), start_seconds=1.0, end_seconds=2.0), num_frames=2, video_metadata=[{"fps": 4.0}]
    )
    # The published rule: frames 1 x 4 - 1 to 2 x 4 - 1, midpoints of two parts.
    assert loaded.video_metadata[0].frames_indices == [4, 6]
    assert loaded.video_metadata[0].fps == 4.0


@pytest.mark.parametrize(
    ("region", "metadata", "match"),
    [
        (box_region([3]), {"frames_indices": [0, 2, 4, 6], "total_num_frames": 9}, r"sample 0, region 0, frame 3: the frame is not among those given .*\[0, 2, 4, 6\]"),
        (box_region([9]), {"frames_indices": [0, 2, 4, 6], "total_num_frames": 9}, "sample 0, region 0, frame 9: the frame lies outside"),
        (box_region([0]), {"frames_indices": [0, 2, 4]}, "names 3 `frames_indices` for sample 0, video 0, which has 4"),
        ({"frames": [{"time_seconds": 0.1, "box": [0, 0, 9, 9]}]}, {"frames_indices": [0, 2, 4, 6]}, "sample 0, video 0: `time_seconds` needs `fps` in `video_metadata`"),
        ({"masks": [np.ones((40, 60), dtype=bool)] * 4}, {"frames_indices": [0, 2, 4, 6]}, "`masks` has 4 masks but the video has 7 frames"),
    ],
    ids=["not_given", "outside", "too_few", "no_fps", "masklet"],
)  # fmt: skip
def test_regions_that_do_not_fit_sampled_frames(region, metadata, match):
    with pytest.raises(ValueError, match=match):
        load(sample(noise_video(4), regions=[region]), do_sample_frames=False, video_metadata=[metadata])


def test_options_that_contradict():
    with pytest.raises(ValueError, match=r"`video_metadata` has 1 entries for 2 videos"):
        load(sample(noise_video(), noise_video()), video_metadata=[{}])
    with pytest.raises(
        ValueError, match="sample 0, video 0: `start_seconds` and `end_seconds` .* `do_sample_frames` is False"
    ):
        load(sample(CLIP, end_seconds=2.0), do_sample_frames=False)
    with pytest.raises(ValueError, match="Videos of 4, 5 frames cannot share a batch"):
        load(sample(noise_video(4)), sample(noise_video(5)), do_sample_frames=False)
    with pytest.raises(ValueError, match="a video needs at least 2 frames, got 1"):
        load(sample(noise_video(1)), do_sample_frames=False)
    assert load(sample(noise_video(1))).num_scene_frames == 4  # sampled, one frame is enough


# ---------------------------------------------------------------------------------------------------------------------
# Regions
# ---------------------------------------------------------------------------------------------------------------------


def test_regions_on_several_media(clip):
    """Frames count within the sample: scene frames of all its videos, then its images, then what is sent beside."""
    picture = noise_video(1, seed=9)[0]
    other = noise_video(20, seed=4)
    media = SampleMedia(
        ("image", "video", "image", "video"),
        (VideoItem(clip), VideoItem(other)),
        (picture, picture[::-1].copy()),
        (
            box_region([0], media=0),
            {"media": 2, "frames": [{"box": [0, 0, 30, 20]}]},  # an image has one frame only
            box_region([2, 3], media=3),
            box_region([5, 1], media=1),
        ),
    )
    loaded = load(media, sample(other, regions=[box_region([2])]))
    # 8 scene frames (0 to 3 and 4 to 7), images 8 and 9, extras from 10 on; frame 2 of 20 is a scene frame.
    assert loaded.video_metadata[1].frames_indices == [2, 7, 12, 17]
    assert loaded.tensors["region_frame_index"].tolist() == [8, 9, 4, 10, 0, 11, 0]
    assert loaded.tensors["sample_counts"].tolist() == [[2, 2, 2, 4], [1, 0, 0, 1]]
    assert_frames(loaded.tensors["region_pixel_values"], [other[3], clip[1]])
    assert_frames(loaded.tensors["pixel_values"], [picture, picture[::-1]])
    assert [one["media"] for one in loaded.region_metadata] == [0, 2, 3, 1, 0]
    assert [one["sample"] for one in loaded.region_metadata] == [0, 0, 0, 0, 1]


def test_same_frame_of_two_marks_is_two_frames(clip):
    loaded = load(sample(clip, clip, regions=[box_region([1], media=0), box_region([1], media=1)]))
    assert loaded.tensors["region_frame_index"].tolist() == [8, 9]
    assert_frames(loaded.tensors["region_pixel_values"], clip[[1, 1]])


def test_masks_lie_on_the_grid():
    # Frames of 40 x 60: a cell is 10 pixels high and 15 wide, and bilinear resizing looks at its middle.
    frames = [{"frame_index": 0, "box": [0, 0, 30, 20]}, {"frame_index": 1, "box": [45, 30, 60, 40]}]
    loaded = load(sample(noise_video(), regions=[{"frames": frames}]))
    expected = torch.zeros(2, GRID, GRID, dtype=torch.bool)
    expected[0, :2, :2] = True
    expected[1, 3, 3] = True
    assert loaded.tensors["region_masks"].dtype == torch.bool
    assert torch.equal(loaded.tensors["region_masks"], expected.flatten(1))


def test_frames_of_different_sizes(tmp_path):
    """In a folder every frame has its own size, and so has every mask."""
    frames = [noise_video(1, 40, 60)[0], noise_video(1, 80, 60)[0]]
    masks = [np.ones(frame.shape[:2], dtype=bool) for frame in frames]
    loaded = load(sample(frames, regions=[{"masks": masks}]), num_frames=2)
    assert loaded.tensors["region_masks"].all()
    with pytest.raises(ValueError, match="sample 0, region 0, frame 0: the mask has height 80 and width 60"):
        load(sample(frames, regions=[{"masks": masks[::-1]}]), num_frames=2)


def test_region_frames_may_lie_outside_the_sampled_range(clip):
    loaded = load(sample(CLIP, regions=[box_region([39])], start_seconds=0.5, end_seconds=1.5))
    assert loaded.video_metadata[0].frames_indices == [5, 8, 10, 13]
    assert_frames(loaded.tensors["region_pixel_values"], clip[[39]])


def test_order_of_frames_is_kept():
    loaded = load(sample(noise_video(), regions=[box_region([11, 0, 7])]))
    assert loaded.region_metadata[0]["frame_indices"] == [11, 0, 7]
    assert loaded.tensors["region_frame_index"].tolist() == [4, 5, 2]  # scene frames are 1, 4, 7 and 10


def test_most_frames_and_tokens_of_a_region():
    region = box_region(list(range(10)))
    loaded = load(sample(noise_video(), regions=[region]), num_region_frames=3, num_region_tokens=2)
    assert loaded.region_metadata[0]["frame_indices"] == [2, 5, 8]  # midpoints of three parts of 0 to 9
    assert loaded.tensors["region_num_tokens"].tolist() == [2]
    loaded = load(sample(noise_video(60), regions=[box_region(list(range(60)))]), num_region_frames=None)
    assert loaded.tensors["region_lengths"].tolist() == [60]


def test_empty_masks(clip):
    empty = {"frame_index": 3, "rle": None}
    region = {"object_id": "dog", "frames": [{"frame_index": 1, "box": [0, 0, 20, 20]}, empty]}
    with pytest.raises(ValueError, match="sample 1, region 0, frame 3: the mask is empty"):
        load(sample(clip), sample(clip, regions=[region]))
    dropped = load(sample(clip, regions=[region]), empty_masks="drop")
    assert dropped.region_metadata == [
        {"sample": 0, "object_id": "dog", "media": 0, "frame_indices": [1], "num_tokens": 1}
    ]
    assert_frames(dropped.tensors["region_pixel_values"], clip[[1]])  # the frame of the empty mask is not sent
    kept = load(sample(clip, regions=[region]), empty_masks="keep")
    assert kept.tensors["region_masks"].any(dim=1).tolist() == [True, False]
    with pytest.raises(ValueError, match="sample 0, region 0: no mask is left, all 1 given are empty"):
        load(sample(clip, regions=[{"frames": [empty]}]), empty_masks="drop")
    with pytest.raises(ValueError, match='`empty_masks` must be "error", "drop" or "keep", got \'skip\''):
        load(sample(clip, regions=[region]), empty_masks="skip")


def test_masks_that_turn_out_empty_are_dropped_late(clip, tmp_path):
    """Whether a picture shows anything is known only when it is opened."""
    for name, value in (("empty", 0), ("full", 255)):
        Image.fromarray(np.full((64, 96), value, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    masks = [tmp_path / "empty.png", tmp_path / "full.png"]
    loaded = load(sample(clip, regions=[{"masks": masks, "frame_indices": [1, 2]}]))
    assert loaded.region_metadata[0]["frame_indices"] == [2]
    assert loaded.tensors["sample_counts"].tolist() == [[1, 0, 1, 1]]
    with pytest.raises(ValueError, match="sample 0, region 0: no mask is left"):
        load(sample(clip, regions=[{"masks": masks[:1], "frame_indices": [1]}]))


@pytest.mark.parametrize(
    ("regions", "match"),
    [
        ([box_region([0]), box_region([40])], "sample 0, region 1, frame 40: the frame lies outside, .* a video of 40 frames"),
        ([{"frames": [{"frame_index": 0, "bbox": [0, 0, 5, 5]}]}], r"sample 0, region 0, frames\[0\]: unknown key `bbox`"),
        ([{"frames": [{"frame_index": 2, "mask": np.ones((32, 48), dtype=bool)}]}], "sample 0, region 0, frame 2: the mask has height 32 and width 48"),
        ([{"masks": np.ones((3, 64, 96), dtype=bool)}], "sample 0, region 0: `masks` has 3 masks but the video has 40 frames"),
        ([box_region([0], media=1)], "sample 0, region 0: `media` is 1, but its sample has 1 videos and images"),
        ([{"frames": [{"time_seconds": 99.0, "box": [0, 0, 5, 5]}]}], "`time_seconds` 99 lies outside the video"),
    ],
)  # fmt: skip
def test_regions_that_do_not_fit(regions, match):
    with pytest.raises(ValueError, match=match):
        load(sample(CLIP, regions=regions))


def test_regions_without_media():
    with pytest.raises(ValueError, match="sample 0, region 0: its sample has no video or image"):
        load(SampleMedia(regions=(box_region([0]),)))
    with pytest.raises(ValueError, match='its sample has 2 videos and images. Say which .* `"media": 0` to `1`'):
        load(sample(CLIP, images=[noise_video(1)[0]], regions=[box_region([0])]))


def test_times_on_images_and_folders():
    at = {"frames": [{"time_seconds": 0.5, "box": [0, 0, 5, 5]}]}
    with pytest.raises(ValueError, match="sample 0, region 0: `time_seconds` is given, but an image has no times"):
        load(sample(images=[noise_video(1)[0]], regions=[at]))
    with pytest.raises(ValueError, match="sample 0, region 0, frame 1: the frame lies outside, .* an image"):
        load(sample(images=[noise_video(1)[0]], regions=[box_region([1])]))
    with pytest.raises(ValueError, match="The frames of sample 0, video 0 have no time stamps. Pass `fps`"):
        load(sample(noise_video(), regions=[at]))
    loaded = load(sample(noise_video(), regions=[at], fps=4))
    assert loaded.region_metadata[0]["frame_indices"] == [2]


# ---------------------------------------------------------------------------------------------------------------------
# Broken files
# ---------------------------------------------------------------------------------------------------------------------


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no video .*missing\.mp4"):
        load(sample(tmp_path / "missing.mp4"))
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.mp4 is empty"):
        load(sample(tmp_path / "empty.mp4"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="folder .*holds no picture"):
        load(sample(tmp_path / "folder"))
    truncate(CLIP, tmp_path / "cut.mp4", 0.5)
    with pytest.raises(OSError, match=r"cut\.mp4 is truncated.*frame \d+"):
        load(sample(tmp_path / "cut.mp4"))
    with pytest.raises(ValueError, match="sample 0, video 1 has no frames"):
        load(sample(noise_video(), noise_video(0)))
    with pytest.raises(TypeError, match="sample 1, video 0 has dtype float32"):
        load(sample(noise_video()), sample(noise_video().astype(np.float32)))


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        (sample(CLIP, regions=[box_region([0]), box_region([40])]), {"region": 1, "frame": 40}),
        (sample(CLIP, regions=[{"frames": [{"frame_index": 3, "box": [1, 2]}]}]), {"region": 0, "frame": 3, "entry": "frames[0]", "argument": "box"}),
        (sample(CLIP, regions=[{"masks": [{"size": [64, 96], "counts": "~"}], "frame_indices": [7]}]), {"region": 0, "frame": 7}),
        (sample(CLIP, "missing.mp4"), {"video": 1}),
        (sample(images=["missing.png"]), {"image": 0}),
        (sample(noise_video(), regions=[{"frames": [{"time_seconds": 1, "box": [0, 0, 9, 9]}]}]), {"video": 0}),
    ],
    ids=["outside", "box", "masklet", "video", "image", "times"],
)  # fmt: skip
def test_errors_have_their_place_as_fields(broken: SampleMedia, place: dict[str, Any]):
    with pytest.raises(MediaError) as caught:
        load(sample(CLIP), broken)
    names = ("sample", "video", "image", "region", "frame", "entry", "argument")
    found = {name: getattr(caught.value, name) for name in names if getattr(caught.value, name) is not None}
    assert found == {"sample": 1, **place}
    copied = pickle.loads(pickle.dumps(caught.value))  # as loader workers of other libraries do
    assert (type(copied), str(copied), vars(copied)) == (
        type(caught.value),
        str(caught.value),
        vars(caught.value),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------------------------------


def test_image_pixels_are_the_published_ones():
    expected = torch.from_numpy(load_arrays("preprocess/process_video.npz")["image_square/pixels"])
    path = MEDIA / "image.png"
    with Image.open(path) as image:
        picture = image.convert("RGB")
    with path.open("rb") as file:
        kinds = [
            str(path),
            path,
            path.read_bytes(),
            bytearray(path.read_bytes()),
            file,
            file,
            picture,
            np.array(picture),
        ]
        loaded = load(sample(images=kinds))
    torch.testing.assert_close(loaded.tensors["pixel_values"], expected.repeat(len(kinds), 1, 1, 1), atol=1e-6, rtol=0)
    assert loaded.tensors["sample_counts"].tolist() == [[0, len(kinds), 0, 0]]
    assert "pixel_values_videos" not in loaded.tensors
    assert loaded.num_scene_frames == 0


def test_image_as_base64_text():
    import base64

    text = base64.b64encode((MEDIA / "image.png").read_bytes()).decode()
    plain = load_image(MEDIA / "image.png", name="x")
    for encoded in (text, f"data:image/png;base64,{text}"):
        assert np.array_equal(load_image(encoded, name="x"), plain)


def test_images_are_upright_and_rgb(tmp_path):
    picture = Image.fromarray(noise_video(1)[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(load_image(tmp_path / "turned.png", name="x"), np.rot90(np.array(picture), -1))
    gray = picture.convert("L")
    assert np.array_equal(load_image(gray, name="x"), np.array(gray.convert("RGB")))
    assert np.array_equal(load_image(np.array(gray), name="x"), np.array(gray.convert("RGB")))
    assert load_image(picture.convert("RGBA"), name="x").shape == (40, 60, 3)


@pytest.mark.parametrize(
    ("image", "error", "match"),
    [
        ("missing.png", FileNotFoundError, "x: there is no picture at 'missing.png'"),
        (Path("missing.png"), FileNotFoundError, "x: there is no file missing.png"),
        (b"no picture", OSError, "x cannot be read as a picture"),
        (noise_video(1)[0].astype(np.float32), TypeError, "x has dtype float32"),
        (noise_video(1)[0, ..., :2], ValueError, r"x has shape \(40, 60, 2\)"),
        (3, TypeError, "x is a int"),
    ],
    ids=["text", "path", "bytes", "float", "two_channels", "number"],
)
def test_images_that_cannot_be_read(image, error, match):
    with pytest.raises(error, match=match):
        load_image(image, name="x")


def test_nothing_at_all():
    loaded = load(SampleMedia(), SampleMedia())
    assert list(loaded.tensors) == ["sample_counts"]
    assert loaded.tensors["sample_counts"].tolist() == [[0, 0, 0, 0]] * 2
    assert (loaded.video_metadata, loaded.region_metadata, loaded.num_tokens_per_region) == ([], [], [])


def test_metadata_of_files():
    (metadata,) = load(sample(CLIP)).video_metadata
    assert (metadata.total_num_frames, metadata.fps, metadata.height, metadata.width) == (40, 10, 64, 96)
    assert metadata.duration == pytest.approx(4.0)
    assert metadata.video_backend == "pyav"
    assert metadata.frames_indices == [5, 15, 24, 34]
