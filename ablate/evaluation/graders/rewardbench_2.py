"""Graders of RewardBench 2: which of several responses scores highest, and how ties of right answers are scored."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ablate.catalogs.rewardbench import PROMPTS_2, SECTIONS_2, TIES, TIES_WEIGHTS
from ablate.errors import DataError, StageError, suggestion
from ablate.evaluation.best_of import Gaps, best_of, ties_parts, ties_score
from ablate.evaluation.formats.pair_scores import (
    accuracies_of,
    read_candidates,
    require_whole,
    rows_alone,
    written_subsets,
)
from ablate.evaluation.formats.rewardbench import subset_name
from ablate.evaluation.formats.submission import Submission
from ablate.evaluation.graders.pairs import implicit_scores
from ablate.evaluation.graders.rewardbench import weighted_metric
from ablate.evaluation.grading import OVERALL, Evidence, Example, Grades, Metric, mean_metric

Row = Mapping[str, Any]
Scores = tuple[Sequence[float | None], Sequence[float | None]]
"""Scores of the correct and of the incorrect responses to a prompt."""

UNSCORED = Gaps(-math.inf, 0.0)
"""Of a prompt with a response that has no score: it is lost."""


def submitted(
    submission: Submission, options: Mapping[str, Any], *, joinable: bool, partial: bool = False
) -> Grades | None:
    """Grade a file that says all itself: scores by subset, or rows that name the subset of their prompt.

    Such rows are left to be joined with the suite's prompts where those are there (``joinable``): None. A file without
    all subsets and prompts is a ``DataError`` unless ``partial``.
    """
    names = {written: subset_name(written) for written in written_subsets(submission)}
    if unknown := [written for written, name in names.items() if name not in SECTIONS_2]:
        raise DataError(
            f"{submission.path}: {unknown[0]!r} is no subset of RewardBench 2", hint=suggestion(unknown[0], SECTIONS_2)
        )
    if (accuracies := accuracies_of(submission, PROMPTS_2)) is not None:
        subsets = {metric.task: metric for metric in accuracies}
        if not partial:
            require_whole(submission.path, {name: PROMPTS_2[name] for name in subsets}, PROMPTS_2)
        metrics = [_overall("accuracy", subsets), *(subsets[name] for name in SECTIONS_2 if name in subsets)]
        return Grades([], metrics, _gaps([{"subset": name} for name in subsets], metrics))
    rows = None if joinable else rows_alone(submission, names, read_candidates)
    if rows is None:
        return None
    if not partial:
        require_whole(submission.path, Counter(row["subset"] for row in rows), PROMPTS_2)
    return grade_rows(rows, options)


def scored(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """Score of each subset, and over all: the plain mean of the six.

    A prompt counts 1 / (number of responses with the highest score) where a correct one is among them, else 0; the
    Ties subset has the score of :func:`ablate.evaluation.best_of.ties_score`. A prompt with a response without a
    score is lost. ``random``, ``longest`` and ``shortest`` (by characters) are what such scores reach.
    """
    return grade_rows(evidence.scores, options)


def implicit(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """As :func:`scored`, with a policy's implicit reward as the score."""
    rows = implicit_scores(evidence, options)
    return rows if isinstance(rows, Grades) else grade_rows(rows, options)


def grade_rows(rows: Sequence[Row], options: Mapping[str, Any]) -> Grades:
    """Grade rows with lists of scores under ``chosen`` and ``rejected`` and, where known, of lengths."""
    stream = random.Random(options["seed"])
    by_metric: dict[str, list[tuple[Row, Scores]]] = defaultdict(list)
    for row in rows:
        by_metric["accuracy"].append((row, _sides(row)))
        for name, scores in _trivial(row, stream).items():
            by_metric[name].append((row, scores))
    examples: list[Example] = []
    metrics: list[Metric] = []
    for name, scores_of in by_metric.items():
        subsets, own = _subset_metrics(name, scores_of)
        examples += own
        metrics += [_overall(name, subsets), *subsets.values()]
    unscored = sum(None in (*chosen, *rejected) for chosen, rejected in map(_sides, rows))
    health = {"too_long": unscored, "truncated": sum(row.get("truncated", 0) for row in rows), **_gaps(rows, metrics)}
    return Grades(examples, metrics, health)


def _sides(row: Row) -> Scores:
    """Return the scores of a row as lists: a file may write a single score without one, or a verdict and no scores."""
    if "result" in row:
        return [], []
    chosen, rejected = row["chosen"], row["rejected"]
    return (
        chosen if isinstance(chosen, list) else [chosen],
        rejected if isinstance(rejected, list) else [rejected],
    )


def _trivial(row: Row, stream: random.Random) -> dict[str, Scores]:
    if "chosen_length" not in row:
        return {}
    chosen, rejected = row["chosen_length"], row["rejected_length"]
    return {
        "random": ([stream.random() for _ in chosen], [stream.random() for _ in rejected]),
        "longest": (chosen, rejected),
        "shortest": ([-length for length in chosen], [-length for length in rejected]),
    }


def _subset_metrics(name: str, rows: Sequence[tuple[Row, Scores]]) -> tuple[dict[str, Metric], list[Example]]:
    groups: dict[str, list[tuple[Row, Scores]]] = defaultdict(list)
    for row, scores in rows:
        if row["subset"] not in SECTIONS_2:
            known = ", ".join(SECTIONS_2)
            raise StageError(f"{row['subset']!r} is no subset of RewardBench 2", hint=f"known: {known}")
        groups[row["subset"]].append((row, scores))
    metrics: dict[str, Metric] = {}
    examples: list[Example] = []
    for subset in SECTIONS_2:
        own = groups.get(subset, [])
        if subset == TIES:
            graded = _ties(name, own)
        else:
            rows_of = [Example(row["id"], 0, subset, name, _value(row, scores)) for row, scores in own]
            graded = mean_metric(subset, name, rows_of), rows_of
        if own:
            metrics[subset] = graded[0]
            examples += graded[1]
    return metrics, examples


def _value(row: Row, scores: Scores) -> float:
    """What a prompt counts: by the scores of its responses, or as somebody else's verdict says (``result``)."""
    if "result" in row and not scores[0]:
        return float(row["result"])
    correct = [score for score in scores[0] if score is not None]
    incorrect = [score for score in scores[1] if score is not None]
    if (len(correct), len(incorrect)) != (len(scores[0]), len(scores[1])):
        return 0.0
    return best_of(correct, incorrect)


def _gaps_of(scores: Scores) -> Gaps:
    correct = [score for score in scores[0] if score is not None]
    incorrect = [score for score in scores[1] if score is not None]
    if (len(correct), len(incorrect)) != (len(scores[0]), len(scores[1])):
        return UNSCORED
    return Gaps.of(correct, incorrect)


def _ties(name: str, rows: Sequence[tuple[Row, Scores]]) -> tuple[Metric, list[Example]]:
    """Return the score of the Ties subset, and an example for each number that has both a ref and a tied prompt."""
    kinds: dict[str, dict[str, Gaps]] = {"ref": {}, "tied": {}}
    for row, scores in rows:
        if not scores[0]:
            raise DataError(f"prompt {row['source']} of Ties has a verdict and no scores, by which ties are graded")
        kind, colon, number = str(row["source"]).partition(":")
        if kind not in kinds or not colon:
            raise StageError(f"a prompt of Ties is called ref:n or tied:n, found {row['source']!r}")
        kinds[kind][number] = _gaps_of(scores)
    ref, tied = kinds["ref"], kinds["tied"]
    examples = []
    for number in ref.keys() & tied.keys():
        parts = ties_parts(ref[number], tied[number])
        value = math.fsum(TIES_WEIGHTS[part] * part_value for part, part_value in parts.items())
        examples.append(Example(f"{TIES}/{number}", 0, TIES, name, value))
    examples.sort(key=lambda example: example.example)
    # A mean over numbers where every prompt has its twin; else its parts are over different prompts.
    error = mean_metric(TIES, name, examples).stderr if ref.keys() == tied.keys() else None
    return Metric(TIES, name, ties_score(ref, tied), len(rows), error), examples


def _overall(name: str, subsets: Mapping[str, Metric]) -> Metric:
    """Return the plain mean of the six subsets; undefined where one is missing or undefined."""
    if len(subsets) < len(SECTIONS_2):
        return Metric(OVERALL, name, None, sum(metric.n for metric in subsets.values()))
    return weighted_metric(OVERALL, name, subsets, dict.fromkeys(SECTIONS_2, 1 / len(SECTIONS_2)))


def _gaps(rows: Sequence[Row], metrics: Sequence[Metric]) -> dict[str, Any]:
    there = {row["subset"] for row in rows}
    missing = [subset for subset in SECTIONS_2 if subset not in there]
    if missing:
        listed = ", ".join(missing)
        return {"missing_subsets": listed, "reason": f"all six subsets are needed; missing: {listed}"}
    undefined = [metric.task for metric in metrics if metric.metric == "accuracy" and metric.value is None]
    return {"reason": f"undefined: {', '.join(undefined)}"} if undefined else {}
