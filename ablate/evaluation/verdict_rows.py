"""What judges say of a response, gathered from a judge stage or from a file of stored judgements."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ablate.errors import DataError
from ablate.evaluation.grading import Evidence, shortened
from ablate.evaluation.items import Item
from ablate.evaluation.judging import Kind
from ablate.rewards.verdicts import bracketed_rating, verdict_mark, winner

RESPONSE_WINS = {"model_b": 1.0, "model_2": 1.0, "win": 1.0, "tie": 0.5, "model_a": 0.0, "model_1": 0.0, "loss": 0.0}
"""Words that stored verdicts of pairs may use, with the share of a win of the response that is graded."""

COLUMNS = {"single": "judgment or score", "pairwise": "preference, judgment or winner"}
"""Columns of stored judgements by what they are about."""

NOTHING: Literal["nothing"] = "nothing"
"""That a row holds no judgement."""


@dataclass(frozen=True)
class Judged:
    """All that is said of one response to one turn.

    ``value`` is the vote of the judges whose answers could be read (None: nobody's); ``by_judge`` each judge's own;
    ``values`` and ``strong`` are those of single answers, ``orders`` which response each was shown first (``a`` the
    baseline's, ``b`` the model's). ``length`` and ``baseline_length`` are in characters, None where a file of stored
    judgements has no such response.
    """

    id: str
    task: str
    sample: int
    turn: int
    value: float | None
    by_judge: tuple[float | None, ...]
    values: tuple[float | None, ...]
    strong: tuple[bool, ...]
    orders: tuple[str, ...]
    consistent: tuple[bool, ...]
    problems: tuple[str, ...]
    length: int | None
    baseline_length: int | None
    model: str = ""
    cluster: str | None = None
    response: str | None = None

    def first_wins(self) -> list[float]:
        """For each answer that is no tie, whether the response shown first won."""
        pairs = zip(self.values, self.orders, strict=False)
        return [float((value > 0.5) == (order == "b")) for value, order in pairs if value is not None and value != 0.5]

    def agreement(self) -> float | None:
        """Share of pairs of judges that name the same winner; None with fewer than two."""
        sides = [winner(value) for value in self.by_judge if value is not None]
        pairs = list(itertools.combinations(sides, 2))
        return sum(one == other for one, other in pairs) / len(pairs) if pairs else None

    def spread(self) -> float | None:
        """Mean difference between the ratings of two judges; None with fewer than two."""
        known = [value for value in self.by_judge if value is not None]
        pairs = list(itertools.combinations(known, 2))
        return math.fsum(abs(one - other) for one, other in pairs) / len(pairs) if pairs else None


def gather(evidence: Evidence, kind: Kind) -> list[Judged]:
    """Everything that was judged, in the order of responses; DataError where nothing was.

    ``kind`` says what a stored judgement is about: one response, or it and the baseline's.
    """
    said = (
        {(row.id, row.sample, row.turn): row.response for row in evidence.responses} if evidence.has_responses else {}
    )
    if evidence.judging is not None:
        rows, vote = evidence.verdicts, str(evidence.protocol.get("judged", {}).get("vote", "mean"))
    else:
        vote = "mean"
        rows = [
            row
            for name, stored in evidence.stored.items()
            for sample, facts in enumerate(stored)
            if (row := _stored_row(evidence, name, kind, facts, said.get((name, sample, 0)))) is not None
        ]
    if not rows:
        raise DataError(
            "this suite's grader reads what a judge said, and there is nothing",
            hint=f"stored judgements are read from the columns {COLUMNS[kind]}; to have outputs judged: `ablate judge`",
        )
    groups: dict[tuple[str, str, int, int], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["id"], row.get("model", ""), row["sample"], row["turn"]].append(row)
    return [
        _judged(evidence.items[key[0]], own, vote, said.get((key[0], key[2], key[3]))) for key, own in groups.items()
    ]


def _judged(item: Item, rows: Sequence[Mapping[str, Any]], vote: str, response: str | None) -> Judged:
    first = rows[0]
    values = tuple(row["value"] for row in rows)
    return Judged(
        id=item.id,
        task=item.task,
        sample=first["sample"],
        turn=first["turn"],
        value=voted([value for value in values if value is not None], vote),
        by_judge=values,
        values=tuple(value for row in rows for value in row["values"]),
        strong=tuple(flag for row in rows for flag in row["strong"]),
        orders=tuple(order for row in rows for order in row["orders"]),
        consistent=tuple(row["consistent"] for row in rows if row["consistent"] is not None),
        problems=tuple(row["problem"] for row in rows if row["problem"] is not None),
        length=first["length"],
        baseline_length=first["baseline_length"],
        model=str(first.get("model", "")),
        cluster=item.cluster,
        response=None if response is None else shortened(response),
    )


def voted(values: Sequence[float], vote: str) -> float | None:
    """The mean of values, or what most of them say: of pairs the commoner winner, of equally common ones the mean."""
    if not values:
        return None
    if vote == "majority":
        (top, count), *rest = Counter(values).most_common()
        if not rest or rest[0][1] < count:
            return top
    return math.fsum(values) / len(values)


def _stored_row(
    evidence: Evidence, name: str, kind: Kind, facts: Mapping[str, Any], response: str | None
) -> dict[str, Any] | None:
    """A row of verdicts of what a file says of one response; None where it holds no judgement.

    The baseline's response is the file's ``output_1``, else the one that the suite's data have.
    """
    item = evidence.items[name]
    value = stored_preference(facts) if kind == "pairwise" else stored_rating(facts, evidence.scale)
    if value is NOTHING:
        return None
    written = facts.get("turn")
    turn = written - 1 if isinstance(written, int) and not isinstance(written, bool) else 0
    baseline = facts.get("output_1", dict(enumerate(item.data.get("baseline") or ())).get(turn))
    return {
        "id": item.id,
        "sample": 0,
        "turn": turn,
        "value": value,
        "problem": "unparsable" if value is None else None,
        "values": [value],
        "strong": [False],
        "orders": [],
        "consistent": None,
        "length": None if response is None else len(response),
        "baseline_length": len(baseline) if isinstance(baseline, str) else None,
        "model": str(facts.get("model") or facts.get("generator_2") or ""),
    }


def stored_preference(facts: Mapping[str, Any]) -> float | Literal["nothing"] | None:
    """The share of a win that a stored judgement of a pair gives the graded response.

    None where it can't be read, ``NOTHING`` where a row holds no such judgement. ``preference`` is AlpacaEval's (1 to
    2, 0 and 1.5 a draw, null none), another number is a DataError; ``judgment`` the text of a judge, whose ``[[A]]``,
    ``[[B]]``, ``[[C]]`` (the graded response is B) counts; ``winner`` a word.
    """
    if "preference" in facts:
        return _preference(facts["preference"])
    if isinstance(facts.get("judgment"), str):
        mark = verdict_mark(facts["judgment"])
        return None if mark is None else 1.0 - mark
    if "winner" in facts:
        return RESPONSE_WINS.get(str(facts["winner"]).strip().lower())
    return NOTHING


def stored_rating(facts: Mapping[str, Any], scale: tuple[float, float]) -> float | Literal["nothing"] | None:
    """The rating that a stored judgement gives a response.

    None where it can't be read, ``NOTHING`` where a row holds no such judgement. ``judgment`` is the text of a judge,
    whose ``[[n]]`` on the ``scale`` counts; ``score`` a rating, negative for none, another one off the scale is a
    DataError.
    """
    lowest, highest = scale
    if isinstance(facts.get("judgment"), str):
        rating = bracketed_rating(facts["judgment"])
        return rating if rating is not None and lowest <= rating <= highest else None
    score = facts.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float):
        return NOTHING
    if score < min(lowest, 0.0) or math.isnan(score):
        return None
    if not lowest <= score <= highest:
        raise DataError(f"a score is {score!r}; allowed: {lowest:g} to {highest:g}, negative for none")
    return float(score)


def _preference(written: Any) -> float | None:
    if written is None or (isinstance(written, float) and math.isnan(written)):
        return None
    if isinstance(written, bool) or not isinstance(written, int | float) or not (written == 0 or 1 <= written <= 2):
        raise DataError(f"a preference is {written!r}; allowed: 1 to 2, 0 or 1.5 for a draw, null for none")
    return 0.5 if written == 0 else float(written) - 1.0


def judge_health(evidence: Evidence, problems: Sequence[str]) -> dict[str, Any]:
    """Who judged and when, how often nothing could be read and why, and what it cost."""
    counts = Counter(problems)
    health: dict[str, Any] = {"unparsable": len(problems), **{f"judge_{name}": n for name, n in sorted(counts.items())}}
    reports = evidence.judges
    if not reports:
        names = dict.fromkeys(
            _judge_of(facts) for stored in evidence.stored.values() for facts in stored if _judge_of(facts)
        )
        return {**health, "judge": ", ".join(names) or "not named"}
    days = [report[name] for report in reports for name in ("asked_from", "asked_to") if name in report]
    health["judge"] = ", ".join(str(report["model"]) for report in reports)
    health["judge_served"] = ", ".join(dict.fromkeys(name for report in reports for name in report["served"])) or None
    health |= {"judged_from": min(days), "judged_to": max(days)} if days else {}
    health["judge_answers"] = sum(report["answers"] for report in reports)
    health["judge_cost"] = math.fsum(report.get("cost", 0.0) for report in reports)
    return health


def _judge_of(facts: Mapping[str, Any]) -> str:
    name = facts.get("annotator", facts.get("judge"))
    return "/".join(map(str, name)) if isinstance(name, list | tuple) else str(name or "")
