"""Named policies that draw (chosen, rejected) pairs from k labelled responses.

Choices are seeded by the content of the row: they depend neither on the order of rows nor on the machine.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ablate.catalogs.datasets import Pairing
from ablate.data.records import Dropped, PreferenceRecord, Response, draw
from ablate.errors import DataError

TOLERANCE = 1e-9  # scores are means of a few ratings: closer than this is equal

IDENTICAL, TIED, SMALL_GAP = "identical-responses", "tied", "gap-below-minimum"


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference: ``margin`` is chosen's score minus rejected's, None where there are no scores."""

    chosen: Response
    rejected: Response
    margin: float | None


def pairs(record: PreferenceRecord, pairing: Pairing) -> tuple[Pair, ...] | Dropped:
    """Draw the pairs of one record, or say why there are none.

    The policy proposes pairs (better, worse); those of equal text, with tied labels (unless ties are kept) or with
    a gap below the minimum are not made. The gap is in scores, or in ranks where there are no scores.
    """
    ordered = ranked(record, pairing.seed)
    refused: set[str] = set()
    made: list[Pair] = []
    for chosen, rejected in _POLICIES[pairing.policy](record, ordered, pairing):
        problem = _problem(chosen, rejected, pairing)
        if problem is None:
            made.append(Pair(chosen, rejected, _score_gap(chosen, rejected)))
            if pairing.policy in ONE_PAIR:
                break
        else:
            refused.add(problem)
    if made:
        return tuple(made)
    return Dropped(next(reason for reason in (SMALL_GAP, TIED, IDENTICAL) if reason in refused))


def ranked(record: PreferenceRecord, seed: int) -> list[Response]:
    """Return the responses from best to worst: by rank where all have one, else by score.

    Equal ones are in an order drawn from the seed and their content.
    """
    places = positions(record)
    draws = _draws(record, seed) if len(set(places)) < len(places) else [0] * len(places)
    order = sorted(range(len(places)), key=lambda index: (places[index], draws[index]))
    return [record.responses[index] for index in order]


def positions(record: PreferenceRecord) -> list[float]:
    """Return a number for each response, smaller for a better one: its rank where all have one, else -score."""
    by_rank = all(response.rank is not None for response in record.responses)
    return [_position(record, response, by_rank) for response in record.responses]


def _position(record: PreferenceRecord, response: Response, by_rank: bool) -> float:
    value = response.rank if by_rank else response.score
    if value is None:
        raise DataError(f"row {record.row_id} of {record.source} has a response with neither rank nor score")
    return value if by_rank else -value


def _draws(record: PreferenceRecord, seed: int) -> list[int]:
    key = record.key()
    return [draw(seed, "pairing", key, response.canonical) for response in record.responses]


def _score_gap(chosen: Response, rejected: Response) -> float | None:
    if chosen.score is None or rejected.score is None:
        return None
    return chosen.score - rejected.score


def _problem(chosen: Response, rejected: Response, pairing: Pairing) -> str | None:
    if chosen.messages == rejected.messages:
        return IDENTICAL
    gap = _score_gap(chosen, rejected)
    if gap is None:
        assert chosen.rank is not None and rejected.rank is not None
        gap = float(rejected.rank - chosen.rank)
    if pairing.ties == "drop" and abs(gap) < TOLERANCE:
        return TIED
    # A negative gap is a source whose stated preference contradicts its scores: the stated one counts.
    if pairing.minimum_gap > 0 and gap < pairing.minimum_gap - TOLERANCE:
        return SMALL_GAP
    return None


Proposals = Iterator[tuple[Response, Response]]


def _best_vs_random(record: PreferenceRecord, ordered: list[Response], pairing: Pairing) -> Proposals:
    best, *others = ordered
    if len(others) > 1:
        key = record.key()
        others.sort(key=lambda response: draw(pairing.seed, "pairing", key, response.canonical))
    for other in others:
        yield best, other


def _best_vs_worst(_: PreferenceRecord, ordered: list[Response], __: Pairing) -> Proposals:
    yield ordered[0], ordered[-1]


def _all_pairs(_: PreferenceRecord, ordered: list[Response], __: Pairing) -> Proposals:
    yield from itertools.combinations(ordered, 2)


def _adjacent(_: PreferenceRecord, ordered: list[Response], __: Pairing) -> Proposals:
    yield from itertools.pairwise(ordered)


def _random(record: PreferenceRecord, ordered: list[Response], pairing: Pairing) -> Proposals:
    key = record.key()

    def position(pair: tuple[Response, Response]) -> int:
        # Drawn for the two as a set, so that another label gives the same two where it can.
        return draw(pairing.seed, "pairing", key, sorted(response.digest for response in pair))

    yield from sorted(itertools.combinations(ordered, 2), key=position)


_POLICIES: dict[str, Callable[[PreferenceRecord, list[Response], Pairing], Proposals]] = {
    "best-vs-random": _best_vs_random,
    "best-vs-worst": _best_vs_worst,
    "all-pairs": _all_pairs,
    "adjacent": _adjacent,
    "random": _random,
}
ONE_PAIR = ("best-vs-random", "best-vs-worst", "random")
"""Policies that make at most one pair of a record."""
