"""A video that a batch shows several times crosses to the model once, and every answer is about its own video."""

import traceback

import pytest
import torch
from test_generation import GREEDY, MARKED, PLAIN
from tiny import box_region, noise_video, tiny_model, tiny_processor
from torch.overrides import TorchFunctionMode

from transformers_videorefer.checkpoints.library import CACHE_NAME
from transformers_videorefer.inputs.layout import concatenate, select_samples


A, B = noise_video(seed=11), noise_video(seed=12)
# Region frames beside the scene frames 1, 4, 7 and 10 of 12, so that samples bring extra frames of their own.
QUESTIONS = [
    {"text": MARKED, "videos": A, "regions": [box_region([0, 4])]},
    {"text": MARKED.replace("doing", "doing now"), "videos": B, "regions": [box_region([3], 9)]},
    {"text": MARKED.replace("What is", "Which is"), "videos": A, "regions": [box_region([7, 8], 15)]},
]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def singles(processor):
    return [processor(**question, return_tensors="pt") for question in QUESTIONS]


@pytest.fixture(scope="module")
def batch(processor):
    names = ("text", "videos", "regions")
    return processor(**{name: [question[name] for question in QUESTIONS] for name in names}, return_tensors="pt")


def answers(model, inputs, **options):
    output = model.generate(**inputs, **{**GREEDY, **options})
    return output[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.fixture(scope="module")
def expected(model, singles):
    found = [answers(model, single)[0] for single in singles]
    assert len(set(map(tuple, found))) == 3  # or a wrong video would not show
    return found


def test_the_batch_holds_each_video_once(batch, singles):
    assert len(batch["pixel_values_videos"]) == 2
    first, second, third = batch["video_ids"].tolist()
    assert first == third != second
    assert batch["video_row_ids"].tolist() == [first, second]
    assert "video_ids" not in singles[0]
    assert torch.equal(batch["pixel_values_videos"][1], singles[1]["pixel_values_videos"][0])


def test_keys_are_those_of_the_content(processor, batch):
    again = processor(text=[PLAIN] * 2, videos=[A.copy()] * 2, return_tensors="pt")
    assert again["video_ids"].tolist() == batch["video_ids"][[0, 0]].tolist()
    # Two copies are two objects in memory, which nobody compares: they cross twice.
    apart = processor(text=[PLAIN] * 2, videos=[A, A.copy()], return_tensors="pt")
    assert len(apart["pixel_values_videos"]) == 2
    # The same source with another range is another video.
    ranges = processor(text=[PLAIN] * 2, videos=[A, A], fps=4, end_seconds=[None, 1.0], return_tensors="pt")
    assert len(ranges["pixel_values_videos"]) == 2


def test_one_batch(model, batch, expected):
    assert answers(model, batch) == expected
    with torch.no_grad():
        assert model(**batch).video_hidden_states.shape[0] == 3


@pytest.mark.parametrize("copies", [1, 3])
def test_beams_and_return_sequences(model, batch, singles, copies):
    options = {"num_beams": 3, "num_return_sequences": copies}
    alone = [answer for single in singles for answer in answers(model, single, **options)]
    assert answers(model, batch, **options) == alone


@pytest.mark.parametrize("order", [[2, 1, 0], [1, 1, 0], [2], [0, 2], [1]])
def test_reordered_repeated_and_sliced(model, batch, expected, order):
    picked = select_samples(batch, order)
    assert len(picked["pixel_values_videos"]) == len({0 if sample == 2 else sample for sample in order})
    assert answers(model, picked) == [expected[sample] for sample in order]


def test_sliced_by_hand_with_all_rows_of_videos(model, batch, expected):
    """Rows that no mark shows do no harm; a missing one is refused by name."""
    by_hand = select_samples(batch, [2])
    rows = {name: batch[name] for name in ("pixel_values_videos", "video_row_ids")}
    assert answers(model, {**by_hand, **rows}) == [expected[2]]
    wrong = {name: value[1:] for name, value in rows.items()}
    with pytest.raises(ValueError, match=r"key \d+ \(video 0\), which no row of `pixel_values_videos` has"):
        model.generate(**{**by_hand, **wrong}, **GREEDY)


def test_concatenated_single_outputs(model, singles, expected):
    joined = concatenate(singles, pad_token_id=326)
    assert "video_ids" not in joined
    assert answers(model, joined) == expected


def test_concatenated_batches(model, batch, singles, expected):
    joined = concatenate([batch, singles[1], select_samples(batch, [2, 0])], pad_token_id=326)
    assert answers(model, joined) == [*expected, expected[1], expected[2], expected[0]]
    by_hand = {name: torch.cat([batch[name], batch[name].flip(0) if name == "video_row_ids" else batch[name]])
               for name in batch}  # fmt: skip
    by_hand["pixel_values_videos"][2:] = batch["pixel_values_videos"].flip(0)
    assert answers(model, by_hand) == expected * 2


def test_concatenated_by_hand_without_keys_for_all(model, batch, singles):
    names = [name for name in batch if name in singles[1]]
    length = batch["input_ids"].shape[1] - singles[1]["input_ids"].shape[1]
    parts = {name: (batch[name], singles[1][name]) for name in names}
    for name, filler in (("input_ids", 326), ("attention_mask", 0)):
        parts[name] = (batch[name], torch.nn.functional.pad(singles[1][name], (length, 0), value=filler))
    joined = {name: torch.cat(part) for name, part in parts.items()}
    keys = {name: batch[name] for name in ("video_ids", "video_row_ids")}
    with pytest.raises(ValueError, match="`pixel_values_videos` has 3 rows, but `video_row_ids` has 2 keys"):
        model.generate(**joined, **keys, **GREEDY)


def test_encoded_videos_serve_all_marks(model, batch, expected):
    encoded = {"video": model.get_video_features(**batch)}
    rest = {name: value for name, value in batch.items() if name != "pixel_values_videos"}
    assert answers(model, rest, mm_encoder_outputs=encoded) == expected
    with torch.no_grad():
        torch.testing.assert_close(model(**rest, mm_encoder_outputs=encoded).logits, model(**batch).logits)


def test_encoded_videos_are_found_by_key(model, batch, expected):
    """As many rows as marks, in another order; and a video that is missing."""
    by_hand = select_samples(batch, [1, 0])
    rest = {name: value for name, value in by_hand.items() if name != "pixel_values_videos"}
    rest["video_row_ids"] = batch["video_row_ids"]
    encoded = {"video": model.get_video_features(**batch)}
    assert answers(model, rest, mm_encoder_outputs=encoded) == [expected[1], expected[0]]
    only_first = {"video": model.get_video_features(batch["pixel_values_videos"][:1])}
    alone = {name: value for name, value in select_samples(batch, [1]).items() if name != "pixel_values_videos"}
    alone["video_row_ids"] = batch["video_row_ids"][:1]
    with pytest.raises(ValueError, match=r"key \d+ \(video 0\), which no row of `mm_encoder_outputs"):
        model.generate(**alone, mm_encoder_outputs=only_first, **GREEDY)


# ---------------------------------------------------------------------------------------------------------------------
# Reads from the device
# ---------------------------------------------------------------------------------------------------------------------

READS = {"item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "nonzero", "equal"}


class CountReads(TorchFunctionMode):
    """Counts what makes the CPU wait for the device, in the code of the package: its name, file and line."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in READS or (name == "__getitem__" and any(_is_flags(index) for index in _as_tuple(args[1]))):
            caller = traceback.extract_stack(limit=2)[0]
            if "transformers_videorefer" in caller.filename:
                self.found.append((name, caller.filename, caller.lineno))
        return func(*args, **(kwargs or {}))


def _is_flags(index) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype == torch.bool


def _as_tuple(index) -> tuple:
    return index if isinstance(index, tuple) else (index,)


@pytest.mark.parametrize("labels", [False, True])
def test_a_forward_reads_back_once(model, batch, processor, labels):
    short = processor(text=[MARKED] * 2, videos=[A[:2], B], regions=[[box_region([0])]] * 2, return_tensors="pt")
    for inputs in (batch, short):
        more = {"labels": inputs["input_ids"]} if labels else {}
        with torch.no_grad(), CountReads() as reads:
            model(**inputs, **more)
        assert len(reads.found) == 1, reads.found


def test_a_decoding_step_reads_nothing_back(model, batch):
    with torch.no_grad():
        output = model(**batch)
        step = {"input_ids": torch.full((3, 1), 7), CACHE_NAME: output[CACHE_NAME]}
        with CountReads() as reads:
            model(**step)
    assert reads.found == []
