"""Space of the metric: compare captions with references."""

import json
from pathlib import Path
from typing import Any

import evaluate
import gradio as gr


# By the path of the file, because a Space's folder does not have the name of the metric.
metric = evaluate.load(str(Path(__file__).with_name("region_captioning.py")))

METRICS = ["BLEU@4", "METEOR", "ROUGE_L", "CIDEr", "SPICE"]
EXAMPLE = """\
{"prediction": "a man in a red shirt jumps", "references": ["the man in the red shirt jumps over a box"]}
{"prediction": "a dog", "references": ["a brown dog runs", "the dog is running"]}"""


def score(records: str, metrics: list[str], tokenizer: str) -> dict[str, Any]:
    """Score captions.

    Args:
        records (`str`): One JSON object per line with `prediction` and `references`.
        metrics (`list[str]`): Names of the metrics.
        tokenizer (`str`): "ptb", "regex" or "none".

    Returns:
        `dict[str, Any]`: The result of the metric.
    """
    try:
        rows = [json.loads(line) for line in records.splitlines() if line.strip()]
        columns = {
            "predictions": [row["prediction"] for row in rows],
            "references": [row["references"] for row in rows],
        }
        return metric.compute(**columns, metrics=metrics, tokenizer=tokenizer)
    except (KeyError, TypeError, ValueError, ImportError, RuntimeError) as error:
        raise gr.Error(f"These captions can't be scored: {error}") from error


def build() -> gr.Blocks:
    """Build the page.

    Returns:
        `gr.Blocks`: The page, not launched.
    """
    with gr.Blocks(title="Region captioning") as page:
        gr.Markdown("# Region captioning\nBLEU@4, METEOR, ROUGE_L, CIDEr and SPICE by the COCO caption scorers.")
        records = gr.Textbox(EXAMPLE, lines=8, label="One JSON object per line: prediction, references")
        metrics = gr.CheckboxGroup(METRICS, value=["BLEU@4", "ROUGE_L", "CIDEr"], label="Metrics")
        tokenizer = gr.Radio(["ptb", "regex", "none"], value="ptb", label="Tokenizer")
        button = gr.Button("Score", variant="primary")
        result = gr.JSON(label="Result")
        button.click(score, [records, metrics, tokenizer], result)
        gr.Markdown(metric.inputs_description)
    return page


if __name__ == "__main__":
    build().launch()
