"""Fetch what an experiment reads of hubs, its data and its models, before it runs where there is no network."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

from ablate.catalogs.datasets import DatasetEntry, data_files
from ablate.catalogs.pins import read_pins
from ablate.context import import_function
from ablate.errors import DataError, UsageError
from ablate.execution.study import find_specification, plan_loaded
from ablate.execution.tuned import untuned
from ablate.experiment.loading import load_experiment
from ablate.plan.plan import Plan
from ablate.store import Store

FETCH_SNAPSHOT = "ablate.models.stage:fetch_snapshot"


def prefetch(name: str, overrides: Sequence[str], store: Store, say: Callable[[str], None]) -> Plan:
    """Put all files that an experiment reads under the data root and into the hub's cache; returns its plan.

    Planning asks for one set after the other; what is there is kept, without asking a hub. ``say`` is told of each file
    and model. Raises FetchError, DataError or UsageError where something can't be had.
    """
    pins = read_pins(Path.cwd())

    def supply(entry: DatasetEntry, root: Path | None) -> None:
        if entry.source.hub is None or entry.reads_sample or _is_there(entry, root):
            return
        if root is None:
            raise UsageError("no data root is named", hint="set ABLATE_DATA, or write data.root")
        fetch = importlib.import_module("ablate.data.fetch")
        for item in fetch.fetch(pins.applied(entry), root):
            say(f"{item.status:<18}{item.name}  {fetch.megabytes(item.size)}")

    plan = plan_loaded(untuned(load_experiment(find_specification(name), overrides)), store, supply=supply)
    for hub_id, revision in _models(plan):
        folder = import_function(FETCH_SNAPSHOT, "what fetches models")(hub_id, revision)
        say(f"{'model':<18}{hub_id}@{revision}  {folder}")
    return plan


def _is_there(entry: DatasetEntry, root: Path | None) -> bool:
    try:
        data_files(entry, root)
    except DataError:
        return False
    return True


def _models(plan: Plan) -> list[tuple[str, str]]:
    """Return ids and commits of the models of the hub in a plan."""
    sources = (stage.identity.config.value["source"] for stage in plan.stages.values() if stage.kind == "model")
    return list(dict.fromkeys((source["hub"], source["revision"]) for source in sources if "hub" in source))
