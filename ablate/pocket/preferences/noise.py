"""Label noise alone: true pairs in HH's schema of which a known share is flipped."""

from __future__ import annotations

from ablate.pocket.draws import Draw
from ablate.pocket.language import Item, answer, gold_reward
from ablate.pocket.preferences.shared import EVEN, Row, draw_mixed_item, transcript

NOISE_LEVELS = {"noise-00": 0.0, "noise-10": 0.10, "noise-25": 0.25, "noise-40": 0.40}
SMALLEST_PAIR_GAP = 0.25
PAIR_QUALITIES = (0.75, 0.45)


def clean_pair(item: Item, draw: Draw) -> tuple[str, str]:
    """Return a better and a worse response of ``item``: authors of near quality, gold rewards 0.25 or more apart."""
    while True:
        better, worse = (answer(item, draw, quality) for quality in PAIR_QUALITIES)
        if gold_reward(item, better) - gold_reward(item, worse) >= SMALLEST_PAIR_GAP:
            return better, worse


def noise_rows(draw: Draw, split: str, noise: float) -> list[Row]:
    """Return one row in HH's schema: a true pair, flipped with probability ``noise``.

    The number that decides the flip is drawn before and apart from the rest, so that rows of equal seed differ
    between noise levels only in their labels, and what is flipped at 10 % is flipped at 25 %.
    """
    flipped = draw.unit() < noise
    item = draw_mixed_item(EVEN, split, draw)
    better, worse = clean_pair(item, draw)
    chosen, rejected = (worse, better) if flipped else (better, worse)
    return [{"chosen": transcript([item.prompt, chosen]), "rejected": transcript([item.prompt, rejected])}]
