"""Grade outputs from anywhere: a file's rows joined with a suite's items, its grader in memory, a report."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablate.catalogs.digests import sha256_file
from ablate.catalogs.suite_code import find_entry, resolve_entry
from ablate.catalogs.suites import Suite
from ablate.context import Resources, import_function
from ablate.data.json_lines import write_json_lines
from ablate.errors import DataError, UnknownNameError, UsageError
from ablate.evaluation.baselines import Baseline, baseline_outputs
from ablate.evaluation.evaluate import write_examples
from ablate.evaluation.formats import read_submission
from ablate.evaluation.formats.pair_scores import read_pair, read_sides
from ablate.evaluation.formats.rows import RESPONSES
from ablate.evaluation.formats.submission import Output, ReadOptions, Submission
from ablate.evaluation.grading import Evidence, Example, Grader, Grades, HeldEvidence
from ablate.evaluation.items import Finish, Item, Likelihoods, Response
from ablate.evaluation.joining import Joined, join
from ablate.evaluation.lmeval import task_names
from ablate.evaluation.questions import bare_texts
from ablate.evaluation.report import has_metric, report
from ablate.evaluation.suite_items import drawn, whole_suite
from ablate.models.chat import split_reasoning
from ablate.rewards.pairs import Candidates, Pair

_FINISHES: dict[str, Finish] = {"length": "length", "max_tokens": "length", "too_long": "too_long"}


@dataclass(frozen=True)
class Request:
    """What to grade, a file or a baseline, and how to read it.

    ``judges`` names models (folders, or fetched ids of the hub) for the columns of scores that a grader reads.
    """

    suite: Suite
    path: Path | None = None
    baseline: Baseline | None = None
    root: Path | None = None
    read: str | None = None
    options: ReadOptions = field(default_factory=ReadOptions)
    by_order: bool = False
    partial: bool = False
    judges: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)


def grade(request: Request, examples: Path | None = None) -> dict[str, Any]:
    """The report of a file's outputs under a suite's grader: suite, score, metrics, health, protocol.

    No model is run. ``examples`` names a file (``.parquet`` or ``.jsonl``) for the value of every example. Raises
    ``DataError`` for a file that can't be read, rows that are not the suite's, and a data root without its files.
    """
    if examples is not None and examples.suffix not in (".parquet", ".jsonl"):
        raise UsageError(f"{examples} is neither .parquet nor .jsonl", hint="examples are written as one of the two")
    suite = request.suite
    submission = _read(request)
    if submission is not None and (alone := _graded_alone(request, submission)) is not None:
        if examples is not None:
            _write(examples, alone.examples)
        return {"suite": suite.name, **report(alone, suite.grading_config(), _account(submission, "subset"))}
    with tempfile.TemporaryDirectory() as folder:
        evidence, joined, asked = read_evidence(request, Path(folder), submission)
        evidence = replace(_judged(request, evidence), resources=request.resources)
        run: Grader = import_function(resolve_entry("grader", suite.grader), "the grader of this suite")
        grades = run(evidence, suite.options)
    _check_judged(request, grades)
    if examples is not None:
        _write(examples, grades.examples)
    return outputs_report(suite, grades, evidence, joined, asked)


def _check_judged(request: Request, grades: Grades) -> None:
    """Raise UsageError where a suite's score is made of a judge's answers and the outputs have none."""
    suite = request.suite
    if suite.judging is not None and grades.metrics and not has_metric(grades.metrics, suite.primary):
        outputs = request.path or "what is graded"
        raise UsageError(
            f"{suite.name} is graded by a judge's answers, and {outputs} has none",
            hint=f"`ablate judge {suite.name} FILE` asks the suite's judge, with --judge another",
        )


def outputs_report(
    suite: Suite, grades: Grades, evidence: Evidence, joined: Joined, asked: Sequence[Any]
) -> dict[str, Any]:
    """The report of a file's outputs: beside what the grader found, how much of the suite the file has and says."""
    made = report(grades, suite.grading_config(), evidence.protocol)
    known = _known(evidence.responses if evidence.has_responses else (), joined, asked)
    return {"suite": suite.name, **made, "health": {**made["health"], **known}}


def read_evidence(
    request: Request, scratch: Path, submission: Submission | None = None
) -> tuple[HeldEvidence, Joined, list[Any]]:
    """What a grader reads of outputs, how their rows were found, and all examples that the suite asks.

    The outputs are those of a ``submission``, or of the request's file or baseline.
    """
    suite = request.suite
    grader = find_entry("grader", suite.grader)
    whole = whole_suite(suite, request.root, scratch)
    asked = drawn(suite, whole)
    submission = submission or _read(request) or _baseline(request, asked)
    joined = join(
        submission,
        asked,
        whole,
        lambda made: bare_texts(suite, made),
        by_order=request.by_order,
        partial=request.partial,
        repeated=suite.decoding.samples > 1 or grader.repeated,
        marks=grader.marks,
    )
    paths = suite.paths(request.root)
    made = {"made": suite.data_config({name: sha256_file(path) for name, path in paths.items()})}
    evidence = gathered(suite, asked, joined, submission, scratch, made | _account(submission, joined.by))
    return replace(evidence, files=paths), joined, asked


def _read(request: Request) -> Submission | None:
    """The outputs of the request's file; None where a baseline is to be graded."""
    if (request.path is None) == (request.baseline is None):
        hint = "ablate grade SUITE FILE, or --baseline NAME"
        raise UsageError("give either a file of outputs or a baseline", hint=hint)
    return None if request.path is None else read_submission(request.path, request.read, request.options)


def _baseline(request: Request, asked: Sequence[Item] | Sequence[Pair] | Sequence[Candidates]) -> Submission:
    assert request.baseline is not None
    return baseline_outputs(request.suite, asked, request.baseline)


def gathered(
    suite: Suite,
    asked: Sequence[Item] | Sequence[Pair],
    joined: Joined,
    submission: Submission,
    scratch: Path,
    protocol: Mapping[str, Any],
) -> HeldEvidence:
    """What the suite's grader reads: items, and of their rows responses, likelihoods, scores and all else."""
    there = [made for made in asked if made.id in joined.outputs]
    items = {made.id: made for made in there if isinstance(made, Item)}
    tasks = task_names(suite.prompts.options) if suite.prompts.name == "lm-eval" else None
    return HeldEvidence(
        scratch,
        scratch,
        protocol,
        held_items=items,
        held_responses=[row for item in items.values() for row in _responses(item, joined.outputs[item.id], tasks)],
        held_likelihoods=[row for item in items.values() for row in _likelihoods(item, joined.outputs[item.id], tasks)],
        held_scores=_scores(submission, [made for made in there if isinstance(made, Pair | Candidates)], joined),
        scale=Evidence.scale if suite.judging is None else suite.judging.scale,
        held_stored={name: [output.facts for output in rows] for name, rows in joined.outputs.items()},
        lacking=f"{submission.path} has the columns {', '.join(submission.columns) or '(none more)'}; "
        f"responses are read from {', '.join(RESPONSES)}, or from the column that --response names",
    )


def _judged(request: Request, evidence: HeldEvidence) -> HeldEvidence:
    """The evidence with the scores of the request's judges: a response's in the column that the judge is named by.

    Rows of a file that hold several responses each are about none of them, and are left out where judges are asked.
    """
    known = find_entry("grader", request.suite.grader).judges
    if not request.judges:
        return evidence
    samples = Counter(response.id for response in evidence.responses)
    stored: dict[str, list[Mapping[str, Any]]] = {
        name: list(rows) if len(rows) == samples[name] else [{}] * samples[name]
        for name, rows in evidence.stored.items()
    }
    for column, model in request.judges.items():
        if column not in known:
            raise UnknownNameError(f"judge of suite {request.suite.name!r}", column, known)
        ask = import_function(known[column], "the judge of this suite")
        scores = ask(model, evidence.items, evidence.responses, request.resources)
        for response, score in zip(evidence.responses, scores, strict=True):
            rows = stored[response.id]
            rows[response.sample] = {**rows[response.sample], column: score}
    return replace(evidence, held_stored=stored, protocol={**evidence.protocol, "judges": dict(request.judges)})


def _responses(item: Item, rows: Sequence[Output], tasks: Sequence[str] | None) -> list[Response]:
    """An item's responses, numbered as samples; under lm-eval once for each of its tasks."""
    if item.followups and any(output.texts is not None for output in rows):
        return _turns(item, rows)
    said = [(output, text) for output in rows for text in output.texts or ()]
    return [
        _response(item.id, task, sample, output, text)
        for task in tasks or (item.task,)
        for sample, (output, text) in enumerate(said)
    ]


def _turns(item: Item, rows: Sequence[Output]) -> list[Response]:
    """The responses to an item of several user turns: the texts of a row are those of its turns, a row is a sample."""
    for output in rows:
        if len(output.texts or ()) != 1 + len(item.followups):
            raise DataError(
                f"row {output.row} has {len(output.texts or ())} responses to the {1 + len(item.followups)} turns of "
                f"example {item.source}",
                hint="give a list of responses, one a turn",
            )
    return [
        _response(item.id, item.task, sample, output, text, turn)
        for sample, output in enumerate(rows)
        for turn, text in enumerate(output.texts or ())
    ]


def _response(name: str, task: str, sample: int, output: Output, text: str, turn: int = 0) -> Response:
    reasoning, answer = split_reasoning("", text)
    return Response(name, task, sample, "", answer, _finish(output), _tokens(output), reasoning, turn)


def _finish(output: Output) -> Finish:
    return _FINISHES.get(str(output.facts.get("finish", output.facts.get("finish_reason"))), "eos")


def _tokens(output: Output) -> int:
    value = output.facts.get("tokens")
    return value if isinstance(value, int) else 0


def _likelihoods(item: Item, rows: Sequence[Output], tasks: Sequence[str] | None) -> list[Likelihoods]:
    """Log-likelihoods of an item's choices from the column ``logprobs``: a list, or one for each task of lm-eval."""
    found = []
    for output in rows:
        value = output.facts.get("logprobs")
        for task in tasks or (item.task,):
            own = value.get(task) if isinstance(value, Mapping) else value
            if isinstance(own, list) and (not item.choices or len(own) == len(item.choices)):
                numbers = tuple(float(number) for number in own)
                found.append(Likelihoods(item.id, task, "", numbers, (False,) * len(numbers)))
    return found


def _scores(submission: Submission, asked: Sequence[Pair | Candidates], joined: Joined) -> list[dict[str, Any]]:
    """Rows of pairs with the scores of their responses, as a score stage writes them, or with a verdict.

    Empty where the file has neither for one of them.
    """
    rows = []
    for one in asked:
        row = joined.outputs[one.id][0]
        if isinstance(one, Candidates):
            sides = read_sides(submission.path, row, len(one.chosen))
        else:
            sides = read_pair(submission.path, row)
        if sides is None:
            return []
        rows.append({**one.facts(), **sides})
    return rows


def _graded_alone(request: Request, submission: Submission) -> Grades | None:
    """Grades of a file that says all itself, where the suite's grader takes such files; None where rows are joined."""
    suite = request.suite
    function = find_entry("grader", suite.grader).alone
    if function is None:
        return None
    try:
        suite.paths(request.root)
        joinable = True
    except DataError:
        joinable = False
    grades: Grades | None = import_function(function, "the grader of files")(
        submission, suite.options, joinable=joinable, partial=request.partial
    )
    return grades


def _account(submission: Submission, joined_by: str) -> dict[str, Any]:
    """What the protocol says of the file."""
    path = submission.path
    digest = sha256_file(path) if path.is_file() else None
    return {"outputs": {"file": path.name, "sha256": digest, "joined": joined_by, **submission.about}}


def _known(responses: Sequence[Response], joined: Joined, asked: Sequence[Any]) -> dict[str, Any]:
    """Health of a file: how many of the suite's examples it has; null for what it does not say of its responses."""
    outputs = [output for rows in joined.outputs.values() for output in rows]
    finishes = any("finish" in output.facts or "finish_reason" in output.facts for output in outputs)
    tokens = any(isinstance(output.facts.get("tokens"), int) for output in outputs)
    counts: dict[str, Any] = {"missing": len(asked) - len(joined.outputs), "left_out": joined.left_out}
    if responses and not finishes:
        counts |= {"truncated": None, "no_eos": None, "too_long": None}
    if responses and not tokens:
        counts["mean_length"] = None
    if responses:
        counts["mean_characters"] = sum(len(row.response) for row in responses) / len(responses)
    return counts


def _write(path: Path, examples: Sequence[Example]) -> None:
    if path.suffix == ".parquet":
        write_examples(path, examples)
    else:
        write_json_lines(path, [vars(example) for example in examples])
