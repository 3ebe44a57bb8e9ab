"""`videorefer ask` on the recorded checkpoint: the answers of the published implementation, through the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FIXTURES, REFERENCE, load_arrays, load_json
from PIL import Image
from stderr_lines import without_slow_steps

from transformers_videorefer import VideoReferForConditionalGeneration
from transformers_videorefer.cli import main
from transformers_videorefer.commands.ask import split_question
from transformers_videorefer.commands.region_flags import MarkedRegion, parse_region_flag
from transformers_videorefer.inference.loading import Checkpoint


MODEL = ["--model", str(REFERENCE / "videorefer-tiny")]
PUBLISHED = [*MODEL, "--frames", "8", "--max-new-tokens", "12"]  # what the recorded runs used
CLIP = str(REFERENCE / "media" / "clip.mp4")  # 40 frames, 96x64, 10 fps
BOX = ["--box", "10,10,60,50@10"]


pytestmark = pytest.mark.usefixtures("library_settings")


def ask(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    code = main(["ask", *arguments])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def fail(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    assert main(["ask", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    error = without_slow_steps(captured.err)
    assert error.count("\n") == 1
    return error


def recorded(name: str) -> tuple[dict[str, Any], np.ndarray | None]:
    (case,) = [case for case in load_json("e2e/cases.json") if case["name"] == name]
    arrays = load_arrays(f"e2e/{name}.npz")
    return case, arrays["masks"][0] if "masks" in arrays else None


def save_mask(path: Path, mask: np.ndarray) -> str:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(mask * np.uint8(255)).save(path)
    return str(path)


@pytest.fixture
def generate_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Keywords of every call of `generate`."""
    calls = []
    generate = VideoReferForConditionalGeneration.generate

    def spy(self, *args, **kwargs):
        calls.append(kwargs)
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(VideoReferForConditionalGeneration, "generate", spy)
    return calls


@pytest.mark.parametrize("name", ["video_single_frame", "video_multi_frame_k3"])
def test_masks_give_the_recorded_answer(capsys, tmp_path: Path, name: str):
    case, masks = recorded(name)
    flags = []
    for index, mask in zip(case["annotation"][0], masks, strict=True):
        flags[:0] = ["--mask", f"thing={save_mask(tmp_path / f'{index}.png', mask)}@{index}"]  # last frame first
    assert (
        ask(capsys, CLIP, case["question"], *flags, *PUBLISHED).strip() == case["response_text_fast_tokenizer"].strip()
    )


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_masklet_gives_the_recorded_answer(capsys, tmp_path: Path, kind: str):
    case, masks = recorded("video_multi_frame_one_object")
    indices = [int(index) for index in case["annotation"][0]]
    if kind == "folder":
        for index, mask in zip(indices, masks, strict=True):
            save_mask(tmp_path / "masks" / f"{index:05d}.png", mask)
        masklet = str(tmp_path / "masks")
    else:
        masklet = str(tmp_path / "masks.npz")
        np.savez_compressed(masklet, masks=masks, frame_indices=indices)
    record = json.loads(ask(capsys, CLIP, case["question"], "--masklet", masklet, "--json", *PUBLISHED))
    assert record["answer"] == case["response_text_fast_tokenizer"].strip()
    assert record["regions"] == [{"object_id": None, "frame_indices": indices, "num_tokens": 4}]


def test_two_objects_give_the_recorded_answer(capsys, tmp_path: Path):
    case, masks = recorded("video_two_objects_same_frame")
    np.savez(tmp_path / "first.npz", masks=masks[:1], frame_indices=[10])
    flags = ["--masklet", f"a={tmp_path / 'first.npz'}"]
    flags += ["--mask", f"{save_mask(tmp_path / 'second.png', masks[1])}@1s"]  # 10 frames per second
    record = json.loads(ask(capsys, CLIP, case["question"], *flags, "--json", *PUBLISHED))
    assert record["answer"] == case["response_text_fast_tokenizer"].strip()
    assert [region["object_id"] for region in record["regions"]] == ["a", None]
    assert [region["frame_indices"] for region in record["regions"]] == [[10], [10]]


def test_marks_take_the_flags_in_their_order_whatever_their_kind(capsys, tmp_path: Path, generate_calls: list[dict]):
    mask = np.zeros((1, 64, 96), dtype=bool)
    mask[0, 48:, 72:] = True  # the last of 4 x 4 cells of 16 x 24 pixels
    np.savez(tmp_path / "last.npz", masks=mask, frame_indices=[5])
    last, first = ["--masklet", f"{tmp_path / 'last.npz'}"], ["--box", "0,0,24,16@7"]
    for flags, cells in (([*last, *first], [15, 0]), ([*first, *last], [0, 15])):
        ask(capsys, CLIP, "Is <region> near <region>?", *flags, *PUBLISHED)
        assert generate_calls[-1]["region_masks"].nonzero().tolist() == [[0, cells[0]], [1, cells[1]]]


def test_question_without_region_gives_the_recorded_answer(capsys):
    case, _ = recorded("video_no_region")
    assert ask(capsys, CLIP, case["question"], *PUBLISHED).strip() == case["response_text_fast_tokenizer"].strip()


@pytest.mark.parametrize("frame", ["", "@0"])
def test_region_of_an_image_gives_the_recorded_answer(capsys, tmp_path: Path, frame: str):
    case, masks = recorded("image_one_region")
    mask = save_mask(tmp_path / "mask.png", masks[0]) + frame
    image = str(REFERENCE / "media" / "image.png")
    record = json.loads(ask(capsys, image, case["question"], "--mask", mask, "--json", *MODEL))
    assert record["answer"] == case["response_text_fast_tokenizer"].strip()
    assert record["num_frames"] is None


def test_json_says_what_the_answer_was_made_from(capsys):
    flags = ["--box", "dog=10,10,60,50@10", "--box", "dog=12,10,62,50@1.55s", "--region-tokens", "1"]
    record = json.loads(ask(capsys, CLIP, "What is <region>?", *flags, "--json", *MODEL, "--max-new-tokens", "3"))
    assert isinstance(record.pop("answer"), str)
    assert 0 < record.pop("seconds") < 60
    assert record == {
        "question": "What is <region>?",
        "video": CLIP,
        "regions": [{"object_id": "dog", "frame_indices": [10, 15], "num_tokens": 1}],
        "model": MODEL[1],
        "num_frames": 16,
        # Midpoints of 16 parts of 0 to 39.
        "frame_indices": [round(39 / 16 * (part + 0.5)) for part in range(16)],
    }


def test_region_frames_limits_the_frames_of_a_region(capsys, tmp_path: Path):
    np.savez(tmp_path / "m.npz", masks=np.ones((40, 64, 96), dtype=bool))
    command = [CLIP, "What is <region>?", "--masklet", str(tmp_path / "m.npz"), "--json", *PUBLISHED]
    for limit, expected in ((["--region-frames", "2"], 2), ([], 32), (["--region-frames", "all"], 40)):
        record = json.loads(ask(capsys, *command, *limit))
        assert len(record["regions"][0]["frame_indices"]) == expected


def test_region_size_names_the_picture_that_coordinates_refer_to(capsys, generate_calls: list[dict]):
    command = [CLIP, "What is <region>?", *PUBLISHED]
    for flags in (
        ["--box", "24,16,72,48@3"],
        ["--box", "240,160,720,480@3", "--region-size", "640x960"],
        ["--box", "0.25,0.25,0.75,0.75@3", "--region-size", "1x1"],
    ):
        ask(capsys, *command, *flags)
    # The inner four of 4 x 4 cells of 16 x 24 pixels.
    assert [call["region_masks"][0].nonzero().ravel().tolist() for call in generate_calls] == [[5, 6, 9, 10]] * 3
    assert "outside the frame" in fail(capsys, *command, "--box", "240,160,720,480@3")
    assert "'3' is no HEIGHTxWIDTH" in fail(capsys, *command, "--box", "1,2,3,4@3", "--region-size", "3")


def test_time_range_moves_the_scene_frames(capsys):
    command = [CLIP, "What is it?", "--start", "1", "--end", "3", "--json", *PUBLISHED]
    indices = json.loads(ask(capsys, *command))["frame_indices"]
    assert 9 <= min(indices) <= max(indices) <= 29  # int(1 * 10) - 1 to int(3 * 10) - 1


def test_folder_of_frames_needs_fps_for_seconds(capsys):
    command = [str(REFERENCE / "media" / "frames"), "What is <region>?", "--box", "1,2,30,30@1s", *PUBLISHED]
    assert "Pass `--fps`" in fail(capsys, *command)
    record = json.loads(ask(capsys, *command, "--fps", "5", "--json"))
    assert record["regions"][0]["frame_indices"] == [5]


def test_streamed_answer_is_the_same(capsys):
    case, _ = recorded("video_no_region")
    streamed = ask(capsys, CLIP, case["question"], "--stream", *PUBLISHED)
    assert streamed.strip() == case["response_text_fast_tokenizer"].strip()


def test_greedy_unless_sampling_is_asked_for(capsys, generate_calls: list[dict]):
    command = [CLIP, "What is it?", *PUBLISHED]
    flags = ([], ["--sample", "--seed", "3"], ["--sample", "--seed", "3"])
    answers = [ask(capsys, *command, *sampling) for sampling in flags]
    assert [call["do_sample"] for call in generate_calls] == [False, True, True]
    assert answers[1] == answers[2]


def test_cut_answer_is_reported_beside_the_answer(capsys):
    assert main(["ask", CLIP, "What is it?", *MODEL, "--max-new-tokens", "2"]) == 0
    captured = capsys.readouterr()
    assert without_slow_steps(captured.err) == "The answer was cut after 2 tokens; --max-new-tokens allows more.\n"
    assert captured.out.endswith("\n")


def test_preview_is_saved(capsys, tmp_path: Path):
    flags = ["--box", "dog=10,10,60,50@10", "--box", "dog=12,10,62,50@20", "--box", "5,5,30,30@30"]
    ask(capsys, CLIP, "Is <region> beside <region>?", *flags, "--save", str(tmp_path / "preview.png"), *PUBLISHED)
    with Image.open(tmp_path / "preview.png") as picture:
        assert picture.width == 2 * 20 + 3 * 480 + 2 * 12  # three frames
        colors = {color for _, color in picture.getcolors(1 << 24)}
    assert {(255, 94, 58), (36, 160, 237)} <= colors


def test_preview_of_an_image(capsys, tmp_path: Path):
    image = str(REFERENCE / "media" / "image.png")
    ask(capsys, image, "Is it <region>?", "--box", "1,2,30,40", "--save", str(tmp_path / "preview.jpg"), *PUBLISHED)
    with Image.open(tmp_path / "preview.jpg") as picture:
        assert picture.width == 2 * 20 + 800


def test_animated_picture_is_a_video_and_a_still_one_an_image(capsys, tmp_path: Path):
    frames = [Image.new("RGB", (64, 48), (index * 60, 0, 0)) for index in range(4)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], duration=100, lossless=True)
    frames[0].save(tmp_path / "still.webp")
    question = ["What is <region>?", "--box", "1,2,30,40@0", "--json", *PUBLISHED]
    assert json.loads(ask(capsys, str(tmp_path / "moving.webp"), *question))["num_frames"] == 8
    assert json.loads(ask(capsys, str(tmp_path / "still.webp"), *question))["num_frames"] is None


def flags_of(*texts: str) -> list[MarkedRegion]:
    return [MarkedRegion(None, [parse_region_flag("--box", text)]) for text in texts]


def test_question_is_split_at_its_marks():
    regions = flags_of("1,2,3,4@0", "1,2,3,4@1")
    assert split_question("<region>, is it near <region>?", regions) == ["", ", is it near ", "?"]
    assert split_question("What is it?", []) == ["What is it?"]


@pytest.mark.parametrize(
    ("question", "regions", "message"),
    [
        ("What?", flags_of("1,2,3,4@0"), "The flags mark 1 region.s., but the question has no `<region>`. Write <region>"),
        ("<region>?", [], r"The question has 1 `<region>` mark\(s\), but the flags mark 0 region\(s\): none"),
        ("<region>?", flags_of("1,2,3,4@0", "5,6,7,8@0"), r"1 `<region>` .* 2 region\(s\): --box 1,2,3,4@0; --box 5,6,7,8@0"),
        ("<video>\nWhat?", [], "The question spells `<video>`. Leave it out"),
        (" ", [], "The question is empty"),
    ],
)  # fmt: skip
def test_question_that_does_not_fit_the_regions_is_refused(question, regions, message):
    with pytest.raises(ValueError, match=message):
        split_question(question, regions)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.mp4", "What?"], "There is no video or image nowhere.mp4."),
        ([CLIP, "What?", "--stream", "--json"], "--stream and --json exclude each other"),
        ([CLIP, "What?", "--seed", "3"], "--seed has no effect without --sample"),
        ([CLIP, "What?", "--max-new-tokens", "0"], "`--max-new-tokens 0`: pass at least 1"),
        ([CLIP, "What?", "--save", "preview.xyz"], "`--save preview.xyz`: this is no picture format"),
        ([CLIP, "What?", "--save", "no/such/p.png"], "`--save no/such/p.png`: the folder does not exist"),
        ([CLIP, "What?", "--region-frames", "many"], "'many' is neither a number nor `all`"),
        ([CLIP, "What?", "--device", "warp"], "`--device warp`: torch cannot use it"),
        (["nowhere.mp4", "What?", "--device", "warp"], "`--device warp`: torch cannot use it"),
        (["--input", "nowhere.jsonl", "--device", "warp"], "`--device warp`: torch cannot use it"),
        ([CLIP, "What?", "--frames", "1"], "`--frames` must be a whole number of at least 2"),
        ([CLIP, "What?", "--start", "99"], "`--start` 99"),
        ([CLIP, "What is <region>?", "--box", "1,2,30,40@99"], "`--box 1,2,30,40@99`, frame 99: "),
        ([CLIP, "What is <region>?", "--box", "a=1,2,30,40@99s"], "`--box a=1,2,30,40@99s`"),
        ([CLIP, "What is <region>?", "--box", "30,2,1,40@9"], "`--box 30,2,1,40@9`"),
        ([CLIP, "What is <region>?", "--box", "1,2,30,40"], "`--box 1,2,30,40`: the frame is missing"),
        ([str(REFERENCE / "media" / "image.png"), "What?", "--start", "1", "--edit-list", "apply"], "--start, --edit-list: "),
        ([str(FIXTURES / "README.md"), "What?"], "README.md is not a video that can be decoded, or it is truncated. Pass"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_on_stderr(capsys, arguments, message):
    error = fail(capsys, *arguments, *MODEL)
    assert message in error
    assert error.startswith("videorefer: error: ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--model is missing. Pass --model DAMO-NLP-SG/VideoRefer-7B"),
        (["--model", "no/such/folder"], "`--model no/such/folder`: there is no such folder"),
        (["--model", str(REFERENCE / "media")], "media`: this folder has no config.json"),
        (["--model", "adapter"], "`--model adapter`: this folder holds a LoRA adapter. Merge it"),
        (["--model", "somebody/model"], "`--model somebody/model`: it is not in the cache of the Hub"),
    ],
)
def test_model_that_is_missing_is_one_line_on_stderr(capsys, monkeypatch, tmp_path, flags, message):
    monkeypatch.chdir(tmp_path)
    Path("adapter").mkdir()
    Path("adapter", "adapter_config.json").write_text("{}")
    assert message in fail(capsys, CLIP, "What?", *flags)


def test_hints_of_the_library_name_flags(capsys, tmp_path: Path):
    labels = np.zeros((64, 96), dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "empty.png")
    labels[8:40, 8:40], labels[50:, :] = 1, 2
    Image.fromarray(labels).save(tmp_path / "labels.png")
    command = [CLIP, "What is <region>?", *PUBLISHED, "--mask"]
    error = fail(capsys, *command, f"{tmp_path}/labels.png@3")
    assert f"`--mask {tmp_path}/labels.png@3`" in error
    assert "`FILE#LABEL`" in error
    ask(capsys, *command, f"{tmp_path}/labels.png#2@3")
    assert "`--empty-masks drop`" in fail(capsys, *command, f"{tmp_path}/empty.png@3")
    assert "`--region-size HEIGHTxWIDTH`" in fail(capsys, CLIP, "<region>?", "--box", "0,0,640,480@1", *MODEL)


def test_tower_that_is_nowhere_is_named_by_its_flag(capsys, tmp_path: Path):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in (REFERENCE / "videorefer-tiny").iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "config.json").unlink()
    config = {**load_json("videorefer-tiny/config.json"), "mm_vision_tower": "no/such/tower"}  # no Hub id
    (folder / "config.json").write_text(json.dumps(config))
    command = [CLIP, "What?", "--model", str(folder), "--max-new-tokens", "2"]
    assert "Pass `--vision-tower`" in fail(capsys, *command)
    ask(capsys, *command, "--vision-tower", str(REFERENCE / "siglip-tiny-patch14-56"))


def test_regions_are_checked_before_the_weights_are_loaded(capsys, monkeypatch: pytest.MonkeyPatch):
    loaded = []
    monkeypatch.setattr(Checkpoint, "load_model", lambda checkpoint, *_: loaded.append(checkpoint.source))
    assert "frame 99" in fail(capsys, CLIP, "What is <region>?", "--box", "1,2,30,40@99", *MODEL)
    assert loaded == []
    # The same command with a right region does come to the weights, and what it gets here cannot answer.
    assert main(["ask", CLIP, "What is <region>?", "--box", "1,2,30,40@9", *MODEL]) == 1
    assert "generate" in capsys.readouterr().err
    assert loaded == MODEL[1:]
