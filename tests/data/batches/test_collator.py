"""Rows to batches: labels, prompts, the mixture of frame modes, loader workers, and errors that name rows."""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

import transformers_videorefer
from transformers_videorefer.data.batches.collator import VideoReferDataCollator
from transformers_videorefer.data.synthetic.clips import (
    bench_d_rows,
    bench_q_rows,
    conversation_rows,
    encode_rle,
    make_clip,
    write_clip,
)
from transformers_videorefer.inputs import loading
from transformers_videorefer.inputs.layout import rows_per_sample


CHECKPOINT = Path(transformers_videorefer.__file__).parent / "assets" / "videorefer-tiny"
SEEDS = (20_000_003, 20_000_004)
VIDEO = f"{SEEDS[0]:08d}.mp4"


@pytest.fixture(scope="module")
def processor() -> ProcessorMixin:
    return AutoProcessor.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForImageTextToText.from_pretrained(CHECKPOINT).eval()


@pytest.fixture(scope="module")
def clips() -> list[Any]:
    return [make_clip(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def folder(clips: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for clip in clips:
        write_clip(clip, folder)
    Image.new("RGB", (40, 30), (255, 0, 0)).save(folder / "red.png")
    return folder


@pytest.fixture(scope="module")
def rows(clips: list[Any]) -> list[dict[str, Any]]:
    return [row for clip in clips for row in conversation_rows(clip)[:3]]


def text_row(question: str = "Hi", answer: str | None = "Yes.") -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    messages += [] if answer is None else [{"role": "assistant", "content": answer}]
    return {"id": "text", "video": None, "image": None, "messages": messages, "regions": []}


def video_row(identity: str, frames: list[list[int]], **columns: Any) -> dict[str, Any]:
    """A row whose regions have boxes on these frames."""
    regions = [
        {"media": 0, "frames": [{"frame_index": index, "box": [0.0, 0.0, 20.0, 20.0]} for index in indices]}
        for indices in frames
    ]
    messages = [
        {"role": "user", "content": "<video>\n" + "<region>" * len(frames)},
        {"role": "assistant", "content": "Yes."},
    ]
    return {"id": identity, "video": VIDEO, "messages": messages, "regions": regions, **columns}


def chosen_frames(collator: VideoReferDataCollator, row: dict[str, Any]) -> list[list[int]]:
    parts = [part for message in collator.to_chat(row) for part in message["content"] if part["type"] == "region"]
    return [[frame["frame_index"] for frame in part["frames"]] for part in parts]


def assert_equal_batches(ours: Any, expected: Any) -> None:
    assert set(ours) == set(expected)
    for name in expected:
        assert torch.equal(ours[name], expected[name]), name


def test_answers_are_supervised_and_nothing_else(processor: ProcessorMixin, folder: Path) -> None:
    row = video_row("1", [[0, 1], [2]])
    row["messages"] += [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "It is red."}]
    short = text_row()
    batch = VideoReferDataCollator(processor, folder)([row, short])
    ids, labels, mask = batch["input_ids"], batch["labels"], batch["attention_mask"]
    assert processor.decode(labels[0][labels[0] != -100]) == "Yes.<|im_end|>\nIt is red.<|im_end|>\n"
    assert processor.decode(labels[1][labels[1] != -100]) == "Yes.<|im_end|>\n"
    assert torch.equal(labels[labels != -100], ids[labels != -100])
    assert (labels[mask == 0] == -100).all()
    for name in ("video", "region"):
        is_mark = ids == getattr(processor, f"{name}_token_id")
        assert is_mark.any()
        assert (labels[is_mark] == -100).all()
    length = int(mask[1].sum())
    assert mask[1].tolist() == [1] * length + [0] * (ids.shape[1] - length)  # padded on the right
    assert processor.tokenizer.padding_side == "left"  # as before


def test_an_empty_answer_teaches_to_stop(processor: ProcessorMixin) -> None:
    labels = VideoReferDataCollator(processor)([text_row(answer="")])["labels"]
    assert processor.decode(labels[labels != -100]) == "<|im_end|>\n"


def test_a_batch_is_its_rows(processor: ProcessorMixin, folder: Path, rows: list[dict[str, Any]]) -> None:
    collator = VideoReferDataCollator(processor, folder)
    batch, singles = collator(rows), [collator([row]) for row in rows]
    for name in ("pixel_values_videos", "region_masks", "region_frame_index", "region_lengths", "sample_counts"):
        of_rows = batch[name]
        if name == "pixel_values_videos":  # what several rows show stands in the batch once
            of_rows = of_rows[[number for numbers in rows_per_sample(batch, name) for number in numbers]]
        assert torch.equal(of_rows, torch.cat([single[name] for single in singles])), name
    for position, single in enumerate(singles):
        length = single["labels"].shape[1]
        assert torch.equal(batch["labels"][position, :length], single["labels"][0])
        assert torch.equal(batch["input_ids"][position, :length], single["input_ids"][0])


def test_prompts_for_generation(processor: ProcessorMixin, folder: Path) -> None:
    row = video_row("1", [[0]])
    row["messages"] += [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "It is red."}]
    batch = VideoReferDataCollator(processor, folder, generate=True)([row, text_row(), text_row(answer=None)])
    assert not {"labels", "assistant_masks"} & set(batch)
    texts = processor.batch_decode(batch["input_ids"])
    assert texts[0].endswith("Yes.<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n")
    assert texts[1] == texts[2]
    assert texts[1].endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert batch["attention_mask"][1, 0] == 0  # padded on the left
    assert (batch["attention_mask"][:, -1] == 1).all()


def test_a_video_of_several_rows_is_opened_once(
    processor: ProcessorMixin, folder: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, original = [], loading.open_video

    def open_video(video: Any, **options: Any) -> Any:
        opened.append(Path(video).name)
        return original(video, **options)

    monkeypatch.setattr(loading, "open_video", open_video)
    VideoReferDataCollator(processor, folder, 0.5)(rows)
    assert Counter(opened) == {f"{seed:08d}.mp4": 1 for seed in SEEDS}


def test_settings_reach_the_processor(processor: ProcessorMixin, folder: Path) -> None:
    row = video_row("1", [list(range(10))])
    batch = VideoReferDataCollator(processor, folder, num_frames=4, num_region_frames=6, num_region_tokens=2)([row])
    assert batch["pixel_values_videos"].shape[1] == 4
    assert batch["region_lengths"].tolist() == [6]
    assert batch["region_num_tokens"].tolist() == [2]
    every = VideoReferDataCollator(processor, folder, num_region_frames=None)([video_row("1", [[0] * 40])])
    assert every["region_lengths"].tolist() == [40]
    default = VideoReferDataCollator(processor, folder)([video_row("1", [[0] * 40])])
    assert default["region_lengths"].tolist() == [processor.num_region_frames]


def test_empty_masks(processor: ProcessorMixin, folder: Path) -> None:
    """A null segmentation and a mask without pixels are left out, or kept as the published code does."""
    row = video_row("1", [[0, 1, 2]])
    size = make_clip(SEEDS[0]).masks.shape[2:]
    full, empty = (encode_rle(np.full(size, value)) for value in (True, False))
    row["regions"][0]["frames"] = [
        {"frame_index": index, "rle": rle, "box": None} for index, rle in enumerate((full, empty, None))
    ]
    assert VideoReferDataCollator(processor, folder)([row])["region_lengths"].tolist() == [1]
    batch = VideoReferDataCollator(processor, folder, empty_masks="keep")([row])
    assert batch["region_lengths"].tolist() == [3]
    assert batch["region_masks"].any(dim=1).tolist() == [True, False, False]
    for seed in range(4):  # the only visible frame is drawn
        part = VideoReferDataCollator(processor, folder, 0.0, seed=seed).to_chat(row)[0]["content"][1]
        assert part["frame_indices"] == [0]


def test_the_share_of_rows_with_all_frames(processor: ProcessorMixin) -> None:
    rows = [video_row(str(number), [[1, 4, 7, 9]]) for number in range(1000)]
    lengths = [len(chosen_frames(VideoReferDataCollator(processor, None, 0.3), row)[0]) for row in rows]
    assert set(lengths) == {1, 4}
    assert lengths.count(4) == pytest.approx(300, abs=60)  # 4 standard deviations
    for ratio, length in ((0, 1), (1, 4), (None, 4)):
        collator = VideoReferDataCollator(processor, None, ratio)
        assert {len(chosen_frames(collator, row)[0]) for row in rows[:50]} == {length}


def test_single_frames_are_spread_evenly_and_common_to_all_objects(processor: ProcessorMixin) -> None:
    collator = VideoReferDataCollator(processor, None, 0.0)
    rows = [video_row(str(number), [[9, 1, 4, 7, 6], [4, 2, 7, 9]]) for number in range(900)]
    chosen = [chosen_frames(collator, row) for row in rows]
    assert all(first == second for first, second in chosen)
    counts = Counter(first[0] for first, _ in chosen)
    assert set(counts) == {4, 7, 9}
    assert all(count == pytest.approx(300, abs=60) for count in counts.values())
    apart = Counter(str(chosen_frames(collator, video_row(row["id"], [[1, 2], [3, 4]]))) for row in rows)
    assert set(apart) == {"[[1], [3]]", "[[1], [4]]", "[[2], [3]]", "[[2], [4]]"}


def test_the_choice_hangs_on_seed_epoch_and_id_alone(processor: ProcessorMixin) -> None:
    rows = [video_row(str(number), [[1, 4, 7, 9]]) for number in range(60)]
    collator = VideoReferDataCollator(processor, None, 0.5, seed=3)
    first = [chosen_frames(collator, row) for row in rows]
    assert [chosen_frames(collator, row) for row in reversed(rows)] == first[::-1]
    assert [chosen_frames(VideoReferDataCollator(processor, None, 0.5, seed=3), row) for row in rows] == first
    assert [chosen_frames(VideoReferDataCollator(processor, None, 0.5, seed=4), row) for row in rows] != first
    collator.set_epoch(1)
    assert collator.epoch == 1
    assert [chosen_frames(collator, row) for row in rows] != first
    collator.set_epoch(0)
    assert [chosen_frames(collator, row) for row in rows] == first
    unnamed = [{**row, "id": None, "video": f"{row['id']}.mp4"} for row in rows]
    assert len({str(chosen_frames(collator, row)) for row in unnamed}) > 2


def test_rows_of_benchmarks_show_their_own_frame(processor: ProcessorMixin) -> None:
    row = {
        "id": "1",
        "video": VIDEO,
        "caption": "x",
        "frame_index": 7,
        "regions": video_row("1", [[1, 4, 7]])["regions"],
    }
    for seed in range(5):
        assert chosen_frames(VideoReferDataCollator(processor, None, 0.0, True, seed=seed), row) == [[7]]
    assert chosen_frames(VideoReferDataCollator(processor, None, None, True), row) == [[1, 4, 7]]
    row["frame_index"] = 5
    with pytest.raises(ValueError, match="Row '1': region 0 has no mask on frame 5"):
        chosen_frames(VideoReferDataCollator(processor, None, 0.0, True), row)


def test_images_and_text_are_not_concerned(processor: ProcessorMixin, folder: Path) -> None:
    picture = {
        "id": "2",
        "image": "red.png",
        "messages": [
            {"role": "user", "content": "<image>\n<region> or <region>?"},
            {"role": "assistant", "content": "No."},
        ],
        "regions": [{"media": 0, "frames": [{"frame_index": 0, "box": [0, 0, 9, 9]}]}] * 2,
    }
    given = [picture, text_row(), video_row("1", [[1, 3]])]
    batch = VideoReferDataCollator(processor, folder, 0.0)(given)
    assert batch["region_lengths"].tolist() == [1, 1, 1]
    assert batch["sample_counts"][:, [0, 1, 3]].tolist() == [[0, 1, 2], [0, 0, 0], [1, 0, 1]]


def test_rows_as_trl_has_them(processor: ProcessorMixin, model: PreTrainedModel, folder: Path) -> None:
    user, answer = {"role": "user", "content": "What?"}, {"role": "assistant", "content": "Red."}
    given = [
        {"messages": [user, answer], "images": [Image.new("RGB", (8, 8))]},
        {"messages": [user, answer], "videos": [VIDEO]},
        {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}, answer],
         "images": ["red.png"]},
    ]  # fmt: skip
    batch = VideoReferDataCollator(processor, folder, 0.5)(given)
    assert batch["pixel_values"].shape[0] == 2
    assert batch["pixel_values_videos"].shape[0] == 1
    with torch.no_grad():
        assert torch.isfinite(model(**batch).loss)


class _Epochs(VideoReferDataCollator):
    """Also tells which epoch its worker sees."""

    def __call__(self, rows: Any) -> Any:
        return super().__call__(rows), self.epoch


def test_loader_workers(processor: ProcessorMixin, folder: Path, rows: list[dict[str, Any]]) -> None:
    """Batches of two workers are those made here, and workers that live on hear of a new epoch."""
    collator = _Epochs(processor, folder, 0.5)
    loader = DataLoader(rows, batch_size=2, collate_fn=collator, num_workers=2, persistent_workers=True)
    for epoch in (0, 5):
        collator.set_epoch(epoch)
        expected = [collator(rows[start : start + 2]) for start in range(0, len(rows), 2)]
        for (batch, seen), (own, _) in zip(loader, expected, strict=True):
            assert seen == epoch
            assert_equal_batches(batch, own)


def test_a_copy_by_pickle_makes_the_same_batches(
    processor: ProcessorMixin, folder: Path, rows: list[dict[str, Any]]
) -> None:
    collator = VideoReferDataCollator(processor, folder, 0.5, num_region_frames=None, seed=5)
    collator.set_epoch(3)
    copy = pickle.loads(pickle.dumps(collator))
    assert copy.epoch == 3
    assert_equal_batches(copy(rows[:2]), collator(rows[:2]))


@pytest.mark.slow
def test_spawned_workers_hear_of_a_new_epoch(processor: ProcessorMixin) -> None:
    collator = _Epochs(processor, None, 0.5)
    loader = DataLoader(
        [text_row()] * 2,
        batch_size=1,
        collate_fn=collator,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context="spawn",
    )
    for epoch in (0, 2):
        collator.set_epoch(epoch)
        assert [seen for _, seen in loader] == [epoch, epoch]


def broken(kind: str) -> dict[str, Any]:
    row = video_row("broken", [[0, 1]])
    if kind == "frame":
        row["regions"][0]["frames"][1]["frame_index"] = 10_000
    elif kind == "box":
        row["regions"][0]["frames"][1]["box"] = [0.0, 0.0, 9_000.0, 20.0]
    elif kind == "mark":
        row["regions"] = []
    elif kind == "answer":
        row["messages"].pop()
    elif kind == "missing":
        row["video"] = "missing.mp4"
    elif kind == "outside":
        row["video"] = "../clip.mp4"
    elif kind == "truncated":
        row["video"] = "truncated.mp4"
    return row


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("frame", ValueError, "frame 10000"),
        ("box", ValueError, "frame 1"),
        ("mark", ValueError, r"0 region\(s\) but 1 `<region>` mark"),
        ("answer", ValueError, "no answer to learn from. Leave it out of training, or use `generate=True`"),
        ("missing", OSError, "missing.mp4"),
        ("outside", ValueError, "not a path below the data root"),
        ("truncated", OSError, "truncated.mp4"),
    ],
)
def test_errors_name_the_row(
    kind: str, error: type[Exception], message: str, processor: ProcessorMixin, folder: Path
) -> None:
    whole = (folder / VIDEO).read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    good = video_row("good", [[0]])
    with pytest.raises(error, match=message) as caught:
        VideoReferDataCollator(processor, folder)([good, broken(kind), good])
    assert str(caught.value).startswith("Row 'broken'")
    assert caught.value.sample == 1


def test_an_error_of_no_single_row_names_them_all(processor: ProcessorMixin, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = processor.apply_chat_template

    def fail_on_several(conversations: list[Any], **options: Any) -> Any:
        if len(conversations) > 1:
            raise ValueError("sample 7: they do not fit together")
        return apply(conversations, **options)

    monkeypatch.setattr(processor, "apply_chat_template", fail_on_several)
    with pytest.raises(ValueError, match=r"Row 'text', Row 'text': sample 7: they do not fit together") as caught:
        VideoReferDataCollator(processor)([text_row(), text_row()])
    assert caught.value.sample is None


@pytest.mark.parametrize(
    ("rle", "error"),
    [({"size": [64, 64], "counts": "~~"}, ValueError), ({"size": [64, 64], "counts": ["a", "b"]}, TypeError)],
)
def test_broken_masks_name_the_row_in_both_modes(
    rle: dict[str, Any], error: type[Exception], processor: ProcessorMixin, folder: Path
) -> None:
    row = video_row("broken", [[0, 1]])
    row["regions"][0]["frames"] = [{"frame_index": index, "rle": rle} for index in (0, 1)]
    for multi_frame_ratio in (0.0, None):
        with pytest.raises(error, match="Row 'broken'"):
            VideoReferDataCollator(processor, folder, multi_frame_ratio)([text_row(), row])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"multi_frame_ratio": 1.5}, ValueError, "`multi_frame_ratio` is 1.5. Pass a share from 0 to 1"),
        ({"multi_frame_ratio": float("nan")}, ValueError, "`multi_frame_ratio` is nan"),
        ({"multi_frame_ratio": "half"}, TypeError, "`multi_frame_ratio` must be a number or None"),
        ({"empty_masks": "ignore"}, ValueError, '`empty_masks` must be "error", "drop" or "keep"'),
    ],
)
def test_arguments_are_checked(
    arguments: dict[str, Any], error: type[Exception], message: str, processor: ProcessorMixin
) -> None:
    with pytest.raises(error, match=message):
        VideoReferDataCollator(processor, **arguments)


def test_no_rows(processor: ProcessorMixin) -> None:
    with pytest.raises(ValueError, match="`rows` is empty"):
        VideoReferDataCollator(processor)([])


@pytest.mark.parametrize("multi_frame_ratio", [None, 0.0])
def test_synthetic_rows_of_all_kinds_are_answered(
    multi_frame_ratio: float | None, processor: ProcessorMixin, model: PreTrainedModel, folder: Path, clips: list[Any]
) -> None:
    """In one batch: a conversation, multiple choice, a description."""
    given = [make(clips[0])[0] for make in (conversation_rows, bench_q_rows, bench_d_rows)]
    batch = VideoReferDataCollator(processor, folder, multi_frame_ratio, generate=True)(given)
    output = model.generate(**batch, max_new_tokens=24, do_sample=False)
    answers = processor.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answers[0].startswith("It is a")
    assert answers[1][:2] in ("(A", "(B", "(C", "(D")
    assert answers[2].startswith(("A ", "It "))
