from pathlib import Path

import numpy as np
import pytest
from import_helpers import boxes_of, frames_of, masks_of, pixels, run_import
from video_files import write_video

from transformers_videorefer.data.defects import RecordError


HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>4</id><name>street task</name><size>12</size><mode>interpolation</mode>
      <start_frame>0</start_frame><stop_frame>11</stop_frame><frame_filter>{frame_filter}</frame_filter>
      <labels><label><name>car</name></label></labels>
      <segments><segment><id>1</id><start>0</start><stop>11</stop></segment></segments>
      <original_size><width>64</width><height>48</height></original_size>
      <source>street.mp4</source>
    </task>
  </meta>
"""


def box(frame: int, corners: str, *, outside: int = 0, key: int = 1, extra: str = "", inner: str = "") -> str:
    x0, y0, x1, y1 = corners.split()
    numbers = f'xtl="{x0}" ytl="{y0}" xbr="{x1}" ybr="{y1}"'
    flags = f'keyframe="{key}" outside="{outside}" occluded="1"'
    return f'<box frame="{frame}" {flags} {numbers} {extra} z_order="0">{inner}</box>\n'


def track(*shapes: str, number: int = 0, label: str = "car", extra: str = "") -> str:
    return f'<track id="{number}" label="{label}" source="manual" {extra}>\n{"".join(shapes)}</track>\n'


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    (tmp_path / "videos" / "day").mkdir(parents=True)
    write_video(tmp_path / "videos" / "day" / "street.mp4", 12)
    return tmp_path / "videos"


@pytest.fixture
def save(tmp_path: Path):
    def write(*tracks: str, head: str = HEAD, frame_filter: str = "") -> Path:
        path = tmp_path / "annotations.xml"
        path.write_text(head.replace("{frame_filter}", frame_filter) + "".join(tracks) + "</annotations>\n", "utf-8")
        return path

    return write


def test_key_frames_are_interpolated_until_the_object_is_outside(save, videos):
    path = save(
        track(
            box(2, "10 10 20 20", inner='<attribute name="caption">A red car.</attribute>'),
            box(6, "18 14 32 20", inner='<attribute name="caption">Later.</attribute>'),
            box(8, "20 16 36 24", outside=1),
            box(10, "0 0 8 8"),
        )
    )
    (row,), report = run_import("cvat-video", path, videos, answer_field="caption")
    assert boxes_of(row) == {
        2: [10, 10, 20, 20],
        3: [12, 11, 23, 20],
        4: [14, 12, 26, 20],
        5: [16, 13, 29, 20],
        6: [18, 14, 32, 20],
        7: [19, 15, 34, 22],  # half way to the last box, which is itself outside
        10: [0, 0, 8, 8],
        11: [0, 0, 8, 8],  # held to the end of the task
    }
    assert (row["id"], row["video"], row["edit_list"]) == ("0", "day/street.mp4", "apply")
    assert row["messages"][1] == {"role": "assistant", "content": "A red car."}
    assert report.counts == {}


def test_a_track_that_is_written_in_full_is_taken_as_it_is(save, videos):
    path = save(track(box(2, "10 10 20 20"), box(3, "11 11 21 21", key=0), box(6, "18 14 32 20")))
    (row,), _ = run_import("cvat-video", path, videos)
    assert boxes_of(row) == {2: [10, 10, 20, 20], 3: [11, 11, 21, 21], 6: [18, 14, 32, 20]}


def test_boxes_are_cut_at_the_border_and_those_beyond_it_are_left_out(save, videos):
    path = save(track(box(0, "-6 40 10 60"), box(1, "70 0 80 10"), box(2, "60 0 70 10"), box(3, "1 1 2 2", outside=1)))
    (row,), _ = run_import("cvat-video", path, videos)
    assert boxes_of(row) == {0: [0, 40, 10, 48], 2: [60, 0, 64, 10]}


def test_rotation_turns_the_box_about_its_centre_clockwise(save, videos):
    # A 20 x 8 box about (30, 20), turned by 90 degrees, covers 8 x 20 pixels.
    path = save(track(box(1, "20 16 40 24", extra='rotation="90.00"'), box(2, "20 16 40 24", outside=1)))
    (row,), _ = run_import("cvat-video", path, videos)
    np.testing.assert_array_equal(masks_of(row)[1], pixels(48, 64, slice(10, 30), slice(26, 34)))


def test_rotation_is_interpolated_along_the_shorter_way(save, videos):
    # From 350 to 10 degrees over 0: the frame between is not turned at all.
    path = save(
        track(
            box(1, "20 16 40 24", extra='rotation="350"'),
            box(3, "20 16 40 24", extra='rotation="10"'),
            box(4, "20 16 40 24", outside=1),
        )
    )
    (row,), _ = run_import("cvat-video", path, videos)
    assert boxes_of(row) == {2: [20, 16, 40, 24]}
    assert sorted(masks_of(row)) == [1, 3]


def test_polygons_are_held(save, videos):
    polygon = '<polygon frame="{}" keyframe="1" outside="{}" occluded="0" points="4.00,6.00;12.00,6.00;12.00,9.00;4.00,9.00"/>'
    path = save(track(polygon.format(1, 0), polygon.format(4, 1)))
    (row,), _ = run_import("cvat-video", path, videos)
    masks = masks_of(row)
    assert list(masks) == [1, 2, 3]
    for mask in masks.values():
        np.testing.assert_array_equal(mask, pixels(48, 64, slice(6, 9), slice(4, 12)))


def test_masks_run_row_by_row_from_their_corner(save, videos):
    # 3 x 2 pixels at (5, 7): background 1, object 3, background 1, object 1 -> .XX / X.X
    mask = '<mask frame="{}" keyframe="1" outside="{}" occluded="0" rle="1, 3, 1, 1" left="5" top="7" width="3" height="2"/>'
    path = save(track(mask.format(3, 0), mask.format(4, 1)), track(mask.format(6, 0), number=1))
    rows, _ = run_import("cvat-video", path, videos)
    expected = np.zeros((48, 64), dtype=bool)
    expected[7, [6, 7]] = True
    expected[8, [5, 7]] = True
    assert [frames_of(row) for row in rows] == [[3], [6]]
    for row in rows:
        np.testing.assert_array_equal(next(iter(masks_of(row).values())), expected)


def test_a_step_keeps_the_numbers_of_the_source_video(save, videos):
    path = save(track(box(0, "0 0 10 10"), box(6, "12 0 22 10"), box(9, "0 0 9 9", outside=1)), frame_filter="step=3")
    (row,), _ = run_import("cvat-video", path, videos)
    assert boxes_of(row) == {0: [0, 0, 10, 10], 3: [6, 0, 16, 10], 6: [12, 0, 22, 10]}
    (row,), _ = run_import("cvat-video", path, videos, stride=2)
    assert frames_of(row) == [0, 6]


def test_a_project_adds_the_frames_of_earlier_tasks(save, videos):
    write_video(videos / "night.mp4", 12)
    task = "<task><id>{}</id><name>{}</name><size>5</size><subset>{}</subset><start_frame>2</start_frame>"
    task += "<stop_frame>6</stop_frame><frame_filter></frame_filter><source>{}</source>"
    task += "<original_size><width>64</width><height>48</height></original_size></task>"
    tasks = task.format(8, "a", "train", "street.mp4") + task.format(9, "b", "train", "night.mp4")
    tasks += task.format(10, "c", "val", "night.mp4")
    head = f"<annotations><meta><project><id>1</id><tasks>{tasks}</tasks></project></meta>"
    ends = [box(n, "0 0 9 9", outside=1) for n in (5, 12, 5)]
    path = save(
        track(box(4, "1 1 5 5"), ends[0], number=0, extra='task_id="8"'),
        # The first task has frames 2 to 6 and takes 2 + 5 numbers, so frame 4 of the second one is written as 11.
        track(box(11, "2 2 6 6"), ends[1], number=1, extra='task_id="9"'),
        track(box(4, "3 3 7 7"), ends[2], number=2, extra='task_id="10"'),
        head=head,
    )
    rows, _ = run_import("cvat-video", path, videos)
    assert [(row["id"], row["video"], boxes_of(row)) for row in rows] == [
        ("8-0", "day/street.mp4", {4: [1, 1, 5, 5]}),
        ("9-1", "night.mp4", {4: [2, 2, 6, 6]}),
        ("10-2", "night.mp4", {4: [3, 3, 7, 7]}),
    ]


def test_a_job_names_no_video_and_takes_the_only_one(save, videos):
    head = "<annotations><meta><job><id>3</id><start_frame>0</start_frame><stop_frame>4</stop_frame></job>"
    head += "<original_size><width>64</width><height>48</height></original_size></meta>"
    path = save(track(box(3, "1 1 5 5"), box(4, "1 1 5 5", outside=1)), head=head)
    (row,), _ = run_import("cvat-video", path, videos)
    assert (row["video"], boxes_of(row)) == ("day/street.mp4", {3: [1, 1, 5, 5]})
    write_video(videos / "other.mp4", 2)
    with pytest.raises(RecordError, match="no video"):
        run_import("cvat-video", path, videos)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ('<points frame="1" keyframe="1" outside="0" points="1,2"/>', "`points` is no region"),
        (box(1, "1 1 x 5"), "needs a number in `xbr`, got 'x'"),
        (box(1, "9 1 5 5"), "x1 <= x0"),
        (box(12, "1 1 5 5"), "frame 12 lies outside the video of 12 frames"),
        (box(1, "1 1 5 5") * 2, "frame 1 stands twice"),
        ('<polygon frame="1" outside="0" points="1,2;3"/>', "at least three points"),
        ('<mask frame="1" outside="0" rle="1,2" left="0" top="0" width="3" height="2"/>', "cover 3 pixels, but 3 x 2"),
        ('<mask frame="1" outside="0" rle="6" left="62" top="0" width="3" height="2"/>', "reaches out of the picture"),
        (box(1, "1 1 5 5", outside=1), "visible in no frame"),
    ],
)
def test_broken_tracks_are_named_or_skipped(save, videos, shapes, message):
    path = save(track(shapes), track(box(1, "1 1 5 5"), number=1))
    with pytest.raises(RecordError, match=rf"annotations\.xml, line 14, track 0: .*{message}"):
        run_import("cvat-video", path, videos)
    rows, report = run_import("cvat-video", path, videos, bad_rows="skip")
    assert [row["id"] for row in rows] == ["1"]
    assert report.num_skipped == 1


def test_keep_goes_on_without_the_video(save, tmp_path):
    (tmp_path / "empty").mkdir()
    path = save(track(box(1, "1 1 5 5"), box(3, "3 3 7 7"), box(4, "3 3 7 7", outside=1)))
    with pytest.raises(RecordError, match="no video 'street.mp4'"):
        run_import("cvat-video", path, tmp_path / "empty")
    (row,), report = run_import("cvat-video", path, tmp_path / "empty", bad_rows="keep")
    assert (row["video"], boxes_of(row)) == ("street.mp4", {1: [1, 1, 5, 5], 2: [2, 2, 6, 6], 3: [3, 3, 7, 7]})
    assert row["regions"][0]["frames"][0]["size"] == [48, 64]
    assert report.counts == {"missing_video": 1}


BILLION_LAUGHS = """<?xml version="1.0"?>
<!DOCTYPE annotations [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>
<annotations><meta><task><name>&b;</name></task></meta></annotations>"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BILLION_LAUGHS, r"line 2: the file declares an entity.*Remove the DOCTYPE"),
        ("<annotations>\n<track id='0'>\n</annotations>", r"bad\.xml, line 3, column 3: no XML: mismatched tag"),
        ("", "no XML: no element found"),
        ("<annotations><image id='0'/></annotations>", "CVAT for images"),
        ("<root/>", "begins with <root>, not <annotations>"),
        ('{"a": 1}', "line 1, column 1: no XML"),
        ("<annotations><meta><task><size>x</size></task></meta><track id='0'/></annotations>", "`size` in the head"),
    ],
)
def test_broken_files(tmp_path, videos, text, message):
    path = tmp_path / "bad.xml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        run_import("cvat-video", path, videos, bad_rows="skip")
