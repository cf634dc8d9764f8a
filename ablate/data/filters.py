"""The filters of ``where``: which rows of a set are used, and which of their responses."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from ablate.catalogs.pipelines import Where
from ablate.data.records import Conversation, Converted, Dropped, PreferenceRecord, Prompt, Response
from ablate.data.refusals import lectures, refuses
from ablate.data.words import count_words
from ablate.errors import DataError, suggestion
from ablate.models.chat import Message, Messages

Kept: TypeAlias = PreferenceRecord | tuple[Conversation, ...] | Prompt
MOST_NAMES = 1000


class RowFilter:
    """Applies ``where`` to converted rows; what goes is dropped as ``where-<filter>``.

    ``seen`` collects the names of the rows, at most ``MOST_NAMES`` a filter, for the error when none is meant.
    """

    def __init__(self, where: Where) -> None:
        self.where = where
        self.seen: dict[str, set[str]] = {name: set() for name in ("source", "language", "model")}

    def __call__(self, converted: Kept) -> Converted:
        """Return what is used of a row, or why nothing is."""
        where = self.where
        self._see(converted)
        if isinstance(converted, PreferenceRecord):
            reason = _of_row(where, converted) or _of_prompt(where, converted.prompt)
            return Dropped(f"where-{reason}") if reason else _of_responses(where, converted)
        if isinstance(converted, Prompt):
            reason = _of_row(where, converted) or _of_prompt(where, converted.messages)
            return Dropped(f"where-{reason}") if reason else converted
        reasons = [_of_conversation(where, item) for item in converted]
        kept = tuple(item for item, reason in zip(converted, reasons, strict=True) if reason is None)
        return kept or Dropped(f"where-{next(reason for reason in reasons if reason)}")

    def require_found(self) -> None:
        """Raise DataError for a filter by names that no row matched; to be called where no record is left."""
        for key, seen in self.seen.items():
            patterns = getattr(self.where, key)
            if patterns is not None and not any(_named(name, patterns) for name in seen):
                wanted = " or ".join(map(repr, patterns))
                hint = suggestion(patterns[0], seen) if seen else f"its rows name no {key}"
                raise DataError(f"where: no row of this set has the {key} {wanted}", hint=hint)

    def _see(self, converted: Kept) -> None:
        for row in converted if isinstance(converted, tuple) else (converted,):
            self._note("source", row.source)
            self._note("language", row.language)
            for response in row.responses if isinstance(row, PreferenceRecord) else ():
                self._note("model", response.model)

    def _note(self, key: str, name: str | None) -> None:
        if name is not None and len(self.seen[key]) < MOST_NAMES:
            self.seen[key].add(name)


def _of_row(where: Where, row: PreferenceRecord | Conversation | Prompt) -> str | None:
    if not _named(row.source, where.source):
        return "source"
    return None if _named(row.language, where.language) else "language"


def _of_prompt(where: Where, prompt: Messages) -> str | None:
    asked = [turn["content"] for turn in prompt if turn["role"] == "user"]
    if where.prompt_turns and not where.prompt_turns.holds(len(asked)):
        return "prompt_turns"
    if where.prompt_words and not where.prompt_words.holds(count_words(prompt)):
        return "prompt_words"
    if where.matches is not None and not _found(where.matches, asked):
        return "matches"
    return "lacks" if where.lacks is not None and _found(where.lacks, asked) else None


def _of_responses(where: Where, record: PreferenceRecord) -> PreferenceRecord | Dropped:
    reasons = [_of_response(where, response) for response in record.responses]
    left_out = tuple(f"where-{reason}" for reason in reasons if reason)
    responses = tuple(response for response, reason in zip(record.responses, reasons, strict=True) if reason is None)
    if left_out and len(responses) < 2:
        return Dropped(left_out[-1])
    if where.score_gap is not None:
        scores = [response.score for response in responses if response.score is not None]
        if len(scores) < len(responses) or not where.score_gap.holds(max(scores) - min(scores)):
            return Dropped("where-score_gap")
    if not left_out:
        return record
    return replace(record, responses=responses, left_out=(*record.left_out, *left_out))


def _of_response(where: Where, response: Response) -> str | None:
    if not _named(response.model, where.model):
        return "model"
    return _of_answers(where, response.messages)


def _of_answers(where: Where, turns: Sequence[Message]) -> str | None:
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    if where.response_words and not where.response_words.holds(count_words(answers)):
        return "response_words"
    texts = [turn["content"] for turn in answers]
    if where.refusals == "drop" and any(refuses(text) or lectures(text) for text in texts):
        return "refusals"
    return None


def _of_conversation(where: Where, item: Conversation) -> str | None:
    return _of_row(where, item) or _of_prompt(where, item.messages[:-1]) or _of_answers(where, item.messages)


def _named(name: str | None, patterns: Sequence[str] | None) -> bool:
    return patterns is None or (name is not None and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


def _found(pattern: str, texts: Iterable[str]) -> bool:
    return any(re.search(pattern, text) for text in texts)
