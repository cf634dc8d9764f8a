"""Graders of RewardBench: pairs won by subset, sections, and the overall score under a rule."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablate.catalogs.rewardbench import PAIRS, SECTIONS, SUBSETS, overall_weights, section_weights, subset_weights
from ablate.errors import DataError, StageError, suggestion
from ablate.evaluation.formats.pair_scores import (
    NO_VERDICT,
    accuracies_of,
    read_pair,
    require_whole,
    rows_alone,
    written_subsets,
)
from ablate.evaluation.formats.rewardbench import subset_name
from ablate.evaluation.formats.submission import Submission
from ablate.evaluation.graders.pairs import implicit_scores, pair_value, trivial_rules, unparsable
from ablate.evaluation.grading import OVERALL, Evidence, Example, Grades, Metric, mean_metric, shortened
from ablate.rewards.verdicts import verdict_mark


def submitted(
    submission: Submission, options: Mapping[str, Any], *, joinable: bool, partial: bool = False
) -> Grades | None:
    """Grade a file that says all itself: accuracies by subset, or rows that name the subset of their pair.

    Such rows are left to be joined with the suite's pairs where those are there (``joinable``): None. A file without
    all subsets and pairs of the core set, or with a part of the prior sets, is a ``DataError`` unless ``partial``.
    """
    names = {written: subset_name(written) for written in written_subsets(submission)}
    if unknown := [written for written, name in names.items() if name not in SUBSETS]:
        raise DataError(
            f"{submission.path}: {unknown[0]!r} is no subset of RewardBench", hint=suggestion(unknown[0], SUBSETS)
        )
    if (accuracies := accuracies_of(submission, PAIRS)) is not None:
        if not partial:
            present = {metric.task: PAIRS[metric.task] for metric in accuracies}
            require_whole(submission.path, present, PAIRS, list(SECTIONS["prior-sets"]))
        metrics = section_metrics(accuracies, options["rule"])
        return Grades([], metrics, _gaps([metric.task for metric in accuracies], options["rule"]))
    rows = None if joinable else rows_alone(submission, names, lambda path, output, _: read_pair(path, output))
    if rows is None:
        return None
    if not partial:
        counts = Counter(row["subset"] for row in rows)
        require_whole(submission.path, counts, PAIRS, list(SECTIONS["prior-sets"]))
    return _of_scores(rows, options)


def scored(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """Accuracy of each subset, section (``chat/accuracy``, …) and over all under ``options.rule``.

    A pair is won where the chosen response scores strictly higher: a tie is lost, and so is a pair without a score.
    ``random`` (a seeded coin for each pair), ``longest`` and ``shortest`` (by characters; a tie is lost) are what these
    rules reach on the same pairs.
    """
    return _of_scores(evidence.scores, options)


def implicit(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """As :func:`scored`, with a policy's implicit reward as the score."""
    rows = implicit_scores(evidence, options)
    return rows if isinstance(rows, Grades) else _of_scores(rows, options)


def judged(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """As :func:`scored`, for a judge that was shown both responses and wrote which is better.

    A response without ``[[A]]`` or ``[[B]]`` counts half and as ``unparsable``.
    """
    coin = random.Random(options["seed"])
    examples: list[Example] = []
    unread = chose_first = 0
    for row in evidence.responses:
        facts = evidence.items[row.id].data
        mark = verdict_mark(row.response)
        first = None if mark == NO_VERDICT else mark  # the question offers no tie
        unread += first is None
        chose_first += first == 1.0
        value = NO_VERDICT if first is None else float((first == 1.0) == (facts["better"] == "A"))
        won = {"accuracy": value, **trivial_rules(facts["chosen_length"], facts["rejected_length"], coin)}
        examples += [
            Example(row.id, row.sample, facts["subset"], metric, result, response=shortened(row.response))
            for metric, result in won.items()
        ]
    read = len(evidence.responses) - unread
    too_long = sum(row.finish == "too_long" for row in evidence.responses)
    health = {"unparsable": unread, "too_long": too_long, "first_share": chose_first / read if read else None}
    return section_grades(examples, options["rule"], health)


def _of_scores(rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> Grades:
    coin = random.Random(options["seed"])
    examples: list[Example] = []
    for row in rows:
        won = {"accuracy": pair_value(row)}
        if "chosen_length" in row:
            won |= trivial_rules(row["chosen_length"], row["rejected_length"], coin)
        examples += [Example(row["id"], 0, row["subset"], metric, value) for metric, value in won.items()]
    scores = [(row["chosen"], row["rejected"]) for row in rows if "result" not in row]
    margins = [chosen - rejected for chosen, rejected in scores if chosen is not None and rejected is not None]
    health = {
        "ties": margins.count(0.0),
        "too_long": len(scores) - len(margins),
        "truncated": sum(row.get("truncated", 0) for row in rows),
        "unparsable": unparsable(rows),
        "mean_margin": math.fsum(margins) / len(margins) if margins else None,
    }
    return section_grades(examples, options["rule"], health)


def section_grades(examples: Sequence[Example], rule: str, health: Mapping[str, Any]) -> Grades:
    """Return the grades of examples whose tasks are subsets: the metrics of :func:`section_metrics` for each metric."""
    by_metric: dict[str, dict[str, list[Example]]] = defaultdict(lambda: defaultdict(list))
    for row in examples:
        by_metric[row.metric][row.task].append(row)
    metrics: list[Metric] = []
    for name, tasks in by_metric.items():
        metrics += section_metrics([mean_metric(subset, name, rows) for subset, rows in tasks.items()], rule)
    present = {row.task for row in examples}
    return Grades(examples, metrics, {**health, **_gaps(present, rule)})


def section_metrics(subsets: Sequence[Metric], rule: str) -> list[Metric]:
    """Return one metric's values by subset with those of the sections that have any, and the overall one first.

    Standard errors are those of weighted means of independent subsets. Raises ``StageError`` for an unknown subset.
    """
    known = {metric.task: metric for metric in subsets}
    if unknown := known.keys() - SUBSETS.keys():
        raise StageError(f"{sorted(unknown)[0]!r} is no subset of RewardBench", hint=f"known: {', '.join(SUBSETS)}")
    name = subsets[0].metric
    sections = [
        weighted_metric(section, name, known, weights)
        for section in SECTIONS
        if (weights := section_weights(section, list(known)))
    ]
    weights_of_all = subset_weights(rule, list(known))
    if weights_of_all is None:
        overall = Metric(OVERALL, name, None, sum(metric.n for metric in subsets))
    else:
        overall = weighted_metric(OVERALL, name, known, weights_of_all)
    return [overall, *sections, *(known[subset] for subset in SUBSETS if subset in known)]


def weighted_metric(task: str, name: str, tasks: Mapping[str, Metric], weights: Mapping[str, float]) -> Metric:
    """Return the weighted mean of tasks' metrics (weights sum to 1); null where one of them is."""
    parts = [(tasks[other], weight) for other, weight in weights.items()]
    values = [weight * metric.value for metric, weight in parts if metric.value is not None]
    errors = [(weight * metric.stderr) ** 2 for metric, weight in parts if metric.stderr is not None]
    return Metric(
        task,
        name,
        math.fsum(values) if len(values) == len(parts) else None,
        sum(metric.n for metric, _ in parts),
        math.sqrt(math.fsum(errors)) if len(errors) == len(parts) else None,
        weights=dict(weights),
    )


def _gaps(present: Iterable[str], rule: str) -> dict[str, Any]:
    """Say which subsets are missing from sections that count, and why the overall score is undefined if it is."""
    there = set(present)
    found = [section for section, weights in SECTIONS.items() if there & weights.keys()]
    missing = [subset for section in found for subset in SECTIONS[section] if subset not in there]
    gaps: dict[str, Any] = {"missing_subsets": ", ".join(missing)} if missing else {}
    absent = [section for section in SECTIONS if section not in found]
    if absent:
        gaps["missing_sections"] = ", ".join(absent)
    if overall_weights(rule, found) is None:
        gaps["reason"] = f"rule {rule} needs all five sections; missing: {', '.join(absent)}"
    return gaps
