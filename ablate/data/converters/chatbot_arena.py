"""Chatbot Arena's votes: two conversations with two models, in the forms of 2023 and of 2024."""

from __future__ import annotations

import json
from typing import Any

from ablate.catalogs.converters import ArenaOptions
from ablate.data.converters.columns import columns, number
from ablate.data.converters.sides import part, read_messages, two_responses
from ablate.data.records import Converted, Dropped, Row
from ablate.models.chat import Messages

RANKS = {"model_a": (1, 2), "model_b": (2, 1)}
TIES = ("tie", "tie (bothbad)")


def convert_2023(row: Row, options: ArenaOptions) -> Converted:
    """lmsys/chatbot_arena_conversations: both conversations as messages, ``winner`` in words."""
    winner, *conversations = columns(row, "chatbot_arena_2023", "winner", "conversation_a", "conversation_b")
    sides = []
    for value in conversations:
        turns = read_messages(value)
        if isinstance(turns, Dropped):
            return turns
        sides.append(turns)
    return _record(row, str(winner), sides, options, source="chatbot_arena_2023")


def convert_2024(row: Row, options: ArenaOptions) -> Converted:
    """lmsys/lmsys-arena-human-preference-55k: the turns of each side as JSON lists, three columns for the vote."""
    prompts, *answers = columns(row, "chatbot_arena_2024", "prompt", "response_a", "response_b")
    sides = []
    for column in answers:
        turns = _interleaved(prompts, column)
        if isinstance(turns, Dropped):
            return turns
        sides.append(turns)
    votes = columns(row, "chatbot_arena_2024", "winner_model_a", "winner_model_b", "winner_tie")
    won = [word for word, vote in zip(("model_a", "model_b", "tie"), votes, strict=True) if number(vote) == 1.0]
    return _record(row, won[0] if len(won) == 1 else "", sides, options, source="chatbot_arena_2024")


def _record(row: Row, winner: str, sides: list[Messages], options: ArenaOptions, source: str) -> Converted:
    if winner not in RANKS and winner not in TIES:
        return Dropped("no-vote")
    if winner in TIES and options.ties == "drop":
        return Dropped("tied")
    one, other = sides
    if options.turns == "first-turn":
        one, other = (side[:2] for side in sides)
    parted = part(one, other, options.turns)
    if isinstance(parted, Dropped):
        return parted
    return two_responses(
        row,
        *parted,
        source=source,
        ranks=RANKS.get(winner, (1, 1)),
        models=[row.get("model_a"), row.get("model_b")],
        language=row.get("language"),
    )


def _interleaved(prompts: Any, answers: Any) -> Messages | Dropped:
    lists = [_texts(prompts), _texts(answers)]
    if lists[0] is None or lists[1] is None:
        return Dropped("not-text")
    if len(lists[0]) != len(lists[1]):
        return Dropped("turns-do-not-alternate")
    turns = []
    for question, answer in zip(*lists, strict=True):
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return read_messages(turns)


def _texts(column: Any) -> list[str] | None:
    """Return the texts of a JSON list; a null in it is an answer that never came, an empty text."""
    try:
        values = json.loads(column) if isinstance(column, str) else column
    except ValueError:
        return None
    if not isinstance(values, list) or not all(isinstance(value, str | None) for value in values):
        return None
    return [value or "" for value in values]
