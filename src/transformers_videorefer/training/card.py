"""Model cards of training runs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers_videorefer.checkpoints.repository import hub_id_or_none, write_card


@dataclass(frozen=True)
class TrainingSummary:
    """What the card of a trained model tells.

    Args:
        base_model (`str`, *optional*): What training started from; named if it is a Hub id.
        datasets (`Sequence[str]`): Hub ids or names of the data.
        facts (`Sequence[tuple[str, str]]`): Settings and results, in the order of the table.
        is_adapter (`bool`): Whether the folder holds a LoRA adapter only.
    """

    base_model: str | None
    datasets: Sequence[str]
    facts: Sequence[tuple[str, str]]
    is_adapter: bool


def training_card(summary: TrainingSummary) -> str:
    """Write the card of a trained model.

    Args:
        summary ([`TrainingSummary`]): What it tells.

    Returns:
        `str`: The card, with its metadata.
    """
    with TemporaryDirectory() as folder:
        write_card(folder, summary.base_model)
        card = Path(folder, "README.md").read_text(encoding="utf-8")
    metadata = ""
    hub_ids = [name for name in summary.datasets if hub_id_or_none(name)]
    if hub_ids:
        metadata += "datasets:\n" + "".join(f"- {name}\n" for name in hub_ids)
    if summary.is_adapter:
        card = card.replace("library_name: transformers", "library_name: peft", 1)
        # A base that lies in a folder is not named: whoever reads the card does not have that folder.
        base = "" if hub_id_or_none(summary.base_model) else ', base_model="folder or Hub id of its base"'
        card = card[: card.index("## Use")] + _ADAPTER_USE.format(base=base)
    card = card.replace("tags:\n", f"{metadata}tags:\n", 1)
    rows = "".join(f"| {name} | {value} |\n" for name, value in summary.facts)
    used = f"Data: {', '.join(summary.datasets)}.\n\n" if summary.datasets else ""
    return (
        f"{card}\n## Training\n\nTrained with `VideoReferSFTTrainer`.\n\n{used}| setting | value |\n|---|---|\n{rows}"
    )


_ADAPTER_USE = """## Use

This folder holds a LoRA adapter. Merge it into its base to get a repository that needs no other code:

```python
from transformers_videorefer.training import merge_and_export

merge_and_export("this-folder", "merged"{base})
```
"""


def write_training_card(folder: str | os.PathLike, summary: TrainingSummary) -> None:
    """Write the card of a trained model into its folder, in place of the one that is there.

    Args:
        folder (`str` or `os.PathLike`): The folder.
        summary ([`TrainingSummary`]): What it tells.
    """
    os.makedirs(folder, exist_ok=True)
    Path(folder, "README.md").write_text(training_card(summary), encoding="utf-8")
