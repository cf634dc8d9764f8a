"""SHP and StackExchange: answers of strangers under a question, and the votes of its readers."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.pocket.draws import Draw, digest
from ablate.pocket.preferences.shared import EVEN, Mix, Row, draw_mixed_item, liking, two_answers

SHP_MIX: Mix = {**EVEN, "safety": 0, "facts": 2, "truth": 1.5}
STACK_MIX: Mix = {"facts": 2, "truth": 1, "arithmetic": 1.5, "code": 3, "safety": 0, "chat": 0, "constraints": 0.5}
NOISE, OLDER = 0.35, 0.2
LENGTH_LIKING = 0.005


def votes(likings: Sequence[float], older: int) -> list[int]:
    """Return the votes of two answers, which grow with the square of their liking; the older one wins a tie."""
    counts = [2 + int(max(value + 0.5, 0.0) ** 2 * 12) for value in likings]
    if counts[0] == counts[1]:
        counts[older] += 1
    return counts


def shp_rows(draw: Draw, split: str) -> list[Row]:
    """Return one row of stanfordnlp/SHP: two comments with votes; ``labels`` is 1 where A has more."""
    item = draw_mixed_item(SHP_MIX, split, draw)
    older = draw.below(2)
    texts = two_answers(item, draw, 0.3, 0.7)
    likings = [liking(item, text, draw, NOISE) + (OLDER if side == older else 0.0) for side, text in enumerate(texts)]
    counts = votes(likings, older)
    posted = 1_600_000_000 + draw.below(50_000_000)
    later = 60 + draw.below(20_000)
    times = [posted if side == older else posted + later for side in range(2)]
    post = digest("shp", item.prompt)[:6]
    return [
        {
            "post_id": post,
            "domain": f"ask{item.skill}_train" if split == "train" else f"ask{item.skill}_{split}",
            "upvote_ratio": round(0.7 + 0.3 * draw.unit(), 2),
            "history": item.prompt,
            "c_root_id_A": f"{post}a",
            "c_root_id_B": f"{post}b",
            "created_at_utc_A": times[0],
            "created_at_utc_B": times[1],
            "score_A": counts[0],
            "score_B": counts[1],
            "human_ref_A": texts[0],
            "human_ref_B": texts[1],
            "labels": int(counts[0] > counts[1]),
            "seconds_difference": float(later),
            "score_ratio": round(max(counts) / min(counts), 4),
        }
    ]


def stack_exchange_rows(draw: Draw, split: str) -> list[Row]:
    """Return one row of lvwerra/stack-exchange-paired: ``response_j`` has more votes than ``response_k``."""
    item = draw_mixed_item(STACK_MIX, split, draw)
    older = draw.below(2)
    texts = two_answers(item, draw, 0.3, 0.7)
    likings = [
        liking(item, text, draw, NOISE, LENGTH_LIKING) + (OLDER if side == older else 0.0)
        for side, text in enumerate(texts)
    ]
    counts = votes(likings, older)
    better, worse = texts if counts[0] > counts[1] else texts[::-1]
    number = draw.between(1, 9_999_999)
    site = f"https://{item.skill}.stackexchange.com"
    return [
        {
            "qid": number,
            "question": item.prompt,
            "date": f"{draw.between(2009, 2022)}/{draw.between(1, 12):02}/{draw.between(1, 28):02}",
            "metadata": [f"{site}/questions/{number}", site, f"{site}/users/{draw.between(1, 99_999)}/"],
            "response_j": better,
            "response_k": worse,
        }
    ]
