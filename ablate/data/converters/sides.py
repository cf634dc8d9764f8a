"""What converters share: messages read from a cell, two conversations parted, two responses made a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ablate.catalogs.converters import Diverging
from ablate.data.records import ROLES, Converted, Dropped, PreferenceRecord, Response, Row, digest, message
from ablate.models.chat import Messages

SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def read_messages(value: Any, role: str = "role", content: str = "content") -> Messages | Dropped:
    """Return a list of ``{role, content}`` as turns with stripped contents; no turn may be empty.

    ``role`` and ``content`` are the names of the two fields; ShareGPT's names of roles count as well.
    """
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        return Dropped("not-messages")
    turns = []
    for turn in value:
        speaker, text = turn.get(role), turn.get(content)
        if not isinstance(speaker, str) or not isinstance(text, str):
            return Dropped("not-text")
        turns.append(message(SHAREGPT_ROLES.get(speaker, speaker), text))
    if any(turn["role"] not in ROLES for turn in turns):
        return Dropped("unknown-role")
    return tuple(turns) if all(turn["content"] for turn in turns) else Dropped("empty-message")


def part(
    chosen: Messages | Dropped, rejected: Messages | Dropped, diverging: Diverging
) -> tuple[Messages, list[str]] | Dropped:
    """Return the shared first turns and the text of each side's response: the first turn of each that differs.

    Both conversations must end with the assistant. With ``same-history`` they may differ in the last turn only, with
    ``drop`` they are one exchange (and a system turn, if there is one). One that could not be read drops the row.
    """
    if isinstance(chosen, Dropped):
        return chosen
    if isinstance(rejected, Dropped):
        return rejected
    if not chosen or not rejected or {chosen[-1]["role"], rejected[-1]["role"]} != {"assistant"}:
        return Dropped("last-turn-not-assistant")
    if diverging == "drop" and max(_user_turns(chosen), _user_turns(rejected)) > 1:
        return Dropped("several-turns")
    if chosen == rejected:
        return Dropped("identical-responses")
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if diverging == "same-history" and not shared == len(chosen) - 1 == len(rejected) - 1:
        return Dropped("histories-differ")
    if shared == min(len(chosen), len(rejected)):
        return Dropped("no-response-on-one-side")
    if chosen[shared]["role"] != "assistant" or rejected[shared]["role"] != "assistant":
        return Dropped("prompts-differ")
    texts = [side[shared]["content"] for side in (chosen, rejected)]
    return (chosen[:shared], texts) if shared else Dropped("no-shared-prompt")


def user_prompt(instruction: str, context: str = "", system: str = "") -> Messages:
    """Return one user turn (an instruction and, below a blank line, what it is about), after a system turn if any."""
    text = f"{instruction.strip()}\n\n{context.strip()}" if context.strip() else instruction
    start = (message("system", system),) if system.strip() else ()
    return (*start, message("user", text))


def two_responses(
    row: Row,
    prompt: Messages,
    texts: Sequence[Any],
    *,
    source: str,
    ranks: tuple[int, int] | None = (1, 2),
    scores: Sequence[float | None] = (None, None),
    models: Sequence[Any] = (None, None),
    aspects: Sequence[Mapping[str, float] | None] = (None, None),
    language: Any = None,
) -> Converted:
    """Make the record of a prompt and two answers; scores count only where both are known."""
    if not all(isinstance(text, str) for text in texts):
        return Dropped("not-text")
    turns = [message("assistant", text) for text in texts]
    if not all(turn["content"] for turn in (*prompt, *turns)):
        return Dropped("empty-message")
    responses = tuple(
        Response(
            (turn,),
            score=scores[index] if None not in scores else None,
            rank=ranks[index] if ranks else None,
            aspects=aspects[index],
            model=name(models[index]),
        )
        for index, turn in enumerate(turns)
    )
    return PreferenceRecord(prompt, responses, source=source, row_id=digest(row), language=name(language))


def rows_of(row: Row) -> list[Row]:
    """Return the rows of a group, which stand under ``rows``; a row that is in no group is its own."""
    return list(row["rows"]) if "rows" in row else [row]


def _user_turns(turns: Messages) -> int:
    return sum(turn["role"] == "user" for turn in turns)


def name(value: Any) -> str | None:
    """Return a name that a cell holds (of a model, a language, a source), None where there is none."""
    return value if isinstance(value, str) and value else None
