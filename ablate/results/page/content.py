"""What stands behind the numbers of a page: runs, stages with config and provenance, training curves, as plain JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablate.context import read_json
from ablate.results.examples import Measure
from ablate.results.layout import Layout
from ablate.results.layout.names import TRIALS
from ablate.results.long import Results, Subject, reason_not_done
from ablate.results.page.examples import sample_examples
from ablate.results.tables.columns import Measured, expand_columns, named_measured
from ablate.results.tables.table import Row, Table
from ablate.results.training import read_history
from ablate.store import StageFolder

CURVE_POINTS, CURVE_VALUES = 40, 8
"""Most records and most values of a training curve that a page keeps."""

_FIRST = ("score", "gold", "kl", "loss", "rewards/accuracy", "rewards/margin", "accuracy", "margin", "entropy")
_BOOKKEEPING = frozenset({"step", "epoch", "learning_rate", "samples", "labels"})
_ENVIRONMENT = ("python", "platform", "packages", "gpus", "cores")


class Interned:
    """Values that many entries share, each kept once: entries hold a value's number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[str, int] = {}

    def __call__(self, value: Any) -> int:
        """Return the number of ``value``."""
        key = json.dumps(value, sort_keys=True)
        if key not in self._numbers:
            self._numbers[key] = len(self.values)
            self.values.append(value)
        return self._numbers[key]


def page_content(results: Results, layout: Layout, tables: Sequence[Table]) -> dict[str, Any]:
    """Return everything that a page's numbers lead to; values that repeat are in ``shared`` and named by number."""
    shared = Interned()
    runs = _runs(results, tables)
    wanted = [stage for run in runs.values() for stage in (run.stage, *run.evaluations.values())]
    return {
        "tables": _links(results, layout, tables),
        "suites": {name: _suite(about) for name, about in results.suites.items()},
        "runs": {
            stage: {"label": run.label, "axes": dict(run.axes), "evaluations": dict(run.evaluations)}
            for stage, run in runs.items()
        },
        "evaluations": {
            stage: {"score": found.score, "health": dict(found.health), "protocol": shared(dict(found.protocol))}
            for stage, found in results.evaluations.items()
        },
        "stages": {stage: _stage(results, stage, shared) for stage in _upstream(results, wanted)},
        "examples": sample_examples(results, list(runs.values())),
        "shared": shared.values,
    }


def _suite(about: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("title", "category", "unit", "primary", "note")
    return {key: about.get(key) for key in keys} | {"higher": about.get("higher_is_better", True)}


def _links(results: Results, layout: Layout, tables: Sequence[Table]) -> dict[str, Any]:
    """Return for each table what its rows and columns are called, the runs of the ones and the suites of the others."""
    layouts = {table.name: table for table in layout.tables}
    links = {}
    for table in tables:
        if table.name in layouts:
            measured = expand_columns(layouts[table.name], results)
        else:
            measured = _objectives(results) if table.name == TRIALS else []
        measures = {item.column.key: item.weights for item in measured}
        links[table.name] = {
            "rows": [{"name": _row_name(table, row), "runs": row.runs, "against": row.against} for row in table.rows],
            "columns": [
                {"name": column.label, "suites": _suites(measures.get(column.key, ()))} for column in table.columns
            ],
        }
    return links


def _objectives(results: Results) -> list[Measured]:
    """Return the columns that a sweep's trials are compared by."""
    named = (named_measured(name.removeprefix("-"), results) for name in results.plan["sweep"]["maximise"])
    return [measured for measured in named if measured is not None]


def _row_name(table: Table, row: Row) -> str:
    names = zip(table.columns, row.cells, strict=False)  # a heading has one cell
    return " · ".join(cell.text for column, cell in names if column.kind == "label" and cell.text)


def _suites(measures: Iterable[Measure]) -> list[str]:
    return list(dict.fromkeys(measure.suite for measure in measures))


def _runs(results: Results, tables: Sequence[Table]) -> dict[str, Subject]:
    wanted = {stage for table in tables for row in table.rows for stage in (*row.runs, *row.against)}
    runs: dict[str, Subject] = {}
    for subject in results.subjects:
        if subject.stage in wanted:
            runs.setdefault(subject.stage, subject)
    return runs


def _upstream(results: Results, wanted: Iterable[str]) -> list[str]:
    """Return these stages and all that they are made from."""
    found: dict[str, None] = {}
    waiting = list(wanted)
    while waiting:
        stage = waiting.pop()
        if stage not in found:
            found[stage] = None
            waiting.extend(_inputs(results.store.stage(stage)).values())
    return list(found)


def _inputs(folder: StageFolder) -> dict[str, str]:
    if not folder.stage_json.is_file():
        return {}
    return {role: str(entry["stage"]) for role, entry in folder.read_stage().get("inputs", {}).items()}


def _stage(results: Results, stage: str, shared: Interned) -> dict[str, Any]:
    folder = results.store.stage(stage)
    written = folder.read_stage() if folder.stage_json.is_file() else {}
    done = folder.read_done()
    entry: dict[str, Any] = {
        "kind": written.get("kind", folder.kind),
        "label": written.get("label", ""),
        "config": shared(written.get("config", {})),
        "made": shared({"revision": written.get("revision"), "parts": written.get("parts", {})}),
        "inputs": _inputs(folder),
    }
    if done is None:
        return entry | {"missing": reason_not_done(results.store, stage)}
    entry |= {"seconds": done.get("seconds"), "environment": shared(_environment(folder, done))}
    curve = _curve(results, stage)
    return entry | {"curve": curve} if curve else entry


def _environment(folder: StageFolder, done: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of the code and the versions that made a stage, without what is of one machine alone."""
    path = folder.attempt(int(done["attempt"])).environment_json if "attempt" in done else None
    recorded = read_json(path) if path is not None and path.is_file() else {}
    return {"code": done.get("code")} | {key: recorded[key] for key in _ENVIRONMENT if key in recorded}


def _curve(results: Results, stage: str) -> dict[str, Any] | None:
    """Return steps and values of a training curve, thinned and rounded to what a small chart shows."""
    records = read_history(results, stage)
    keys = [key for key in dict.fromkeys(key for record in records for key in record) if key not in _BOOKKEEPING]
    keys.sort(key=lambda key: (_FIRST.index(key) if key in _FIRST else len(_FIRST), key))
    kept = records[:: max(1, math.ceil(len(records) / CURVE_POINTS))]
    if len(kept) < 2 or not keys:
        return None
    return {
        "step": [record.get("step", number) for number, record in enumerate(kept)],
        "values": {key: [_rounded(record.get(key)) for record in kept] for key in keys[:CURVE_VALUES]},
    }


def _rounded(value: Any) -> float | None:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")
