"""Errors that know their place: fields, words, kinds, and the way between processes."""

import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest

from transformers_videorefer.regions import errors
from transformers_videorefer.regions.errors import (
    MediaError,
    MediaFileError,
    MediaNotFoundError,
    MediaTypeError,
    located,
    place_error,
)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ({}, "it is broken."),
        ({"sample": 0}, "sample 0: it is broken."),
        ({"sample": 2, "message": 1}, "sample 2, message 1: it is broken."),
        ({"sample": 0, "video": 1}, "sample 0, video 1: it is broken."),
        ({"sample": 0, "image": 1}, "sample 0, image 1: it is broken."),
        ({"sample": 0, "region": 1, "frame": 3}, "sample 0, region 1, frame 3: it is broken."),
        ({"sample": 0, "region": 1, "entry": "frames[2]"}, "sample 0, region 1, frames[2]: it is broken."),
        ({"region": 1, "entry": "masks[2]", "frame": 7}, "region 1, masks[2] (frame 7): it is broken."),
        ({"origin": "Row 'a'", "sample": 5, "region": 1}, "Row 'a', region 1: it is broken."),
        ({"sample": 0, "argument": "box"}, "sample 0: it is broken."),
    ],
)
def test_the_place_stands_in_front(place: dict[str, Any], words: str) -> None:
    error = MediaError("it is broken.", **place)
    assert str(error) == words
    assert error.text == "it is broken."
    assert {name: getattr(error, name) for name in place} == place


def test_a_text_that_names_its_place_stands_alone() -> None:
    assert str(MediaError("There is no video a.mp4.", is_named=True, sample=0, video=1)) == "There is no video a.mp4."
    placed = MediaError("There is no video a.mp4.", is_named=True, origin="Row 'a'", sample=0, video=1)
    assert str(placed) == "Row 'a': There is no video a.mp4."


def test_the_reason_leaves_the_sample_out() -> None:
    assert MediaError("it is broken.", origin="Row 'a'", sample=5, region=1, frame=3).reason == (
        "region 1, frame 3: it is broken."
    )
    assert MediaError("it is broken.", sample=5).reason == "it is broken."


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (ValueError("bad"), MediaError, "bad"),
        (TypeError("bad"), MediaTypeError, "bad"),
        (OSError("bad"), MediaFileError, "bad"),
        (FileNotFoundError("bad"), MediaNotFoundError, "bad"),
        (PermissionError(13, "Permission denied", "a.png"), MediaFileError, "[Errno 13] Permission denied: 'a.png'"),
        (UnicodeDecodeError("ascii", b"\xff", 0, 1, "no"), MediaError, "'ascii' codec can't decode"),
    ],
)
def test_plain_errors_become_media_errors_of_their_kind(raised: Exception, kind: type, text: str) -> None:
    with pytest.raises(MediaError) as caught, located(sample=1), located(region=2, frame=3):
        raise raised
    error = caught.value
    assert type(error) is kind
    assert isinstance(error, next(plain for plain in (OSError, TypeError, ValueError) if isinstance(raised, plain)))
    assert (error.sample, error.region, error.frame) == (1, 2, 3)
    assert str(error).startswith(f"sample 1, region 2, frame 3: {text}")
    # The way of the error ends where it was raised.
    assert traceback.extract_tb(error.__traceback__)[-1].line == "raise raised"


def test_plain_errors_are_replaced_and_others_stay_as_the_cause() -> None:
    with pytest.raises(MediaError) as caught, located(sample=0):
        raise ValueError("bad")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    with pytest.raises(MediaError) as caught, located(sample=0):
        raise ValueError("bad") from KeyError("why")
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(MediaFileError) as caught, located(sample=0):
        raise PermissionError(13, "Permission denied")
    assert isinstance(caught.value.__cause__, PermissionError)


def test_what_is_known_stays() -> None:
    with pytest.raises(MediaError, match="^sample 0, region 1, frame 5: bad$"):
        with located(sample=0, region=1, frame=9):
            raise MediaError("bad", frame=5)
    # An error that knows its sample is complete: this one is about the video, not about the region that needs it.
    with pytest.raises(MediaError, match="^sample 0, video 1: no times$") as caught:
        with located(sample=0, region=1), located(sample=0, video=1):
            raise ValueError("no times")
    assert caught.value.region is None


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("x"), ImportError("x"), KeyboardInterrupt()])
def test_errors_of_other_kinds_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, located(sample=0):
        raise error
    assert caught.value is error


def test_an_error_can_be_placed_later() -> None:
    error = MediaError("bad", sample=0, region=1)
    assert place_error(error, origin="Row 'a'", sample=3) is error
    assert (str(error), error.sample) == ("Row 'a', region 1: bad", 3)
    assert str(place_error(TypeError("bad"), sample=3)) == "sample 3: bad"
    assert place_error(KeyError("bad"), sample=3) is None


@pytest.mark.parametrize("name", ["MediaError", "MediaTypeError", "MediaFileError", "MediaNotFoundError"])
def test_errors_of_the_code_of_a_checkpoint_are_understood(name: str) -> None:
    copied: dict[str, Any] = {"__name__": "transformers_modules.regions_errors"}
    exec(Path(errors.__file__).read_text(encoding="utf-8"), copied)
    foreign = copied[name]("bad", sample=0, region=1)
    placed = place_error(foreign, origin="Row 'a'", sample=3)
    assert type(placed) is getattr(errors, name)
    assert (str(placed), placed.sample, placed.__cause__) == ("Row 'a', region 1: bad", 3, foreign)


@pytest.mark.parametrize("kind", [MediaError, MediaTypeError, MediaFileError, MediaNotFoundError])
def test_errors_cross_between_processes(kind: type[MediaError]) -> None:
    error = kind("bad", is_named=True, origin="Row 'a'", sample=3, frame=5)
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is kind
    assert (str(copied), vars(copied)) == (str(error), vars(error))
