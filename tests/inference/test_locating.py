"""Whether a checkpoint is there: one quick question to the Hub."""

import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import PUBLISHED, REFERENCE
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RemoteEntryNotFoundError, RepositoryNotFoundError

from transformers_videorefer.inference import locating
from transformers_videorefer.inference.locating import CheckpointError, locate_model


MODEL_ID = "somebody/model"


def answered(error_class: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    """An error as the Hub client raises it for an answer."""
    request = httpx2.Request("HEAD", "https://hub.example/config.json")
    return error_class(f"status {status}", response=httpx2.Response(status, request=request))


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Go online with an empty cache, and answer every question with the error in here; what was asked follows it."""
    asked: list[Any] = []

    def look_up(url: str, **kwargs: Any) -> None:
        asked.append(url)
        if asked[0] is not None:
            raise asked[0]

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(locating, "get_hf_file_metadata", look_up)
    return asked


def put_into_cache(folder: Path) -> None:
    repository = folder / f"models--{MODEL_ID.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    shutil.copy(PUBLISHED / "config.json", snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (httpx2.ConnectError("no route"), r"the Hub cannot be reached \(no route\)\. Check the connection"),
        (httpx2.ReadTimeout("too slow"), r"the Hub cannot be reached \(too slow\)"),
        (answered(HfHubHTTPError, 503), r"the Hub cannot be reached \(status 503"),
        (answered(HfHubHTTPError, 403), "the Hub refuses it: status 403"),
        (answered(GatedRepoError, 403), "asks for access rights"),
        (answered(RepositoryNotFoundError, 401), "the Hub has no such model or hides it"),
        (answered(RemoteEntryNotFoundError, 404), r"it has no config\.json"),
    ],
)
def test_model_that_cannot_be_had_is_one_question_and_is_named(questions, error: Exception, message: str):
    questions.append(error)
    with pytest.raises(OSError, match=f"^`{MODEL_ID}`: .*{message}") as caught:
        locate_model(MODEL_ID)
    assert isinstance(caught.value, CheckpointError)
    assert (caught.value.name, str(caught.value)) == (MODEL_ID, f"`{MODEL_ID}`: {caught.value.problem}")
    assert len(questions) == 2


def test_model_on_the_hub_is_loaded_from_there(questions):
    questions.append(None)
    assert locate_model(MODEL_ID) == {}
    assert questions[1].endswith(f"{MODEL_ID}/resolve/main/config.json")


def test_cached_model_is_loaded_without_the_hub_if_there_is_no_answer(questions, tmp_path: Path):
    put_into_cache(tmp_path / "cache")
    questions.append(httpx2.ConnectError("no route"))
    assert locate_model(MODEL_ID) == {"local_files_only": True}


def test_nothing_is_asked_for_folders_and_in_offline_mode(questions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    questions.append(AssertionError("the Hub was asked"))
    assert locate_model(str(PUBLISHED)) == {}
    with pytest.raises(OSError, match=r"media`: this folder has no config\.json"):
        locate_model(str(REFERENCE / "media"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=f"`{MODEL_ID}`: it is not in the cache of the Hub, and HF_HUB_OFFLINE"):
        locate_model(MODEL_ID)
    put_into_cache(tmp_path / "cache")
    assert locate_model(MODEL_ID) == {}
    assert len(questions) == 1
