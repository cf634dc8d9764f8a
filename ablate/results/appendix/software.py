"""The tables of software versions and of seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ablate.results.appendix.stages import StageRecord
from ablate.results.tables.table import Cell, Column, Row, Table

_VERSIONS = (Column("name", "Software", "label"), Column("version", "Version", "label"))
_SEEDS = (
    Column("kind", "Stages of kind", "label"),
    Column("key", "Setting", "label"),
    Column("seeds", "Seeds", "label"),
)


def software_table(stages: Mapping[str, StageRecord]) -> Table:
    """Return the versions that the stages which are done ran with; where they differ, how many had which."""
    found: dict[str, Counter[str]] = {}
    silent = 0
    for stage in stages.values():
        if not stage.is_done:
            continue
        silent += not stage.environment
        for name, version in _versions(stage.environment):
            found.setdefault(name, Counter())[version] += 1
    rows = [Row("cell", (Cell(text=name), Cell(text=_counted(counts)))) for name, counts in found.items()]
    remarks = (f"{silent} stages that are done left no record of their versions.",) if silent else ()
    return Table("software", "Software", _VERSIONS, tuple(rows), remarks=remarks)


def seed_table(stages: Mapping[str, StageRecord]) -> Table:
    """Return every seed that a stage's config has, by kind of stage."""
    found: dict[tuple[str, str], set[int]] = {}
    for stage in stages.values():
        for key, seed in _seeds(stage.config):
            found.setdefault((stage.kind, key), set()).add(seed)
    rows = [
        Row("cell", (Cell(text=kind), Cell(text=key), Cell(text=", ".join(map(str, sorted(seeds))))))
        for (kind, key), seeds in sorted(found.items())
    ]
    return Table("seeds", "Seeds", _SEEDS, tuple(rows))


def _versions(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, name in (("python", "Python"), ("commit", "ablate (commit)"), ("code", "ablate (sha256 of the sources)")):
        if environment.get(key):
            yield name, str(environment[key])
    yield from (environment.get("packages") or {}).items()
    if environment.get("platform"):
        yield "Platform", str(environment["platform"])


def _counted(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{version} ({count} stages)" for version, count in counts.most_common())


def _seeds(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _seeds(value, f"{prefix}{key}.")
        elif (key == "seed" or key.endswith("_seed")) and isinstance(value, int):
            yield f"{prefix}{key}", value
