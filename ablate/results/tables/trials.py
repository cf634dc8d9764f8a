"""The table of a sweep's trials: what was tried, what it reached, how it ended."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial, TrialState

from ablate.errors import UsageError
from ablate.results.layout import NumberFormat, RowAxis
from ablate.results.layout.names import TRIALS
from ablate.results.long import Results
from ablate.results.statistics.paired import mean_sd
from ablate.results.tables.columns import Measured, column_value, key_title, named_measured
from ablate.results.tables.notes import Notes
from ablate.results.tables.rows import value_labels
from ablate.results.tables.table import Cell, Column, Row, Table
from ablate.trials import CAUSE, POLICIES, Search, is_feasible

_FORMAT = NumberFormat(digits=2, other_digits=3)
"""A digit more than tables have: trials are told apart."""

_STATES = {
    TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
    TrialState.RUNNING: "running", TrialState.WAITING: "waiting",
}  # fmt: skip


def build_trials_table(results: Results, search: Search) -> Table:
    """Return the table of a sweep's trials, a row each; the best are bold."""
    notes, keys, measured = Notes(), searched_keys(search), objectives(results, search)
    texts = {key: value_labels(results, RowAxis(axis=key), (t.params.get(key) for t in search.trials)) for key in keys}
    best = {trial.number for trial in search.best}
    rows = []
    for trial in search.trials:
        cells = [Cell(text=str(trial.number)), *(Cell(text=texts[key][repr(trial.params.get(key))]) for key in keys)]
        for index, column in enumerate(measured):
            cell = reached(results, trial, column, index)
            cells.append(replace(cell, rank="best") if trial.number in best else cell)
        cause = trial.user_attrs.get(CAUSE)
        cells.append(Cell(text=trial_state(trial), notes=(notes.key(str(cause)),) if cause else ()))
        rows.append(Row("cell", tuple(cells), dict(trial.params), tuple(trial.user_attrs.get(POLICIES, ()))))
    columns = (
        Column("trial", "Trial", "label"),
        *(Column(key, key_title(key), "label") for key in keys),
        *(item.column for item in measured),
        Column("state", "State", "attribute"),
    )
    title = f"Trials of the sweep {results.experiment}"
    return Table(TRIALS, title, columns, tuple(rows), notes.all(), tuple(_remarks(results, search, measured)))


def objectives(results: Results, search: Search) -> list[Measured]:
    """Return the columns that trials are compared by, which say whether higher is better for the search."""
    found = []
    for index, name in enumerate(search.objectives):
        measured = named_measured(name.removeprefix("-"), results, _FORMAT)
        if measured is None:
            raise UsageError(f"the trials of {results.experiment} are compared by {name!r}, which its plan has not")
        found.append(replace(measured, column=replace(measured.column, higher_is_better=search.maximises(index))))
    return found


def searched_keys(search: Search) -> list[str]:
    """Return the searched keys, in the order in which they are drawn."""
    return list(dict.fromkeys(key for trial in search.trials for key in trial.params))


def reached(results: Results, trial: FrozenTrial, measured: Measured, index: int) -> Cell:
    """Return what a trial reached in an objective, as Optuna was told, with the spread over its cells."""
    if trial.state != TrialState.COMPLETE:
        return Cell(missing=trial_state(trial))
    told = trial.values[index]
    policies = set(trial.user_attrs.get(POLICIES, ()))
    cells = {item.stage: item for item in results.subjects if item.stage in policies}
    values = [column_value(results, cell, measured)[0] for cell in cells.values()]
    known = [value for value in values if value is not None]
    mean, sd = mean_sd(known) if known else (math.nan, None)
    is_of_these = len(known) == len(values) and math.isclose(mean, told, rel_tol=1e-9)
    return Cell(value=told, sd=sd if is_of_these else None, n=len(known) if is_of_these else 1)


def trial_state(trial: FrozenTrial) -> str:
    """Return how a trial stands, in a word or two."""
    return _STATES[trial.state] if is_feasible(trial) else "out of bounds"


def _remarks(results: Results, search: Search, measured: Sequence[Measured]) -> list[str]:
    facts = results.plan["sweep"]
    counts = Counter(trial_state(trial) for trial in search.trials)
    listed = ", ".join(f"{count} {state}" for state, count in counts.items())
    goals = " and ".join(
        f"{item.column.label} {'high' if item.column.higher_is_better else 'low'}" for item in measured
    )
    several = len(measured) > 1
    bold = "the Pareto front: no other trial is better in one and as good in all" if several else "the best"
    how = f"Drawn by {facts['sampler']}, seed {facts['seed']}, to have {goals}."
    remarks = [f"{len(search.trials)} of {facts['trials']} trials: {listed}. {how}"]
    if search.best:
        warning = "chosen by these numbers, it is likely to reach less on other seeds and examples"
        remarks[0] += f" Bold: {bold}; {warning}."
    most = max((len(trial.user_attrs.get(POLICIES, ())) for trial in search.complete), default=1)
    return remarks + ([f"Mean ± standard deviation over a trial's {most} cells."] if most > 1 else [])
