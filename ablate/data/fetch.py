"""Fetch the files of a catalog entry, at its pinned revision, into the data root under the names the catalog reads."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub.file_download import http_get

from ablate.catalogs.datasets import DatasetEntry, HubSource
from ablate.catalogs.digests import sha256_file
from ablate.catalogs.fetched import Fetched, note_fetched, read_record
from ablate.context import sync
from ablate.data.hosts import FULL, GitHub, Host, HuggingFace, Listing, RemoteFile, explained
from ablate.data.sources import COMPRESSIONS
from ablate.errors import DataError, FetchError, UnknownNameError, UsageError, suggestion

UNFINISHED = ".unfinished"
"""The folder of a repository's unfinished downloads, each named by what it will be."""


@dataclass(frozen=True, slots=True)
class Item:
    """What became (or, in a dry run, would become) of one file: its name under the data root and its bytes."""

    name: str
    size: int
    revision: str
    status: Literal["fetched", "to fetch", "kept", "kept, compressed"]


def default_hosts() -> dict[str, Host]:
    """Return the hosts that catalog entries name."""
    return {"huggingface": HuggingFace(), "github": GitHub()}


def fetch_all(
    names: Sequence[str],
    known: Mapping[str, DatasetEntry],
    root: Path | None,
    *,
    revision: str | None = None,
    dry_run: bool = False,
    hosts: Mapping[str, Host] | None = None,
) -> Iterator[Item]:
    """Fetch the named datasets one after the other, see :func:`fetch`; names and options are checked first."""
    if root is None:
        raise UsageError("no data root is named", hint="give --root, or set ABLATE_DATA")
    if revision is not None and len(names) > 1:
        raise UsageError("--revision is that of one dataset", hint="fetch the others in calls of their own")
    for name in names:
        if name not in known:
            raise UnknownNameError("dataset", name, known)
        _revision(known[name], hub_of(known[name]), revision)
    for name in dict.fromkeys(names):
        yield from fetch(known[name], root, revision=revision, dry_run=dry_run, hosts=hosts)


def fetch(
    entry: DatasetEntry,
    root: Path,
    *,
    revision: str | None = None,
    dry_run: bool = False,
    hosts: Mapping[str, Host] | None = None,
) -> Iterator[Item]:
    """Download the files of ``entry`` that are not there yet; yields every file when all are in place.

    ``revision`` is for an entry that pins none: a commit, branch or tag. Files appear whole, with the content that
    their host names, and all at once, so that a part of a set is not taken for the set; an interrupted download is
    continued. A file that is there with other content is an error, before anything is downloaded.
    """
    hub = hub_of(entry)
    host = (hosts or default_hosts())[hub.host]
    listing = host.listing(hub.id, _revision(entry, hub, revision))
    if not FULL.fullmatch(listing.revision) or not listing.revision.startswith(hub.revision or ""):
        raise DataError(
            f"{hub.host} answers with revision {listing.revision or '(none)'} of {hub.id}, and dataset {entry.name!r} "
            f"is pinned to {hub.revision or 'none'}",
            hint="leave --revision out, or change the entry's revision",
        )
    folder = root / hub.id
    files = [(file, _standing(folder, file, listing)) for file in _wanted(entry, host, listing)]
    missing = [file for file, status in files if status == "to fetch"]
    if not dry_run:
        if missing:
            _download(folder, missing, host, listing.revision)
        for file in (file for file, status in files if status == "kept"):
            _note(folder, file, folder / file.name, listing.revision)
    for file, status in files:
        yield Item(
            f"{hub.id}/{file.name}",
            file.size,
            listing.revision,
            "fetched" if status == "to fetch" and not dry_run else status,
        )


def hub_of(entry: DatasetEntry) -> HubSource:
    """Return the repository of an entry; raises UsageError where its files are of none."""
    if entry.source.hub is None:
        origin = "made by this package" if entry.source.pocket else "your own, under the data root"
        raise UsageError(f"there is nothing to fetch for dataset {entry.name!r}: its files are {origin}")
    return entry.source.hub


def _revision(entry: DatasetEntry, hub: HubSource, asked: str | None) -> str:
    """Return the revision to ask for; without a pinned or a given one it is not known what would be fetched."""
    revision = asked or hub.revision
    if revision is None:
        raise UsageError(
            f"dataset {entry.name!r} ({hub.id}) names no revision, so what would be fetched can change from day to day",
            hint=f"ablate data pin {entry.name} asks for the newest commit and writes it down for this project; or say "
            f"which one you want: ablate data fetch {entry.name} --revision COMMIT; see {hub.url()}",
        )
    return revision


def names_wanted(entry: DatasetEntry, listing: Listing) -> list[str]:
    """Return the names of a repository's files that an entry asks for; one that matches no file is a DataError."""
    hub = hub_of(entry)
    names: set[str] = set()
    for name, matching in hub.wanted(listing.files).items():
        if not matching:
            raise DataError(
                f"dataset {entry.name!r}: {hub.id} has no file {name} at revision {listing.revision}",
                hint=suggestion(name, listing.files),
            )
        names.update(matching)
    return sorted(names)


def _wanted(entry: DatasetEntry, host: Host, listing: Listing) -> list[RemoteFile]:
    return [host.located(listing.files[name]) for name in names_wanted(entry, listing)]


def _standing(folder: Path, file: RemoteFile, listing: Listing) -> Literal["to fetch", "kept", "kept, compressed"]:
    """Say how a file stands under the data root."""
    path = folder / file.name
    if not path.exists():
        compressed = any(path.with_name(path.name + suffix).is_file() for suffix in COMPRESSIONS)
        return "kept, compressed" if compressed else "to fetch"
    known = read_record(folder).get(file.name)
    recorded = known is not None and known.revision == listing.revision and known.size == path.stat().st_size
    if not recorded and not _has_content(path, file):
        of = f" (it is of revision {known.revision})" if known else ""
        raise DataError(
            f"{path} is there and has other content than revision {listing.revision} has{of}",
            hint="it is kept as it is; to fetch the file of that revision, move this one away",
        )
    return "kept"


def _has_content(path: Path, file: RemoteFile) -> bool:
    if path.stat().st_size != file.size:
        return False
    return (sha256_file(path) if len(file.digest) == 64 else _git_blob(path)) == file.digest


def _git_blob(path: Path) -> str:
    """Return what git calls a file's content: the sha1 of a header and the bytes."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as handle:
        while piece := handle.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def megabytes(size: int) -> str:
    """Return a number of bytes for people, ``1.3 MB``."""
    return f"{size / 1e6:,.1f} MB"


def _download(folder: Path, files: list[RemoteFile], host: Host, revision: str) -> None:
    """Download all files, then put them in place; the record is first, so that it tells when one is missing."""
    unfinished = folder / UNFINISHED
    unfinished.mkdir(parents=True, exist_ok=True)
    with _alone(unfinished):
        _require_room(folder, files)
        for file in files:
            _complete(unfinished / file.key(), file, host)
        for file in files:
            _note(folder, file, unfinished / file.key(), revision)
        for file in files:
            (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(unfinished / file.key(), folder / file.name)
            sync((folder / file.name).parent)
    with suppress(OSError):  # downloads of other files are waiting there to be continued
        unfinished.rmdir()


def _complete(partial: Path, file: RemoteFile, host: Host) -> None:
    """Go on with a download until it is whole; what there is of it is kept when that fails."""
    with partial.open("ab") as handle:
        if handle.seek(0, os.SEEK_END) > file.size:
            handle.truncate(0)
        try:
            with explained(file.name, ""):
                http_get(
                    file.url,
                    handle,
                    resume_size=handle.tell(),
                    headers=host.headers(),
                    expected_size=file.size,
                    displayed_filename=file.name,
                )
            handle.flush()
        except OSError as error:  # a full disk, or a body that ends early
            raise FetchError(
                f"{file.name} could not be fetched: {error.strerror or str(error).splitlines()[0]}",
                hint=f"{megabytes(partial.stat().st_size)} of {megabytes(file.size)} are kept in {partial.parent}; "
                "the same command goes on from there",
            ) from error
    if not _has_content(partial, file):
        partial.unlink()
        raise FetchError(f"{file.name} came with other content than its digest {file.digest[:12]}… says")
    sync(partial)


def _require_room(folder: Path, files: list[RemoteFile]) -> None:
    begun = {path.name: path.stat().st_size for path in (folder / UNFINISHED).iterdir()}
    needed = sum(max(file.size - begun.get(file.key(), 0), 0) for file in files)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FetchError(
            f"{folder} needs {megabytes(needed)} more, and its disk has {megabytes(free)} free",
            hint="make room, or name another data root",
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder of unfinished downloads; another process that is at it is an error."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise FetchError(
            f"another process is fetching into {folder.parent}",
            hint="wait for it to end; one command can fetch several datasets",
        ) from error
    finally:
        os.close(descriptor)


def _note(folder: Path, file: RemoteFile, path: Path, revision: str) -> None:
    """Record a file whose content is at ``path``, unless it is recorded already."""
    known = read_record(folder).get(file.name)
    if known is None or known.revision != revision or known.size != file.size:
        digest = file.digest if len(file.digest) == 64 else sha256_file(path)
        note_fetched(folder, file.name, Fetched(revision=revision, sha256=digest, size=file.size))
