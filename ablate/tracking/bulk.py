"""New runs of a SQLite database of MLflow, many to a transaction, written with MLflow's own table classes.

MLflow's client takes seven transactions and some forty statements for a run; a study has a thousand.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Experiment, Metric
from sqlalchemy import create_engine, insert
from sqlalchemy.pool import NullPool

_RUN = {
    "source_type": "UNKNOWN", "source_name": "", "entry_point_name": "", "source_version": "", "user_id": "unknown",
    "lifecycle_stage": "active", "deleted_time": None,
}  # fmt: skip
"""What MLflow's client writes of every run."""

_WRITTEN = {
    "SqlRun": frozenset(
        (*_RUN, "run_uuid", "name", "status", "start_time", "end_time", "artifact_uri", "experiment_id")
    ),
    **dict.fromkeys(("SqlTag", "SqlParam"), frozenset(("run_uuid", "key", "value"))),
    **dict.fromkeys(
        ("SqlMetric", "SqlLatestMetric"), frozenset(("run_uuid", "key", "value", "timestamp", "step", "is_nan"))
    ),
}
"""Columns of MLflow's tables, by the names of their classes, that :func:`insert_runs` fills."""


@dataclass(frozen=True)
class NewRun:
    """A run that is not there yet; times are in milliseconds since 1970."""

    run_id: str
    name: str
    status: str
    started: int
    ended: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Sequence[Metric]


def artifact_uri(experiment: Experiment, run_id: str) -> str:
    """Return the address of a run's artifacts."""
    return f"{experiment.artifact_location}/{run_id}/artifacts"


def _tables() -> dict[str, Any]:
    """The classes of MLflow's tables by name; empty where this release does not have them all, or elsewhere."""
    try:
        models = importlib.import_module("mlflow.store.tracking.dbmodels.models")
        return {name: getattr(models, name) for name in _WRITTEN}
    except (ImportError, AttributeError):
        return {}


def tables_are_known() -> bool:
    """Tell whether this release of MLflow has the tables that are written here, and no column more that needs a value.

    That a database is of this release MLflow itself checks when it opens it.
    """
    tables = {name: table.__table__ for name, table in _tables().items()}
    return bool(tables) and all(
        written <= set(tables[name].columns.keys())
        and all(column.nullable or column.default for column in tables[name].columns if column.key not in written)
        for name, written in _WRITTEN.items()
    )


def insert_runs(uri: str, experiment: Experiment, runs: Sequence[NewRun]) -> None:
    """Write runs below an experiment, all or none; raises SQLAlchemy's errors."""
    engine = create_engine(uri, poolclass=NullPool)
    rows: dict[str, list[dict[str, Any]]] = {
        "SqlRun": [_run(experiment, run) for run in runs],
        "SqlTag": [row for run in runs for row in _pairs(run, {**run.tags, "mlflow.runName": run.name})],
        "SqlParam": [row for run in runs for row in _pairs(run, run.params)],
        "SqlMetric": [_point(run, metric) for run in runs for metric in dict.fromkeys(run.metrics)],
        "SqlLatestMetric": [_point(run, metric) for run in runs for metric in _latest(run.metrics)],
    }
    tables = _tables()
    with engine.begin() as connection:
        for name, values in rows.items():
            if values:
                connection.execute(insert(tables[name]), values)


def _run(experiment: Experiment, run: NewRun) -> dict[str, Any]:
    return _RUN | {
        "run_uuid": run.run_id, "name": run.name, "status": run.status, "start_time": run.started,
        "end_time": run.ended, "artifact_uri": artifact_uri(experiment, run.run_id),
        "experiment_id": int(experiment.experiment_id),
    }  # fmt: skip


def _pairs(run: NewRun, items: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"run_uuid": run.run_id, "key": key, "value": value} for key, value in items.items()]


def _point(run: NewRun, metric: Metric) -> dict[str, Any]:
    return {
        "run_uuid": run.run_id, "key": metric.key, "value": metric.value, "timestamp": metric.timestamp,
        "step": metric.step, "is_nan": False,
    }  # fmt: skip


def _latest(metrics: Iterable[Metric]) -> list[Metric]:
    """The value of each metric that MLflow shows: of the highest step, time, value."""
    latest: dict[str, Metric] = {}
    for metric in sorted(metrics, key=lambda metric: (metric.step, metric.timestamp, metric.value)):
        latest[metric.key] = metric
    return list(latest.values())
