import pytest

from transformers_videorefer.data.defects import DefectReport, RecordError, make_defect
from transformers_videorefer.data.importers import import_annotations
from transformers_videorefer.data.importers.common import (
    Candidate,
    ImportOptions,
    Shape,
    TrackedObject,
    frame_entry,
    import_rows,
    object_row,
)
from transformers_videorefer.data.importers.videos import VideoInfo


VIDEO = VideoInfo("clip.mp4", 10, 48, 64)


def found(*frames: int, **changes) -> TrackedObject:
    shapes = [Shape(frame, "box", [1, 2, 3, 4]) for frame in frames]
    return TrackedObject(
        **{"row_id": "r", "object_id": "o", "video": VIDEO, "shapes": shapes, "label": "dog", **changes}
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": "What is it?"}, "exactly once, got 0"),
        ({"question": "<region> and <region>?"}, "exactly once, got 2"),
        ({"question": "<video> <region>?"}, "holds <video>"),
        ({"stride": 0}, "`stride` is 0"),
        ({"bad_rows": "drop"}, "`bad_rows` must be one of"),
    ],
)
def test_options_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        ImportOptions(**changes)


def test_frames_come_in_the_order_of_time_and_stride_counts_visible_ones():
    row, defects = object_row(found(9, 2, 5, 7), ImportOptions(stride=2), source="x")
    assert [frame["frame_index"] for frame in row["regions"][0]["frames"]] == [2, 7]
    assert defects == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "a <region>"}, "spell one of the marks"),
        ({"shapes": []}, "visible in no frame"),
        ({"shapes": [Shape(2, "box", [1, 2, 3, 4]), Shape(2, "box", [1, 2, 3, 4])]}, "frame 2 is annotated twice"),
    ],
)
def test_objects_that_make_no_row(changes, message):
    row, defects = object_row(found(1, **changes), ImportOptions(), source="x")
    assert row is None
    assert any(message in defect.message and defect.is_fatal for defect in defects)


def test_a_label_that_the_question_needs_must_be_there():
    _, (defect,) = object_row(found(1, label=None), ImportOptions(question="{label} <region>"), source="x")
    assert defect.kind == "missing_field"


def test_pictures_of_another_size_are_named_and_of_another_shape_refused():
    entry = frame_entry(Shape(1, "box", [1, 2, 30, 200], (96, 128)), VIDEO)
    assert entry == {"frame_index": 1, "rle": None, "box": [1, 2, 30, 96], "size": [96, 128]}
    with pytest.raises(ValueError, match="height 64 and width 48, but the video has 48 and 64"):
        frame_entry(Shape(1, "box", [1, 2, 3, 4], (64, 48)), VIDEO)


@pytest.mark.parametrize("size", [(10**9, 10**9), (2**20, 2**20)])
def test_huge_pictures_are_refused_before_they_are_made(size):
    for form, value in (("box", [1, 2, 3, 4]), ("polygon", [[1, 2, 3, 4, 5, 9]])):
        with pytest.raises(ValueError, match="size"):
            frame_entry(Shape(1, form, value, size), VideoInfo("gone.mp4"))


def test_policies():
    bad = make_defect("broken_box", "it is broken")

    def build(row, defects):
        return Candidate("place", "same", lambda: (row, defects))

    candidates = [build({"n": 1}, []), build({"n": 2}, [bad]), build(None, [bad])]
    with pytest.raises(RecordError, match="place: it is broken.*bad_rows"):
        list(import_rows(candidates))
    report = DefectReport()
    assert list(import_rows(candidates, bad_rows="skip", report=report)) == [{"n": 1}]
    assert (report.num_rows, report.num_skipped, report.counts) == (3, 2, {"broken_box": 2, "duplicate_id": 2})
    assert [entry["position"] for entry in report.skipped] == [1, 2]
    assert list(import_rows(candidates, bad_rows="keep")) == [{"n": 1}, {"n": 2}]


def test_unknown_formats_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match="no format 'voc'. Pass one of coco-video, cvat-video"):
        list(import_annotations("voc", tmp_path, tmp_path))
    with pytest.raises(FileNotFoundError, match="There is no file"):
        list(import_annotations("jsonl", tmp_path / "none", tmp_path))
