"""Commits that a project holds repositories of data at, where the catalog's entries name none or a beginning of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ablate.catalogs.closed import Strict, validated
from ablate.catalogs.datasets import DatasetEntry, HubSource
from ablate.catalogs.loading import read_yaml
from ablate.catalogs.origins import Origins
from ablate.context import write_text
from ablate.errors import SpecError

LOCK = "datasets.lock.yaml"
"""The file in a project's folder; `ablate data pin` writes it."""

_HEAD = (
    "# Written by `ablate data pin`: commits at which sets of the catalog are fetched and read. Keep it with your\n"
    "# experiments; `ablate data pin --again NAME` asks for a newer one.\n"
)

Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class _Lock(Strict):
    """The file: host, repository, commit."""

    huggingface: Mapping[str, Commit] = {}
    github: Mapping[str, Commit] = {}


@dataclass(frozen=True)
class Pins:
    """Commits (40 digits) by host and repository, and where each is written."""

    commits: Mapping[tuple[str, str], str] = field(default_factory=dict)
    origins: Origins = field(default_factory=Origins)

    def of(self, hub: HubSource) -> str | None:
        """Return the commit of a source's repository, if there is one."""
        return self.commits.get((hub.host, hub.id))

    def applied(self, entry: DatasetEntry) -> DatasetEntry:
        """Return an entry at its commit, unless it names one itself; SpecError where its facts are about another."""
        hub = entry.source.hub
        commit = None if hub is None else self.of(hub)
        if hub is None or commit is None or len(hub.revision or "") == len(commit):
            return entry
        if not commit.startswith(hub.revision or ""):
            raise SpecError(
                f"{commit} is not the revision that dataset {entry.name!r} is of, {hub.revision}",
                location=self.origins.locate(hub.host, hub.id),
                hint="remove the line; for another revision write an entry of your own (docs/extending.md)",
            )
        pinned = entry.source.model_copy(update={"hub": hub.model_copy(update={"revision": commit})})
        return entry.model_copy(update={"source": pinned})

    def over(self, catalog: Mapping[str, DatasetEntry]) -> dict[str, DatasetEntry]:
        """Return the catalog with every entry at its commit."""
        return {name: self.applied(entry) for name, entry in catalog.items()}


def read_pins(folder: Path) -> Pins:
    """Return the commits of a project's folder, none without the file; SpecError with file, line and key."""
    path = folder / LOCK
    if not path.is_file():
        return Pins()
    written, origins = read_yaml(path)
    lock = validated(_Lock, written or {}, origins.locate)
    hosts = {"huggingface": lock.huggingface, "github": lock.github}
    commits = {(host, name): commit for host, known in hosts.items() for name, commit in known.items()}
    return Pins(commits, origins)


def note_pin(folder: Path, hub: HubSource, commit: str) -> None:
    """Write the commit of a repository into a project's file, beside those that are there."""
    commits = {**read_pins(folder).commits, (hub.host, hub.id): commit}
    lines = [_HEAD]
    for host in sorted({host for host, _ in commits}):
        own = sorted((name, commit) for (other, name), commit in commits.items() if other == host)
        lines += [f"{host}:\n", *(f'  {name}: "{commit}"\n' for name, commit in own)]
    write_text(folder / LOCK, "".join(lines))
