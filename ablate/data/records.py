"""One record for all preference data, one for conversations, and the digests that identify them.

A digest is the sha256 of canonical JSON (sorted keys, ASCII), so it is the same on every machine and Python
version and does not depend on the order of rows.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from json.encoder import encode_basestring_ascii
from typing import Any, Generic, TypeAlias, TypeVar

from ablate.models.chat import Message, Messages

Row: TypeAlias = Mapping[str, Any]
ROLES = ("system", "user", "assistant")


def _cell(value: Any) -> str:
    """Spell what a cell of a Parquet file can hold and JSON can not."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, date | time | timedelta | Decimal):  # a datetime is a date
        return str(value)
    raise TypeError(f"a row has a value of type {type(value).__name__}")


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_cell)


T = TypeVar("T")


class once(Generic[T]):
    """A property that is computed once; functools.cached_property takes a lock in Python 3.11, for every row."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        value = instance.__dict__[self._name] = self._compute(instance)
        return value


class Canonical(str):
    """A value as JSON with one spelling, which stands for the value where digests are made: it is spelt out once."""

    __slots__ = ()


@dataclass(frozen=True)
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

    @once
    def canonical(self) -> Canonical:
        """The messages in their one spelling."""
        return canonical(self.messages)

    @once
    def digest(self) -> str:
        """What identifies the messages, whatever is said about them."""
        return digest(self.canonical)


@dataclass(frozen=True)
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

    @once
    def canonical_prompt(self) -> Canonical:
        """The prompt in its one spelling."""
        return canonical(self.prompt)

    def key(self) -> str:
        """Digest the prompt and the set of responses: what the record is, whatever its labels say.

        Seeded choices use this key, so that sets which differ in labels alone get the same choices.
        """
        return self._key

    @once
    def _key(self) -> str:
        return digest(self.canonical_prompt, sorted(response.digest for response in self.responses))


@dataclass(frozen=True, slots=True)
class Conversation:
    """One dialogue to imitate; the last turn is the assistant's."""

    messages: Messages
    source: str
    row_id: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt alone; the last turn is the user's. ``checks`` is what a verifier reads to score a response to it."""

    messages: Messages
    source: str
    row_id: str
    language: str | None = None
    checks: Mapping[str, Any] | None = None


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
            if not turn["content"].isascii():
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


def canonical(value: Any) -> Canonical:
    """Return ``value`` as JSON with one spelling: sorted keys, no spaces, ASCII."""
    return Canonical(_spelt(value))


def canonical_object(values: Mapping[str, Any]) -> Canonical:
    """Return an object as :func:`canonical` does, some of whose values may be canonical already."""
    return Canonical("{" + ",".join([f"{_spelt(key)}:{_spelt(values[key])}" for key in sorted(values)]) + "}")


def digest(*parts: Any) -> str:
    """Return 16 hexadecimal digits (64 bits) that identify ``parts`` by content."""
    text = "[" + ",".join([_spelt(part) for part in parts]) + "]"
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


def _spelt(value: Any) -> str:
    """Return the one spelling of a value; the encoder takes as long to start as these short ways to end."""
    kind = type(value)
    if kind is Canonical:
        return value  # type: ignore[no-any-return]
    if kind is str:
        return encode_basestring_ascii(value)
    if value is None:
        return "null"
    if kind is int or (kind is float and math.isfinite(value)):
        return repr(value)
    return _CANONICAL.encode(value)


def draw(seed: int, purpose: str, *parts: Any) -> int:
    """Return a 64-bit number that depends on the seed, what it is for, and the content: a seeded choice.

    The element with the smallest draw is a uniform choice, and does not depend on the order of the elements.
    """
    return int(digest(seed, purpose, *parts), 16)
