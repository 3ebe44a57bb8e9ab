"""What is uploaded, and that it stays private unless told otherwise."""

from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

from transformers_videorefer.data.exporting import pushing


class Hub:
    """Stands in for the Hub and keeps what it was asked."""

    existing: dict[str, bool] = {}
    user: dict | Exception = {"name": "me", "orgs": [{"name": "Org"}], "auth": {"accessToken": {"role": "write"}}}

    def __init__(self):
        self.calls = []

    def create_repo(self, repo_id, **options):
        self.calls.append(("create", repo_id, options))
        Hub.existing.setdefault(repo_id, options["private"])
        return f"https://example.org/datasets/{repo_id}"

    def whoami(self):
        if isinstance(self.user, Exception):
            raise self.user
        return self.user

    def dataset_info(self, repo_id):
        if repo_id not in Hub.existing:
            raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)
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


def test_state_reports_and_temporary_files_stay_here(hub, folder):
    from huggingface_hub.utils import filter_repo_objects

    pushing.push_folder(folder, "org/name")
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    kept = filter_repo_objects(names, ignore_patterns=hub.calls[1][2]["ignore_patterns"])
    assert sorted(kept) == ["README.md", "qa/train-00000-of-00001.parquet"]


def test_a_public_repository_is_not_written_to_unasked(hub, folder):
    Hub.existing["org/name"] = False
    with pytest.raises(ValueError, match="exists and is public"):
        pushing.push_folder(folder, "org/name")
    assert [kind for kind, _, _ in hub.calls] == ["create"]


def test_access_needs_a_login_that_may_write_and_a_network(hub):
    for name in ("Org/new", "org/new", "me/new", "new"):
        pushing.check_access(name)
    with pytest.raises(ValueError, match=r"me cannot write to other/new. Choose a repository of me or Org"):
        pushing.check_access("other/new")
    hub.user = {"name": "me", "auth": {"accessToken": {"role": "read"}}}
    with pytest.raises(ValueError, match="may only read"):
        pushing.check_access("me/new")
    hub.user = LocalTokenNotFoundError("no token\nsecond line")
    with pytest.raises(ValueError, match="Run `hf auth login`"):
        pushing.check_access("me/new")
    hub.user = type("ConnectError", (HfHubHTTPError.__bases__[0],), {})("Name or service not known\nmore")
    assert not isinstance(hub.user, OSError)
    with pytest.raises(
        ConnectionError, match=r"^The Hub gives no access to me/new: Name or service not known\. Check"
    ):
        pushing.check_access("me/new")
    assert not hub.calls


def test_access_to_a_public_repository_has_to_be_asked_for(hub):
    Hub.existing.update({"org/public": False, "org/private": True})
    pushing.check_access("org/private")
    pushing.check_access("org/public", public=True)
    with pytest.raises(ValueError, match="exists and is public"):
        pushing.check_access("org/public")


def test_a_lost_connection_is_told_in_one_line(hub, folder, monkeypatch):
    def fails(**options):
        raise type("ReadTimeout", (HfHubHTTPError.__bases__[0],), {})("timed out\nmore")

    monkeypatch.setattr(hub, "upload_folder", fails)
    with pytest.raises(ConnectionError, match=r"timed out\. Check the network"):
        pushing.push_folder(folder, "org/name")


def test_a_folder_without_card_is_refused(hub, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no README\.md"):
        pushing.push_folder(tmp_path, "org/name")
    assert not hub.calls
