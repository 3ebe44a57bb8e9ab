"""BLEU@4, METEOR, ROUGE_L, CIDEr and SPICE of region captions, by the standard COCO caption scorers."""

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import evaluate


try:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.spice import spice
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
except ImportError as error:
    raise ImportError(
        "Caption metrics need the COCO caption scorers. Install them with `pip install pycocoevalcap`."
    ) from error

_DESCRIPTION = """
Compares captions of regions with reference captions by BLEU@4, METEOR, ROUGE_L, CIDEr and SPICE, computed by the
standard COCO caption scorers of the package pycocoevalcap.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[str]`): One caption per region.
    references (`list[list[str]]`): One or more reference captions per region.
    metrics (`list[str]`, *optional*): Some of "BLEU@4", "METEOR", "ROUGE_L", "CIDEr", "SPICE". Default: all.
    tokenizer (`str`, *optional*, defaults to `"ptb"`): "ptb" is the standard one and needs Java. "regex" (lower case,
        words and numbers only) and "none" (split at blanks, nothing else) give other numbers, not to be compared with
        published ones.
    return_per_sample (`bool`, *optional*, defaults to `False`): Whether to add `per_sample`.
Returns:
    One `float` under the name of each metric: 0 to 1, CIDEr 0 to 10; 0.0 without samples.
    tokenizer (`str`): The tokenizer that was used.
    num_samples (`int`): Number of regions.
    per_sample (`dict[str, list[float]]`): On request, the score of every region, for the metrics that are means over
        regions: ROUGE_L, CIDEr and SPICE.
Examples:
    >>> captioning = evaluate.load("eval_metrics/region_captioning")
    >>> captioning.compute(predictions=["a dog runs"], references=[["a dog runs"]], metrics=["ROUGE_L"])
    {'ROUGE_L': 1.0, 'tokenizer': 'ptb', 'num_samples': 1}
"""

_CITATION = """
@article{chen2015microsoft,
  title   = {Microsoft COCO Captions: Data Collection and Evaluation Server},
  author  = {Chen, Xinlei and Fang, Hao and Lin, Tsung-Yi and Vedantam, Ramakrishna and Gupta, Saurabh and
             Doll{\\'a}r, Piotr and Zitnick, C. Lawrence},
  journal = {arXiv preprint arXiv:1504.00325},
  year    = {2015}
}
"""

Captions = dict[int, list[str]]
METRICS = ("BLEU@4", "METEOR", "ROUGE_L", "CIDEr", "SPICE")
NEED_JAVA = ("METEOR", "SPICE")
SPICE_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_INSTALL_JAVA = "Install it with `apt-get install default-jre-headless` (or `conda install openjdk`)"


def _has_java() -> bool:
    """Tell whether `java` runs; some systems ship a stand-in that only asks to install it."""
    if shutil.which("java") is None:
        return False
    return subprocess.run(["java", "-version"], capture_output=True, check=False).returncode == 0


def _check_needs(metrics: Sequence[str], tokenizer: str) -> None:
    """Say what is missing before anything is computed."""
    needing = [name for name in metrics if name in NEED_JAVA]
    needing += ["the PTB tokenizer"] * (tokenizer == "ptb")
    if needing and not _has_java():
        without_java = [name for name in metrics if name not in NEED_JAVA]
        instead = f"metrics={without_java or ['BLEU@4', 'ROUGE_L', 'CIDEr']}, tokenizer='regex'"
        raise ImportError(
            f"Java does not run here, but these need it: {', '.join(needing)}. {_INSTALL_JAVA}. Numbers that are not "
            f"comparable with published ones come without it: {instead}."
        )
    if "SPICE" in metrics:
        folder = Path(spice.__file__).parent / "lib"
        missing = [name for name in SPICE_MODELS if not (folder / name).exists()]
        if missing:
            raise ImportError(
                f"SPICE needs the Stanford models {', '.join(missing)}. Install them with "
                "`python -m pycocoevalcap.spice.get_stanford_models` (a download of some 400 MB), or leave SPICE out of "
                "`metrics`."
            )


def _tokenize_ptb(captions: Captions) -> Captions:
    """Run the standard tokenizer. It works line by line, so a caption must be one line."""
    wrapped = {index: [{"caption": " ".join(text.split())} for text in texts] for index, texts in captions.items()}
    tokenized = PTBTokenizer().tokenize(wrapped)
    if {index: len(texts) for index, texts in tokenized.items()} != {i: len(texts) for i, texts in captions.items()}:
        raise RuntimeError(
            "The PTB tokenizer lost lines. Look for unusual line breaks or control signs in the captions."
        )
    return tokenized


def _tokenize_regex(captions: Captions) -> Captions:
    return {i: [" ".join(re.findall(r"\w+", text.lower())) for text in texts] for i, texts in captions.items()}


def _tokenize_none(captions: Captions) -> Captions:
    return {index: [" ".join(text.split()) for text in texts] for index, texts in captions.items()}


TOKENIZERS: dict[str, Callable[[Captions], Captions]] = {
    "ptb": _tokenize_ptb,
    "regex": _tokenize_regex,
    "none": _tokenize_none,
}


def _score(metric: str, references: Captions, predictions: Captions) -> tuple[float, list[float] | None]:
    """Compute one metric by its standard scorer; scores of regions where the metric is their mean."""
    if metric == "BLEU@4":
        return Bleu(4).compute_score(references, predictions, verbose=0)[0][3], None
    if metric == "METEOR":
        # Its program takes three bars as the end of a text; the standard wrapper removes them from predictions alone.
        references = {index: [text.replace("|||", "") for text in texts] for index, texts in references.items()}
        return Meteor().compute_score(references, predictions)[0], None
    if metric == "SPICE":
        try:
            mean, of_regions = spice.Spice().compute_score(references, predictions)
            return mean, [scores["All"]["f"] for scores in of_regions]
        except subprocess.CalledProcessError as error:
            raise RuntimeError(
                f"The Java program of SPICE stopped (exit status {error.returncode}). It is known to run on Java 8 and "
                "11, and to stop on 17 and later."
            ) from error
    scorer = Rouge() if metric == "ROUGE_L" else Cider()
    mean, of_regions = scorer.compute_score(references, predictions)
    return mean, [float(score) for score in of_regions]


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class RegionCaptioning(evaluate.Metric):
    """The five standard caption metrics."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": text, "references": datasets.List(text)}),
            codebase_urls=["https://github.com/salaniz/pycocoevalcap"],
            reference_urls=["https://arxiv.org/abs/1504.00325"],
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[list[str]],
        metrics: Sequence[str] = METRICS,
        tokenizer: str = "ptb",
        return_per_sample: bool = False,
    ) -> dict[str, Any]:
        unknown = [metrics] if isinstance(metrics, str) else [name for name in metrics if name not in METRICS]
        if unknown:
            raise ValueError(f"`metrics` has {', '.join(unknown)}. Pass a list of some of {', '.join(METRICS)}.")
        if tokenizer not in TOKENIZERS:
            raise ValueError(f"`tokenizer` is {tokenizer!r}. Use one of {', '.join(TOKENIZERS)}.")
        for index, texts in enumerate(references):
            if not texts or any(text is None for text in texts):
                raise ValueError(
                    f"`references[{index}]` is {texts}. Give every region at least one reference caption."
                )
        _check_needs(metrics, tokenizer)
        result = dict.fromkeys(metrics, 0.0)
        scores: dict[str, tuple[float, list[float] | None]] = {}
        if predictions:
            tokenize = TOKENIZERS[tokenizer]
            tokenized = tokenize({index: [text or ""] for index, text in enumerate(predictions)})
            targets = tokenize(dict(enumerate(references)))
            scores = {name: _score(name, targets, tokenized) for name in metrics}
            result = {name: float(mean) for name, (mean, _) in scores.items()}
        result |= {"tokenizer": tokenizer, "num_samples": len(predictions)}
        of_regions = {name: values for name, (_, values) in scores.items() if values is not None}
        return result | {"per_sample": of_regions} if return_per_sample else result
