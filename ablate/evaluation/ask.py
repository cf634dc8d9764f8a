"""Ask a judge without an experiment: about outputs from anywhere, or about pairs whose better response people named."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablate.catalogs.digests import sha256_file
from ablate.catalogs.judges import Panel, Template, find_template
from ablate.catalogs.suite_code import find_entry, resolve_entry
from ablate.catalogs.suite_parts import refuse_own_judgement
from ablate.catalogs.suites import Suite
from ablate.context import EventLog, StageContext, import_function, write_json
from ablate.data.json_lines import write_json_lines
from ablate.data.sources import DataFile
from ablate.errors import Location, UsageError
from ablate.evaluation.formats.submission import ReadOptions
from ablate.evaluation.grade import Request, outputs_report, read_evidence
from ablate.evaluation.grading import Example, Grader, Grades, HeldEvidence, mean_metrics
from ablate.evaluation.judging import (
    REPORT,
    VERDICTS,
    build_questions,
    fastchat_templates,
    judged,
    judging_protocol,
)
from ablate.evaluation.report import report
from ablate.evaluation.suite_items import drawn, whole_suite
from ablate.rewards.judge import AskedJudge, Judgement, open_judge, spoken
from ablate.rewards.pairs import Pair


@dataclass(frozen=True)
class Asked:
    """What to ask whom: ``path`` holds outputs, None for a suite of pairs; ``answers`` is where answers are kept."""

    suite: Suite
    answers: Path
    panel: Panel | None = None
    path: Path | None = None
    root: Path | None = None
    options: ReadOptions = field(default_factory=ReadOptions)
    partial: bool = False


def ask(asked: Asked) -> dict[str, Any]:
    """The report of a suite's grader over a judge's verdicts, or of a judge's agreement with labels of pairs.

    Raises ``UsageError`` for a suite without a judge, and for a file where pairs are asked about.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if asked.suite.engine == "pairs":
            if asked.path is not None:
                raise UsageError(
                    f"suite {asked.suite.name!r} has both responses of its pairs: {asked.path} would not be read",
                    hint="leave the file out; a file of verdicts is graded by `ablate grade`",
                )
            return _agreement(asked, scratch)
        if asked.suite.judging is None:
            raise UsageError(f"suite {asked.suite.name!r} has no judge", hint="grade its outputs: `ablate grade`")
        if asked.path is None:
            raise UsageError(f"suite {asked.suite.name!r} judges outputs: name a file of them")
        return _judged(asked, asked.path, scratch)


def _judged(asked: Asked, path: Path, scratch: Path) -> dict[str, Any]:
    suite = asked.suite
    if asked.panel is not None:
        suite = suite.judged_by(asked.panel, place=Location(file="--judge"))
    assert suite.judging is not None
    request = Request(suite, path, root=asked.root, options=asked.options, partial=asked.partial)
    evidence, joined, whole = read_evidence(request, scratch)
    templates: dict[str, Template] | None = None
    digests: dict[str, str] = {}
    if (name := suite.judging.file) is not None:
        templates = fastchat_templates(DataFile(name, evidence.files[name]))
        digests = {name: sha256_file(evidence.files[name])}
    config = suite.judging.config(digests)
    questions = build_questions(list(evidence.items.values()), evidence.responses, config["kind"], templates)
    rows, reports = [], []
    for number, judge in enumerate(suite.judging.asked, start=1):
        own = open_judge(_context(asked, scratch), judge)
        rows += judged(own, questions, config["kind"], number)
        reports.append(own.report())
    write_json_lines(scratch / VERDICTS, rows)
    write_json(scratch / REPORT, {"judges": reports})
    protocol = {**evidence.protocol, "judged": judging_protocol(config)}
    grade: Grader = import_function(resolve_entry("grader", suite.grader), "the grader of this suite")
    evidence = replace(evidence, judging=scratch, protocol=protocol)
    return outputs_report(suite, grade(evidence, suite.options), evidence, joined, whole)


def _agreement(asked: Asked, scratch: Path) -> dict[str, Any]:
    """How often judges name the response that people named; a tie counts half, what can't be read not at all.

    Where the suite's grader reads verdicts it has its own words for the question, and its metrics are the report.
    """
    suite = asked.suite
    if asked.panel is None:
        raise UsageError(f"suite {suite.name!r} has labels of people: name the judge to compare with them (--judge)")
    refuse_own_judgement(asked.panel, Location(file="--judge"))
    template = find_template(find_entry("grader", suite.grader).judge or "compare")
    made: list[Pair] = drawn(suite, whole_suite(suite, asked.root, scratch))
    if other := next((one for one in made if not isinstance(one, Pair)), None):
        raise UsageError(f"suite {suite.name!r} has several responses to a prompt ({other.id}): a judge compares two")
    fields = [
        {"id": pair.id, "prompt": spoken(pair.prompt), "response_a": pair.rejected, "response_b": pair.chosen}
        for pair in made
    ]
    reports, by_judge, asks = [], [], []
    for judge in asked.panel.judges:
        if judge.positions == "fixed":
            raise UsageError(
                f"judge {judge.name} is always shown one response first, here the worse one",
                hint="positions: swap, or random",
            )
        own: AskedJudge = open_judge(_context(asked, scratch), judge.asks(template))
        by_judge.append(own.compare(fields))
        reports.append(own.report())
        asks.append(own.judge.identity())
    if find_entry("grader", suite.grader).judge is not None:
        return _verdicts_graded(asked, made, by_judge, {"judges": reports}, {"judged": asks})
    examples = [
        example
        for number, judgements in enumerate(by_judge)
        for pair, judgement in zip(made, judgements, strict=True)
        for example in _agreement_examples(pair, number, judgement)
    ]
    health = {"judges": reports, "unread": sum(sum(own["unread"].values()) for own in reports)}
    grades = Grades(examples, mean_metrics(examples), health)
    config = {"grader": "agreement with labels", "options": {}, "primary": "agreement"}
    return {"suite": suite.name, **report(grades, config, {"judged": asks})}


def _verdicts_graded(
    asked: Asked,
    made: Sequence[Pair],
    by_judge: Sequence[Sequence[Judgement]],
    health: Mapping[str, Any],
    protocol: Mapping[str, Any],
) -> dict[str, Any]:
    """The suite's own metrics of verdicts: of several judges the mean, without those that could not be read."""
    rows = []
    for place, pair in enumerate(made):
        values = [own[place].value for own in by_judge]
        read = [value for value in values if value is not None]
        rows.append({**pair.facts(), "result": sum(read) / len(read) if read else None})
    grade: Grader = import_function(resolve_entry("grader", asked.suite.grader), "the grader of this suite")
    evidence = HeldEvidence(asked.answers, asked.answers, protocol, held_scores=rows)
    found = report(grade(evidence, asked.suite.options), asked.suite.grading_config(), protocol)
    return {"suite": asked.suite.name, **found, "health": {**found["health"], **health}}


def _agreement_examples(pair: Pair, sample: int, judgement: Judgement) -> list[Example]:
    value = judgement.value
    found: Mapping[str, float | None] = {
        "agreement": 0.0 if value is None else value,
        "strict_agreement": float(value is not None and value > 0.5),
        "parsed": float(value is not None),
        "consistent": None if judgement.is_consistent is None else float(judgement.is_consistent),
    }
    subset = pair.subset or pair.task
    return [Example(pair.id, sample, subset, name, own) for name, own in found.items() if own is not None]


def _context(asked: Asked, scratch: Path) -> StageContext:
    events = EventLog(scratch / "events.jsonl")
    locations = {"answers": str(asked.answers.absolute())}
    return StageContext("judge", {}, {}, scratch, scratch, events, locations)
