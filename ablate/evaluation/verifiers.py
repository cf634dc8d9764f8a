"""Graders as rewards: the prompts that are trained on carry what their grader reads."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablate.catalogs.converters import CHECK_COLUMNS
from ablate.catalogs.rewards import Verifier, find_reward
from ablate.context import Resources, import_function
from ablate.data.examples import prompt_id
from ablate.errors import DataError, StageError
from ablate.evaluation.graders.answers import last_number
from ablate.evaluation.grading import (
    Evidence,
    Example,
    Grader,
    Grades,
    HeldEvidence,
    mean_metrics,
    response_health,
    shortened,
)
from ablate.evaluation.items import Item, Response
from ablate.evaluation.programs import parsed
from ablate.models.chat import Messages
from ablate.sandbox.judge import Group, UnitTests


@dataclass(frozen=True)
class GradedReward:
    """One metric of a grader as the score of a response; ``items`` are those of the prompts, by the prompt's id."""

    items: Mapping[str, Item]
    grade: Grader
    verifier: Verifier
    resources: Resources = field(default_factory=Resources)

    def score(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[float | None]:
        """The metric for each response; StageError for a prompt that has no item."""
        if not responses:
            return []
        rows = [
            Response(self._item(prompt).id, self._item(prompt).task, place, "", response, "eos", 0)
            for place, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
        ]
        by_id = {item.id: item for item in self.items.values()}
        answered = {row.id: by_id[row.id] for row in rows}
        evidence = HeldEvidence(Path(), Path(), resources=self.resources, held_items=answered, held_responses=rows)
        graded = self.grade(evidence, self.verifier.options).examples
        values = {example.sample: example.value for example in graded if example.metric == self.verifier.metric}
        return [values.get(place) for place in range(len(rows))]

    def _item(self, prompt: Messages) -> Item:
        name = prompt_id(prompt)
        if name not in self.items:
            raise StageError(f"there is nothing to check responses to this prompt by: {prompt[-1]['content'][:80]!r}")
        return self.items[name]


def open_verifier(name: str, rows: Sequence[Mapping[str, Any]], resources: Resources | None = None) -> GradedReward:
    """The verifier called ``name`` over the ``rows`` of a prompts file, whose ``checks`` it reads."""
    verifier = find_reward(name).verifier
    if verifier is None:
        raise StageError(f"{name} is no verifier")
    grade: Grader = import_function(verifier.code.entry, f"the grader of the reward {name}")
    return GradedReward(
        {row["id"]: item_of(row, verifier, name) for row in rows}, grade, verifier, resources or Resources()
    )


def item_of(row: Mapping[str, Any], verifier: Verifier, name: str) -> Item:
    """The item that a row of a prompts file describes, as the verifier's grader reads it."""
    checks, wanted = row.get("checks") or {}, CHECK_COLUMNS[verifier.checks]
    if missing := [column for column in wanted if column not in checks]:
        raise DataError(
            f"prompt {row['id']} lacks {', '.join(missing)}, which the reward {name} reads",
            hint=f"a set of prompts has them with converter: verifiable_prompts, checks: {verifier.checks}",
        )
    prompt = tuple(row["prompt"])
    data = {**checks, "prompt": list(prompt) if verifier.checks == "pocket" else prompt[-1]["content"]}
    if verifier.checks == "answer":
        answer = last_number(str(checks["answer"]).split("####")[-1])
        if answer is None:
            raise DataError(
                f"the answer to prompt {row['id']} is {checks['answer']!r}, which holds no number",
                hint="an answer is a number, or a solution that ends with #### and a number",
            )
        data["answer"] = answer
    if verifier.checks == "ifeval":
        data["kwargs"] = _arguments(row["id"], checks["instruction_id_list"], checks["kwargs"])
    if verifier.checks == "tests":
        data |= {"lead": "", "tests": _unit_tests(row["id"], checks["tests"]).as_json()}
    return Item(row["id"], str(checks.get("skill", verifier.checks)), prompt, data=data)


def _arguments(name: str, instructions: Any, written: Any) -> list[dict[str, Any]]:
    """Arguments of a prompt's instructions: one mapping each, as they are or as JSON text."""
    try:
        found = json.loads(written) if isinstance(written, str) else written
    except json.JSONDecodeError as error:
        raise DataError(f"prompt {name}: kwargs are no JSON: {written[:80]!r}") from error
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise DataError(f"prompt {name}: kwargs are a list of mappings, one an instruction, not {str(found)[:80]!r}")
    if len(found) != len(instructions):
        raise DataError(f"prompt {name} has {len(instructions)} instructions and {len(found)} kwargs")
    return found


def _unit_tests(name: str, written: Any) -> UnitTests:
    """Tests of a prompt: Python statements, as a text or a list; the names that are not theirs are the program's."""
    parts = [written] if isinstance(written, str) else written
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise DataError(f"prompt {name}: tests are a text or a list of texts, not {str(written)[:80]!r}")
    tree = parsed(code := "\n".join(parts))
    if tree is None:
        raise DataError(f"prompt {name}: the tests are no Python: {code[:80]!r}")
    if not any(isinstance(node, ast.Assert | ast.Raise) for node in ast.walk(tree)):
        raise DataError(f"prompt {name}: the tests assert nothing: {code[:80]!r}", hint="any program would pass them")
    return UnitTests((Group("tests", code=code),))


def exact_answer(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """Metric ``exact_match``: 1 where the last number of a response equals the item's answer, a decimal, else 0."""
    examples, failed = [], 0
    for row in evidence.responses:
        number = last_number(row.response)
        failed += number is None
        value = float(number == evidence.items[row.id].data["answer"])
        examples.append(Example(row.id, row.sample, row.task, "exact_match", value, response=shortened(row.response)))
    health = {**response_health(evidence.responses), "extraction_failed": failed}
    return Grades(examples, mean_metrics(examples), health)


def ifeval(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """IFEval's strict check of each response: 1 where all its instructions are followed.

    ``options.sentences`` names the splitter of sentences and words (a key of ``SENTENCES``).
    """
    from ablate.evaluation.sentences import checker_splitter, import_checker, seeded_checker

    import_checker()
    from lm_eval.tasks.ifeval.utils import InputExample, test_instruction_following_strict

    examples = []
    with checker_splitter(options["sentences"]), seeded_checker():
        for row in evidence.responses:
            data = evidence.items[row.id].data
            asked = InputExample(0, data["instruction_id_list"], data["prompt"], data["kwargs"])
            kept = test_instruction_following_strict(asked, row.response).follow_all_instructions
            said = shortened(row.response)
            examples.append(Example(row.id, row.sample, row.task, "prompt_level_strict_acc", float(kept), None, said))
    return Grades(examples, mean_metrics(examples), response_health(evidence.responses))
