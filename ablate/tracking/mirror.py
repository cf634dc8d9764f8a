"""Mirror of an experiment in MLflow: one MLflow experiment a study, a run for it, and one below it for every stage.

The trials of a sweep are runs between: its policies, and what measures them, are below the first trial that has them.

The store is read and never written to outside ``cache/``; no stage knows of MLflow, so that a server that is down holds
up nothing. A run carries a digest of what it should hold, and its status is written last: mirroring again skips it
while both are the same, and does it once more where the last call did not get so far. Loading MLflow takes seconds.
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from alembic.util import CommandError
from mlflow.entities import Experiment, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from ablate.errors import TrackingError
from ablate.store import Store
from ablate.tracking.bulk import NewRun, artifact_uri, insert_runs, tables_are_known
from ablate.tracking.interface import artifacts, database, shown, tracking_uri, views_note
from ablate.tracking.wanted import Point, WantedRun, WantedTrials, training_curve, wanted_runs

KEY_TAG = "ablate.key"
DIGEST_TAG = "ablate.mirrored"
_PARENT_TAG = "mlflow.parentRunId"

_MOST_METRICS, _MOST_PARAMS = 800, 90
"""Of a request; MLflow takes 1,000 metrics, 100 parameters and 100 tags, and 1,000 of all together."""
_PAGE = 1000
_RUNS = 200
"""New runs of the store's own database to a transaction."""
_HEALTH_SECONDS = 10.0
_CONNECTIONS = 4
"""Requests to a server at a time; SQLite takes one."""


@dataclass(frozen=True)
class Mirrored:
    """What one call of :func:`mirror` did, in runs."""

    created: int
    updated: int
    unchanged: int

    def __str__(self) -> str:
        return f"{self.created} runs created in MLflow, {self.updated} updated, {self.unchanged} unchanged"


def mirror(store: Store, experiment: str, *, uri: str | None = None, rebuild: bool = False) -> Mirrored:
    """Bring MLflow up to date with ``experiment``; ``uri`` replaces the store's own SQLite database.

    A run holds a stage's config as parameters, its training curve as ``train/<name>`` by step, what it measured, and
    where it is from as tags; that of a policy or a reward model also the axes as parameters and tags, and ``<suite>``
    and ``<suite>.<task>.<metric>`` as metrics. ``rebuild`` deletes the runs of earlier calls and makes them anew.

    Raises :class:`ablate.errors.UnknownNameError` when the experiment was never planned in this store,
    :class:`ablate.errors.StoreError` when the store has a newer layout, and :class:`ablate.errors.TrackingError` when
    MLflow does not answer: what is mirrored by then is skipped the next time.
    """
    store.check()
    plan = store.experiment(experiment).read_plan()
    place = uri or tracking_uri(store)
    if uri is None:
        store.cache.mkdir(parents=True, exist_ok=True)
    _require_server(place)
    try:
        with _without_sync() if uri is None else nullcontext():
            return _Mirror(store, plan, place, is_own=uri is None).run(rebuild=rebuild)
    except (MlflowException, CommandError, SQLAlchemyError, requests.RequestException) as error:
        anew = f"; {database(store)} can be deleted, the next call makes it anew" if uri is None else ""
        reason = str(error).strip().partition("\n")[0].replace(place, shown(place))
        raise TrackingError(
            f"MLflow at {shown(place)} does not take the runs of {experiment!r}: {reason}",
            hint=f"nothing is lost: the store is the record, and `ablate track` goes on where this call ended{anew}",
        ) from error


def _require_server(uri: str) -> None:
    """Refuse at once a server that is not there; once runs are written, MLflow itself waits for one that restarts."""
    if urlsplit(uri).scheme not in ("http", "https"):
        return
    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=_HEALTH_SECONDS)
    except requests.RequestException as error:
        raise TrackingError(
            f"no MLflow server answers at {shown(uri)}",
            hint="nothing is lost: start it and run `ablate track` again, or leave --uri out for the store's database",
        ) from error


@contextmanager
def _without_sync() -> Iterator[None]:
    """Let SQLite not wait for the disk: what a power cut takes from a mirror is made again, at seven commits a run."""

    def relax(connection: object, record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", relax)
    try:
        yield
    finally:
        event.remove(Engine, "connect", relax)


class _Mirror:
    """One call's connection to MLflow; ``is_own``: to the store's database, whose runs' artifacts are links."""

    def __init__(self, store: Store, plan: Mapping[str, Any], uri: str, *, is_own: bool) -> None:
        self._store, self._plan, self._is_own = store, plan, is_own
        self._client, self._uri = MlflowClient(tracking_uri=uri), uri
        self._connections = 1 if uri.startswith("sqlite") else _CONNECTIONS

    def run(self, *, rebuild: bool) -> Mirrored:
        experiment = self._find_experiment()
        self._experiment = experiment.experiment_id
        existing = self._existing(rebuild)
        wanted = list(wanted_runs(self._store, self._plan))
        trials = self._trials()
        whole = self._whole(wanted, trials)
        root, outcome = self._bring_up_to_date(existing.get(whole.key), whole, {})
        ids: dict[str, str] = {}

        def below(item: WantedRun) -> str:
            parent = ids.get(trials.parents.get(item.key, ""), root)
            ids[item.key], outcome = self._bring_up_to_date(existing.get(item.key), item, {_PARENT_TAG: parent})
            return outcome

        with ThreadPoolExecutor(self._connections) as pool:
            counts = Counter([outcome, *pool.map(below, trials.runs)])
            is_bulk = self._is_own and tables_are_known()
            new = [item for item in wanted if item.key not in existing] if is_bulk else []
            parents = {item.key: ids.get(trials.parents.get(item.key, ""), root) for item in new}
            for first in range(0, len(new), _RUNS):
                self._insert(experiment, new[first : first + _RUNS], parents)
            counts.update(pool.map(below, (item for item in wanted if item.key not in parents)))
        return Mirrored(counts["created"] + len(new), counts["updated"], counts["unchanged"])

    def _find_experiment(self) -> Experiment:
        name = self._plan["name"]
        found = self._client.get_experiment_by_name(name)
        if found is None:
            place = (artifacts(self._store) / name).as_uri() if self._is_own else None
            created = str(self._client.create_experiment(name, artifact_location=place))
            self._client.set_experiment_tag(created, "mlflow.experimentKind", "custom_model_development")
            note = views_note(str(self._plan.get("question") or ""), created)
            self._client.set_experiment_tag(created, "mlflow.note.content", note)
            return self._client.get_experiment(created)
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return found

    def _insert(self, experiment: Experiment, items: Sequence[WantedRun], parents: Mapping[str, str]) -> None:
        runs = [
            NewRun(
                uuid.uuid4().hex, item.name, item.status, _milliseconds(item.started) or _now(),
                None if item.status == "RUNNING" else _milliseconds(item.ended) or _now(),
                item.params, _tags(item, {_PARENT_TAG: parents[item.key]}), _metrics(item),
            )
            for item in items
        ]  # fmt: skip
        for run, item in zip(runs, items, strict=True):  # before the runs, which are left alone once they are there
            if item.output is not None:
                self._link(artifact_uri(experiment, run.run_id), item.output)
        insert_runs(self._uri, experiment, runs)

    def _existing(self, rebuild: bool) -> dict[str, Run]:
        """Return the runs of earlier calls by key; a key's second run (a request that was repeated) is deleted."""
        existing: dict[str, Run] = {}
        for run in sorted(
            self._runs(), key=lambda run: (DIGEST_TAG not in run.data.tags, run.info.status == "RUNNING")
        ):
            key = run.data.tags.get(KEY_TAG)
            if key is not None and (rebuild or key in existing):
                self._delete(run)
            elif key is not None:
                existing[key] = run
        return existing

    def _runs(self) -> Iterator[Run]:
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self._experiment], run_view_type=ViewType.ACTIVE_ONLY, max_results=_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _trials(self) -> WantedTrials:
        """The runs of a sweep's trials; none of another experiment."""
        if not self._store.experiment(self._plan["name"]).trials_jsonl.exists():
            return WantedTrials()
        from ablate.tracking.trials import wanted_trials  # loads Optuna

        return wanted_trials(self._store, self._plan)

    def _whole(self, wanted: Sequence[WantedRun], trials: WantedTrials) -> WantedRun:
        """The run of the experiment, which all others are below; a sweep is done when its trials have ended."""
        finished = sum(item.status == "FINISHED" for item in wanted)
        is_done = trials.is_done if trials.runs else finished >= len(self._plan["stages"])
        return WantedRun(
            key="experiment",
            name=self._plan["name"],
            status="FINISHED" if is_done else "RUNNING",
            params={},
            tags={"ablate.kind": "experiment", "ablate.question": str(self._plan.get("question") or "")},
            metrics={"stages": float(len(self._plan["stages"])), **trials.best},
            output=self._store.experiment(self._plan["name"]).folder,
            started=self._plan.get("created"),
            ended=max((item.ended for item in wanted if item.ended is not None), default=None) if is_done else None,
        )

    def _bring_up_to_date(self, run: Run | None, wanted: WantedRun, more_tags: Mapping[str, str]) -> tuple[str, str]:
        """Create or complete one run; returns its id and which of created, updated, unchanged it was."""
        digest = wanted.digest
        known = {} if run is None else run.data.tags
        is_there = {DIGEST_TAG: digest, **more_tags}.items() <= known.items()
        if run is not None and is_there and run.info.status == wanted.status:
            return str(run.info.run_id), "unchanged"
        outcome = "created" if run is None else "updated"
        if run is not None and any(run.data.params.get(key, value) != value for key, value in wanted.params.items()):
            self._delete(run)  # MLflow never changes a parameter
            run = None
        tags = _tags(wanted, more_tags)
        if run is None:
            # A new run is running until all of it is written, so that its digest says nothing before.
            first = {key: value for key, value in tags.items() if key != DIGEST_TAG or wanted.status != "RUNNING"}
            started = _milliseconds(wanted.started)
            run = self._client.create_run(self._experiment, start_time=started, tags=first, run_name=wanted.name)
        run_id = str(run.info.run_id)
        params = [Param(key, value) for key, value in wanted.params.items() if key not in run.data.params]
        metrics = [metric for metric in _metrics(wanted) if run.data.metrics.get(metric.key) != metric.value]
        changed = [RunTag(key, value) for key, value in tags.items() if run.data.tags.get(key) != value]
        self._log(run_id, metrics, params, changed)
        if self._is_own and wanted.output is not None:
            self._link(run.info.artifact_uri, wanted.output)
        if wanted.status == "RUNNING":
            self._client.update_run(run_id, status=wanted.status)
        else:
            self._client.set_terminated(run_id, wanted.status, end_time=_milliseconds(wanted.ended))
        return run_id, outcome

    def _log(self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]) -> None:
        """Log all in as few requests as MLflow takes; the digest is in the last one."""
        while len(metrics) > _MOST_METRICS or len(params) > _MOST_PARAMS:
            self._client.log_batch(run_id, metrics=metrics[:_MOST_METRICS], params=params[:_MOST_PARAMS])
            metrics, params = metrics[_MOST_METRICS:], params[_MOST_PARAMS:]
        self._client.log_batch(run_id, metrics=metrics, params=params, tags=tags)

    def _link(self, uri: str, output: Path) -> None:
        """Let a run's artifacts be what the stage left in the store."""
        place = _local(uri)
        if place.is_symlink():
            if os.readlink(place) == str(output):
                return
            place.unlink()
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(output)
        except OSError as error:
            raise TrackingError(
                f"{place} can't be a link to {output}: {error.strerror}",
                hint=f"what ablate writes below {artifacts(self._store)} are links: move away what else is there",
            ) from error

    def _delete(self, run: Run) -> None:
        if self._is_own and (place := _local(run.info.artifact_uri)).is_symlink():
            place.unlink()
        self._client.delete_run(run.info.run_id)


def _local(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def _tags(wanted: WantedRun, more_tags: Mapping[str, str]) -> dict[str, str]:
    return {**wanted.tags, **more_tags, KEY_TAG: wanted.key, DIGEST_TAG: wanted.digest}


def _metrics(wanted: WantedRun) -> list[Metric]:
    """What a stage measured, and its training curve once it is finished."""
    output = wanted.output if wanted.status == "FINISHED" else None
    curve = [] if output is None else training_curve(output)
    points = [*(Point(name, value, 0) for name, value in wanted.metrics.items()), *curve]
    # The time is the stage's own, so that mirroring again writes the same point.
    ended = _milliseconds(wanted.ended) or 0
    return [Metric(point.name, point.value, ended, point.step) for point in points]


def _now() -> int:
    return int(time.time() * 1000)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
