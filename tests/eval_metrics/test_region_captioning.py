"""Caption metrics: equal to the standard scorers, hand-made values, and what is said where Java is missing."""

import math
import random
import shutil
import subprocess

import pytest
from metric_modules import load_metric, sibling


pytest.importorskip("pycocoevalcap")

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
WITHOUT_JAVA = ["BLEU@4", "ROUGE_L", "CIDEr"]


@pytest.fixture
def metric():
    return load_metric("region_captioning")


@pytest.fixture(scope="module")
def pairs():
    """100 made-up captions with one to five references each, which share words with them."""
    generator = random.Random(0)
    subjects = ["a dog", "The man", "two children", "A woman's bag", "the red car (left)", "un café"]
    actions = ["runs", "is walking", "doesn't move", "jumps over 3 boxes", "turns left, then right"]
    places = ["in the park.", "on a wet road", "near the U.S. flag", "at 5 o'clock", "behind the tree!"]

    def caption():
        parts = [generator.choice(words) for words in (subjects, actions, places)]
        return " ".join(parts[: generator.randint(1, 3)])

    predictions = [caption() for _ in range(100)]
    return predictions, [[caption() for _ in range(generator.randint(1, 5))] for _ in range(100)]


def standard_scores(predictions, references, names):
    """Compute with the scorers of the package, put together as its own evaluation does."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.spice.spice import Spice
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    targets = tokenizer.tokenize({i: [{"caption": text} for text in texts] for i, texts in enumerate(references)})
    captions = tokenizer.tokenize({i: [{"caption": text}] for i, text in enumerate(predictions)})
    scorers = {"METEOR": Meteor, "ROUGE_L": Rouge, "CIDEr": Cider, "SPICE": Spice}
    scores = {name: scorer().compute_score(targets, captions)[0] for name, scorer in scorers.items() if name in names}
    if "BLEU@4" in names:
        scores["BLEU@4"] = Bleu(4).compute_score(targets, captions, verbose=0)[0][3]
    return scores


@needs_java
@pytest.mark.parametrize("names", [WITHOUT_JAVA, pytest.param(["METEOR"], marks=pytest.mark.slow)], ids=str)
def test_equal_to_the_standard_scorers_on_100_pairs(metric, pairs, names):
    predictions, references = pairs
    result = metric.compute(predictions=predictions, references=references, metrics=names)
    assert (result.pop("tokenizer"), result.pop("num_samples")) == ("ptb", 100)
    assert result == pytest.approx(standard_scores(predictions, references, names), abs=1e-12)
    assert all(0.1 < value < 10 for value in result.values())


@needs_java
@pytest.mark.network
def test_spice_is_equal_to_the_standard_scorer(metric, pairs):
    from pycocoevalcap.spice.get_stanford_models import get_stanford_models

    get_stanford_models()
    predictions, references = pairs
    expected = standard_scores(predictions, references, ["SPICE"])
    result = metric.compute(predictions=predictions, references=references, metrics=["SPICE"])
    assert result["SPICE"] == pytest.approx(expected["SPICE"], abs=1e-12)


@needs_java
def test_line_breaks_and_empty_captions_keep_their_place(metric):
    """Each line is a caption for the tokenizer: a break inside one would shift all that follow."""
    predictions = ["a dog\u2028runs", "", "...", "a cat\rsits\x0bdown", "a bird sings ||| loudly", "the end"]
    references = [["a dog runs"], ["nothing"], ["dots"], ["a cat sits down"], ["a bird sings ||| loudly"], ["the end"]]
    tokenized = sibling(metric, "region_captioning")._tokenize_ptb({i: [text] for i, text in enumerate(predictions)})
    expected = ["a dog runs", "", "", "a cat sits down", "a bird sings | | | loudly", "the end"]
    assert [tokenized[index] for index in range(6)] == [[text] for text in expected]
    assert metric.compute(predictions=predictions, references=references, metrics=["ROUGE_L"])["ROUGE_L"] == 4 / 6


@needs_java
@pytest.mark.slow  # its program reads a big table first
def test_meteor_of_empty_captions_is_zero(metric):
    references = [["a dog runs fast"], ["a cat ||| sits down"]]
    predictions = ["a dog runs fast", ""]
    both = metric.compute(predictions=predictions, references=references, metrics=["METEOR"])["METEOR"]
    alone = metric.compute(predictions=predictions[:1], references=references[:1], metrics=["METEOR"])["METEOR"]
    assert 0 < both < alone


def test_values_by_hand_without_java(metric, monkeypatch):
    monkeypatch.setenv("PATH", "")
    result = metric.compute(
        predictions=["A dog runs fast today!", "one two"],
        references=[["a dog runs fast today"], ["one three", "four"]],
        metrics=["ROUGE_L", "BLEU@4"],
        tokenizer="regex",
    )
    # Second caption: precision and recall of the common subsequence "one" are 1/2 each, and so is their mean.
    assert result["ROUGE_L"] == pytest.approx((1 + 0.5) / 2)
    # n-grams in common / all: 6 of 7 words (lengths agree, so no penalty for short ones), 4 of 5, 3 of 3, 2 of 2.
    assert result["BLEU@4"] == pytest.approx((6 / 7 * 4 / 5) ** 0.25, abs=1e-6)
    assert result["tokenizer"] == "regex"


def test_cider_by_hand_without_java(metric, monkeypatch):
    monkeypatch.setenv("PATH", "")
    result = metric.compute(
        predictions=["red dog", "blue cat"],
        references=[["red dog"], ["green cat"]],
        metrics=["CIDEr"],
        tokenizer="none",
    )
    # Four n-gram orders weigh 10/4 each; the captions have words and pairs only. First: both match in full. Second:
    # all words are equally rare, so one word of two in common is a cosine of 1/2, and no pair is in common. "blue"
    # stands in no reference and counts as standing in one.
    first, second = 10 * (1 + 1) / 4, 10 * (1 / 2) / 4
    assert result["CIDEr"] == pytest.approx((first + second) / 2)
    assert result["tokenizer"] == "none"
    assert math.isfinite(result["CIDEr"])


def test_the_opt_in_tokenizers_differ_from_each_other(metric):
    arguments = {"predictions": ["A dog."], "references": [["a dog"]], "metrics": ["ROUGE_L"]}
    assert metric.compute(**arguments, tokenizer="regex")["ROUGE_L"] == 1.0
    assert metric.compute(**arguments, tokenizer="none")["ROUGE_L"] == 0.0


def test_no_samples_give_zero(metric):
    result = metric.compute(predictions=[], references=[], metrics=WITHOUT_JAVA, tokenizer="none")
    assert result == {"BLEU@4": 0.0, "ROUGE_L": 0.0, "CIDEr": 0.0, "tokenizer": "none", "num_samples": 0}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"metrics": ["BLEU@4"]}, "need it: the PTB tokenizer"),
        ({"metrics": ["METEOR"], "tokenizer": "regex"}, "need it: METEOR"),
        ({}, "need it: METEOR, SPICE, the PTB tokenizer"),
    ],
)
def test_without_java_nothing_takes_its_place(metric, monkeypatch, options, named):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ImportError, match=f"{named}.* `apt-get install default-jre-headless`"):
        metric.compute(predictions=["a"], references=[["a"]], **options)


def test_a_java_that_does_not_run_counts_as_missing(metric, monkeypatch, tmp_path):
    stand_in = tmp_path / "java"
    stand_in.write_text("#!/bin/sh\nexit 1\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImportError, match="Java does not run here"):
        metric.compute(predictions=["a"], references=[["a"]], metrics=["BLEU@4"])


def test_spice_without_its_models_names_the_install_line(metric, monkeypatch, tmp_path):
    module = sibling(metric, "region_captioning")
    monkeypatch.setattr(module, "_has_java", lambda: True)
    monkeypatch.setattr(module.spice, "__file__", str(tmp_path / "spice.py"))
    monkeypatch.setattr(module.spice, "get_stanford_models", lambda: pytest.fail("a download was started"))
    with pytest.raises(ImportError, match="`python -m pycocoevalcap.spice.get_stanford_models`"):
        metric.compute(predictions=["a"], references=[["a"]], metrics=["SPICE"], tokenizer="none")


def test_a_failing_spice_program_is_explained(metric, monkeypatch):
    module = sibling(metric, "region_captioning")

    class Failing:
        def compute_score(self, references, predictions):
            raise subprocess.CalledProcessError(1, ["java"])

    monkeypatch.setattr(module, "_check_needs", lambda metrics, tokenizer: None)
    monkeypatch.setattr(module.spice, "Spice", Failing)
    with pytest.raises(RuntimeError, match="exit status 1.*Java 8 and 11"):
        metric.compute(predictions=["a"], references=[["a"]], metrics=["SPICE"], tokenizer="none")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"metrics": ["BLEU"]}, "`metrics` has BLEU. Pass a list of some of BLEU@4"),
        ({"metrics": "CIDEr"}, "`metrics` has CIDEr. Pass a list"),
        ({"tokenizer": "moses"}, "`tokenizer` is 'moses'. Use one of ptb, regex, none"),
        ({"references": [[]]}, r"`references\[0\]` is \[\]. Give every region at least one"),
    ],
)
def test_wrong_arguments_are_refused(metric, change, reason):
    with pytest.raises(ValueError, match=reason):
        metric.compute(**{"predictions": ["a"], "references": [["a"]], **change})
