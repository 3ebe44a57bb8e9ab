from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REFERENCE, load_json
from PIL import Image
from tiny import noise_video, tiny_model, tiny_processor

from transformers_videorefer.data import VideoReferDataCollator, from_published
from transformers_videorefer.evaluation import PreparingAnswerer, VideoReferAnswerer


NUM_FRAMES = 12


@pytest.fixture
def row(tmp_path: Path) -> dict[str, Any]:
    """A description whose object is marked on frames 3, 5 and 8."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for number, frame in enumerate(noise_video(NUM_FRAMES)):
        Image.fromarray(frame).save(folder / f"{number:05d}.png")
    frames = [
        {"frame_index": index, "rle": None, "box": [2.0 * index, 2, 2.0 * index + 20, 30], "size": None}
        for index in (3, 5, 8)
    ]
    region = {"object_id": "0", "media": 0, "frames": frames}
    return {"id": "a", "video": "clip", "caption": "", "frame_index": 5, "regions": [region], "edit_list": "apply"}


def make_answerer(root: Path, **options: Any) -> VideoReferAnswerer:
    return VideoReferAnswerer(tiny_model(), tiny_processor(), data_root=root, max_new_tokens=8, **options)


def test_it_answers_in_two_steps(tmp_path: Path, row: dict[str, Any]) -> None:
    answerer = make_answerer(tmp_path)
    assert isinstance(answerer, PreparingAnswerer)
    rows = [row, {**row, "id": "b", "frame_index": 3}]
    inputs = answerer.prepare(rows)
    assert answerer.answer(inputs) == answerer(rows)
    assert len(answerer(rows)) == 2
    assert answerer.model.training is False


@pytest.mark.parametrize(("mode", "num_tokens"), [("single", [1]), ("multi", [3])])
def test_modes_keep_one_frame_or_all(tmp_path: Path, row: dict[str, Any], mode: str, num_tokens: list[int]) -> None:
    inputs = make_answerer(tmp_path, mode=mode).prepare([row])
    assert inputs["region_num_tokens"].tolist() == num_tokens


def test_options_reach_the_inputs(tmp_path: Path, row: dict[str, Any]) -> None:
    inputs = make_answerer(tmp_path, num_frames=6, num_region_tokens=2).prepare([row])
    assert inputs["pixel_values_videos"].shape[1] == 6
    assert inputs["region_num_tokens"].tolist() == [2]
    assert make_answerer(tmp_path, num_region_frames=1).prepare([row])["region_lengths"].tolist() == [1]
    assert make_answerer(tmp_path, num_region_frames="all").prepare([row])["region_lengths"].tolist() == [3]


def test_empty_masks_follow_their_rule(tmp_path: Path, row: dict[str, Any]) -> None:
    frames = row["regions"][0]["frames"]
    row["regions"][0]["frames"] = [{**frames[0], "box": None}, *frames[1:]]
    assert make_answerer(tmp_path).prepare([row])["region_lengths"].tolist() == [2]
    assert make_answerer(tmp_path, empty_masks="keep").prepare([row])["region_lengths"].tolist() == [3]


def test_edit_lists_of_rows_give_way(tmp_path: Path, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def collect(self: VideoReferDataCollator, rows: Any) -> dict:
        seen.extend(row["edit_list"] for row in rows)
        return {}

    monkeypatch.setattr(VideoReferDataCollator, "__call__", collect)
    make_answerer(tmp_path).prepare([row])
    make_answerer(tmp_path, edit_list="ignore").prepare([row])
    assert seen == ["apply", "ignore"]
    assert row["edit_list"] == "apply"


def test_it_decodes_greedily_whatever_the_checkpoint_says(tmp_path: Path, row: dict[str, Any]) -> None:
    answerer = make_answerer(tmp_path)
    expected = answerer([row])
    answerer.model.generation_config.update(do_sample=True, temperature=5.0, num_beams=2)
    assert [answerer([row]) for _ in range(3)] == [expected] * 3


def test_the_penalty_of_the_checkpoint_can_be_replaced(published_model: Any, published_processor: Any) -> None:
    """The recorded checkpoint has 1.05; far below 1 the same token comes again and again."""
    row = from_published(load_json("annotations/bench_d.json")[1])
    options = {"data_root": REFERENCE / "media", "num_frames": 8, "max_new_tokens": 12, "empty_masks": "keep"}
    answers = {
        penalty: VideoReferAnswerer(published_model, published_processor, repetition_penalty=penalty, **options)([row])
        for penalty in (None, 1.05, 0.1)
    }
    assert answers[None] == answers[1.05] != answers[0.1]


def test_answers_of_a_batch_are_those_of_its_rows(tmp_path: Path, row: dict[str, Any]) -> None:
    answerer = make_answerer(tmp_path)
    longer = {**row, "id": "b", "question": "Is <region> there?", "options": ["(A) yes", "(B) no"]}
    assert answerer([row, longer]) == [answerer([row])[0], answerer([longer])[0]]
    assert torch.is_grad_enabled()


def test_bad_rows_are_named(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(OSError, match="Row 'a': .*none"):
        make_answerer(tmp_path)([{**row, "video": "none"}])
    with pytest.raises(ValueError, match="Row 'a': region 0 has no mask on frame 4"):
        make_answerer(tmp_path, mode="single")([{**row, "frame_index": 4}])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"mode": "both"}, "`mode` must be one of single, multi"),
        ({"edit_list": "row"}, "`edit_list` is .row.. Pass one of .apply., .ignore."),
        ({"max_new_tokens": 0}, "`max_new_tokens` is 0"),
        ({"empty_masks": "hide"}, "empty_masks"),
    ],
)
def test_impossible_options_are_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoReferAnswerer(tiny_model(), tiny_processor(), **option)
