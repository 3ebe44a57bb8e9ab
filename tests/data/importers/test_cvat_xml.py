import pytest

from transformers_videorefer.data.importers.cvat_xml import read_tracks


def tracks(tmp_path, text: str):
    path = tmp_path / "annotations.xml"
    path.write_text(text, encoding="utf-8")
    return list(read_tracks(path))


def test_heads_of_older_files_have_size_and_source_beside_the_task(tmp_path):
    head = "<meta><task><id>1</id><name>t</name><labels><label><name>car</name></label></labels>"
    head += "<stop_frame>8</stop_frame><frame_filter>step=4</frame_filter></task>"
    head += "<original_size><width>64</width><height>48</height></original_size><source>a.mp4</source></meta>"
    box = '<box frame="3" outside="0"><attribute name="caption">two\nlines</attribute></box>'
    ((track, task),) = tracks(tmp_path, f'<annotations>{head}<track id="7" label="car">{box}</track></annotations>')
    assert (task.name, task.source, task.size, task.stop_frame, task.step) == ("t", "a.mp4", (48, 64), 8, 4)
    assert (track.track_id, track.label, track.shapes[0].attrs["frame"]) == ("7", "car", "3")
    assert track.shapes[0].attributes == {"caption": "two\nlines"}
    assert track.shapes[0].is_key_frame


def test_parts_of_skeletons_are_no_shapes_of_the_track(tmp_path):
    skeleton = '<skeleton frame="1" keyframe="0"><points label="nose" points="1,2"/></skeleton>'
    ((track, _),) = tracks(tmp_path, f'<annotations><track id="0">{skeleton}</track></annotations>')
    assert [(shape.kind, shape.is_key_frame) for shape in track.shapes] == [("skeleton", False)]


def test_tracks_of_unknown_tasks_are_refused(tmp_path):
    tasks = "".join(f"<task><id>{number}</id></task>" for number in (1, 2))
    with pytest.raises(ValueError, match="`task_id` '3' is none of the tasks 1, 2"):
        tracks(
            tmp_path,
            f'<annotations><meta><project><tasks>{tasks}</tasks></project></meta><track task_id="3"/></annotations>',
        )
