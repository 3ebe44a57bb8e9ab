"""A row of every set goes through the processor and the bundled model as it is."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

import transformers_videorefer
from transformers_videorefer.data import VideoReferDataCollator, from_published, iterate_rows, to_chat
from transformers_videorefer.data.batches.prompts import DETAILED_CAPTION_PROMPT, SHORT_CAPTION_PROMPT
from transformers_videorefer.data.synthetic.clips import encode_rle, make_clip, write_clip


CHECKPOINT = Path(transformers_videorefer.__file__).parent / "assets" / "videorefer-tiny"
CLIP = make_clip(20_000_003)
FRAMES = [0, 3, 5, 9]


@pytest.fixture(scope="module")
def processor() -> ProcessorMixin:
    return AutoProcessor.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForImageTextToText.from_pretrained(CHECKPOINT).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip as a file, and as a folder of JPEG frames as Bench-Q has them."""
    folder = tmp_path_factory.mktemp("data")
    write_clip(CLIP, folder)
    frames = folder / "frames" / "clip"
    frames.mkdir(parents=True)
    for number, frame in enumerate(CLIP.frames):
        Image.fromarray(frame).save(frames / f"{number:05d}.jpg")
    return folder


def published_object(index: int) -> dict[str, Any]:
    return {str(frame): {"segmentation": encode_rle(CLIP.masks[index][frame])} for frame in FRAMES}


def conversation(*turns: str, num_objects: int = 1) -> dict[str, Any]:
    return {
        "id": 1,
        "video": CLIP.name,
        "conversations": [
            {"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(turns)
        ],
        "annotation": [published_object(index) for index in range(num_objects)],
    }


RECORDS = {
    "short_caption": conversation(f"<video>\n{SHORT_CAPTION_PROMPT}", "A cross."),
    "detailed_caption": conversation(f"<video>\n{DETAILED_CAPTION_PROMPT}", "A cyan cross that shrinks."),
    "qa": conversation(
        "There are two objects: <object0> [<region>], <object1> [<region>]. Is <object0> larger? <video>",
        "Yes.",
        "Sure?",
        "",
        num_objects=2,
    ),
    "bench_d": {
        "id": 0,
        "video": CLIP.name,
        "caption": "A cross.",
        "frame_idx": "5",
        "annotation": [published_object(0)],
    },
    "bench_q": {
        "id": 0,
        "video": "frames/clip",
        "Question": "What is <object3><region> doing?",
        "options": ["(A) It shrinks", "(B) It grows"],
        "Answer": "(A) It shrinks",
        "type": "Basic Questions",
        "frame_idx": "5",
        "annotation": [published_object(0)],
    },
}


def assert_answers(
    batch: Any, model: PreTrainedModel, processor: ProcessorMixin, num_region_frames: list[int]
) -> None:
    assert batch["region_lengths"].tolist() == num_region_frames
    output = model.generate(**batch, max_new_tokens=4, do_sample=False)
    assert all(processor.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.mark.parametrize("kind", ["short_caption", "detailed_caption", "qa"])
def test_conversations(kind: str, processor: ProcessorMixin, model: PreTrainedModel, folder: Path) -> None:
    row = from_published(RECORDS[kind])
    inputs = processor.apply_chat_template(to_chat(row, folder), tokenize=True, return_dict=True, return_tensors="pt")
    batch = VideoReferDataCollator(processor, folder)([row])
    assert torch.equal(batch["input_ids"], inputs["input_ids"])
    with torch.no_grad():
        assert torch.isfinite(model(**batch).loss)
    num_regions = len(row["regions"])
    prompts = VideoReferDataCollator(processor, folder, generate=True)
    assert_answers(prompts([row]), model, processor, [len(FRAMES)] * num_regions)
    single = VideoReferDataCollator(processor, folder, 0.0, generate=True)
    assert_answers(single([row]), model, processor, [1] * num_regions)


@pytest.mark.parametrize("kind", ["bench_d", "bench_q"])
def test_benchmarks(kind: str, processor: ProcessorMixin, model: PreTrainedModel, folder: Path) -> None:
    row = from_published(RECORDS[kind])
    for is_single, num_frames in ((True, 1), (False, len(FRAMES))):
        messages = to_chat(row, folder, single_frame=is_single)
        inputs = processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        assert_answers(inputs, model, processor, [num_frames])
        batch = VideoReferDataCollator(processor, folder, 0.0 if is_single else None, generate=True)([row])
        for name in inputs:
            assert torch.equal(batch[name], inputs[name]), name


def test_hc_stvg(processor: ProcessorMixin, model: PreTrainedModel, folder: Path, tmp_path: Path) -> None:
    height, width = CLIP.masks.shape[2:]
    entry = {
        "bbox": [[4, 6, 20, 30], [5, 6, 20, 30], [6, 6, 20, 30]],
        "st_frame": 2,
        "img_num": len(CLIP.frames),
        "img_size": [height, width],
        "English": "The man turns.",
    }
    (tmp_path / "val.json").write_text(json.dumps({CLIP.name: entry}))
    (row,) = iterate_rows(tmp_path / "val.json", kind="hc_stvg")
    for is_single, num_frames in ((True, 1), (False, 3)):
        inputs = processor.apply_chat_template(
            to_chat(row, folder, single_frame=is_single),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        assert SHORT_CAPTION_PROMPT.split("<region>")[1] in processor.decode(inputs["input_ids"][0])
        assert_answers(inputs, model, processor, [num_frames])


def test_all_sets_in_one_batch(processor: ProcessorMixin, model: PreTrainedModel, folder: Path) -> None:
    rows = [from_published(record) for record in RECORDS.values()]
    batch = VideoReferDataCollator(processor, folder, generate=True)(rows)
    assert_answers(batch, model, processor, [len(FRAMES)] * 6)


def test_a_null_segmentation_is_left_out_or_kept(processor: ProcessorMixin, folder: Path) -> None:
    record = json.loads(json.dumps(RECORDS["bench_d"]))
    record["annotation"][0]["3"]["segmentation"] = None
    messages = to_chat(from_published(record), folder)
    for empty_masks, length in (("error", 3), ("drop", 3), ("keep", 4)):
        inputs = processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_tensors="pt", empty_masks=empty_masks
        )
        assert inputs["region_lengths"].tolist() == [length]
