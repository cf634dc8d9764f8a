"""Instruction data in three forms (Alpaca's columns, ShareGPT's turns, OpenAssistant's trees) and mined prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ablate.catalogs.converters import AlpacaOptions, MinedPromptsOptions, OASSTTreeOptions, ShareGPTOptions
from ablate.data.converters.columns import columns
from ablate.data.converters.sides import name, read_messages, user_prompt
from ablate.data.records import Conversation, Converted, Dropped, Prompt, Row, digest, message, problem_of_turns
from ablate.models.chat import Message, Messages

ROLES = {"prompter": "user", "assistant": "assistant"}


def convert_alpaca(row: Row, options: AlpacaOptions) -> Converted:
    """The input, where there is one, stands below the instruction; the output is the answer."""
    instruction, output = columns(row, "alpaca", options.instruction, options.output)
    context = row.get(options.input)
    if not isinstance(instruction, str) or not isinstance(output, str) or not isinstance(context, str | None):
        return Dropped("not-text")
    return _conversation(row, (*user_prompt(instruction, context or ""), message("assistant", output)), "alpaca")


def convert_sharegpt(row: Row, options: ShareGPTOptions) -> Converted:
    """Turns of ``human``, ``gpt`` and ``system``; the last one must be the assistant's."""
    turns = read_messages(columns(row, "sharegpt", options.column)[0], "from", "value")
    if isinstance(turns, Dropped):
        return turns
    if options.ends == "trim":
        turns = _trimmed(turns)
    return _conversation(row, turns, "sharegpt")


def convert_oasst_tree(row: Row, options: OASSTTreeOptions) -> Converted:
    """Follow replies from the tree's prompt to leaves; deleted messages, and what answers them, are left out.

    A path ends with its last assistant turn; a conversation that another one continues is not made.
    """
    root = columns(row, "oasst_tree", "prompt")[0]
    if not isinstance(root, dict) or not _usable(root):
        return Dropped("not-text")
    language = name(root.get("lang"))
    if options.language is not None and language != options.language:
        return Dropped("other-language")
    found: dict[tuple[str, ...], Messages] = {}
    for path in _paths(root, (), best=options.paths == "best"):
        turns = _trimmed(path)
        if turns and problem_of_turns(turns) is None:
            found[tuple(turn["content"] for turn in turns)] = turns
    longest = [
        turns for key, turns in found.items() if not any(key == other[: len(key)] for other in found if other != key)
    ]
    if not longest:
        return Dropped("no-answer")
    identity = digest(row)
    return tuple(Conversation(turns, "oasst", identity, language) for turns in longest)


def convert_mined_prompt(row: Row, options: MinedPromptsOptions) -> Converted:
    """The first user turn of a logged conversation, if it is in the language and of a reasonable length."""
    turns = read_messages(columns(row, "mined_prompts", options.column)[0])
    if isinstance(turns, Dropped):
        return turns
    language = name(row.get("language"))
    if options.language is not None and language != options.language:
        return Dropped("other-language")
    first = next((turn for turn in turns if turn["role"] == "user"), None)
    if first is None:
        return Dropped("no-user-turn")
    words = len(first["content"].split())
    if words <= options.more_than_words:
        return Dropped("too-few-words")
    if words > options.maximum_words or len(first["content"]) > options.maximum_characters:
        return Dropped("too-long")
    return Prompt((first,), name(row.get("source")) or "mined", digest(row), language)


def _conversation(row: Row, turns: Messages, default: str) -> Converted:
    problem = problem_of_turns(turns)
    if problem is not None:
        return Dropped(problem)
    if not turns or turns[-1]["role"] != "assistant":
        return Dropped("last-turn-not-assistant")
    source = name(row.get("source")) or name(row.get("dataset")) or default
    return (Conversation(tuple(turns), source, digest(row), name(row.get("language"))),)


def _trimmed(turns: Messages) -> Messages:
    """Cut assistant turns from the beginning (after a system turn) and user turns from the end."""
    begin = 1 if turns and turns[0]["role"] == "system" else 0
    start, end = begin, len(turns)
    while start < end and turns[start]["role"] == "assistant":
        start += 1
    while end > start and turns[end - 1]["role"] != "assistant":
        end -= 1
    return (*turns[:begin], *turns[start:end]) if end > start else ()


def _usable(node: Mapping[str, Any]) -> bool:
    text = node.get("text")
    return isinstance(text, str) and bool(text.strip()) and node.get("role") in ROLES and not node.get("deleted")


def _paths(node: Mapping[str, Any], above: tuple[Message, ...], *, best: bool) -> Iterator[tuple[Message, ...]]:
    path = (*above, message(ROLES[node["role"]], node["text"]))
    replies = [reply for reply in node.get("replies") or () if isinstance(reply, dict) and _usable(reply)]
    if not replies:
        yield path
    elif best:
        yield from _paths(min(replies, key=_rank), path, best=True)
    else:
        for reply in replies:
            yield from _paths(reply, path, best=False)


def _rank(node: Mapping[str, Any]) -> float:
    """Rank 0 is the best; messages without a rank come last, in their order."""
    rank = node.get("rank")
    return rank if isinstance(rank, int | float) else float("inf")
