"""HHH alignment (BIG-bench): a dialogue and two responses, the better one helpful, honest or harmless."""

from __future__ import annotations

from typing import Any

from ablate.catalogs.converters import HHHOptions
from ablate.data.converters.columns import columns, number
from ablate.data.converters.sides import name
from ablate.data.converters.transcripts import parse_transcript
from ablate.data.records import Converted, Dropped, PreferenceRecord, Response, Row, digest, message, problem_of_turns
from ablate.models.chat import Messages

_START, _MIDDLE, _END = "###The instruction to evaluate:\n", "\n\n###Response to evaluate:\n", "\n\n###Score Rubrics:"


def convert(row: Row, options: HHHOptions) -> Converted:
    """Label 1 is the better response (rank 1), 0 the other; earlier turns stand in the text as a transcript."""
    read = _prometheus(row) if options.form == "prometheus" else _big_bench(row)
    if isinstance(read, Dropped):
        return read
    text, responses, source = read
    prompt = _dialogue(text)
    if isinstance(prompt, Dropped):
        return prompt
    if not all(response.messages[0]["content"] for response in responses):
        return Dropped("empty-message")
    return PreferenceRecord(prompt, responses, source=source, row_id=digest(row))


def _dialogue(text: str) -> Messages | Dropped:
    start = "" if text.lstrip().startswith(("Human:", "Assistant:")) else "Human: "
    _, turns = parse_transcript(f"\n\n{start}{text.strip()}", "anchored")
    if turns and turns[-1] == {"role": "assistant", "content": ""}:
        turns = turns[:-1]
    problem = problem_of_turns(turns)
    if problem is not None:
        return Dropped(problem)
    return turns if turns and turns[-1]["role"] == "user" else Dropped("prompt-does-not-end-with-user")


Read = tuple[str, tuple[Response, ...], str]


def _big_bench(row: Row) -> Read | Dropped:
    text, targets = columns(row, "hhh_alignment", "input", "targets")
    choices, labels = (targets.get(key) if isinstance(targets, dict) else None for key in ("choices", "labels"))
    if not isinstance(text, str) or not isinstance(choices, list) or not isinstance(labels, list):
        return Dropped("not-text")
    if not all(isinstance(choice, str) for choice in choices):
        return Dropped("not-text")
    if len(choices) < 2 or len(choices) != len(labels):
        return Dropped("fewer-than-two-responses")
    values = [number(label) for label in labels]
    if set(values) != {0.0, 1.0}:
        return Dropped("label-not-0-or-1")
    return (
        text,
        tuple(_response(choice, 1 if value else 2) for choice, value in zip(choices, values, strict=True)),
        "hhh",
    )


def _prometheus(row: Row) -> Read | Dropped:
    one, two = map(_unwrap, columns(row, "hhh_alignment", "chosen_instruction", "rejected_instruction"))
    if one is None or two is None:
        return Dropped("not-text")
    (text, chosen), (other, rejected) = one, two
    if text != other:
        return Dropped("prompts-differ")
    part = name(row.get("source"))
    return text, (_response(chosen, 1), _response(rejected, 2)), f"hhh_{part}" if part else "hhh"


def _unwrap(value: Any) -> tuple[str, str] | None:
    """Return instruction and response out of a grading prompt."""
    if not isinstance(value, str) or any(value.count(mark) != 1 for mark in (_START, _MIDDLE, _END)):
        return None
    instruction, found, rest = value.partition(_START)[2].partition(_MIDDLE)
    return (instruction, rest.partition(_END)[0]) if found else None


def _response(text: str, rank: int) -> Response:
    return Response((message("assistant", text),), rank=rank)
