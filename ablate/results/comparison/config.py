"""What differs between the configurations of two experiments, or between the stages that made two models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ablate.results.comparison.sides import Side
from ablate.results.long import Subject
from ablate.store import Store

ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """A key with its value on either side; ``absent`` where a side does not have the key."""

    key: str
    first: Any
    second: Any


def spec_differences(first: Side, second: Side) -> list[Difference]:
    """Return the keys in which two experiments' resolved specifications differ, but for name and question."""
    sides = []
    for side in (first, second):
        path = side.results.store.experiment(side.results.experiment).spec
        written = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        sides.append({key: value for key, value in written.items() if key not in ("name", "question", "report")})
    return _differences(*(dict(_flat(side, "")) for side in sides))


def made_differences(store: Store, first: Subject, second: Subject) -> list[Difference]:
    """Return what differs between two models: their axes, then the configurations of the stages that made them.

    A key of a stage is led by the roles on the way to it: ``reward_model.data.seed``. A stage that only one side has is
    one difference, and what two roles share is told once.
    """
    return [
        *_differences(dict(first.axes), dict(second.axes)),
        *_of_stages(store, first.stage, second.stage, "", set()),
    ]


def _of_stages(
    store: Store, first: str | None, second: str | None, role: str, seen: set[tuple[str | None, str | None]]
) -> Iterator[Difference]:
    if first == second or (first, second) in seen:
        return
    seen.add((first, second))
    if first is None or second is None:
        yield Difference(role, first or ABSENT, second or ABSENT)
        return
    prefix = f"{role}." if role else ""
    one, other = _read(store, first), _read(store, second)
    yield from _differences(*(dict(_flat({"kind": _kind(known), **known["config"]}, prefix)) for known in (one, other)))
    for name in dict.fromkeys([*one["inputs"], *other["inputs"]]):
        ours, theirs = (known["inputs"].get(name, {}).get("stage") for known in (one, other))
        yield from _of_stages(store, ours, theirs, f"{prefix}{name}", seen)


def _read(store: Store, stage: str) -> dict[str, Any]:
    folder = store.stage(stage)
    known = folder.read_stage() if folder.stage_json.exists() else {}
    return {"config": {}, "inputs": {}, **known}


def _kind(known: Mapping[str, Any]) -> str:
    """A stage's kind with the revision of its code."""
    return f"{known.get('kind', 'unknown')} (revision {known.get('revision', 'unknown')})"


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), value


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    pairs = ((key, first.get(key, ABSENT), second.get(key, ABSENT)) for key in dict.fromkeys([*first, *second]))
    return [Difference(key, one, other) for key, one, other in pairs if one != other]
