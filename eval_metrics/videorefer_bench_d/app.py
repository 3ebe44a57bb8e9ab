"""Space of the metric: let a hosted judge score descriptions, or read replies that a judge gave before."""

import json
from pathlib import Path
from typing import Any

import evaluate
import gradio as gr


# By the path of the file, because a Space's folder does not have the name of the metric.
metric = evaluate.load(str(Path(__file__).with_name("videorefer_bench_d.py")))

EXAMPLE = """\
{"caption": "A brown dog runs to the left.", "pred": "A dog is running.", "gpt": "1. Subject Correspondence: 5\\n\
2. Appearance Description: 3\\n3. Temporal Description: 4\\n4. Hallucination Detection: 5"}"""


def score(records: str, model: str, api_key: str) -> dict[str, Any]:
    """Score descriptions in the record form of the released scripts.

    The key of the visitor is used for this request and not kept; the owner's key is never used.

    Args:
        records (`str`): One JSON object per line with `caption` and `pred`, and `gpt` where no model is named.
        model (`str`): Dated id of a hosted judge. Empty: the replies in `gpt` are read.
        api_key (`str`): Key of the visitor.

    Returns:
        `dict[str, Any]`: The result of the metric.
    """
    try:
        rows = [json.loads(line) for line in records.splitlines() if line.strip()]
        columns = {"predictions": [row["pred"] for row in rows], "references": [row["caption"] for row in rows]}
        if not model.strip():
            replies = iter([row.get("gpt") for row in rows])
            return metric.compute(**columns, judge=lambda messages: next(replies))
        if not api_key.strip():
            raise ValueError("a judge behind an endpoint needs your key")
        return metric.compute(**columns, model=model.strip(), api_key=api_key.strip())
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise gr.Error(f"These records can't be scored: {error}") from error


def build() -> gr.Blocks:
    """Build the page.

    Returns:
        `gr.Blocks`: The page, not launched.
    """
    with gr.Blocks(title="VideoRefer-Bench-D") as page:
        gr.Markdown("# VideoRefer-Bench-D\nScores of object descriptions, given by a judge.")
        records = gr.Textbox(
            EXAMPLE, lines=8, label="One JSON object per line: caption, pred, and gpt for given replies"
        )
        with gr.Row():
            model = gr.Textbox("", label="Dated id of the judge (empty: read the replies in gpt)")
            api_key = gr.Textbox("", type="password", label="Your key")
        button = gr.Button("Score", variant="primary")
        result = gr.JSON(label="Result")
        button.click(score, [records, model, api_key], result)
        gr.Markdown(metric.inputs_description)
    return page


if __name__ == "__main__":
    build().launch()
