"""berkeley-nest/Nectar: a transcript as prompt and seven answers ranked 1 (best) to 7."""

from __future__ import annotations

from typing import Any

from ablate.catalogs.converters import NectarOptions
from ablate.data.converters.columns import columns, number
from ablate.data.converters.transcripts import parse_transcript
from ablate.data.records import Converted, Dropped, PreferenceRecord, Response, Row, digest, message, problem_of_turns

TOP = 4


def convert(row: Row, options: NectarOptions) -> Converted:
    """Rank the answers as given; with ``chosen: top-4`` ranks 1-4 become rank 1 and the others rank 2.

    The prompt ends with an open ``Assistant:`` turn, which is no turn. Answers without text or rank are left out.
    """
    transcript, answers = columns(row, "nectar", "prompt", "answers")
    if not isinstance(transcript, str) or not isinstance(answers, list):
        return Dropped("not-text")
    before, turns = parse_transcript(transcript, "anchored")
    if before or not turns:
        return Dropped("no-turn-at-start")
    if turns[-1] == {"role": "assistant", "content": ""}:
        turns = turns[:-1]
    problem = problem_of_turns(turns)
    if problem is not None:
        return Dropped(problem)
    if not turns or turns[-1]["role"] != "user":
        return Dropped("prompt-does-not-end-with-user")
    results = [_response(answer, options) for answer in answers]
    responses = tuple(result for result in results if isinstance(result, Response))
    if len(responses) < 2:
        return Dropped("fewer-than-two-responses")
    left_out = tuple(result for result in results if isinstance(result, str))
    return PreferenceRecord(turns, responses, source="nectar", row_id=digest(row), left_out=left_out)


def _response(answer: Any, options: NectarOptions) -> Response | str:
    if not isinstance(answer, dict) or not isinstance(answer.get("answer"), str):
        return "not-text"
    if not answer["answer"].strip():
        return "empty-message"
    rank = number(answer.get("rank"))
    if rank is None or rank < 1 or rank != int(rank):
        return "no-rank"
    if options.chosen == "top-4":
        rank = 1 if rank <= TOP else 2
    model = answer.get("model")
    turn = message("assistant", answer["answer"])
    return Response((turn,), rank=int(rank), model=model if isinstance(model, str) else None)
