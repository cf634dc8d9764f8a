"""Scores and verdicts of pairs in the columns of anybody's file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.catalogs.rewardbench import TIES
from ablate.errors import DataError
from ablate.evaluation.formats.submission import Output, Submission
from ablate.evaluation.grading import Metric

BARE = "{side}"
"""The name of a column that holds the response itself, or its score where the file has no other column for one."""

SCORES = (
    "{side}_score",
    "score_{side}",
    "scores_{side}",
    "{side}_scores",
    "{side}_reward",
    "reward_{side}",
    "rewards_{side}",
    "{side}_rewards",
    "{side}_logit",
    "{side}_logprob",
    BARE,
)
"""Columns that hold the score of the ``chosen`` or the ``rejected`` response (of several: a list)."""

ACCURACIES = "accuracies"
"""What a format says of a file of accuracies by subset: in which unit they are written."""

VERDICTS = ("results", "result", "won", "win")
"""Columns that say whether the chosen response won: 1 or 0; of a pair 0.5 for a verdict that could not be read."""

NO_VERDICT = 0.5
"""What a pair counts, and RewardBench writes, where a judge gave no verdict about it that could be read."""


def read_pair(path: Path, output: Output) -> dict[str, Any] | None:
    """What a row says of the two responses of a pair, as :func:`read_sides` does; a ``NO_VERDICT`` is read as None.

    Raises ``DataError`` for several scores of a response.
    """
    sides = read_sides(path, output, 1)
    if sides is None or "result" in sides:
        return sides if sides != {"result": NO_VERDICT} else {"result": None}
    scores = {side: score if isinstance(score, list) else [score] for side, score in sides.items()}
    if more := next((side for side, own in scores.items() if len(own) > 1), None):
        raise DataError(
            f"{path}, row {output.row} has {len(scores[more])} scores of the {more} response",
            hint="a pair of this suite has one response of each kind, and each has one score",
        )
    return {side: own[0] for side, own in scores.items()}


def read_sides(path: Path, output: Output, num_correct: int | None = None) -> dict[str, Any] | None:
    """What a row says of its responses: ``chosen`` and ``rejected``, or ``result``; None where it says nothing.

    Of a list ``scores`` the first ``num_correct`` (the row's own column, else this one) are those of right responses.
    Raises ``DataError`` for a score that is no finite number, and for a verdict that its scores contradict.
    """
    facts = output.facts
    result = _verdict(path, output)
    sides = {side: _side(path, output, side) for side in ("chosen", "rejected")}
    if None in sides.values() and isinstance(facts.get("scores"), list):
        sides = _split(path, output, num_correct)
    if None in sides.values():
        if (sides["chosen"] is None) != (sides["rejected"] is None):
            side = "chosen" if sides["chosen"] is None else "rejected"
            raise DataError(f"{path}, row {output.row} has no score of the {side} response")
        return None if result is None else {"result": result}
    chosen, rejected = sides["chosen"], sides["rejected"]
    is_pair = isinstance(chosen, float) and isinstance(rejected, float)
    if is_pair and result is not None and result != float(chosen > rejected):
        raise DataError(
            f"{path}, row {output.row}: its verdict is {result:g}, and its scores {chosen:g} and {rejected:g}",
            hint="a pair is won when the chosen response scores higher; leave out the column that is wrong",
        )
    return sides


def _side(path: Path, output: Output, side: str) -> Any:
    for spelling in SCORES:
        name = spelling.format(side=side)
        value = output.facts.get(name)
        if value is None or value == "":
            continue
        if isinstance(value, list) and len(value) > 1:
            return [_number(path, output, name, one) for one in value]
        if spelling == BARE and isinstance(value, str) and not _is_written_score(output.facts, side):
            continue  # the response itself
        return _number(path, output, name, value)
    return None


def _is_written_score(facts: Mapping[str, Any], side: str) -> bool:
    """Whether texts under the bare names are scores: both are numerals, and no other column is one of scores.

    A response may be a numeral itself: the answer to a prompt of LLMBar is "2".
    """
    if any(spelling.format(side=side) in facts for spelling in SCORES if spelling != BARE):
        return False
    return all(_is_numeral(facts.get(name)) for name in ("chosen", "rejected"))


def _split(path: Path, output: Output, num_correct: int | None) -> dict[str, Any]:
    own = output.facts.get("num_correct")
    count = num_correct if own is None else own
    scores = [_number(path, output, "scores", one) for one in output.facts["scores"]]
    if not isinstance(count, int) or not 0 < count < len(scores):
        raise DataError(
            f"{path}, row {output.row}: {len(scores)} scores, of which {'?' if count is None else count} are of right "
            "responses",
            hint="num_correct says how many of the scores, the first ones, are of right responses",
        )
    return {"chosen": scores[:count], "rejected": scores[count:]}


def _verdict(path: Path, output: Output) -> float | None:
    for name in VERDICTS:
        value = output.facts.get(name)
        if value is None or value == "":
            continue
        named = {"true": 1.0, "false": 0.0}.get(str(value).lower())
        number = named if named is not None else _number(path, output, name, value)
        if not 0 <= number <= 1:
            raise DataError(f"{path}, row {output.row}: {name} is {value!r}; a verdict is between 0 (lost) and 1 (won)")
        return number
    return None


def _number(path: Path, output: Output, name: str, value: Any) -> float:
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    number = float(value) if _is_numeral(value) else math.nan
    if not math.isfinite(number):
        raise DataError(f"{path}, row {output.row}: {name} is {value!r}, not a finite number")
    return number


def _is_numeral(value: Any) -> bool:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, int | float) and not isinstance(value, bool)


def written_subsets(submission: Submission) -> list[str]:
    """Names of subsets as a file writes them, each once."""
    written = [output.facts["subset"] for output in submission.outputs if output.facts.get("subset") is not None]
    return list(dict.fromkeys(map(str, written)))


def accuracies_of(submission: Submission, sizes: Mapping[str, int]) -> list[Metric] | None:
    """Accuracies by subset where its format says that a file has them; None for any other file.

    A column ``accuracy`` beside the scores of each pair is none of these. ``n`` is the file's own, or the number of
    pairs as released; a standard error is not known.
    """
    if ACCURACIES not in submission.about:
        return None
    return [
        Metric(
            output.facts["subset"],
            "accuracy",
            output.facts["accuracy"],
            output.facts["n"] or sizes[output.facts["subset"]],
        )
        for output in submission.outputs
    ]


def require_whole(path: Path, found: Mapping[str, int], sizes: Mapping[str, int], optional: Sequence[str] = ()) -> None:
    """Raise ``DataError`` unless a file has all of every subset; the ``optional`` ones together or not at all.

    ``found`` counts what it has of each, ``sizes`` what there is.
    """
    wanted = [name for name in sizes if name not in optional or any(other in found for other in optional)]
    lacking = {name: sizes[name] - found.get(name, 0) for name in wanted if found.get(name, 0) < sizes[name]}
    if lacking:
        first = next(iter(lacking))
        raise DataError(
            f"{path} lacks {sum(lacking.values())} of {sum(sizes[name] for name in wanted)} prompts, "
            f"in {len(lacking)} subsets; the first is {first}",
            hint="give all of them, or --partial to grade those that are there",
        )
    if more := [name for name, count in found.items() if count > sizes[name]]:
        raise DataError(f"{path} has {found[more[0]]} prompts of {more[0]}, which has {sizes[more[0]]}")


def read_candidates(path: Path, output: Output, subset: str) -> dict[str, Any] | None:
    """What a row says of the responses to a prompt of RewardBench 2, as :func:`read_sides` does.

    A prompt of several right answers is in the Ties subset alone: elsewhere the first of a list of ``scores`` is that
    of the right one. A row of Ties that does not say how many of its scores are (``num_correct``) is a ``DataError``.
    """
    return read_sides(path, output, None if subset == TIES else 1)


def rows_alone(
    submission: Submission,
    names: Mapping[str, str | None],
    read: Callable[[Path, Output, str], dict[str, Any] | None],
) -> list[dict[str, Any]] | None:
    """Rows of results from a file that names the subset of each row; None where one has no subset or says nothing.

    ``names`` gives the subset that a written name stands for, ``read`` what a row says of its responses.
    """
    rows = []
    for output in submission.outputs:
        written = output.facts.get("subset")
        subset = None if written is None else names[str(written)]
        sides = None if subset is None else read(submission.path, output, subset)
        if sides is None:
            return None
        source = output.source or str(output.row)
        rows.append({"id": f"{subset}/{source}", "subset": subset, "source": source, **sides})
    return rows
