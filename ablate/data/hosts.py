"""What hosts of data files say about a repository at a revision, and where its files are downloaded from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import quote

from huggingface_hub import HfApi, get_session, hf_hub_url
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is the network library's, by version
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

import ablate
from ablate.errors import DataError, FetchError

TIMEOUT = 30.0  # seconds for an answer about a repository
FULL = re.compile(r"[0-9a-f]{40}")
BEGINNING = re.compile(r"[0-9a-f]{8,39}")
_CLIENT: Any = {"library_name": "ablate", "library_version": ablate.__version__}
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:(?P<sha256>[0-9a-f]{64})\nsize (?P<size>\d+)\n"
)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository: its bytes, their ``digest`` (sha256, or the 40 digits git gives a blob), its address."""

    name: str
    size: int
    digest: str
    url: str

    def key(self) -> str:
        """Return what an unfinished download of this file, with this content, is called."""
        return hashlib.sha256(f"{self.name}\0{self.digest}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository at a commit (40 digits), by name."""

    revision: str
    files: Mapping[str, RemoteFile]


class Unreachable(FetchError):
    """No host answers: there is no connection, or none is allowed."""


class Host(Protocol):
    """Where repositories are."""

    @property
    def newest(self) -> str:
        """What the newest commit of a repository is called."""

    def listing(self, repository: str, revision: str) -> Listing:
        """Return the files at a commit, the first digits of one, a branch or a tag."""

    def located(self, file: RemoteFile) -> RemoteFile:
        """Return the file as it is downloaded, where the listing has but a pointer to it."""

    def headers(self) -> dict[str, str]:
        """Return the headers that a download needs."""


@dataclass(frozen=True)
class HuggingFace:
    """The Hugging Face hub, or what answers as it does at ``endpoint`` (default: HF_ENDPOINT)."""

    endpoint: str | None = None
    newest: str = "main"

    def listing(self, repository: str, revision: str) -> Listing:
        """Return the files of a dataset repository."""
        api = HfApi(endpoint=self.endpoint, **_CLIENT)
        with explained(repository, revision):
            if BEGINNING.fullmatch(revision):
                commits = [commit.commit_id for commit in api.list_repo_commits(repository, repo_type="dataset")]
                revision = _only(commits, repository, revision)
            info = api.dataset_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT)
        commit = info.sha or ""
        files = {}
        for found in info.siblings or ():
            name, digest = found.rfilename, found.lfs.sha256 if found.lfs else found.blob_id
            url = hf_hub_url(repository, name, repo_type="dataset", revision=commit, endpoint=self.endpoint)
            files[name] = RemoteFile(name, found.size or 0, digest or "", url)
        return Listing(commit, files)

    def located(self, file: RemoteFile) -> RemoteFile:
        """Return the file: the hub answers with its content, wherever that is stored."""
        return file

    def headers(self) -> dict[str, str]:
        """Return the library's headers, with the token that it finds."""
        headers: dict[str, str] = build_hf_headers(**_CLIENT)
        return headers


@dataclass(frozen=True)
class GitHub:
    """GitHub: the files of a commit are listed in one place, read in another, and large ones in a third."""

    api: str = "https://api.github.com"
    raw: str = "https://raw.githubusercontent.com"
    media: str = "https://media.githubusercontent.com/media"
    newest: str = "HEAD"

    def listing(self, repository: str, revision: str) -> Listing:
        """Return the files of a repository."""
        with explained(repository, revision):
            commit = str(self._ask(f"{self.api}/repos/{repository}/commits/{revision}")["sha"])
            tree = self._ask(f"{self.api}/repos/{repository}/git/trees/{commit}?recursive=1")
        files = {}
        for item in tree["tree"]:
            if item["type"] == "blob":
                url = f"{self.raw}/{repository}/{commit}/{quote(item['path'])}"
                files[item["path"]] = RemoteFile(item["path"], item["size"], item["sha"], url)
        return Listing(commit, files)

    def located(self, file: RemoteFile) -> RemoteFile:
        """Return the file in large file storage that a small one points to, else the file itself."""
        if file.size > 1024:
            return file
        with explained(file.name, ""):
            response = get_session().get(file.url, timeout=TIMEOUT)
            hf_raise_for_status(response)
        pointer = _POINTER.match(response.content)
        if pointer is None:
            return file
        size, sha256 = int(pointer["size"]), pointer["sha256"].decode()
        return replace(file, size=size, digest=sha256, url=self.media + file.url[len(self.raw) :])

    def headers(self) -> dict[str, str]:
        """Return no headers: a token of the hub is not GitHub's to see."""
        return {}

    def _ask(self, url: str) -> Any:
        response = get_session().get(url, headers={"Accept": "application/vnd.github+json"}, timeout=TIMEOUT)
        hf_raise_for_status(response)
        return response.json()


def _only(commits: list[str], repository: str, beginning: str) -> str:
    found = [commit for commit in commits if commit.startswith(beginning)]
    if len(found) != 1:
        count = f"{len(found)} commits" if found else "no commit"
        raise DataError(
            f"{repository} has {count} whose digits begin with {beginning}",
            hint="write all 40 digits of the commit as the entry's revision",
        )
    return found[0]


@contextmanager
def explained(what: str, revision: str) -> Iterator[None]:
    """Turn the errors of a request about a repository (or a file) into those that a user reads."""
    at = f" at revision {revision}" if revision else ""
    token = "set HF_TOKEN to a token of an account that may read it (and accept its terms on its page, if it has any)"
    try:
        yield
    except GatedRepoError as error:
        raise FetchError(f"{what} is gated: its owner lets in who is known", hint=token) from error
    except RevisionNotFoundError as error:
        raise DataError(f"{what} has no revision {revision}", hint="see the commits on its page") from error
    except EntryNotFoundError as error:
        raise DataError(f"{what} is not there{at}") from error
    except RepositoryNotFoundError as error:
        raise FetchError(f"{what} does not exist, or is private or gated", hint=token) from error
    except OfflineModeIsEnabled as error:
        raise Unreachable(
            f"{what} can't be fetched: HF_HUB_OFFLINE forbids connections",
            hint="unset it, or copy the files from a machine that has them (docs/real-data.md)",
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise FetchError(f"{what} may not be read: the host answers {status}", hint=token) from error
        if status == 404:
            raise DataError(f"{what} is not there{at}") from error
        raise FetchError(f"{what}{at}: the host answers {status}", hint="try again later") from error
    except HTTPError as error:
        raise Unreachable(
            f"{what}{at}: no answer from the host ({error})", hint="see that this machine has a connection, then repeat"
        ) from error
