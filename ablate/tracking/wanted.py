"""What MLflow should hold of an experiment, read from its store: a run for every stage that was tried. Light."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from ablate.context import read_json
from ablate.liveness import Status, stage_state
from ablate.store import AttemptFolder, StageFolder, Store

_STATUSES: Mapping[Status, str] = {
    "done": "FINISHED", "failed": "FAILED", "running": "RUNNING", "interrupted": "KILLED",
}  # fmt: skip
_LONGEST_VALUE = 5000
"""Characters of a parameter or tag; MLflow takes 6,000."""


@dataclass(frozen=True)
class WantedRun:
    """One run: ``key`` is the stage's id or a trial's name, times are in seconds since 1970, ``metrics`` have no step.

    ``output`` is the folder of its artifacts: what the stage published, or the last attempt's log and failure; null for
    a trial, which has none of its own.
    """

    key: str
    name: str
    status: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    output: Path | None
    started: float | None = None
    ended: float | None = None

    @property
    def digest(self) -> str:
        """Sixteen hex digits, equal for runs that hold the same."""
        return hashlib.sha256(json.dumps(astuple(self), sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class WantedTrials:
    """Runs of a sweep's trials that have begun; ``parents`` maps a stage to the first trial it is of, by their keys.

    ``best`` has what the best trial reached, of a sweep with one objective; ``is_done``: all its trials have ended.
    """

    runs: tuple[WantedRun, ...] = ()
    parents: Mapping[str, str] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    is_done: bool = False


@dataclass(frozen=True)
class Point:
    """One value of a training curve."""

    name: str
    value: float
    step: int


def wanted_runs(store: Store, plan: Mapping[str, Any]) -> Iterator[WantedRun]:
    """Yield a run for every stage of a plan that was tried; those of subjects have their scores and axes."""
    subjects: dict[str, Mapping[str, Any]] = {}
    for entry in plan["subjects"]:
        subjects.setdefault(entry["stage"], entry)
    for stage, about in {**{stage: {} for stage in subjects}, **plan["stages"]}.items():
        folder = store.stage(stage)
        status = _STATUSES.get(stage_state(folder).status)
        if status is not None:
            yield _wanted(store, folder, status, str(about.get("label", "")), subjects.get(stage))


def training_curve(output: Path) -> list[Point]:
    """Return the numbers of a stage's history.jsonl by step; a line without a step counts as its position."""
    path = output / "history.jsonl"
    if not path.exists():
        return []
    points = []
    with path.open(encoding="utf-8") as lines:
        for index, line in enumerate(lines):
            values = json.loads(line)
            logged = values.pop("step", None)
            step = index if logged is None else int(logged)
            points += [Point(f"train/{name}", value, step) for name, value in _numbers(values.items())]
    return points


def _wanted(store: Store, folder: StageFolder, status: str, label: str, subject: Mapping[str, Any] | None) -> WantedRun:
    done = folder.read_done() or {}
    stage = folder.read_stage() if folder.stage_json.exists() else {}
    attempts = folder.attempts()
    metrics = dict(_own_metrics(folder, done))
    params = dict(_flat("", stage.get("config") or {}))
    tags = {
        "ablate.stage": folder.id, "ablate.kind": folder.kind, "ablate.folder": str(folder.folder),
        **{f"ablate.input.{mlflow_name(role)}": ref["stage"] for role, ref in (stage.get("inputs") or {}).items()},
        **_origin(folder, done),
    }  # fmt: skip
    if subject is not None:
        values = {**subject["axes"], **subject.get("tuned", {}).get("values", {})}
        axes = {mlflow_name(key): str(value) for key, value in values.items() if value is not None}
        params |= axes
        tags |= {f"axis.{key}": value for key, value in axes.items()}
        tags |= {"ablate.subject": subject["subject"], "ablate.role": subject["role"]}
        metrics |= dict(_scores(store, subject["evaluations"]))
    if status == "FAILED":
        tags["ablate.failure"] = str((folder.last_failure() or {}).get("message") or "no message")
    return WantedRun(
        key=folder.id,
        name=str(subject["label"]) if subject else label or folder.id,
        status=status,
        params={key: value[:_LONGEST_VALUE] for key, value in params.items()},
        tags={key: value[:_LONGEST_VALUE] for key, value in tags.items()},
        metrics=metrics,
        output=folder.output if done or not attempts else attempts[-1].folder,
        started=done.get("started"),
        ended=done.get("ended") or _ended(attempts),
    )


def _ended(attempts: Sequence[AttemptFolder]) -> float | None:
    path = attempts[-1].ended_json if attempts else None
    return None if path is None or not path.exists() else float(read_json(path)["time"])


def _origin(folder: StageFolder, done: Mapping[str, Any]) -> dict[str, str]:
    """Tags of where and with what a stage was made."""
    tags = {f"ablate.{key}": str(done[key]) for key in ("host", "code", "seconds", "gpus") if done.get(key) is not None}
    path = folder.attempt(int(done.get("attempt", 1))).environment_json
    environment = read_json(path) if path.exists() else {}
    for key, tag in (("commit", "mlflow.source.git.commit"), ("slurm_job", "ablate.slurm_job")):
        if environment.get(key):
            tags[tag] = str(environment[key])
    return tags


def _own_metrics(folder: StageFolder, done: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield what a stage measured (an evaluation), or counted (its summary, unless a curve says it by step)."""
    path = folder.artifact("metrics.json")
    if done and path.exists():
        yield from _measured(read_json(path), "score", "")
    elif not folder.artifact("history.jsonl").exists():
        yield from (
            (f"summary/{mlflow_name(name)}", value) for name, value in _numbers((done.get("summary") or {}).items())
        )


def _scores(store: Store, evaluations: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for suite, stage in evaluations.items():
        folder = store.stage(stage)
        if folder.is_done():
            yield from _measured(read_json(folder.artifact("metrics.json")), suite, f"{suite}.")


def _measured(result: Mapping[str, Any], score: str, prefix: str) -> Iterator[tuple[str, float]]:
    values = [(score, result.get("score"))]
    for entry in result.get("metrics", ()):
        parts = [entry.get("task") or "", entry["metric"]]
        values.append((prefix + ".".join(part for part in parts if part), entry.get("value")))
    return ((mlflow_name(name), value) for name, value in _numbers(values))


def _flat(prefix: str, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a stage's config with dotted keys below ``config``."""
    for key, value in config.items():
        name = f"{prefix or 'config'}.{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(name, value)
        elif value is not None:
            yield mlflow_name(name), value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _numbers(items: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, float]]:
    return ((mlflow_name(name), float(value)) for name, value in items if _is_number(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def mlflow_name(text: str) -> str:
    """Return what MLflow allows in names: letters, digits and ``_ - . /`` and space, at most 250."""
    return re.sub(r"[^\w\-. /]", "_", text)[:250]
