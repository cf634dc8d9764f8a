"""Sentences under a table that its numbers need: what the seeds varied, which test, what was not tested."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ablate.errors import suggestion
from ablate.results.layout import TableLayout, averaged_categories
from ablate.results.long import Results
from ablate.results.statistics.paired import ENOUGH_DF, PairedTest
from ablate.results.tables.columns import Measured, category_title
from ablate.results.tables.compare import Untested
from ablate.results.tables.rows import Group, start_units
from ablate.results.tables.table import Column

_SPREADS = {
    "sd": "Mean ± standard deviation",
    "stderr": "Mean ± standard error",
    "ci": "Mean ± half a 95 % interval (t over runs)",
    "none": "Mean",
}


def best_remark(layout: TableLayout) -> list[str]:
    """Say what bold and underlined numbers are."""
    texts = ("", "Bold: the best of a column.", "Bold: the best of a column; underlined: the second best.")
    return [texts[layout.best]] if layout.best else []


def transposed_remark(layout: TableLayout) -> list[str]:
    """Say that notes speak of rows and columns as they are declared."""
    text = "Printed with columns as rows: what is said of a row below holds for a column here, and the other way round."
    return [text] if layout.transpose else []


_CORRECTIONS = {
    "holm": "Holm-corrected over the table's {} tests",
    "benjamini-hochberg": "false discovery rate over the table's {} tests by Benjamini and Hochberg",
    "none": "not corrected ({} tests)",
}


def seeds_remark(cells: Sequence[Group], layout: TableLayout) -> list[str]:
    """Say over how many runs rows are averaged and what differs between them."""
    if not cells:
        return ["The experiment has no cells of this kind."]
    kept = len(layout.averaged)
    counts = sorted({len({key[:kept] for key in group.members}) for group in cells})
    if counts == [1]:
        return ["One run a row (n = 1): the spread over seeds is not known."]
    keys = [list(zip(*group.members, strict=True)) for group in cells]  # an axis' values, for each row
    over = " and ".join(
        axis for index, axis in enumerate(layout.averaged) if any(len(set(values[index])) > 1 for values in keys)
    )
    number = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    text = f"{_SPREADS[layout.format.spread]} over {number} distinct runs a row ({over})"
    varied, fixed = _varied_inputs(cells)
    parts = [f"between them {_listed(['training', *varied])} varied"]
    if fixed:
        parts.append(f"{_listed(fixed)} did not")
    return [f"{text}: {'; '.join(parts)}."]


def _listed(names: Sequence[str]) -> str:
    """Write names in a sentence: the dataset, the reward model and the SFT model."""
    *others, last = (f"the {name}" for name in names)
    return f"{', '.join(others)} and {last}" if others else last


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


NO_ROOM = "too_long"
"""Count of health: responses that were not asked for, as the prompt left no room for one in the model's context."""

_SHARES = {
    NO_ROOM: "responses to prompts without room in the model's context",
    "truncated": "responses that the length limit cut",
    "no_eos": "responses without an end",
    "extraction_failed": "answers that could not be extracted",
    "empty": "empty responses",
}
"""Counts of health that a table tells where it does not show them, and how."""

_TOLD_FROM = 0.01
"""Share of responses from which a table tells a count of health."""


def health_remarks(
    results: Results, layout: TableLayout, measured: Sequence[Measured], groups: Sequence[Group]
) -> list[str]:
    """Say which suite and row have the largest share of cut, endless, unreadable and empty responses."""
    suites = dict.fromkeys(measure.suite for item in measured for measure in item.weights)
    shown = {health.field for health in layout.health}
    parts = []
    for field, words in _SHARES.items():
        shares: dict[str, float] = {}
        for group in groups if field not in shown else ():
            for subject in group.members.values():
                for suite in suites:
                    found = results.evaluation(subject, suite)
                    health = found.health if found else {}
                    count, total = health.get(field), health.get("responses") or health.get("n")
                    if count and total:
                        name = f"{results.suites[suite]['title']}, {' '.join(filter(None, group.labels))}"
                        shares[name] = max(shares.get(name, 0.0), count / total)
        if shares and max(shares.values()) >= _TOLD_FROM:
            worst = max(shares, key=lambda name: shares[name])
            parts.append(f"{words} up to {shares[worst]:.0%} ({worst})")
    told = [f"Health of the responses: {'; '.join(parts)}."] if parts else []
    return [*told, *_unknown_health(results, layout, suites)]


def _unknown_health(results: Results, layout: TableLayout, suites: Iterable[str]) -> list[str]:
    """Say which declared health fields no evaluation reports, with the nearest that one does."""
    wanted = {*suites, *(health.suite for health in layout.health)}
    evaluations = [results.evaluation(subject, suite) for subject in results.subjects for suite in wanted if suite]
    found = [item.health for item in evaluations if item is not None]
    known = {field for health in found for field, value in health.items() if isinstance(value, int | float)}
    absent = dict.fromkeys(health.field for health in layout.health if found and health.field not in known)
    return [f"No suite of this table reports {field!r}: {suggestion(field, known)}." for field in absent]


def judges_remarks(results: Results, suites: Iterable[str]) -> list[str]:
    """Say which model judged a table's suites and when, and where it also judged what policies learnt from."""
    remarks = []
    for suite in dict.fromkeys(suites):
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
    outcomes: Iterable[tuple[Column, PairedTest | Untested]], layout: TableLayout, *, has_detectable: bool
) -> list[str]:
    """Say what a mark means, how it was tested, what the detectable difference is, and what was not tested."""
    outcomes = list(outcomes)
    tests = [outcome for _, outcome in outcomes if isinstance(outcome, PairedTest)]
    sideless = dict.fromkeys(
        column.label
        for column, outcome in outcomes
        if isinstance(outcome, PairedTest) and column.higher_is_better is None
    )
    remarks = []
    if layout.compare.colour == "sign":
        remarks.append(f"Blue ▲ / orange ▼: above / below{_against(layout)} by plain sign; no test is meant.")
    elif tests and layout.compare.colour == "test":
        remarks.append(_marks_remark(tests, layout))
        if sideless:
            remarks.append(
                f"Tested and never marked, as it is not known which side is better: {', '.join(sideless)};"
                " their p-values are in the CSV file."
            )
    if has_detectable:
        level = "α" if layout.compare.correction == "none" else "α divided by the number of tests"
        remarks.append(
            f"Detectable difference: the true difference that one comparison of the column finds with"
            f" {layout.compare.power:.0%} power at {level}."
        )
    skipped: dict[str, list[str]] = {}
    for column, outcome in outcomes:
        if isinstance(outcome, Untested) and column.label not in skipped.setdefault(outcome.reason, []):
            skipped[outcome.reason].append(column.label)
    return [*remarks, *(f"Not tested: {', '.join(labels)} ({reason})." for reason, labels in skipped.items())]


def averages_remarks(results: Results, layout: TableLayout, measured: Sequence[Measured]) -> list[str]:
    """Say what an average is, and which categories have no part in it because they have another unit."""
    averages = [item for item in measured if item.column.key.startswith("average")]
    if not averages:
        return []
    suites = {name: about for name, about in results.suites.items() if about["subject"] == layout.subject}
    averaged = {suites[measure.suite]["category"] for item in averages for measure in item.weights}
    remark = "Averages are means of the categories' scores; a category is the plain mean of its suites."
    apart = []
    for category in averaged_categories(suites):
        units = dict.fromkeys(about["unit"] for about in suites.values() if about["category"] == category)
        if category not in averaged and units.keys() - {item.column.unit for item in averages}:
            apart.append(f"{category_title(category)} ({', '.join(units)})")
    without = f" Without {'; '.join(apart)}: numbers of different units have no mean." if apart else ""
    return [remark + without]


def _against(layout: TableLayout) -> str:
    """What rows are compared with, in words with a space before them."""
    to = layout.compare.to
    return f" the {layout.labels.get(to, to.upper())} row (Δ: than zero)" if to else " zero"


def not_run_remark(results: Results, layout: TableLayout) -> list[str]:
    """Say that nothing is compared because the baseline has no number, where the experiment has such a baseline."""
    own = [item for item in results.subjects if item.subject == layout.subject and item.baseline == layout.compare.to]
    if not own or layout.compare.to is None:
        return []
    suites = [suite for item in own for suite in item.evaluations]
    if any(results.evaluation(item, suite) is not None for item in own for suite in item.evaluations) or not suites:
        return []
    reasons = dict.fromkeys(results.reason(item, suite) for item in own for suite in item.evaluations)
    name = layout.labels.get(layout.compare.to, layout.compare.to.upper())
    return [f"Nothing is compared: the {name} row has no number ({'; '.join(reasons)})."]


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
    against = f" than{_against(layout)}" if compare.to else ""
    correction = _CORRECTIONS[compare.correction].format(len(tests))
    return (
        f"Blue ▲ / orange ▼: significantly better / worse{against} at α = {compare.alpha:g};"
        f" paired {' and '.join(names)}; {correction}. Unmarked: no significant difference, which is not equality."
    )
