"""From converted rows to examples: pairs, conversations or prompts as they are written, with their identities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ablate.catalogs.datasets import Pairing, Split
from ablate.data.account import OTHER_PART
from ablate.data.converters.native import as_row
from ablate.data.pairing import ONE_PAIR, Pair, pairs
from ablate.data.records import (
    Conversation,
    Dropped,
    PreferenceRecord,
    Prompt,
    canonical_object,
    digest,
    draw,
    is_unicode,
    opening,
)
from ablate.errors import DataError
from ablate.models.chat import Message, Messages

DENOMINATOR = 2**64  # of a draw


@dataclass(frozen=True, slots=True)
class Example:
    """One line of an output file; ``key()`` says which example it is whatever its labels (it seeds the sampling)."""

    value: dict[str, Any]
    prompt: Messages
    source: str
    key: Callable[[], str]


Kept: TypeAlias = PreferenceRecord | tuple[Conversation, ...] | Prompt
Maker: TypeAlias = Callable[[Kept], tuple[Example, ...] | Dropped]


def prompt_of(converted: Kept) -> Messages:
    """Return the turns that come before the response."""
    if isinstance(converted, PreferenceRecord):
        return converted.prompt
    if isinstance(converted, Prompt):
        return converted.messages
    return converted[0].messages[:-1]


def all_turns(converted: Kept) -> Iterator[Message]:
    """Yield every turn of a record."""
    if isinstance(converted, PreferenceRecord):
        yield from converted.prompt
        for response in converted.responses:
            yield from response.messages
    else:
        for item in converted if isinstance(converted, tuple) else (converted,):
            yield from item.messages


def in_part(prompt: Messages, split: Split | None) -> bool:
    """Whether a prompt belongs to the part of the split; equal prompts (or openings) are in the same part."""
    if split is None:
        return True
    basis = opening(prompt) if split.by == "opening" else prompt
    heldout = draw(split.seed, "split", basis) < split.heldout_share * DENOMINATOR
    return heldout == (split.part == "heldout")


def unusable(converted: Kept, split: Split | None) -> str | None:
    """Return why a converted row gives no example in the part of the split, whatever its labels; None if it may."""
    if not is_unicode(all_turns(converted)):
        return "not-unicode"
    return None if in_part(prompt_of(converted), split) else OTHER_PART


def maker(format: str, pairing: Pairing | None) -> Maker:
    """Return the function that makes the examples of one format from a converted row."""
    if format == "preference":
        if pairing is None:
            raise DataError("a preference set needs a pairing policy")
        policy = pairing
        return lambda converted: _pair_examples(converted, policy)
    if format == "records":
        return _record_examples
    if format == "instruction":
        return _conversation_examples
    if format == "prompts":
        return _prompt_examples
    raise DataError(f"unknown format {format!r}", hint="allowed: preference, records, instruction, prompts")


def prompt_id(prompt: Messages) -> str:
    """Return the id of a prompt's content."""
    return digest("prompt", prompt)


def prompt_value(prompt: Messages, source: str) -> dict[str, Any]:
    """Return a prompt as written; its id is that of its content."""
    return {"id": prompt_id(prompt), "prompt": list(prompt), "source": source}


def _pair_examples(converted: Kept, pairing: Pairing) -> tuple[Example, ...] | Dropped:
    if not isinstance(converted, PreferenceRecord):
        raise DataError("this converter makes no preferences", hint="use it with format: instruction or prompts")
    made = pairs(converted, pairing)
    if isinstance(made, Dropped):
        return made
    return tuple(_pair_example(converted, pair, pairing) for pair in made)


def _record_examples(converted: Kept) -> tuple[Example, ...] | Dropped:
    if not isinstance(converted, PreferenceRecord):
        raise DataError("this converter makes no preferences", hint="use it with format: instruction or prompts")
    value = as_row(converted)
    value["id"] = digest("record", {key: item for key, item in value.items() if key != "id"})
    return (Example(value, converted.prompt, converted.source, converted.key),)


def _pair_example(record: PreferenceRecord, pair: Pair, pairing: Pairing) -> Example:
    value = {
        "prompt": list(record.prompt),
        "chosen": list(pair.chosen.messages),
        "rejected": list(pair.rejected.messages),
        "margin": pair.margin,
        "chosen_score": pair.chosen.score,
        "rejected_score": pair.rejected.score,
        "source": record.source,
    }

    spelt = {"prompt": record.canonical_prompt, "chosen": pair.chosen.canonical, "rejected": pair.rejected.canonical}

    def key() -> str:
        # Where a record gives one pair, the record is sampled: whichever two its labels pick, the rows are the same.
        if pairing.policy in ONE_PAIR:
            return record.key()
        return digest(record.key(), sorted(side.digest for side in (pair.chosen, pair.rejected)))

    named = {"id": digest("pair", canonical_object({**value, **spelt})), **value}
    return Example(named, record.prompt, record.source, key)


def _conversation_examples(converted: Kept) -> tuple[Example, ...] | Dropped:
    if not isinstance(converted, tuple):
        raise DataError("this converter makes no conversations", hint="chosen_as_instruction takes a preference set")
    return tuple(_conversation_example(item) for item in converted)


def _conversation_example(item: Conversation) -> Example:
    value = _identified("conversation", {"messages": list(item.messages), "source": item.source})
    return Example(value, item.messages[:-1], item.source, key=lambda: str(value["id"]))


def _prompt_examples(converted: Kept) -> tuple[Example, ...] | Dropped:
    prompt = prompt_of(converted)
    source = converted[0].source if isinstance(converted, tuple) else converted.source
    value = prompt_value(prompt, source)
    if isinstance(converted, Prompt) and converted.checks is not None:
        value["checks"] = dict(converted.checks)
    return (Example(value, prompt, source, key=lambda: str(value["id"])),)


def _identified(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": digest(kind, value), **value}
