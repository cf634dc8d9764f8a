"""Sentences under a table that its numbers need: what the seeds varied, which test, what was not tested."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ablate.results.layout import TableLayout
from ablate.results.long import Results
from ablate.results.statistics.paired import ENOUGH_DF, PairedTest
from ablate.results.tables.columns import Measured
from ablate.results.tables.compare import Untested
from ablate.results.tables.rows import Group, start_units

_CORRECTIONS = {
    "holm": "Holm-corrected over the table's {} tests",
    "benjamini-hochberg": "false discovery rate over the table's {} tests by Benjamini and Hochberg",
    "none": "not corrected ({} tests)",
}


def seeds_remark(cells: Sequence[Group], layout: TableLayout) -> list[str]:
    """Say over how many runs rows are averaged and what differs between them."""
    if not cells:
        return ["The experiment has no cells of this kind."]
    counts = sorted({len(group.members) for group in cells})
    if counts == [1]:
        return ["One run a row (n = 1): the spread over seeds is not known."]
    keys = [list(zip(*group.members, strict=True)) for group in cells]  # an axis' values, for each row
    over = " and ".join(
        axis for index, axis in enumerate(layout.averaged) if any(len(set(values[index])) > 1 for values in keys)
    )
    number = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    text = f"Mean ± standard deviation over {number} distinct runs a row ({over})"
    varied, fixed = _varied_inputs(cells)
    parts = [f"between them the training{''.join(f', the {role}' for role in varied)} varied"]
    if fixed:
        parts.append(f"the {', the '.join(fixed)} did not")
    return [f"{text}: {'; '.join(parts)}."]


def starts_remark(baselines: Sequence[Group], cells: Sequence[Group], layout: TableLayout) -> list[str]:
    """Say which baseline a run is compared with where there are several, and what then counts as a run."""
    compared = {
        item.stage for group in baselines for item in group.members.values() if item.baseline == layout.compare.to
    }
    remarks = []
    if len(compared) > 1:
        remarks.append("Every run is compared with the baseline of its own policy, pretraining and SFT.")
    if any(len(set(start_units(list(group.members.values())))) < len(group.members) for group in cells):
        remarks.append("Tests average runs that start from one base or SFT model first: those models are the units.")
    return remarks


def judges_remarks(results: Results, measured: Sequence[Measured]) -> list[str]:
    """Say which model judged a table's suites and when, and where it also judged what policies learnt from."""
    suites = dict.fromkeys(measure.suite for item in measured for measure in item.weights)
    remarks = []
    for suite in suites:
        about = results.suites.get(suite, {})
        stages = {subject.evaluations[suite] for subject in results.subjects if suite in subject.evaluations}
        found = [results.evaluations[stage] for stage in stages if stage in results.evaluations]
        health = [item.health for item in found if "judge" in item.health]
        if not health:
            continue
        names = sorted({str(own["judge"]) for own in health})
        days = sorted({str(own[name]) for own in health for name in ("judged_from", "judged_to") if own.get(name)})
        when = f", {days[0]}" + (f" to {days[-1]}" if days[-1] != days[0] else "") if days else ""
        if "judge_stands_in_for" in about:
            when = f" in place of {about['judge_stands_in_for']}{when}"
        judged = sum(int(own.get("judge_answers", 0)) for own in health)
        unread = sum(int(own.get("unparsable", 0)) for own in health)
        remarks.append(
            f"{about.get('title', suite)}: judged by {', '.join(names)}{when}; {unread} of {judged} answers could not"
            " be read."
        )
    shared = results.plan.get("shared_judges", ()) if remarks else ()
    return [*remarks, *(f"{sentence[:1].upper()}{sentence[1:]}." for sentence in shared)]


def _varied_inputs(cells: Sequence[Group]) -> tuple[list[str], list[str]]:
    """Inputs of the cells that differ between the runs of some row, and those that differ in none."""
    roles = dict.fromkeys(role for group in cells for item in group.members.values() for role in item.inputs)
    varied, fixed = [], []
    for role in roles:
        stages = [{item.inputs.get(role) for item in group.members.values()} for group in cells]
        if any(len(found) > 1 for found in stages):
            varied.append(_role_text(role))
        elif any(found != {None} for found in stages):
            fixed.append(_role_text(role))
    return varied, fixed


def _role_text(role: str) -> str:
    return {"sft": "SFT model"}.get(role, role.replace("_", " "))


def tests_remarks(
    outcomes: Iterable[tuple[str, PairedTest | Untested]],
    layout: TableLayout,
    measured: Sequence[Measured],
    *,
    has_detectable: bool,
) -> list[str]:
    """Say what a mark means, how it was tested, what the detectable difference is, and what was not tested."""
    outcomes = list(outcomes)
    tests = [outcome for _, outcome in outcomes if isinstance(outcome, PairedTest)]
    remarks = []
    if tests:
        remarks.append(_marks_remark(tests, layout))
    if has_detectable:
        level = "α" if layout.compare.correction == "none" else "α divided by the number of tests"
        remarks.append(
            f"Detectable difference: the true difference that one comparison of the column finds with"
            f" {layout.compare.power:.0%} power at {level}."
        )
    skipped: dict[str, list[str]] = {}
    for label, outcome in outcomes:
        if isinstance(outcome, Untested) and label not in skipped.setdefault(outcome.reason, []):
            skipped[outcome.reason].append(label)
    remarks += [f"Not tested: {', '.join(labels)} ({reason})." for reason, labels in skipped.items()]
    if any(item.column.key.startswith("average") for item in measured):
        remarks.append("Averages are means of the categories' scores; a category is the plain mean of its suites.")
    return remarks


def _marks_remark(tests: Sequence[PairedTest], layout: TableLayout) -> str:
    methods = {test.method for test in tests}
    names = []
    if "sign-flip" in methods:
        names.append("exact sign-flip permutation test over examples where a row has one run")
    if "seeds" in methods:
        names.append(
            "t-test with seeds and examples as crossed random effects where it has several (variance between seeds: the"
            " larger of the row's own and that pooled over the rows of its method, or over the column where these have"
            f" fewer than {ENOUGH_DF} degrees of freedom)"
        )
    compare = layout.compare
    against = ""
    if compare.to:
        against = f" than the {layout.labels.get(compare.to, compare.to.upper())} row (Δ rows: than zero)"
    correction = _CORRECTIONS[compare.correction].format(len(tests))
    return (
        f"Blue ▲ / orange ▼: significantly better / worse{against} at α = {compare.alpha:g};"
        f" paired {' and '.join(names)}; {correction}. Unmarked: no significant difference, which is not equality."
    )
