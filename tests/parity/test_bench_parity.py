"""Rows of the two benchmarks against what the published inference scripts made of the same records."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import REFERENCE, load_arrays, load_json
from transformers import PreTrainedModel, ProcessorMixin

from transformers_videorefer.data import VideoReferDataCollator, from_published, to_chat
from transformers_videorefer.regions.rle import decode_rle


RUNS = load_json("bench/inference.json")
ITEMS = [(run, number) for run in RUNS for number in range(len(RUNS[run]["dataset_items"]))]
RECORDS = {name: load_json(f"annotations/bench_{name}.json") for name in ("q", "d")}
MEDIA = REFERENCE / "media"
# The published scripts ignore objects that no mark speaks of; ours is told that there are none.
UNMARKED = ("q", 2)
ENDS = ("<|im_end|>", "<|endoftext|>")


def rows_of(run: str) -> list[dict[str, Any]]:
    name = run[0]
    rows = [from_published(record) for record in RECORDS[name]]
    return [{**row, "regions": []} if (name, i) == UNMARKED else row for i, row in enumerate(rows)]


def regions_of_run(run: str, number: int) -> list[dict[str, Any]]:
    messages = to_chat(rows_of(run)[number], MEDIA, single_frame=run.endswith("single"))
    return [part for part in messages[0]["content"] if part["type"] == "region"]


@pytest.mark.parametrize(("run", "number"), ITEMS)
def test_prompts(run: str, number: int, published_processor: ProcessorMixin) -> None:
    question = RUNS[run]["dataset_items"][number]["question"]
    text = published_processor.apply_chat_template(to_chat(rows_of(run)[number], MEDIA), add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n<video>\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(("run", "number"), [item for item in ITEMS if (item[0][0], item[1]) != UNMARKED])
def test_frames_and_masks_of_regions(run: str, number: int) -> None:
    item = RUNS[run]["dataset_items"][number]
    expected = [[item["region_frame_indices"][row] for row in rows] for rows in item["ann_indices"][0]]
    regions = regions_of_run(run, number)
    assert [[frame["frame_index"] for frame in region["frames"]] for region in regions] == expected
    recorded = load_arrays("bench/dataset_items.npz")[f"{run}_{number}/masks"][0]
    rles = [frame["rle"] for region in regions for frame in region["frames"]]
    masks = [decode_rle({**rle, "counts": rle["counts"].encode()}) for rle in rles]
    assert np.array_equal(np.stack(masks), recorded > 0)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("run", list(RUNS))
def test_predictions(
    run: str, batch_size: int, published_processor: ProcessorMixin, published_model: PreTrainedModel
) -> None:
    """The recorded answers were decoded by the slow tokenizer, which keeps `<region>` among special tokens."""
    collator = VideoReferDataCollator(
        published_processor,
        MEDIA,
        multi_frame_ratio=0.0 if run.endswith("single") else None,
        generate=True,
        num_frames=8,
        empty_masks="keep",
    )
    rows, answers = rows_of(run), []
    ends = torch.tensor(published_processor.tokenizer.convert_tokens_to_ids(list(ENDS)))
    for start in range(0, len(rows), batch_size):
        inputs = collator(rows[start : start + batch_size])
        output = published_model.generate(**inputs, max_new_tokens=12, do_sample=False, repetition_penalty=1.05)
        for ids in output[:, inputs["input_ids"].shape[1] :]:
            kept = ids[~torch.isin(ids, ends)]
            answers.append(published_processor.tokenizer.decode(kept, skip_special_tokens=False).strip())
    assert answers == [record["pred"] for record in RUNS[run]["records_written"]]


def test_an_object_without_a_mark_is_refused() -> None:
    name, number = UNMARKED
    with pytest.raises(ValueError, match=r"Row '2': it has 1 region\(s\) but 0 `<region>` mark\(s\)"):
        to_chat(from_published(RECORDS[name][number]), MEDIA)
