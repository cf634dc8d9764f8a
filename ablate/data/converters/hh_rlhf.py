"""Anthropic/hh-rlhf: ``chosen`` and ``rejected`` are transcripts of two dialogues that share their first turns."""

from __future__ import annotations

import itertools

from ablate.catalogs.converters import HHOptions
from ablate.data.converters.columns import columns
from ablate.data.converters.transcripts import parse_transcript
from ablate.data.records import Converted, Dropped, PreferenceRecord, Response, Row, digest, problem_of_turns
from ablate.models.chat import Messages


def convert(row: Row, options: HHOptions) -> Converted:
    """The shared turns are the prompt, the first differing turn of each side is its response; later turns are ignored.

    With anchored parsing, dialogues whose turns do not alternate are dropped: the marker stood inside a turn.
    The study's bare parsing keeps them, cut.
    """
    sides: list[Messages] = []
    for text in columns(row, "hh_rlhf", "chosen", "rejected"):
        if not isinstance(text, str):
            return Dropped("not-text")
        before, turns = parse_transcript(text, options.parsing)
        if options.parsing == "anchored" and (before or not turns):
            return Dropped("no-turn-at-start")
        sides.append(turns)
    chosen, rejected = sides
    shared = _shared(chosen, rejected)
    prompt = chosen[:shared]
    problem = _problem(prompt, chosen[shared:], rejected[shared:], strict=options.parsing == "anchored")
    if problem is not None:
        return Dropped(problem)
    responses = tuple(Response((side[shared],), rank=rank) for rank, side in enumerate(sides, start=1))
    return PreferenceRecord(prompt, responses, source="hh_rlhf", row_id=digest(row))


def _shared(chosen: Messages, rejected: Messages) -> int:
    count = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        count += 1
    return count


def _problem(prompt: Messages, chosen: Messages, rejected: Messages, *, strict: bool) -> str | None:
    if not chosen and not rejected:
        return "identical-responses"
    if not chosen or not rejected:
        return "no-response-on-one-side"
    if not prompt:
        return "no-shared-prompt"
    if chosen[0]["role"] != "assistant" or rejected[0]["role"] != "assistant":
        return "last-turn-not-assistant"
    if not all(turn["content"] for turn in (*prompt, chosen[0], rejected[0])):
        return "empty-message"
    # Later turns count here too: "…\n\nHuman: …\n\nHuman: …" shows that a marker was part of a turn.
    if strict and (problem_of_turns(prompt) or _broken(chosen) or _broken(rejected)):
        return "turns-do-not-alternate"
    return None


def _broken(turns: Messages) -> bool:
    return any(one["role"] == other["role"] for one, other in itertools.pairwise(turns))
