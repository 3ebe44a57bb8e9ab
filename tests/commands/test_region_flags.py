"""Flags that mark regions."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transformers_videorefer.cli import build_parser
from transformers_videorefer.commands.region_flags import (
    RegionFlag,
    build_region,
    group_flags,
    parse_region_flag,
)


def save_mask(path: Path, mask: np.ndarray | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    mask = np.eye(4, dtype=np.uint8) * 255 if mask is None else mask
    Image.fromarray(mask).save(path)
    return path


def build(*flags: RegionFlag, is_image: bool = False, frame_times: list[float] | None = None) -> dict:
    def times() -> list[float]:
        assert frame_times is not None, "times are asked for where they are not needed"
        return frame_times

    (marked,) = group_flags(flags)
    return build_region(marked, is_image=is_image, frame_times=times)


def parse(option: str, text: str) -> RegionFlag:
    return parse_region_flag(option, text)


@pytest.mark.parametrize(
    ("option", "text", "name", "entry", "frame_index", "time_seconds"),
    [
        ("--box", "1,2,3,4.5@6", None, {"box": [1, 2, 3, 4.5]}, 6, None),
        ("--box", "brown dog=1,2,3,4@1.5s", "brown dog", {"box": [1, 2, 3, 4]}, None, 1.5),
        ("--box", "1,2,3,4@.5s", None, {"box": [1, 2, 3, 4]}, None, 0.5),
        ("--box", "a=-1,-2,3,4", "a", {"box": [-1, -2, 3, 4]}, None, None),
        ("--polygon", "1,2,3,4,5,6@0", None, {"polygon": [[1, 2, 3, 4, 5, 6]]}, 0, None),
        ("--polygon", "a=1,2,3,4,5,6;7,8,9,1,2,3@0", "a", {"polygon": [[1, 2, 3, 4, 5, 6], [7, 8, 9, 1, 2, 3]]}, 0, None),
        ("--scribble", "1,2,3,4:8@0s", None, {"scribble": {"points": [(1, 2), (3, 4)], "width": 8}}, None, 0.0),
    ],
)  # fmt: skip
def test_shapes_are_read(option, text, name, entry, frame_index, time_seconds):
    flag = parse(option, text)
    assert (flag.name, flag.entry, flag.frame_index, flag.time_seconds) == (name, entry, frame_index, time_seconds)
    assert flag.typed == f"{option} {text}"


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--box", "1,2,3@0", "a box has 4 numbers, not 3"),
        ("--box", "1,2,x,4@0", "'x' is no number"),
        ("--box", "", "'' is no number"),
        ("--box", "1,2,3,4@-1", r"'-1' is neither a frame number \(@12\) nor seconds \(@1.5s\)"),
        ("--box", "1,2,3,4@1.5", "'1.5' is neither a frame number"),
        ("--box", "1,2,3,4@", "'' is neither a frame number"),
        ("--box", "=1,2,3,4@0", "the name before `=` is empty"),
        ("--polygon", "1,2,3,4@0", "4 numbers make no polygon of at least three points"),
        ("--polygon", "1,2,3,4,5,6,7@0", "7 numbers make no polygon"),
        ("--scribble", "1,2,3,4@0", "the width of the line is missing"),
        ("--scribble", "1,2,3:4@0", "3 numbers make no points"),
        ("--mask", "a=@0", "the file is missing"),
    ],
)
def test_wrong_form_is_refused_with_the_flag_and_the_right_form(option, text, message):
    with pytest.raises(ValueError, match=rf"^`{option} .*`: {message}") as caught:
        parse(option, text)
    assert f"`{option} {text}`" in str(caught.value)
    assert f"Write {option} [NAME=]" in str(caught.value)
    assert f"e.g. {option} " in str(caught.value)


def test_paths_of_masks_may_hold_the_separators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("plain.png", "a=b.png", "c@d.png", "e#1.png", "f@2.png"):
        save_mask(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for text, name, entry, frame_index in (
        ("plain.png@7", None, {"mask": "plain.png"}, 7),
        ("dog=plain.png#3@7", "dog", {"mask": "plain.png", "label": 3}, 7),
        ("dog=plain.png", "dog", {"mask": "plain.png"}, None),
        ("a=b.png", None, {"mask": "a=b.png"}, None),
        ("./a=b.png@7", None, {"mask": "a=b.png"}, 7),
        (f"{tmp_path}/a=b.png@7", None, {"mask": f"{tmp_path}/a=b.png"}, 7),
        ("c@d.png@7", None, {"mask": "c@d.png"}, 7),
        ("c@d.png", None, {"mask": "c@d.png"}, None),
        ("e#1.png@7", None, {"mask": "e#1.png"}, 7),
    ):
        flag = parse("--mask", text)
        assert (flag.name, flag.entry, flag.frame_index) == (name, entry, frame_index), text


def test_missing_files_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"`--mask a=no.png@3`: there is no file no.png"):
        parse("--mask", "a=no.png@3")
    with pytest.raises(ValueError, match=r"`--masklet no.npz`: there is no file no.npz"):
        parse("--masklet", "no.npz")
    with pytest.raises(ValueError, match="is a folder. Pass a folder of masks with --masklet"):
        parse("--mask", f"{tmp_path}@3")


def test_regions_stand_in_the_order_of_the_flags_over_all_kinds(tmp_path: Path):
    mask = save_mask(tmp_path / "m.png")
    np.savez(tmp_path / "m.npz", masks=np.ones((2, 4, 4), dtype=bool), frame_indices=[1, 2])
    command = ["ask", "v.mp4", "?", "--mask", f"{mask}@1", "--box", "dog=1,2,3,4@5", "--masklet", f"{tmp_path}/m.npz"]
    command += ["--polygon=1,2,3,4,5,6@7", "--box", "1,2,3,4@8", "--mask", f"dog={mask}@2", "--box", "1,2,3,4@9"]
    marked = group_flags(build_parser().parse_args(command).region_flags)
    options = [[flag.option for flag in region.flags] for region in marked]
    assert options == [["--mask"], ["--box", "--mask"], ["--masklet"], ["--polygon"], ["--box"], ["--box"]]
    assert [region.name for region in marked] == [None, "dog", None, None, None, None]
    assert marked[1].typed == f"--box dog=1,2,3,4@5 --mask dog={mask}@2"


def test_parsing_twice_starts_with_an_empty_list():
    command = ["ask", "v.mp4", "?", "--box", "1,2,3,4@5"]
    parser = build_parser()
    assert len(parser.parse_args(command).region_flags) == len(parser.parse_args(command).region_flags) == 1


def test_frames_of_a_region_are_put_in_the_order_of_time():
    region = build(parse("--box", "dog=1,2,3,4@9"), parse("--box", "dog=5,6,7,8@2"))
    assert region == {
        "type": "region",
        "object_id": "dog",
        "frames": [{"frame_index": 2, "box": [5, 6, 7, 8]}, {"frame_index": 9, "box": [1, 2, 3, 4]}],
    }
    region = build(parse("--box", "dog=1,2,3,4@1.5s"), parse("--box", "dog=5,6,7,8@.5s"))
    assert [frame["time_seconds"] for frame in region["frames"]] == [0.5, 1.5]


def test_numbers_and_seconds_are_ordered_by_the_times_of_the_video():
    flags = [parse("--box", f"dog=1,2,3,4@{frame}") for frame in ("3", "0.25s", "1", "9s", "99")]
    region = build(*flags, frame_times=[0.0, 0.2, 0.3, 0.9])
    order = [frame.get("frame_index", frame.get("time_seconds")) for frame in region["frames"]]
    # 0.2 s, 0.25 s, 0.9 s; frame 99, which the processor will refuse, counts as the last one.
    assert order == [1, 0.25, 3, 99, 9.0]


def test_unnamed_region_has_no_object_id():
    assert build(parse("--box", "1,2,3,4@0")) == {
        "type": "region",
        "frames": [{"frame_index": 0, "box": [1, 2, 3, 4]}],
    }


def test_frame_may_be_left_out_on_images_only():
    assert build(parse("--box", "1,2,3,4"), is_image=True)["frames"] == [{"box": [1, 2, 3, 4]}]
    with pytest.raises(ValueError, match=r"`--box a=1,2,3,4`: the frame is missing. Write --box \[NAME=\]"):
        build(parse("--box", "a=1,2,3,4"))


def test_frame_marked_twice_is_refused():
    with pytest.raises(ValueError, match="`--polygon a=1,2,3,4,5,6@3`: this frame of the region is marked twice"):
        build(parse("--box", "a=1,2,3,4@3"), parse("--polygon", "a=1,2,3,4,5,6@3"))


def test_masklet_file_with_frame_numbers(tmp_path: Path):
    masks = np.zeros((3, 4, 4), dtype=bool)
    masks[np.arange(3), np.arange(3)] = True
    np.savez(tmp_path / "m.npz", masks=masks, frame_indices=np.array([7, 2, 5]))
    region = build(parse("--masklet", f"dog={tmp_path}/m.npz"))
    assert (region["type"], region["object_id"], region["frame_indices"]) == ("region", "dog", [2, 5, 7])
    np.testing.assert_array_equal(np.stack(region["masks"]), masks[[1, 2, 0]])


def test_masklet_file_without_frame_numbers_is_passed_as_it_is(tmp_path: Path):
    np.savez(tmp_path / "m.npz", masks=np.ones((3, 4, 4), dtype=np.uint8))
    region = build(parse("--masklet", f"{tmp_path}/m.npz#1"))
    assert region["masks"].shape == (3, 4, 4)
    assert region["label"] == 1
    assert "frame_indices" not in region


def test_masklet_folder_is_named_by_frame_numbers(tmp_path: Path):
    for name in ("00012.png", "00003.PNG", "overview.png", "7.txt"):
        save_mask(tmp_path / "masks" / "x.png").rename(tmp_path / "masks" / name)
    region = build(parse("--masklet", f"{tmp_path}/masks#2"))
    assert region["frame_indices"] == [3, 12]
    assert region["masks"] == [f"{tmp_path}/masks/00003.PNG", f"{tmp_path}/masks/00012.png"]
    assert region["label"] == 2


def test_masklets_of_one_name_are_joined_in_the_order_of_time(tmp_path: Path):
    save_mask(tmp_path / "masks" / "4.png")
    np.savez(tmp_path / "m.npz", masks=np.ones((2, 4, 4), dtype=bool), frame_indices=[1, 9])
    region = build(parse("--masklet", f"dog={tmp_path}/m.npz"), parse("--masklet", f"dog={tmp_path}/masks"))
    assert region["frame_indices"] == [1, 4, 9]
    assert region["masks"][1] == f"{tmp_path}/masks/4.png"


def test_masklets_that_cannot_be_joined_are_refused(tmp_path: Path):
    save_mask(tmp_path / "masks" / "4.png")
    np.savez(tmp_path / "all.npz", masks=np.ones((2, 4, 4), dtype=bool))
    folder = parse("--masklet", f"dog={tmp_path}/masks")
    with pytest.raises(ValueError, match="several masklets of one region need `frame_indices`"):
        build(folder, parse("--masklet", f"dog={tmp_path}/all.npz"))
    with pytest.raises(ValueError, match="frame 4 of the region has two masks"):
        build(folder, folder)
    with pytest.raises(ValueError, match="the masklets of one region have different labels"):
        build(folder, parse("--masklet", f"dog={tmp_path}/masks#2"))
    with pytest.raises(ValueError, match="a masklet cannot share its name with flags of another kind"):
        build(folder, parse("--box", "dog=1,2,3,4@3"))


def test_masklet_with_too_few_frame_numbers_is_left_to_the_processor(tmp_path: Path):
    np.savez(tmp_path / "m.npz", masks=np.ones((2, 4, 4), dtype=bool), frame_indices=[1])
    region = build(parse("--masklet", f"{tmp_path}/m.npz"))
    assert (len(region["masks"]), region["frame_indices"]) == (2, [1])


def test_files_that_hold_no_masklet_are_refused(tmp_path: Path):
    np.savez(tmp_path / "other.npz", boxes=np.ones(4))
    np.save(tmp_path / "array.npy", np.ones((2, 4, 4)))
    np.savez(tmp_path / "objects.npz", masks=np.array([{"a": 1}], dtype=object))
    (tmp_path / "text.npz").write_text("no array")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:-30])
    for path in tmp_path.iterdir():
        flag = parse("--masklet", str(path))
        with pytest.raises(
            ValueError, match=f"`--masklet {path}`: no masklet in this file. Write it with numpy.savez"
        ):
            build(flag)
    save_mask(tmp_path / "masks" / "first.png")
    with pytest.raises(ValueError, match="the folder holds no masks. Name them by their frame numbers"):
        build(parse("--masklet", f"{tmp_path}/masks"))
