"""What is uploaded, and that it stays private unless told otherwise."""

from types import SimpleNamespace

import pytest

from transformers_videorefer.data import pushing


class Hub:
    """Stands in for the Hub and keeps what it was asked."""

    existing: dict[str, bool] = {}

    def __init__(self):
        self.calls = []

    def create_repo(self, repo_id, **options):
        self.calls.append(("create", repo_id, options))
        Hub.existing.setdefault(repo_id, options["private"])
        return f"https://example.org/datasets/{repo_id}"

    def dataset_info(self, repo_id):
        return SimpleNamespace(private=Hub.existing[repo_id])

    def upload_folder(self, **options):
        self.calls.append(("upload", options["repo_id"], options))


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(Hub, "existing", {})
    hub = Hub()
    monkeypatch.setattr(pushing, "HfApi", lambda: hub)
    return hub


@pytest.fixture
def folder(tmp_path):
    for name in (
        "README.md",
        "qa/train-00000-of-00001.parquet",
        ".export/qa.json",
        ".README.md.part",
        "reports/qa.json",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path


@pytest.mark.parametrize("public", [False, True])
def test_repositories_are_private_unless_told_otherwise(hub, folder, public):
    assert pushing.push_folder(folder, "org/name", public=public) == "https://example.org/datasets/org/name"
    (_, name, options), (_, _, upload) = hub.calls
    assert (name, options["repo_type"], options["private"]) == ("org/name", "dataset", not public)
    assert upload["delete_patterns"] == ["qa/*.parquet"]
    assert upload["repo_type"] == "dataset"


def test_state_and_temporary_files_stay_here(hub, folder):
    from huggingface_hub.utils import filter_repo_objects

    pushing.push_folder(folder, "org/name")
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    kept = filter_repo_objects(names, ignore_patterns=hub.calls[1][2]["ignore_patterns"])
    assert sorted(kept) == ["README.md", "qa/train-00000-of-00001.parquet", "reports/qa.json"]


def test_a_public_repository_is_not_written_to_unasked(hub, folder):
    Hub.existing["org/name"] = False
    with pytest.raises(ValueError, match="exists and is public"):
        pushing.push_folder(folder, "org/name")
    assert [kind for kind, _, _ in hub.calls] == ["create"]


def test_a_folder_without_card_is_refused(hub, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no README\.md"):
        pushing.push_folder(tmp_path, "org/name")
    assert not hub.calls
