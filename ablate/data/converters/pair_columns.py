"""Any set with a prompt and two responses in columns of its own, described in YAML."""

from __future__ import annotations

from typing import Any

from ablate.catalogs.converters import ColumnsOptions
from ablate.data.converters.columns import columns, number
from ablate.data.converters.sides import name, read_messages, two_responses, user_prompt
from ablate.data.records import Converted, Dropped, Row, problem_of_turns
from ablate.models.chat import Messages


def convert(row: Row, options: ColumnsOptions) -> Converted:
    """Read the columns that the options name; a label that is neither of the two values gives no preference."""
    value, *sides = columns(row, "columns", options.prompt, options.first, options.second)
    prompt = _prompt(value, *(_optional(row, column) for column in (options.input, options.system)))
    if isinstance(prompt, Dropped):
        return prompt
    texts = []
    for side in sides:
        text = _completion(side)
        if isinstance(text, Dropped):
            return text
        texts.append(text)
    ranks = _ranks(row, options)
    if ranks is None:
        return Dropped("no-preference")
    return two_responses(
        row,
        prompt,
        texts,
        source=name(_optional(row, options.source)) or "columns",
        ranks=ranks,
        scores=[number(_optional(row, column)) for column in (options.first_score, options.second_score)],
        language=_optional(row, options.language),
    )


def _optional(row: Row, column: str | None) -> Any:
    return columns(row, "columns", column)[0] if column is not None else None


def _ranks(row: Row, options: ColumnsOptions) -> tuple[int, int] | None:
    if options.label is None:
        return (1, 2)
    label = _plain(_optional(row, options.label))
    return {_plain(options.first_preferred): (1, 2), _plain(options.second_preferred): (2, 1)}.get(label)


def _plain(value: Any) -> str:
    """Return a label as text; 1, 1.0 and "1" are one label."""
    found = number(value)
    return str(value) if found is None else repr(found)


def _prompt(value: Any, context: Any, system: Any) -> Messages | Dropped:
    if not isinstance(context, str | None) or not isinstance(system, str | None):
        return Dropped("not-text")
    if isinstance(value, str):
        return user_prompt(value, context or "", system or "")
    turns = read_messages(value)
    if isinstance(turns, Dropped):
        return turns
    problem = problem_of_turns(turns)
    if problem is not None:
        return Dropped(problem)
    return turns if turns and turns[-1]["role"] == "user" else Dropped("prompt-does-not-end-with-user")


def _completion(value: Any) -> str | Dropped:
    if isinstance(value, str):
        return value
    turns = read_messages(value)
    if isinstance(turns, Dropped):
        return turns
    return turns[-1]["content"] if turns and turns[-1]["role"] == "assistant" else Dropped("last-turn-not-assistant")
