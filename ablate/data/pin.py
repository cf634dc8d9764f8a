"""Ask hosts at which commit the repositories of catalog entries are, and write it into the project's file of pins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ablate.catalogs.datasets import DatasetEntry, HubSource
from ablate.catalogs.fetched import read_record
from ablate.catalogs.pins import LOCK, note_pin, read_pins
from ablate.data.fetch import default_hosts, hub_of, names_wanted
from ablate.data.hosts import FULL, Host, Unreachable
from ablate.errors import DataError, FetchError, UnknownNameError


@dataclass(frozen=True, slots=True)
class Pinned:
    """What became of one repository: its commit, or the error that says why there is none."""

    repository: str
    status: Literal["pinned", "pinned, as fetched", "kept", "in the catalog", "not pinned"]
    commit: str | None = None
    error: DataError | FetchError | None = None


def unpinned(known: Mapping[str, DatasetEntry]) -> list[str]:
    """Return the names of the entries whose repository is at no full commit."""
    hubs = {name: entry.source.hub for name, entry in known.items()}
    return [name for name, hub in hubs.items() if hub is not None and not FULL.fullmatch(hub.revision or "")]


def pin_all(
    names: Sequence[str],
    known: Mapping[str, DatasetEntry],
    folder: Path,
    root: Path | None,
    *,
    again: bool = False,
    hosts: Mapping[str, Host] | None = None,
) -> Iterator[Pinned]:
    """Pin the repositories of the named entries in the file of ``folder``, one after the other.

    ``known`` are the entries as the catalog has them. A repository whose files were fetched into ``root`` is pinned to
    the commit they are of, without being asked; one that is pinned stays so unless it is asked for ``again``. Raises
    FetchError where a host gives no answer; what a host says of one repository alone is that one's error.
    """
    for name in names:
        if name not in known:
            raise UnknownNameError("dataset", name, known)
    entries: dict[tuple[str, str], list[DatasetEntry]] = {}
    for name in dict.fromkeys(names):
        hub = hub_of(known[name])
        entries.setdefault((hub.host, hub.id), []).append(known[name])
    for own in entries.values():
        try:
            yield _pin(own, folder, root, again, hosts or default_hosts())
        except Unreachable as error:
            raise FetchError(
                error.message,
                hint=f"{error.hint}; or run this where there is one, and copy {LOCK} into {folder}",
            ) from error
        except (DataError, FetchError) as error:
            yield Pinned(hub_of(own[0]).id, "not pinned", error=error)


def _pin(
    entries: list[DatasetEntry], folder: Path, root: Path | None, again: bool, hosts: Mapping[str, Host]
) -> Pinned:
    hub = hub_of(entries[0])
    revisions = [hub_of(entry).revision or "" for entry in entries]
    if all(map(FULL.fullmatch, revisions)):
        return Pinned(hub.id, "in the catalog", revisions[0])
    written = max(revisions, key=len) or None
    if not again and (known := read_pins(folder).of(hub)) is not None:
        return Pinned(hub.id, "kept", known)
    fetched = None if again or root is None else _fetched(root, hub, written)
    if fetched is not None:
        note_pin(folder, hub, fetched)
        return Pinned(hub.id, "pinned, as fetched", fetched)
    host = hosts[hub.host]
    listing = host.listing(hub.id, written or host.newest)
    for entry in entries:
        names_wanted(entry, listing)
    note_pin(folder, hub, listing.revision)
    return Pinned(hub.id, "pinned", listing.revision)


def _fetched(root: Path, hub: HubSource, beginning: str | None) -> str | None:
    """Return the one commit that a repository's fetched files are of; None where there is none, or several."""
    revisions = {file.revision for file in read_record(root / hub.id).values()}
    only = revisions.pop() if len(revisions) == 1 else None
    return only if only is not None and only.startswith(beginning or "") else None
