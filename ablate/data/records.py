"""One record for all preference data, one for conversations, and the digests that identify them.

A digest is the sha256 of canonical JSON (sorted keys, ASCII), so it is the same on every machine and Python
version and does not depend on the order of rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ablate.models.chat import Message, Messages

Row: TypeAlias = Mapping[str, Any]
ROLES = ("system", "user", "assistant")

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


@dataclass(frozen=True, slots=True)
class Response:
    """One response to a prompt and what its source says about it.

    A higher ``score`` is better, a lower ``rank`` is better (1 is best). ``messages`` are the completion's turns,
    the last one the assistant's.
    """

    messages: Messages
    score: float | None = None
    rank: int | None = None
    aspects: Mapping[str, float] | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class PreferenceRecord:
    """A prompt and its k ≥ 2 responses, each with a score or a rank.

    ``left_out`` holds the reasons of responses of the source row that are not among ``responses``; ``language`` is
    what the source calls it. Label kind and licence are facts of the set: its catalog entry has them.
    """

    prompt: Messages
    responses: tuple[Response, ...]
    source: str
    row_id: str
    left_out: tuple[str, ...] = ()
    language: str | None = None

    def key(self) -> str:
        """Digest the prompt and the set of responses: what the record is, whatever its labels say.

        Seeded choices use this key, so that sets which differ in labels alone get the same choices.
        """
        return digest(self.prompt, sorted(digest(response.messages) for response in self.responses))


@dataclass(frozen=True, slots=True)
class Conversation:
    """One dialogue to imitate; the last turn is the assistant's."""

    messages: Messages
    source: str
    row_id: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt alone; the last turn is the user's."""

    messages: Messages
    source: str
    row_id: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that gives no record, and why (a short name that is counted in the report)."""

    reason: str


Converted: TypeAlias = PreferenceRecord | tuple[Conversation, ...] | Prompt | Dropped


def message(role: str, content: str) -> Message:
    """Return a turn with stripped content, as the study did for every message."""
    return {"role": role, "content": content.strip()}


def problem_of_turns(turns: Iterable[Message]) -> str | None:
    """Return why ``turns`` are no dialogue (a reason for dropping), or None.

    A dialogue is an optional system turn, then user and assistant in alternation beginning with user, none empty.
    """
    expected = "user"
    for position, turn in enumerate(turns):
        if turn["role"] not in ROLES:
            return "unknown-role"
        if not turn["content"]:
            return "empty-message"
        if turn["role"] == "system" and position == 0:
            continue
        if turn["role"] != expected:
            return "turns-do-not-alternate"
        expected = "assistant" if expected == "user" else "user"
    return None


def is_unicode(turns: Iterable[Message]) -> bool:
    """Whether all contents can be written as UTF-8 (JSON's escapes can hold half a surrogate pair)."""
    try:
        for turn in turns:
            turn["content"].encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def opening(prompt: Messages) -> Messages:
    """Return the turns up to and including the first user turn."""
    for position, turn in enumerate(prompt):
        if turn["role"] == "user":
            return prompt[: position + 1]
    return prompt


def canonical(value: Any) -> str:
    """Return ``value`` as JSON with one spelling: sorted keys, no spaces, ASCII."""
    return _CANONICAL.encode(value)


def digest(*parts: Any) -> str:
    """Return 16 hexadecimal digits (64 bits) that identify ``parts`` by content."""
    return hashlib.sha256(canonical(parts).encode("ascii")).hexdigest()[:16]


def draw(seed: int, purpose: str, *parts: Any) -> int:
    """Return a 64-bit number that depends on the seed, what it is for, and the content: a seeded choice.

    The element with the smallest draw is a uniform choice, and does not depend on the order of the elements.
    """
    return int(digest(seed, purpose, *parts), 16)
