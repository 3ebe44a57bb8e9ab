"""What the package brings along: the miniature checkpoint and the clip of the quickstart."""

from pathlib import Path


ASSETS = Path(__file__).parent / "assets"
TINY_MODEL = "tiny"
TINY_CHECKPOINT = ASSETS / "videorefer-tiny"
TINY_NOTICE = "tiny knows only its own toy world of coloured shapes; its answers about anything else mean nothing."
QUICKSTART = ASSETS / "quickstart"
