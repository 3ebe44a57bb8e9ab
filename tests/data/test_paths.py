"""Paths of rows never lead out of the data root."""

import os
from pathlib import Path

import pytest

from transformers_videorefer.data.paths import is_unsafe_path, resolve_media


SAFE = [
    "clip.mp4",
    "videos/clip.mp4",
    "./clip.mp4",
    "a/../clip.mp4",
    "a//b.mp4",
    "..clip.mp4",
    "a/...",
    "name with blanks é.mp4",
    "a/b:c.mp4",
    "a/~b.mp4",
]
UNSAFE = [
    "",
    ".",
    "a/..",
    "/etc/passwd",
    "//host/share/x.mp4",
    "\\\\host\\share\\x.mp4",
    "\\x.mp4",
    "C:\\x.mp4",
    "c:x.mp4",
    "C:/x.mp4",
    "..",
    "../x.mp4",
    "a/../../x.mp4",
    "a\\..\\..\\x.mp4",
    "a/..\\../x.mp4",
    "./../x.mp4",
    "~/x.mp4",
    "~root/x.mp4",
    "a\0b.mp4",
    "a\nb.mp4",
    "a\x7f.mp4",
    "file:///etc/passwd",
    "file:x.mp4",
    "https://example.org/x.mp4",
    "HTTP://example.org/x.mp4",
    "concat:a.mp4|/etc/passwd",
]


@pytest.mark.parametrize("path", SAFE)
def test_paths_below_the_root(path: str) -> None:
    assert not is_unsafe_path(path)


@pytest.mark.parametrize("path", UNSAFE)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    assert is_unsafe_path(path)
    with pytest.raises(ValueError, match="not a path below the data root. Write it relative"):
        resolve_media(path, "root")


def test_joining() -> None:
    assert resolve_media("videos/clip.mp4", "root") == os.path.join("root", "videos", "clip.mp4")
    assert resolve_media("videos/clip.mp4", Path("root")) == os.path.join("root", "videos", "clip.mp4")
    assert resolve_media("a/../clip.mp4", "root") == os.path.join("root", "clip.mp4")
    assert resolve_media("clip.mp4", "") == os.path.join(".", "clip.mp4")


def test_dots_are_resolved_by_their_text(tmp_path: Path) -> None:
    """`link/../secret` would be the neighbour of what the link points to, if the system resolved it."""
    root, outside = tmp_path / "root", tmp_path / "outside" / "folder"
    root.mkdir()
    outside.mkdir(parents=True)
    (root / "link").symlink_to(outside)
    (root / "clip.mp4").write_text("inside")
    (outside.parent / "clip.mp4").write_text("outside")
    assert (root / "link" / ".." / "clip.mp4").read_text() == "outside"
    assert Path(resolve_media("link/../clip.mp4", root)).read_text() == "inside"


def test_links_below_the_root_may_point_anywhere(tmp_path: Path) -> None:
    root, store = tmp_path / "root", tmp_path / "store"
    root.mkdir()
    store.mkdir()
    (store / "clip.mp4").write_text("stored")
    (root / "videos").symlink_to(store)
    assert Path(resolve_media("videos/clip.mp4", root)).read_text() == "stored"


@pytest.mark.parametrize("path", ["/data/clip.mp4", "https://example.org/x.mp4", "../clip.mp4"])
def test_without_a_root_paths_are_taken_as_they_are(path: str) -> None:
    assert resolve_media(path, None) == path


def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="must be text, got int"):
        resolve_media(3, "root")
