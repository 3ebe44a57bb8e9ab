"""Numbering of frames and stacking, from loaded samples made by hand."""

import numpy as np
import torch
from tiny import SIZE, noise_video
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.video_utils import VideoMetadata

from transformers_videorefer.inputs.assembly import LoadedRegion, LoadedSample, assemble
from transformers_videorefer.inputs.items import SampleMedia
from transformers_videorefer.models.videorefer.video_processing_videorefer import VideoReferVideoProcessor


def make_region(positions, media=0, cell=0) -> LoadedRegion:
    region = LoadedRegion("x", media)
    for position in positions:
        mask = np.zeros((4, 4), dtype=bool)
        mask.flat[cell] = True
        region.add(100 + position, position, np.full((56, 56, 3), position, dtype=np.uint8), mask)
    return region


def make_sample(kinds, scene_positions, regions) -> LoadedSample:
    frames = {position: np.full((56, 56, 3), position, dtype=np.uint8) for position in range(20)}
    return LoadedSample(
        media=SampleMedia(kinds),
        scenes=[[frames[position] for position in positions] for positions in scene_positions],
        scene_positions=scene_positions,
        images=[noise_video(1, seed=n)[0] for n in range(kinds.count("image"))],
        regions=regions,
        video_metadata=[VideoMetadata(total_num_frames=20) for _ in scene_positions],
    )


def make(*samples, num_region_tokens=2):
    return assemble(
        samples, VideoReferVideoProcessor(size=SIZE), SiglipImageProcessorPil(size=SIZE), num_region_tokens
    )


def test_frames_are_numbered_within_their_sample():
    first = make_sample(
        ("video", "image", "video"),
        [[2, 2, 5], [1, 2, 3]],
        [make_region([2, 7, 5], 0, cell=3), make_region([0], 1), make_region([3, 7], 2), make_region([7], 0)],
    )
    second = make_sample(("image",), [], [make_region([0], 0)])
    third = make_sample(("video",), [[1, 2, 3]], [make_region([9, 9], 0)])
    made = make(first, second, third)
    # Scene frames 0 to 5 (the first of the two equal ones counts), image 6, then 7 of the first and 7 of the second.
    assert made.tensors["region_frame_index"].tolist() == [0, 7, 2, 6, 5, 8, 7, 0, 3, 3]
    assert made.tensors["sample_counts"].tolist() == [[2, 1, 2, 4], [0, 1, 0, 1], [1, 0, 1, 1]]
    assert made.tensors["region_lengths"].tolist() == [3, 1, 2, 1, 1, 2]
    assert made.tensors["region_num_tokens"].tolist() == made.num_tokens_per_region == [2, 1, 2, 1, 1, 2]
    assert made.tensors["region_masks"].shape == (10, 16)
    assert made.tensors["region_masks"].dtype == torch.bool
    assert made.tensors["region_masks"].nonzero().tolist()[:4] == [[0, 3], [1, 3], [2, 3], [3, 0]]
    levels = made.tensors["region_pixel_values"].mean(dim=(1, 2, 3))
    torch.testing.assert_close(levels, (torch.tensor([7.0, 7.0, 9.0]) / 255 - 0.5) / 0.5)
    assert made.tensors["pixel_values_videos"].shape == (3, 3, 3, 56, 56)
    assert made.tensors["pixel_values"].shape == (2, 3, 56, 56)
    assert [one["sample"] for one in made.region_metadata] == [0, 0, 0, 0, 1, 2]
    assert made.region_metadata[2] == {
        "sample": 0, "object_id": "x", "media": 2, "frame_indices": [103, 107], "num_tokens": 2
    }  # fmt: skip


def test_absent_kinds_have_no_tensor():
    assert set(make(make_sample(("video",), [[1, 2]], [])).tensors) == {"pixel_values_videos", "sample_counts"}
    assert set(make(make_sample(("image",), [], [])).tensors) == {"pixel_values", "sample_counts"}
    with_region = make(make_sample(("video",), [[1, 2]], [make_region([1])]))
    assert "region_pixel_values" not in with_region.tensors
    assert all(
        tensor.dtype == torch.long
        for name, tensor in with_region.tensors.items()
        if "pixel" not in name and "mask" not in name
    )
