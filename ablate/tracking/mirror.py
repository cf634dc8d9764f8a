"""Mirror of an experiment in MLflow: one MLflow experiment a study, one run a cell, baseline or reward model.

The store is read and never written to outside ``cache/``. Mirroring again adds nothing and fills in what has been
finished since. This module loads MLflow (seconds); import it only to mirror.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Metric, Param, Run, RunTag, ViewType
from mlflow.tracking import MlflowClient

from ablate.context import read_json
from ablate.store import StageFolder, Store
from ablate.tracking.interface import artifacts, tracking_uri

KEY_TAG = "ablate.key"
CURVE_TAG = "ablate.curve"

_BATCH_METRICS, _BATCH_PARAMS = 1000, 100
_PAGE = 1000


@dataclass(frozen=True)
class Mirrored:
    """What one call of :func:`mirror` did, in runs."""

    created: int
    updated: int
    unchanged: int

    def __str__(self) -> str:
        return f"{self.created} runs created in MLflow, {self.updated} updated, {self.unchanged} unchanged"


@dataclass(frozen=True)
class _Wanted:
    """What the run of one subject should hold."""

    key: str
    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    train: StageFolder
    ended: float | None


def mirror(store: Store, experiment: str, *, uri: str | None = None) -> Mirrored:
    """Bring MLflow up to date with ``experiment``; ``uri`` replaces the store's own SQLite database.

    A run holds the axes as parameters, ``<suite>`` and ``<suite>.<task>.<metric>`` as metrics, the training curve as
    ``train/<name>`` by step, and the stage id as a tag. Raises :class:`ablate.errors.UnknownNameError` when the
    experiment was never planned in this store, and :class:`ablate.errors.StoreError` when the store has a newer layout.
    """
    store.check()
    plan = store.experiment(experiment).read_plan()
    store.cache.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=uri or tracking_uri(store))
    experiment_id = _experiment_id(client, store, plan, local=uri is None)
    existing = {run.data.tags.get(KEY_TAG, ""): run for run in _runs(client, experiment_id)}
    counts = {"created": 0, "updated": 0, "unchanged": 0}
    keys = set()
    for entry in plan["subjects"]:
        wanted = _wanted(store, entry)
        if wanted.key in keys or not (wanted.train.is_done() or wanted.metrics):
            continue
        keys.add(wanted.key)
        counts[_mirror_one(client, experiment_id, existing.get(wanted.key), wanted)] += 1
    return Mirrored(**counts)


def _experiment_id(client: MlflowClient, store: Store, plan: Mapping[str, Any], *, local: bool) -> str:
    found = client.get_experiment_by_name(plan["name"])
    if found is not None:
        return str(found.experiment_id)
    place = (artifacts(store) / plan["name"]).as_uri() if local else None
    tags = {"mlflow.note.content": str(plan.get("question") or "")}
    return str(client.create_experiment(plan["name"], artifact_location=place, tags=tags))


def _runs(client: MlflowClient, experiment_id: str) -> Iterator[Run]:
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment_id], run_view_type=ViewType.ACTIVE_ONLY, max_results=_PAGE, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _wanted(store: Store, entry: Mapping[str, Any]) -> _Wanted:
    train = store.stage(entry["stage"])
    done = train.read_done() or {}
    axes = {_name(key): str(value) for key, value in entry["axes"].items() if value is not None}
    tags = {
        KEY_TAG: f"{entry['subject']}:{entry['label']}:{entry['stage']}",
        "ablate.stage": entry["stage"],
        "ablate.subject": entry["subject"],
        "ablate.role": entry["role"],
    }
    for key, name in (("host", "ablate.host"), ("code", "ablate.code"), ("seconds", "ablate.train_seconds")):
        if done.get(key) is not None:
            tags[name] = str(done[key])
    return _Wanted(
        key=tags[KEY_TAG],
        name=str(entry["label"]),
        params=axes,
        tags=tags,
        metrics=dict(_scores(store, entry["evaluations"])),
        train=train,
        ended=done.get("ended"),
    )


def _scores(store: Store, evaluations: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for suite, stage in evaluations.items():
        folder = store.stage(stage)
        if not folder.is_done():
            continue
        result = read_json(folder.artifact("metrics.json"))
        if _is_number(result.get("score")):
            yield _name(suite), float(result["score"])
        for metric in result.get("metrics", ()):
            if _is_number(metric.get("value")):
                parts = [suite, metric.get("task") or "", metric["metric"]]
                yield _name(".".join(part for part in parts if part)), float(metric["value"])


def _mirror_one(client: MlflowClient, experiment_id: str, run: Run | None, wanted: _Wanted) -> str:
    """Create or complete one run; returns which of created, updated, unchanged it was."""
    outcome = "unchanged"
    if run is None:
        outcome = "created"
        run = client.create_run(experiment_id, run_name=wanted.name)
    known_tags, known = run.data.tags, run.data.metrics
    params = [Param(key, value) for key, value in wanted.params.items() if key not in run.data.params]
    changed = {name: value for name, value in wanted.metrics.items() if known.get(name) != value}
    metrics = [_metric(name, value, 0, wanted.ended) for name, value in changed.items()]
    new_tags = {key: value for key, value in wanted.tags.items() if known_tags.get(key) != value}
    if wanted.train.is_done() and CURVE_TAG not in known_tags:
        metrics += _curve(wanted.train, wanted.ended)
        new_tags[CURVE_TAG] = "done"
    if outcome == "unchanged" and (params or metrics or new_tags):
        outcome = "updated"
    # The key and the curve's tag come last: a mirror stopped half way writes the same values once more, nothing wrong.
    run_id = run.info.run_id
    for start in range(0, len(params), _BATCH_PARAMS):
        client.log_batch(run_id, params=params[start : start + _BATCH_PARAMS])
    for start in range(0, len(metrics), _BATCH_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + _BATCH_METRICS])
    if new_tags:
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in new_tags.items()])
    if run.info.status != "FINISHED" and wanted.train.is_done():
        client.set_terminated(run_id, "FINISHED", end_time=_milliseconds(wanted.ended))
    return outcome


def _curve(train: StageFolder, ended: float | None) -> list[Metric]:
    path = train.artifact("history.jsonl")
    if not path.exists():
        return []
    metrics = []
    with path.open(encoding="utf-8") as lines:
        for index, line in enumerate(lines):
            values = json.loads(line)
            logged = values.pop("step", None)
            step = index if logged is None else int(logged)
            metrics += [_metric(f"train/{_name(name)}", value, step, ended) for name, value in _numbers(values.items())]
    return metrics


def _numbers(items: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, float]]:
    return ((name, float(value)) for name, value in items if _is_number(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _metric(name: str, value: float, step: int, ended: float | None) -> Metric:
    # The time is the stage's own, so that mirroring again writes the same point.
    return Metric(name, value, _milliseconds(ended) or 0, step)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)


def _name(text: str) -> str:
    """What MLflow allows in names: letters, digits and ``_ - . /`` and space."""
    return re.sub(r"[^\w\-. /]", "_", text)
