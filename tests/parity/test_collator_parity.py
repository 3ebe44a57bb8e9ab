"""Published training records through `from_published`, the collator and the model, against the recorded training."""

from typing import Any

import pytest
import torch
from conftest import REFERENCE
from recorded import IGNORED, LOGITS_FROM_FILES, LOSS, assert_logits, expand_row, tensor
from test_train_parity import (
    BATCHES,
    FLAWED,
    LABELS,
    NUM_FRAMES,
    NUM_SCENE_TOKENS,
    RECORD,
    SAME,
    SAMPLES,
    load_batch,
)
from transformers import PreTrainedModel, ProcessorMixin

from transformers_videorefer.data import VideoReferDataCollator, from_published, to_chat


pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

MEDIA = REFERENCE / "media"
SURPLUS = 6  # two objects for one mark
FITTING = [index for index in range(len(SAMPLES)) if index != SURPLUS]


def make_collator(processor: ProcessorMixin, **settings: Any) -> VideoReferDataCollator:
    return VideoReferDataCollator(processor, MEDIA, num_frames=NUM_FRAMES, empty_masks="keep", **settings)


@pytest.mark.parametrize("index", FITTING)
def test_text_ids_and_labels_of_samples(
    index: int, published_processor: ProcessorMixin, published_model: PreTrainedModel
) -> None:
    row, record = from_published(SAMPLES[index]), LABELS["sft"][index]
    assert published_processor.apply_chat_template(to_chat(row, MEDIA)) == record["conversation_text"]
    batch, config = make_collator(published_processor)([row]), published_model.config
    tokens = [min(len(region), 4) for region in RECORD["samples"][index]["ann_indices"]]
    ids, labels = record["input_ids"], record["labels"]
    assert batch["input_ids"][0].tolist() == expand_row(ids, None, NUM_SCENE_TOKENS, tokens, config)
    assert batch["labels"][0].tolist() == expand_row(ids, labels, NUM_SCENE_TOKENS, tokens, config)
    supervised = batch["labels"][0][batch["labels"][0] != IGNORED]
    assert published_processor.decode(supervised) == RECORD["samples"][index]["supervised_text"]


@pytest.mark.parametrize("name", SAME)
def test_labels_logits_and_loss_of_batches(
    name: str, published_processor: ProcessorMixin, published_model: PreTrainedModel
) -> None:
    batch, arrays = BATCHES[name], load_batch(name)
    inputs = make_collator(published_processor)([from_published(SAMPLES[index]) for index in batch["samples"]])
    assert torch.equal(inputs["attention_mask"], tensor(arrays["attention_mask_out"]).long())
    assert torch.equal(inputs["labels"], tensor(arrays["labels_out"]))
    assert int((inputs["labels"] != IGNORED).sum()) == batch["supervised_tokens"]
    with torch.no_grad():
        output = published_model(**inputs)
    assert_logits(output.logits, arrays, LOGITS_FROM_FILES, arrays["attention_mask_out"])
    assert abs(float(output.loss) - batch["loss"]) <= LOSS


def test_a_surplus_object_names_its_row(published_processor: ProcessorMixin) -> None:
    rows = [from_published(SAMPLES[index]) for index in BATCHES[FLAWED]["samples"]]
    with pytest.raises(ValueError, match=r"Row '6': it has 2 region\(s\) but 1 `<region>` mark\(s\)"):
        make_collator(published_processor)(rows)
