"""The layout of an experiment that declares none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablate.errors import SpecError
from ablate.results.layout.figures import BarLayout, search_figures
from ablate.results.layout.names import (
    NOT_AVERAGED,
    SEED_AXES,
    averaged_categories,
    axis_names,
    baseline_name,
    varying_axes,
)
from ablate.results.layout.report import Layout
from ablate.results.layout.tables import TableLayout, column_keys


def default_layout(plan: Mapping[str, Any], *, data: bool = False) -> Layout:
    """Lay out an experiment that declares no report: rows from what varies, all categories, the average, baselines.

    ``data`` adds the table of the sets that are read, which one that evaluates nothing has as well.
    """
    sweep = plan.get("sweep")
    scores = sweep is None and not _trains(plan) and any(entry.get("evaluations") for entry in plan["subjects"])
    tables = []
    for subject, name, title in (
        ("policy", "main", plan.get("question") or plan["name"]),
        ("reward_model", "reward-models", "Reward models"),
    ):
        table = _default_table(plan, subject, name, title, scores=scores)
        if table is not None:
            tables.append(table)
    if not (tables or scores or data):
        raise SpecError(f"experiment {plan['name']!r} evaluates nothing: there is no table to make")
    keys = {table.name: column_keys(table, plan) for table in tables if table.subject == "policy"}
    figures = tuple(
        BarLayout(name=f"{name}-average", table=name) if "average" in own
        else BarLayout(name=f"{name}-{own[0]}", table=name, columns=own[:1])
        for name, own in keys.items()
    )  # fmt: skip
    if sweep is not None:
        return Layout(title=plan["name"], tables=tuple(tables), figures=search_figures(sweep), trials=True, data=data)
    return Layout(title=plan["name"], tables=tuple(tables), figures=figures, scores=scores, data=data)


def _policy_columns(suites: Mapping[str, Mapping[str, Any]], *, alone: bool) -> list[Any]:
    """Return the columns about policies: categories, their average, then what has no part in it.

    A category whose suites have different units has no mean: its suites are columns, where suites may stand ``alone``.
    """
    units: dict[str, set[str]] = {}
    for about in suites.values():
        units.setdefault(about["category"], set()).add(about["unit"])
    averaged = averaged_categories(suites)
    whole = [category for category in averaged if len(units[category]) == 1]
    columns: list[Any] = ["categories"] if whole == averaged else []
    for category in [*(averaged if whole != averaged else ()), *sorted(units.keys() & NOT_AVERAGED - {"reward"})]:
        members = [suite for suite, about in suites.items() if about["category"] == category]
        single = [{"suite": suite} for suite in members if alone]
        columns += [{"category": category}] if len(units[category]) == 1 else single
    of_shares = [category for category in averaged if units[category] == {"proportion"}]
    if len(of_shares) > 1:
        place = 1 if whole == averaged else len(columns)
        columns.insert(place, "average" if of_shares == averaged else {"average": of_shares})
    return [*columns, *({"suite": suite} for suite, about in suites.items() if alone and _classifies(about))]


def _default_table(plan: Mapping[str, Any], subject: str, name: str, title: str, *, scores: bool) -> TableLayout | None:
    """Lay out a subject's table; None without one. Where suites have a table of ``scores``, none is a column here."""
    entries = [entry for entry in plan["subjects"] if entry["subject"] == subject]
    suites = [about for about in plan["suites"].values() if about["subject"] == subject]
    if not entries or not suites:
        return None
    rows = _default_rows(plan, entries, subject)
    if subject == "reward_model":
        columns: list[Any] = ["suites"]
    else:
        named = {suite: about for suite, about in plan["suites"].items() if about in suites}
        columns = _policy_columns(named, alone=not scores)
        if not columns:
            return None
    algorithms = {str(entry["axes"].get("algorithm")) for entry in entries if entry["role"] == "cell"}
    deltas = []
    # Settings of one method's own have no counterpart in the other: a difference would be between any two of them.
    is_tuned = any(axis.startswith(("ppo.", "dpo.")) for axis in rows)
    if subject == "policy" and {"ppo", "dpo"} <= algorithms and not is_tuned:
        match = [axis for axis in rows if axis != "algorithm" and _is_read_by(entries, axis, ("ppo", "dpo"))]
        deltas = [{"axis": "algorithm", "values": ("ppo", "dpo"), "match_on": match, "label": "Δ PPO − DPO"}]
    baselines = [item for item in dict.fromkeys(baseline_name(entry) for entry in entries) if item]
    to = "sft" if "sft" in baselines else (baselines[0] if baselines else None)
    return TableLayout.model_validate({
        "name": name, "title": title, "subject": subject, "rows": rows, "columns": columns,
        "attributes": ["tuned"] if subject == "policy" and "tuning" in plan else [],
        "baselines": baselines, "deltas": deltas, "compare": {"to": to},
    })  # fmt: skip


def _classifies(about: Mapping[str, Any]) -> bool:
    """Whether a suite is about a policy's implicit reward: a mean of two such suites would mean nothing."""
    return bool(about["subject"] == "policy" and about["category"] == "reward")


def _default_rows(plan: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], subject: str) -> list[str]:
    """Dataset and algorithm, then the axes of the grid that vary, then what else tells two cells of a row apart."""
    known, varying = axis_names(entries), [axis for axis in varying_axes(entries) if axis not in SEED_AXES]
    cells = [entry["axes"] for entry in entries if entry["role"] == "cell"]
    main = ("dataset", "algorithm") if _trains(plan) or not cells else ("policy",)
    rows = [axis for axis in main if axis in known] if subject == "policy" else []
    rows += [axis for axis in varying if axis in plan.get("axes", ()) and axis not in rows]
    for axis in varying:
        if axis not in rows:
            values: dict[tuple[str, ...], set[str]] = {}
            for axes in cells:
                values.setdefault(tuple(repr(axes.get(row)) for row in rows), set()).add(repr(axes.get(axis)))
            rows += [axis] if any(len(found) > 1 for found in values.values()) else []
    return rows or known[:1] or ["seed"]


def _trains(plan: Mapping[str, Any]) -> bool:
    """Whether a cell of the grid trains a model: all others are looked at as they are."""
    cells = [entry["axes"] for entry in plan["subjects"] if entry["role"] == "cell"]
    return any(axes.get("algorithm", "none") != "none" or axes.get("reward_model.dataset") for axes in cells)


def _is_read_by(entries: Sequence[Mapping[str, Any]], axis: str, algorithms: Iterable[str]) -> bool:
    """Whether cells of every one of these algorithms have a value on ``axis``: two rows can agree on it."""
    with_value = {entry["axes"].get("algorithm") for entry in entries if entry["axes"].get(axis) is not None}
    return set(algorithms) <= with_value
