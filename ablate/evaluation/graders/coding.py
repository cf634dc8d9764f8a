"""pass@k of programs under unit tests."""

from __future__ import annotations

import platform
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ablate.evaluation.grading import (
    OVERALL,
    Evidence,
    Example,
    Grades,
    Metric,
    mean_metric,
    response_health,
    shortened,
)
from ablate.evaluation.items import Item, Response
from ablate.evaluation.programs import code_of
from ablate.sandbox.box import find_box
from ablate.sandbox.judge import Group, Problem, UnitTests, Verdict, judge

FORM = "form"
"""Fact of a row from elsewhere: its text is a whole ``program``, a ``completion`` of the prompt, or a ``response``."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of how likely one of ``k`` samples passes, from ``n`` of which ``c`` did (Chen et al. 2021)."""
    if n - c < k:
        return 1.0
    fails = 1.0
    for i in range(n - c + 1, n + 1):
        fails *= 1.0 - k / i
    return 1.0 - fails


def unit_tests(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """pass@k for each k of ``options``, with its standard error over problems.

    Tests in one group (HumanEval) give ``pass@k`` over all; base and plus tests give ``base/pass@k`` and
    ``plus/pass@k``, where plus means both (EvalPlus). A problem with fewer than k samples leaves pass@k undefined.
    """
    samples = _samples(evidence)
    lead = "lead" if evidence.protocol.get("made", {}).get("chat", True) else "plain_lead"
    box = find_box(unsafe=evidence.resources.unsafe_code)
    problems, unfound = [], 0
    for item, rows in samples:
        programs = []
        for row, form in zip(rows, _forms(evidence, item, rows, options["extraction"]), strict=True):
            program, found = _program(item, row.response, form, item.data.get(lead, item.data["lead"]))
            programs.append(program)
            unfound += not found
        problems.append(Problem(item.source or item.id, _tests(item.data["tests"], options["seconds"]), programs))
    verdicts = judge(problems, box, jobs=evidence.resources.threads)
    examples: list[Example] = []
    metrics: list[Metric] = []
    groups = [group.name for group in problems[0].tests.groups] if problems else []
    for place, group in enumerate(groups):
        passed = [[_passed(verdict, groups[: place + 1]) for verdict in row] for row in verdicts]
        task = group if len(groups) > 1 else None
        made = _examples(samples, passed, options["k"], task)
        examples += made
        metrics += [_metric(task or OVERALL, k, made, samples) for k in options["k"]]
    health = {**response_health(evidence.responses), **_reasons(verdicts), "extraction_failed": unfound}
    if evidence.resources.unsafe_code:
        health["unsafe_code"] = sum(map(len, verdicts))
    return Grades(examples, metrics, health, {"sandbox": box.name, "python": platform.python_version()})


def gold_program(item: Item) -> str:
    """The reference solution, without the code that a completion goes on from."""
    return str(item.data["tests"]["setup"]).removeprefix(item.data["lead"])


def _samples(evidence: Evidence) -> list[tuple[Item, list[Response]]]:
    by_item: dict[str, list[Response]] = defaultdict(list)
    for row in evidence.responses:
        by_item[row.id].append(row)
    return [(item, sorted(by_item[name], key=lambda row: row.sample)) for name, item in evidence.items.items()]


def _forms(evidence: Evidence, item: Item, rows: Sequence[Response], usual: str) -> list[str]:
    """What each response is: as its row says, where it comes from elsewhere, else as in the suite."""
    said = evidence.stored.get(item.id, ())
    return [str(fact.get(FORM, usual)) for fact in said] if len(said) == len(rows) else [usual] * len(rows)


def _program(item: Item, response: str, form: str, lead: str) -> tuple[str, bool]:
    """The program to run, and whether there was any code; ``lead`` is the code that the model's prompt ended with."""
    if form == "program":
        return response, bool(response.strip())
    if form == "completion":
        return lead + response, bool(response.strip())
    return code_of(response, lead, item.data["tests"]["entry"])


def _tests(written: Mapping[str, Any], seconds: float | None) -> UnitTests:
    groups = tuple(Group(group["name"], group.get("code"), group.get("cases")) for group in written["groups"])
    return replace(UnitTests(**{**written, "groups": groups}), seconds=seconds)


def _passed(verdict: Verdict, groups: Sequence[str]) -> bool:
    return all(verdict.passed.get(group, False) for group in groups)


def _examples(
    samples: Sequence[tuple[Item, Sequence[Response]]],
    passed: Sequence[Sequence[bool]],
    ks: Sequence[int],
    task: str | None,
) -> list[Example]:
    """pass@1 of every sample, and every problem's estimate for larger k."""
    examples = []
    for (item, rows), results in zip(samples, passed, strict=True):
        name = task or item.task
        for row, result in zip(rows, results, strict=True) if 1 in ks else ():
            said = shortened(row.response)
            examples.append(Example(row.id, row.sample, name, "pass@1", float(result), item.cluster, said))
        for k in ks:
            if 1 < k <= len(rows):
                value = pass_at_k(len(rows), sum(results), k)
                examples.append(Example(item.id, 0, name, f"pass@{k}", value, item.cluster))
    return examples


def _metric(
    task: str, k: int, examples: Sequence[Example], samples: Sequence[tuple[Item, Sequence[Response]]]
) -> Metric:
    """The mean over problems; null where a problem has fewer than k samples."""
    if any(len(rows) < k for _, rows in samples):
        return Metric(task, f"pass@{k}", None, 0)
    return mean_metric(task, f"pass@{k}", [row for row in examples if row.metric == f"pass@{k}"])


def _reasons(verdicts: Sequence[Sequence[Verdict]]) -> dict[str, int]:
    """How often each reason not to pass was met."""
    found = Counter(verdict.why for row in verdicts for verdict in row)
    return {why: found[why] for why in ("wrong", "raised", "timed_out", "ended", "unreadable")}
