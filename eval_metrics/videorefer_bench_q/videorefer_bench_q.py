"""Accuracy on VideoRefer-Bench-Q: multiple-choice questions about objects of a video, by type and over all."""

import re
import string
from collections import Counter
from collections.abc import Iterable
from typing import Any

import datasets
import evaluate


_DESCRIPTION = """
VideoRefer-Bench-Q asks multiple-choice questions about objects that are marked in a video. This metric reads the letter
out of each answer, compares it with the letter of the reference, and gives the share of right answers for each type of
question and over all questions.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[str]`): What the model answered.
    references (`list[str]`): The published `Answer`, such as "(A) A helmet".
    types (`list[str]`): The published `type`, such as "Basic Questions".
    mode (`str`, *optional*, defaults to `"published"`): How letters are read: "published" as the released scorer does,
        "strict" only where exactly one offered letter is named.
    letters (`str`, *optional*, defaults to `"ABCDEFGH"`): The letters that options may have, for the strict mode. The
        letter of the reference always counts as offered.
    return_per_sample (`bool`, *optional*, defaults to `False`): Whether to add `per_sample`.
Returns:
    accuracy (`float`): Right answers / all questions, in [0, 1]; 0.0 without questions.
    accuracy_by_type (`dict[str, float]`): The same for each type.
    num_unanswered (`int`): Answers in which no letter can be read. They count as wrong.
    num_ambiguous (`int`): Answers that name several letters. Strict: they count as wrong. Published: the first counts.
    num_samples (`int`): Number of questions.
    per_sample (`list[dict]`): On request, for each question `answer`, `reference`, `correct` and `is_ambiguous`.
Examples:
    >>> bench_q = evaluate.load("eval_metrics/videorefer_bench_q")
    >>> bench_q.compute(predictions=["B"], references=["(B) red"], types=["Basic Questions"])["accuracy"]
    1.0
"""

_CITATION = """
@inproceedings{yuan2025videorefer,
  title     = {VideoRefer Suite: Advancing Spatial-Temporal Object Understanding with Video LLM},
  author    = {Yuan, Yuqian and Zhang, Hang and Li, Wentong and Cheng, Zesen and Zhang, Boqiang and Li, Long and
               Li, Xin and Zhao, Deli and Zhang, Wenqiao and Zhuang, Yueting and others},
  booktitle = {CVPR},
  year      = {2025},
  url       = {https://arxiv.org/abs/2501.00599}
}
"""

MODES = ("published", "strict")
LETTERS = "ABCDEFGH"
QUESTION_TYPES = (
    "Basic Questions",
    "Sequential Questions",
    "Relationship Questions",
    "Reasoning Questions",
    "Future Predictions",
)
_IN_BRACKETS = re.compile(r"\(([A-Z])\)")
_BEFORE_BRACKET = re.compile(r"([A-Z])\)")
# Words that a bare capital may follow to stand for an option: "Vitamin C" and "plan B" name none.
_LEAD_INS = frozenset(
    "am and answer answers are as be believe best between both certainly chose choice choices choose choosing clearly "
    "correct definitely either for guess hence is it's its just letter letters likely maybe neither nor not only option "
    "options or perhaps pick picked picking possibly probably right say select selected selecting selection simply so "
    "than then therefore think thus was with".split()
)


def read_published_reference(reference: str) -> str:
    """Read the right answer as the released scorer does: the first `(X)`, else the whole text."""
    match = _IN_BRACKETS.search(reference)
    return match.group(1) if match else reference


def read_published(prediction: str) -> tuple[str | None, bool]:
    """Read an answer as the released scorer does.

    The first `(X)` with a capital letter counts, else the first `X)`, else the first character that is no full stop,
    whatever it is.

    Args:
        prediction (`str`): The answer of the model.

    Returns:
        `tuple[str | None, bool]`: The character that is compared with the reference, None where the answer has none
        (the released scorer stops there with an error); and whether the same pattern also finds another letter.
    """
    for pattern in (_IN_BRACKETS, _BEFORE_BRACKET):
        letters = pattern.findall(prediction)
        if letters:
            return letters[0], len(set(letters)) > 1
    return prediction.replace(".", "")[:1] or None, False


def find_letters(text: str, letters: str = LETTERS) -> set[str]:
    """Find the options that a text names, reading no other text than letters that stand for an option.

    A letter counts when it is the whole text, stands in or before a bracket ("(b)", "B) yes"), opens the text as a
    label ("b. yes", "B: yes"), follows a word such as "answer" or "option", or stands alone as a capital: at the start,
    after a sign, or after a word that leads to an answer ("I think B", not "Vitamin C"). "A" before a further word is
    taken as the article ("A man is walking"), except before "is", "and", "or" and the like. Capitals in one bracket or
    alone in the text name each of them ("(AB)", "BC").

    Args:
        text (`str`): An answer; Markdown marks around letters are ignored.
        letters (`str`, *optional*, defaults to `"ABCDEFGH"`): The letters that options may have.

    Returns:
        `set[str]`: The named letters as capitals: empty, one, or several.
    """
    text = re.sub(r"[*_`$\"“”]|\\boxed|\\text", " ", text).strip()
    options = re.escape(letters.upper() + letters.lower())
    # No letter, digit, apostrophe or hyphen beside it ("T-shirt", "D's"), and no initials ("U.S.").
    start, end = r"(?<![A-Za-z0-9'’-])(?<![A-Za-z0-9]\.)", r"(?![A-Za-z0-9'’-]|\.[A-Za-z0-9])"
    not_article = r"(?![ \t]+(?!(?:is|was|and|or|because|since|as)\b)[^\W\d_])"
    patterns = (
        rf"^[\(\[\{{]?\s*([{options}])\s*[\)\]\}}]?[\s.,:;!]*$",
        rf"[\(\[\{{]\s*([{options}])\s*[\)\]\}}]",
        rf"{start}([{options}])\s?\)",
        rf"^([{options}])[.:](?=\s|$)",
        rf"(?i:\b(?:answer|option|choice)\b(?:\s+is)?)\s*(?::\s*)?((?![Aa])[{options}]|[Aa]{not_article}){end}",
    )
    found = {letter for pattern in patterns for letter in re.findall(pattern, text)}
    capitals = re.escape(letters.upper())
    bare = re.finditer(rf"{start}((?!A)[{capitals}]|A{not_article}){end}", text)
    found |= {match.group(1) for match in bare if _leads_to_letter(text[max(0, match.start() - 40) : match.start()])}
    several = rf"[\(\[\{{]\s*([{capitals}]{{2,8}}|[{options}](?:\s?[,/&+;]\s?[{options}]){{1,7}})\s*[\)\]\}}]"
    for group in [*re.findall(several, text), *re.findall(rf"^[{capitals}]{{2,8}}(?=[.!]?$)", text)]:
        named = re.findall("[A-Za-z]", group)
        if len(set(named)) == len(named):
            found |= set(named)
    return {letter.upper() for letter in found} & set(letters.upper())


def _leads_to_letter(before: str) -> bool:
    """Whether a bare capital after this text stands for an option: after a sign, a lead-in or another letter."""
    word = re.search(r"([A-Za-z0-9'’]+)[ \t]*$", before)
    return (
        word is None
        or word.group(1).lower().replace("’", "'") in _LEAD_INS
        or re.fullmatch("[A-Z]", word.group(1)) is not None
    )


def read_strict(prediction: str, letters: str = LETTERS) -> tuple[str | None, bool]:
    """Read an answer only where it names exactly one option.

    Args:
        prediction (`str`): The answer of the model.
        letters (`str`, *optional*, defaults to `"ABCDEFGH"`): The letters that options may have.

    Returns:
        `tuple[str | None, bool]`: The letter, or None; and whether the answer names several.
    """
    found = find_letters(prediction, letters)
    return (found.pop(), False) if len(found) == 1 else (None, len(found) > 1)


def _read_strict_reference(reference: str, index: int) -> str:
    """Read the letter of a reference, which must have one."""
    match = _IN_BRACKETS.search(reference)
    letter = match.group(1) if match else read_strict(reference, string.ascii_uppercase)[0]
    if letter is None:
        raise ValueError(
            f"`references[{index}]` is {reference!r}, which names no option. Give the published `Answer`, such as "
            "'(A) A helmet'."
        )
    return letter


def _judge_sample(prediction: str | None, reference: str, index: int, mode: str, letters: str) -> dict[str, Any]:
    """Read one answer and compare it with its reference."""
    prediction = prediction or ""
    if mode == "published":
        answer, is_ambiguous = read_published(prediction)
        expected = read_published_reference(reference)
    else:
        expected = _read_strict_reference(reference, index)
        answer, is_ambiguous = read_strict(prediction, letters + expected)
    correct = answer is not None and answer.lower() == expected.lower()
    return {"answer": answer, "reference": expected, "correct": correct, "is_ambiguous": is_ambiguous}


def _type_order(types: Iterable[str]) -> list[str]:
    """Put the published types first, in the order of the paper, then all others by name."""
    return sorted(types, key=lambda name: (name not in QUESTION_TYPES, [*QUESTION_TYPES, name].index(name), name))


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class VideoReferBenchQ(evaluate.Metric):
    """Accuracy on VideoRefer-Bench-Q."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": text, "references": text, "types": text}),
            reference_urls=["https://arxiv.org/abs/2501.00599"],
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        types: list[str],
        mode: str = "published",
        letters: str = LETTERS,
        return_per_sample: bool = False,
    ) -> dict[str, Any]:
        if mode not in MODES:
            raise ValueError(f"`mode` is {mode!r}. Use one of {', '.join(MODES)}.")
        if not re.fullmatch("[A-Za-z]+", letters):
            raise ValueError(f"`letters` is {letters!r}. Give the letters of the options, such as 'ABCD'.")
        samples = [
            _judge_sample(prediction, reference, index, mode, letters)
            for index, (prediction, reference) in enumerate(zip(predictions, references, strict=True))
        ]
        num_by_type = Counter(types)
        num_right = Counter(kind for kind, sample in zip(types, samples, strict=True) if sample["correct"])
        result = {
            "accuracy": num_right.total() / len(samples) if samples else 0.0,
            "accuracy_by_type": {kind: num_right[kind] / num_by_type[kind] for kind in _type_order(num_by_type)},
            "num_unanswered": sum(s["answer"] is None and not s["is_ambiguous"] for s in samples),
            "num_ambiguous": sum(sample["is_ambiguous"] for sample in samples),
            "num_samples": len(samples),
        }
        return result | {"per_sample": samples} if return_per_sample else result
