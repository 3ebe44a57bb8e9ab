"""Space of the metric: upload answers, see accuracy by type."""

import json
from pathlib import Path
from typing import Any

import evaluate
import gradio as gr


# By the path of the file, because a Space's folder does not have the name of the metric.
metric = evaluate.load(str(Path(__file__).with_name("videorefer_bench_q.py")))

EXAMPLE = """\
{"pred": "(A)", "Answer": "(A) A helmet", "type": "Basic Questions"}
{"pred": "The answer is C.", "Answer": "(C) It leaves", "type": "Future Predictions"}"""


def score(records: str, mode: str) -> tuple[list[list[Any]], dict[str, Any]]:
    """Score answers in the record form of the released scripts.

    Args:
        records (`str`): One JSON object per line with `pred`, `Answer` and `type`.
        mode (`str`): "published" or "strict".

    Returns:
        `tuple[list[list[Any]], dict[str, Any]]`: Rows of type and accuracy in percent, and the whole result.
    """
    try:
        rows = [json.loads(line) for line in records.splitlines() if line.strip()]
        columns = {
            "predictions": [row["pred"] for row in rows],
            "references": [row["Answer"] for row in rows],
            "types": [row["type"] for row in rows],
        }
        result = metric.compute(**columns, mode=mode)
    except (KeyError, TypeError, ValueError) as error:
        raise gr.Error(f"These records can't be scored: {error!r}") from error
    table = [[kind, round(100 * value, 1)] for kind, value in result["accuracy_by_type"].items()]
    return [*table, ["All questions", round(100 * result["accuracy"], 1)]], result


def build() -> gr.Blocks:
    """Build the page.

    Returns:
        `gr.Blocks`: The page, not launched.
    """
    with gr.Blocks(title="VideoRefer-Bench-Q") as page:
        gr.Markdown("# VideoRefer-Bench-Q\nAccuracy of multiple-choice answers about objects in videos.")
        records = gr.Textbox(EXAMPLE, lines=8, label="Answers, one JSON object per line: pred, Answer, type")
        mode = gr.Radio(["published", "strict"], value="published", label="How letters are read")
        button = gr.Button("Score", variant="primary")
        table = gr.Dataframe(headers=["type", "accuracy (%)"], label="Accuracy", interactive=False)
        result = gr.JSON(label="Result")
        button.click(score, [records, mode], [table, result])
        gr.Markdown(metric.inputs_description)
    return page


if __name__ == "__main__":
    build().launch()
