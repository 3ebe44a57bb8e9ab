"""Controls: what models are asked when they must not see the video, or not know the region."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from other_models import box_rows, idefics3, write_frames
from tiny import tiny_model, tiny_processor

from transformers_videorefer.data.batches.chat import to_chat
from transformers_videorefer.evaluation.answering import PreparingAnswerer, VideoReferAnswerer
from transformers_videorefer.evaluation.controls import CONTROLS, NoRegion, TextOnly, no_region_row, text_only_row
from transformers_videorefer.evaluation.outlines import OutlineAnswerer


BLIND = (
    "Is the object near the object? (A) yes (B) no. Answer with the option's letter from the given choices directly."
)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_frames(root / "clip")
    return root


class Recorder:
    """An answerer that makes its inputs itself, and keeps the rows that it is asked."""

    def __call__(self, rows: Sequence[Any]) -> list[str]:
        self.rows = list(rows)
        return [str(row["id"]) for row in rows]


def test_rows_of_the_controls() -> None:
    (question, _, description) = box_rows()
    for row, words in (
        (question, BLIND),
        (description, "Please give a detailed description of the highlighted object in the video."),
    ):
        blind, seeing = text_only_row(row), no_region_row(row)
        assert to_chat(blind, "root") == [{"role": "user", "content": [{"type": "text", "text": words}]}]
        video = {"type": "video", "path": str(Path("root", "clip")), "edit_list": "ignore"}
        assert to_chat(seeing, "root") == [{"role": "user", "content": [video, {"type": "text", "text": words}]}]
        assert blind["id"] == row["id"] and blind["regions"] == seeing["regions"] == []


def test_a_row_is_not_changed_in_place() -> None:
    row = box_rows()[0]
    no_region_row(row), text_only_row(row)
    assert row == box_rows()[0]


def test_any_callable_can_be_controlled() -> None:
    for control, num_parts in ((TextOnly, 1), (NoRegion, 2)):
        recorder = Recorder()
        controlled = control(recorder)
        assert isinstance(controlled, PreparingAnswerer)
        assert controlled(box_rows()) == ["q0", "q1", "d0"]
        (message,) = recorder.rows[0]["messages"]
        assert len(message["content"]) == num_parts
        assert message["content"][-1]["text"] == BLIND


def test_videorefer_text_only_needs_no_video(tmp_path: Path) -> None:
    answerer = TextOnly(VideoReferAnswerer(tiny_model(), tiny_processor(), data_root=tmp_path, max_new_tokens=4))
    inputs = answerer.prepare(box_rows())  # there is no clip in the folder
    assert not {name for name in inputs if "pixel" in name or "region" in name}
    assert inputs["sample_counts"].sum() == 0
    assert len(answerer(box_rows())) == 3


@pytest.mark.parametrize("mode", ["single", "multi"])
def test_videorefer_without_regions_knows_nothing_of_them(mode: str, data_root: Path) -> None:
    answerer = VideoReferAnswerer(tiny_model(), tiny_processor(), data_root=data_root, mode=mode, max_new_tokens=4)
    here = box_rows()[1]
    there = {**here, "regions": [{"frames": [{"frame_index": 4, "box": [30, 30, 60, 40]}]}]}
    asked = answerer.prepare([here])
    inputs, others = (NoRegion(answerer).prepare([row]) for row in (here, there))
    assert "region_masks" in asked and "region_masks" not in inputs
    # Scene frames stay: 4 midpoints of 8 frames of levels 0 to 70, normalised to -1 to 1.
    assert torch.equal(inputs["pixel_values_videos"], asked["pixel_values_videos"])
    levels = (inputs["pixel_values_videos"][0, :, 0, 0, 0] + 1) / 2 * 255
    assert np.allclose(levels, [10, 30, 40, 60], atol=0.01)
    assert all(torch.equal(inputs[name], others[name]) for name in inputs)
    assert len(NoRegion(answerer)([here, there])) == 2


def test_other_models_see_the_same_frames_without_outlines(data_root: Path) -> None:
    answerer = OutlineAnswerer(*idefics3(), data_root=data_root, mode="single", num_frames=2, max_new_tokens=3)
    (marked,) = answerer.prepare.to_chat(box_rows()[1])
    control = NoRegion(answerer)
    inputs = control.prepare(box_rows()[1:2])
    plain = answerer.without_marks().prepare(box_rows()[1:2])
    assert all(torch.equal(inputs[name], plain[name]) for name in inputs)
    # Frame 2 is the first annotated one, frame 4 the scene frame; both shown plain: levels 20 and 40.
    (shown,) = answerer.without_marks().prepare.to_chat(box_rows()[1])
    colors = [np.unique(np.asarray(part["image"])).tolist() for part in shown["content"][:-1]]
    assert colors == [[20], [40]]
    assert len(marked["content"]) == 3 and np.unique(np.asarray(marked["content"][0]["image"])).size > 20
    assert len(control(box_rows())) == 3


def test_other_models_text_only(tmp_path: Path) -> None:
    answerer = TextOnly(OutlineAnswerer(*idefics3(), data_root=tmp_path, mode="multi", max_new_tokens=3))
    assert set(answerer.prepare(box_rows())) == {"input_ids", "attention_mask"}
    assert len(answerer(box_rows())) == 3


def test_rows_that_do_not_fit_are_errors_here_too() -> None:
    row = {**box_rows()[0], "regions": []}
    for control in CONTROLS.values():
        with pytest.raises(ValueError, match="Row 'q0': it has 0 region"):
            control(Recorder())([row])
