"""Cards, and what is pushed to the Hub and how."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import PUBLISHED
from exported_code import exported_files
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_videorefer import VideoReferForConditionalGeneration
from transformers_videorefer.checkpoints.repository import hub_id_or_none, write_card


CODE = set(exported_files())


@pytest.fixture
def model() -> VideoReferForConditionalGeneration:
    return AutoModelForImageTextToText.from_pretrained(PUBLISHED)


def test_card_names_the_base_on_the_hub(tmp_path: Path) -> None:
    write_card(tmp_path, "DAMO-NLP-SG/VideoRefer-7B")
    card = (tmp_path / "README.md").read_text()
    assert "base_model: DAMO-NLP-SG/VideoRefer-7B\n" in card.split("---")[1]
    assert hub_id_or_none("/home/somebody/model") is None
    assert hub_id_or_none("./model") is None
    assert hub_id_or_none(tmp_path) is None
    assert hub_id_or_none(None) is None


# Pushing


class FakeHub:
    """Records what would be sent to the Hub."""

    def __init__(self, has_card: bool = False):
        self.calls: dict[str, dict[str, Any]] = {}
        self.files: set[str] = set()
        self.has_card = has_card

    def create_repo(self, repo_id: str, **kwargs: Any) -> SimpleNamespace:
        self.calls["create_repo"] = {"repo_id": repo_id, **kwargs}
        return SimpleNamespace(repo_id=repo_id)

    def file_exists(self, repo_id: str, filename: str, **kwargs: Any) -> bool:
        return self.has_card and filename == "README.md"

    def create_branch(self, repo_id: str, **kwargs: Any) -> None:
        self.calls["create_branch"] = kwargs

    def upload_folder(self, folder_path: Path, allow_patterns: list[str], **kwargs: Any) -> str:
        self.calls["upload_folder"] = kwargs
        self.files = {name for name in allow_patterns if Path(folder_path, name).exists()}
        return "commit"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr("transformers.utils.hub.hf_api", lambda: fake)
    return fake


@pytest.mark.parametrize(
    ("argument", "is_private"), [({}, True), ({"private": None}, True), ({"private": False}, False)]
)
def test_model_is_pushed_privately_unless_told(argument, is_private: bool, model, hub: FakeHub) -> None:
    assert model.push_to_hub("me/model", commit_message="New", revision="next", **argument) == "commit"
    assert hub.calls["create_repo"] == {"repo_id": "me/model", "private": is_private, "token": None, "exist_ok": True}
    assert hub.calls["upload_folder"]["commit_message"] == "New"
    assert hub.calls["create_branch"]["branch"] == "next"
    assert {"model.safetensors", "config.json", "processor_config.json", "README.md"} | CODE <= hub.files


def test_processor_is_pushed_privately_unless_told(hub: FakeHub) -> None:
    processor = AutoProcessor.from_pretrained(PUBLISHED)
    processor.push_to_hub("me/processor")
    assert hub.calls["create_repo"]["private"] is True
    assert {"processor_config.json", "tokenizer.json", "processing_videorefer.py"} <= hub.files
    processor.push_to_hub("me/processor", private=False)
    assert hub.calls["create_repo"]["private"] is False


def test_saving_can_push_what_it_wrote(model, hub: FakeHub, tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    model.save_pretrained(folder, push_to_hub=True, token="secret")
    assert hub.calls["create_repo"] == {"repo_id": "my-model", "private": True, "token": "secret", "exist_ok": True}
    assert "notes.txt" not in hub.files
    assert {"model.safetensors", "modeling_videorefer.py", "README.md"} <= hub.files
    AutoProcessor.from_pretrained(PUBLISHED).save_pretrained(folder, push_to_hub=True, repo_id="me/x", private=False)
    assert hub.calls["create_repo"]["private"] is False


def test_card_of_the_repository_is_kept(model, hub: FakeHub) -> None:
    hub.has_card = True
    model.push_to_hub("me/model")
    assert "model.safetensors" in hub.files
    assert "README.md" not in hub.files
