"""Rows that hold one conversation as messages, or one prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ablate.catalogs.converters import CHECK_COLUMNS, MessagesOptions, PromptsOptions, VerifiablePromptsOptions
from ablate.data.converters.columns import columns
from ablate.data.records import (
    Conversation,
    Converted,
    Dropped,
    Prompt,
    Row,
    digest,
    message,
    problem_of_turns,
)
from ablate.models.chat import Messages


def convert_messages(row: Row, options: MessagesOptions) -> Converted:
    """A list of ``{role, content}`` that ends with the assistant's turn."""
    turns = _turns(columns(row, "messages", options.column)[0])
    if isinstance(turns, Dropped):
        return turns
    if not turns or turns[-1]["role"] != "assistant":
        return Dropped("last-turn-not-assistant")
    return (Conversation(turns, source=_source(row, "messages"), row_id=digest(row)),)


def convert_prompt(row: Row, options: PromptsOptions) -> Converted:
    """A string (one user turn) or a list of ``{role, content}`` that ends with the user's turn."""
    value = columns(row, "prompts", options.column)[0]
    turns = _turns([{"role": "user", "content": value}] if isinstance(value, str) else value)
    if isinstance(turns, Dropped):
        return turns
    if not turns or turns[-1]["role"] != "user":
        return Dropped("prompt-does-not-end-with-user")
    return Prompt(turns, source=_source(row, "prompts"), row_id=digest(row))


def convert_verifiable_prompt(row: Row, options: VerifiablePromptsOptions) -> Converted:
    """A prompt as :func:`convert_prompt` reads it, with the columns that its verifier reads; none may be null."""
    names = CHECK_COLUMNS[options.checks]
    values = columns(row, "verifiable_prompts", *(options.columns.get(name, name) for name in names))
    prompt = convert_prompt(row, options)
    if not isinstance(prompt, Prompt):
        return prompt
    if any(value is None for value in values):
        return Dropped("nothing-to-check")
    return replace(prompt, checks=dict(zip(names, values, strict=True)))


def _turns(value: Any) -> Messages | Dropped:
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        return Dropped("not-messages")
    if not all(isinstance(turn.get("content"), str) and isinstance(turn.get("role"), str) for turn in value):
        return Dropped("not-text")
    turns = tuple(message(turn["role"], turn["content"]) for turn in value)
    problem = problem_of_turns(turns)
    return Dropped(problem) if problem else turns


def _source(row: Row, default: str) -> str:
    source = row.get("source", row.get("dataset"))
    return source if isinstance(source, str) and source else default
