import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ProcessorMixin

from transformers_videorefer.data.synthetic.clips import (
    SPLIT_SEEDS,
    bench_d_rows,
    bench_q_rows,
    conversation_rows,
    encode_rle,
    encode_video,
    iterate_clips,
    make_clip,
    object_region,
    write_clip,
)
from transformers_videorefer.data.synthetic.world import FRAME_SIZE, NUM_FRAMES
from transformers_videorefer.regions.grid import grid_mask
from transformers_videorefer.regions.rle import decode_rle


def decode(video: bytes) -> np.ndarray:
    with av.open(io.BytesIO(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_the_file_is_h264_with_all_frames_close_to_the_rendered_ones(tmp_path: Path) -> None:
    clip = make_clip(3)
    path = write_clip(clip, tmp_path / "new")
    assert path == tmp_path / "new" / "00000003.mp4"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", FRAME_SIZE, FRAME_SIZE)
    decoded = decode(path.read_bytes())
    assert decoded.shape == (NUM_FRAMES, FRAME_SIZE, FRAME_SIZE, 3)
    assert np.abs(decoded.astype(int) - clip.frames).mean() < 6


def test_equal_seeds_give_equal_rows_and_files() -> None:
    one, same = make_clip(11), make_clip(11)
    assert conversation_rows(one) == conversation_rows(same)
    assert encode_video(one.frames) == encode_video(same.frames)


def test_splits_share_no_clip() -> None:
    seeds = {split: {clip.scene.seed for clip in iterate_clips(split, 3)} for split in SPLIT_SEEDS}
    assert [len(found) for found in seeds.values()] == [3, 3, 3]
    assert len(set.union(*seeds.values())) == 9
    with pytest.raises(ValueError, match="`split` must be one of train, validation, test, got 'dev'"):
        next(iterate_clips("dev", 1))


@pytest.mark.parametrize("corner", [False, True])
def test_rle_strings_are_those_of_coco(corner: bool) -> None:
    coco_mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        mask = rng.random((37, 53)) < share
        mask[0, 0] = corner
        expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert encode_rle(mask) == {"size": [37, 53], "counts": expected["counts"].decode()}


def test_a_region_holds_the_masks_of_all_frames() -> None:
    clip = make_clip(5)
    region = object_region(clip, 1)
    assert region["object_id"] == "1" and region["media"] == 0
    assert [frame["frame_index"] for frame in region["frames"]] == list(range(NUM_FRAMES))
    for frame in region["frames"]:
        assert set(frame) == {"frame_index", "rle", "box", "size"}
        np.testing.assert_array_equal(decode_rle(frame["rle"]), clip.masks[1, frame["frame_index"]])


def test_rows_have_the_schema_of_the_training_data() -> None:
    clip = make_clip(SPLIT_SEEDS["test"])
    rows = conversation_rows(clip)
    assert len(rows) == len(clip.questions) == len({row["id"] for row in rows})
    for row, question in zip(rows, clip.questions, strict=True):
        assert list(row) == ["id", "video", "image", "messages", "regions", "edit_list", "task", "source"]
        user, assistant = row["messages"]
        assert user["content"].startswith("<video>\n") and user["content"].count("<region>") == len(row["regions"])
        assert assistant == {"role": "assistant", "content": question.reply}
        assert [region["object_id"] for region in row["regions"]] == [str(index) for index in question.objects]
    assert json.loads(json.dumps(rows)) == rows


def test_bench_q_rows_name_option_and_type() -> None:
    rows = [row for seed in range(12) for row in bench_q_rows(make_clip(seed))]
    assert {row["type"] for row in rows} == {
        "Basic Questions",
        "Sequential Questions",
        "Relationship Questions",
        "Reasoning Questions",
        "Future Predictions",
    }
    for row in rows:
        assert list(row)[:6] == ["id", "video", "question", "options", "answer", "type"]
        assert row["answer"] in row["options"] and len(set(row["options"])) == len(row["options"])
        assert [option[:4] for option in row["options"]] == [
            f"({letter}) " for letter in "ABCD"[: len(row["options"])]
        ]
        assert row["question"].count("<region>") == len(row["regions"])


def test_bench_d_rows_describe_each_object_once() -> None:
    clip = make_clip(2)
    rows = bench_d_rows(clip)
    assert [row["regions"][0]["object_id"] for row in rows] == [str(index) for index in range(len(clip.masks))]
    for row, one in zip(rows, clip.scene.objects, strict=True):
        assert one.shape in row["caption"] and row["frame_index"] == 0


def test_rows_go_through_the_processor(published_processor: ProcessorMixin, tmp_path: Path) -> None:
    clip = make_clip(4)
    write_clip(clip, tmp_path)
    row = next(row for row in conversation_rows(clip) if len(row["regions"]) == 2)
    messages = row["messages"][:1]
    inputs = published_processor.apply_chat_template(
        messages,
        videos=[str(tmp_path / row["video"])],
        regions=row["regions"],
        num_frames=4,
        num_region_frames=6,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert inputs["region_lengths"].tolist() == [6, 6]
    grid = published_processor.grid_size
    # Six parts of the 23 frames from first to last: midpoints 1.92, 5.75, 9.58, 13.42, 17.25, 21.08.
    expected = [
        grid_mask(clip.masks[int(one["object_id"]), frame], (grid, grid), keep_vanished=False).ravel()
        for one in row["regions"]
        for frame in (2, 6, 10, 13, 17, 21)
    ]
    np.testing.assert_array_equal(inputs["region_masks"].numpy(), np.stack(expected))
    # Scene frame 1 of 4 is source frame 9 (midpoint of the second quarter of 23, 8.625).
    side = published_processor.video_processor.size["height"]
    picture = Image.fromarray(decode((tmp_path / row["video"]).read_bytes())[9])
    resized = np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(resized.copy()).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(inputs["pixel_values_videos"][0, 1], pixels, atol=0.02, rtol=0)
