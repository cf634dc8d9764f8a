"""The respond stage: a policy's responses to the prompts of a set, as records that have no labels yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ablate.context import StageContext, write_json
from ablate.data.converters.native import as_row
from ablate.data.examples import prompt_id
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.data.records import PreferenceRecord, Response, draw, message
from ablate.errors import StageError
from ablate.evaluation.policy import Answer, Policy, open_policy
from ablate.evaluation.sampling import Sampling
from ablate.models.chat import Messages, plain_text
from ablate.training.seeding import derive_seed

WRITER, GOLD = "policy", "gold"
"""What the records call those who wrote the responses: the policy, and whoever wrote the set's own."""


def run(context: StageContext) -> dict[str, Any]:
    """Write ``records.jsonl`` and ``report.json``: ``n`` sampled responses to each of ``prompts``.

    A response that is empty, or ends at the limit or the context instead of with the end of the turn, is left out;
    a prompt that keeps fewer than two is dropped. With the input ``gold`` (pairs) the chosen response to a prompt comes
    last; with ``part`` and ``parts`` only the prompts of one part are used, drawn by content.
    """
    config = context.config
    policy = open_policy(context.inputs["policy"], context.resources, chat=config["chat"])
    rows = _of_part(read_json_lines(context.inputs["prompts"]), config)
    gold = _gold(context)
    prompts: list[Messages] = [tuple(row["prompt"]) for row in rows]
    rendered = [text for prompt in prompts for text in [_rendered(policy, prompt)] * config["n"]]
    answers = policy.generate(
        rendered,
        Sampling(
            config["max_new_tokens"],
            temperature=config["temperature"],
            top_p=config["top_p"],
            seed=derive_seed(config["seed"], "responses"),
        ),
        progress=lambda done, total: context.events.progress(done, total, "responses"),
    )
    finishes: Counter[str] = Counter()
    records = []
    for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        own = answers[index * config["n"] : (index + 1) * config["n"]]
        kept = (*_responses(own, finishes), *gold.get(row["id"], ()))
        if len(kept) >= 2:
            records.append(PreferenceRecord(prompt, kept, source=row["source"], row_id=row["id"]))
    if not records:
        raise StageError(
            f"no prompt of {len(prompts)} has two finished responses; responses ended as: {dict(finishes)}",
            hint="raise max_new_tokens, or check that the policy ends its turns",
        )
    write_json_lines(context.output / "records.jsonl", map(as_row, records))
    report = {
        "in": len(prompts),
        "kept": len(records),
        "dropped": {"fewer-than-two-responses": len(prompts) - len(records)},
        "responses": {"in": len(answers), "ended": dict(sorted(finishes.items()))},
        "mean_tokens": sum(answer.tokens for answer in answers) / len(answers),
    }
    write_json(context.output / "report.json", report)
    return report


def _of_part(rows: list[dict[str, Any]], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = config.get("parts", 1)
    if parts == 1:
        return rows
    drawn = sorted(rows, key=lambda row: draw(config["seed"], "part", row["id"]))
    own = {row["id"] for row in drawn[config["part"] :: parts]}
    if not own:
        raise StageError(f"{len(rows)} prompts can't be drawn into {parts} parts", hint="lower responses.parts")
    return [row for row in rows if row["id"] in own]


def _gold(context: StageContext) -> dict[str, tuple[Response]]:
    """Return the chosen response to each prompt of the input ``gold``, by the prompt's id; of several the first."""
    found: dict[str, tuple[Response]] = {}
    for row in read_json_lines(context.inputs["gold"]) if "gold" in context.inputs else ():
        found.setdefault(prompt_id(row["prompt"]), (Response(tuple(row["chosen"]), model=GOLD),))
    return found


def _rendered(policy: Policy, prompt: Messages) -> str:
    return policy.render(prompt) if policy.chat else plain_text(prompt)


def _responses(answers: list[Answer], finishes: Counter[str]) -> tuple[Response, ...]:
    kept = []
    for answer in answers:
        text = answer.text.strip()
        ended = answer.finish if text or answer.finish != "eos" else "empty"
        finishes[ended] += 1
        if ended == "eos":
            kept.append(Response((message("assistant", text),), model=WRITER))
    return tuple(kept)
