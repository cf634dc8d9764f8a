"""FastChat's files of MT-Bench: answers of several turns, ratings of single answers, and judged pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.errors import DataError
from ablate.evaluation.formats.rows import column, numbered_rows
from ablate.evaluation.formats.submission import Output, ReadOptions, Submission

_GAMES = ("g1_winner", "g2_winner")
_WORDS = ("model_1", "model_2", "tie")


def recognises(path: Path, first: Mapping[str, Any] | None) -> bool:
    """A row with a question's id, and choices, a judgment or two games."""
    if first is None or "question_id" not in first:
        return False
    return "choices" in first or "judgment" in first or _GAMES[0] in first


def read(path: Path, options: ReadOptions) -> Submission:
    """Answers with their turns as texts; of judgements all columns are facts. ``options.model`` keeps one model's rows.

    A pair that was judged in both orders is won where both name one winner; the model that is graded is ``model_1``
    (``--model`` names the other one), and the column ``winner`` says how it ended for it.
    """
    found = list(numbered_rows(path))
    for number, row in found:
        column(path, number, row, "question_id")
    if _GAMES[0] in found[0][1]:
        return _pairs(path, found, options)
    named = "model_id" if "choices" in found[0][1] else "model"
    models = list(dict.fromkeys(str(row.get(named, "")) for _, row in found))
    if options.model is not None and options.model not in models:
        raise DataError(f"{path} has nothing of {options.model!r}", hint=f"it has: {', '.join(models)}")
    if named == "model_id" and options.model is None and len(models) > 1:
        raise DataError(f"{path} has the answers of {', '.join(models)}", hint="name one of them: --model")
    own = [(number, row) for number, row in found if options.model in (None, str(row.get(named, "")))]
    kept = [options.model] if options.model else models
    outputs = tuple(_answer(path, number, row) if "choices" in row else _rating(number, row) for number, row in own)
    return Submission(path, outputs, {"model": ", ".join(kept)})


def _answer(path: Path, number: int, row: Mapping[str, Any]) -> Output:
    try:
        turns: Sequence[Any] = row["choices"][0]["turns"]
        texts = tuple(turn if isinstance(turn, str) else str(turn["content"]) for turn in turns)
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(f"{path}, row {number} has no choices[0].turns") from error
    return Output(number, str(row["question_id"]), texts=texts, facts={"model": row.get("model_id", "")})


def _rating(number: int, row: Mapping[str, Any]) -> Output:
    left = ("question_id", "user_prompt")
    return Output(number, str(row["question_id"]), facts={name: row[name] for name in row if name not in left})


def _pairs(path: Path, found: Sequence[tuple[int, Mapping[str, Any]]], options: ReadOptions) -> Submission:
    outputs = []
    for number, row in found:
        wanted = options.model or str(row.get("model_1"))
        sides = {str(row.get("model_1")): "model_1", str(row.get("model_2")): "model_2"}
        if wanted not in sides:
            continue
        facts = {"turn": row.get("turn"), "judge": row.get("judge"), "model": wanted}
        winner = _winner([row.get(name) for name in _GAMES], sides[wanted])
        outputs.append(Output(number, str(row["question_id"]), facts={**facts, "winner": winner}))
    if not outputs:
        raise DataError(f"{path} has no pair with {options.model!r}")
    return Submission(path, tuple(outputs), {"model": options.model or str(found[0][1].get("model_1"))})


def _winner(games: Sequence[Any], own: str) -> str:
    """How two games ended for ``own``: what is no verdict in one of them is none at all."""
    if any(game not in _WORDS for game in games):
        return "error"
    if games[0] == games[1] != "tie":
        return "win" if games[0] == own else "loss"
    return "tie"
