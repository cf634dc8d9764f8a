"""The judge stage: what one or several judges say of a policy's responses. No model is loaded here."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ablate.catalogs.judges import Template, judges_of_stage
from ablate.context import StageContext, read_json, write_json
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.data.records import message
from ablate.data.sources import DataFile, read_rows, root_files
from ablate.errors import DataError
from ablate.evaluation.items import ITEMS, PROTOCOL, Item, Response, artifact_folder, read_items, read_responses
from ablate.rewards.api import content_digest
from ablate.rewards.judge import AskedJudge, Judgement, open_judge, spoken

VERDICTS = "verdicts.jsonl"
REPORT = "judging.json"
Kind = Literal["single", "pairwise"]
_FASTCHAT = {
    ("single", False, False): "single-v1",
    ("single", False, True): "single-math-v1",
    ("single", True, False): "single-v1-multi-turn",
    ("single", True, True): "single-math-v1-multi-turn",
    ("pairwise", False, False): "pair-v2",
    ("pairwise", False, True): "pair-math-v1",
    ("pairwise", True, False): "pair-v2-multi-turn",
    ("pairwise", True, True): "pair-math-v1-multi-turn",
}
"""Names of FastChat's questions by kind, whether a second turn is asked about, and whether there is a reference."""


@dataclass(frozen=True)
class Question:
    """One thing to ask a judge: about which response, with what the template is filled, in which words (None: its own).

    Lengths of the response and the baseline's are in characters.
    """

    response: Response
    fields: Mapping[str, str]
    template: Template | None
    length: int
    baseline_length: int | None = None


def run(context: StageContext) -> dict[str, Any]:
    """Write ``verdicts.jsonl``, ``judging.json`` and ``protocol.json``.

    A row of verdicts is one judge's about one response: ``value`` (a rating, or the share of a win against the
    baseline's), ``problem`` where nothing could be read, and all that the judge said.
    """
    folder = artifact_folder(context.inputs["responses"])
    questions = build_questions(read_items(folder), read_responses(folder), context.config["kind"], _templates(context))
    rows: list[dict[str, Any]] = []
    reports = []
    for number, judge in enumerate(judges_of_stage(context.config["judges"], context.locations), start=1):
        asked = open_judge(context, judge)
        rows += judged(asked, questions, context.config["kind"], number)
        reports.append(asked.report())
    write_json_lines(context.output / VERDICTS, rows)
    shutil.copyfile(folder / ITEMS, context.output / ITEMS)
    write_json(context.output / REPORT, {"judges": reports})
    made = read_json(folder / PROTOCOL)
    write_json(context.output / PROTOCOL, {**made, "judged": judging_protocol(context.config)})
    unread = sum(row["problem"] is not None for row in rows)
    return {"verdicts": len(rows), "unread": unread, "answers": sum(report["answers"] for report in reports)}


def judging_protocol(config: Mapping[str, Any]) -> dict[str, Any]:
    """What tables and comparisons say of how responses were judged: the stage's config without the templates' words."""
    judges = []
    for written in config["judges"]:
        own = {name: value for name, value in written.items() if name != "template"}
        template = written.get("template")
        judges.append(own | ({} if template is None else {"template": content_digest(template)[:12]}))
    return {**config, "judges": judges}


def build_questions(
    items: Sequence[Item], responses: Sequence[Response], kind: Kind, templates: Mapping[str, Template] | None
) -> list[Question]:
    """One question for each response to each turn, in the responses' order.

    ``templates`` are FastChat's by name, chosen by turn and reference; None: each judge asks in its own words. Raises
    DataError for a pair whose item has no answer of a baseline.
    """
    by_id = {item.id: item for item in items}
    dialogues: dict[tuple[str, int], list[Response]] = defaultdict(list)
    for response in responses:
        dialogues[response.id, response.sample].append(response)
    questions = []
    for (name, _), answers in dialogues.items():
        item, said = by_id[name], sorted(answers, key=lambda response: response.turn)
        for turn, response in enumerate(said):
            template = None
            if templates is not None:
                template = templates[_FASTCHAT[kind, turn > 0, bool(item.data.get("reference"))]]
            questions.append(_question(item, said[: turn + 1], response, kind, template))
    return questions


def _question(
    item: Item, said: Sequence[Response], response: Response, kind: Kind, template: Template | None
) -> Question:
    """The question about the last response of those ``said`` so far."""
    turn = len(said) - 1
    asked = [item.prompt[-1]["content"], *item.followups]
    baseline, reference = item.data.get("baseline") or (), item.data.get("reference") or ()
    if kind == "pairwise" and len(baseline) <= turn:
        raise DataError(
            f"example {item.source or item.id} has no answer of a baseline to turn {turn + 1}",
            hint="a suite whose judging is pairwise reads a baseline's answers from one of its data files",
        )
    answers = [item.prefix + row.response for row in said]
    fields = {"question": asked[turn], "id": f"{item.id}-{response.sample}-{turn}"}
    fields |= _numbered("question", asked[: turn + 1]) | _numbered("ref_answer", reference)
    if kind == "single":
        fields |= {"prompt": _conversation(item, answers[:turn], asked[: turn + 1]), "response": answers[turn]}
        fields |= {"answer": answers[turn], **_numbered("answer", answers)}
        return Question(response, fields, template, len(answers[turn]))
    fields["prompt"] = spoken([*item.prompt[:-1], *(message("user", text) for text in asked[: turn + 1])])
    for side, texts in (("a", list(baseline[: turn + 1])), ("b", answers)):
        fields |= {f"response_{side}": "\n\n".join(texts), f"answer_{side}": texts[turn]}
        fields |= _numbered(f"answer_{side}", texts)
    return Question(response, fields, template, len(answers[turn]), len(baseline[turn]))


def _numbered(name: str, texts: Sequence[str]) -> dict[str, str]:
    return {f"{name}_{number}": text for number, text in enumerate(texts, start=1)}


def _conversation(item: Item, answers: Sequence[str], asked: Sequence[str]) -> str:
    messages = list(item.prompt)
    for answer, question in zip(answers, asked[1:], strict=True):
        messages += [message("assistant", answer), message("user", question)]
    return spoken(messages)


def judged(asked: AskedJudge, questions: Sequence[Question], kind: Kind, number: int = 1) -> list[dict[str, Any]]:
    """One row of verdicts for each question, in their order; questions in the same words are asked together.

    ``number`` says which judge of a panel it is, from 1.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for place, question in enumerate(questions):
        groups[id(question.template)].append(place)
    found: dict[int, Judgement] = {}
    for places in groups.values():
        own, template = [questions[place].fields for place in places], questions[places[0]].template
        judgements = asked.rate(own, template) if kind == "single" else asked.compare(own, template)
        found |= dict(zip(places, judgements, strict=True))
    name = f"{number}: {asked.judge.model}"
    return [_row(name, question, found[place]) for place, question in enumerate(questions)]


def _row(judge: str, question: Question, judgement: Judgement) -> dict[str, Any]:
    response = question.response
    return {
        "id": response.id,
        "task": response.task,
        "sample": response.sample,
        "turn": response.turn,
        "judge": judge,
        "value": judgement.value,
        "problem": judgement.problem,
        "consistent": judgement.is_consistent,
        "orders": list(judgement.orders),
        "values": [verdict.value for verdict in judgement.verdicts],
        "strong": [verdict.is_strong for verdict in judgement.verdicts],
        "texts": list(judgement.texts),
        "length": question.length,
        "baseline_length": question.baseline_length,
    }


def read_verdicts(folder: Path) -> list[dict[str, Any]]:
    """Rows of ``verdicts.jsonl``."""
    return read_json_lines(folder / VERDICTS)


def fastchat_templates(file: DataFile) -> dict[str, Template]:
    """The questions of a file in FastChat's form (``judge_prompts.jsonl``), by name; DataError for a row without."""
    found = {}
    for number, row in read_rows(file):
        absent = [
            name for name in ("name", "type", "system_prompt", "prompt_template") if not isinstance(row.get(name), str)
        ]
        if absent:
            raise DataError(f"{file.path}: row {number} has no {absent[0]}: these are no questions in FastChat's form")
        if row["type"] not in ("single", "pairwise"):
            continue
        found[row["name"]] = Template(
            name=row["name"],
            kind=row["type"],
            system=row["system_prompt"],
            user=row["prompt_template"],
            answer="rating" if row["type"] == "single" else "verdict",
            lowest=1.0 if row["type"] == "single" else 0.0,
            source=file.name,
        )
    if missing := [name for name in _FASTCHAT.values() if name not in found]:
        raise DataError(f"{file.path} lacks the question {missing[0]!r}", hint=f"it has: {', '.join(found)}")
    return found


def _templates(context: StageContext) -> dict[str, Template] | None:
    digests = context.config.get("files")
    if not digests:
        return None
    root = context.locations.get("root")
    (file,) = root_files(digests, Path(root) if root else None)
    return fastchat_templates(file)
