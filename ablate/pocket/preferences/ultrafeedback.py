"""UltraFeedback: four completions with ratings, and the binarised sets that others made of the same rows."""

from __future__ import annotations

from collections.abc import Callable

from ablate.pocket.draws import Draw, digest
from ablate.pocket.language import Item, answer, gold_reward
from ablate.pocket.preferences.shared import EVEN, Mix, Row, draw_mixed_item, messages, rating

WITHOUT_TRUTH: Mix = {**EVEN, "truth": 0}
MODELS = {"pocket-1": 0.25, "pocket-3": 0.5, "pocket-5": 0.75, "pocket-7": 1.0}
NOISE, MISSING = 0.5, 0.02


def _completion(item: Item, model: str, quality: float, draw: Draw) -> Row:
    """Return one completion with its ratings (strings, as upstream)."""
    text = answer(item, draw, quality)
    gold = gold_reward(item, text)
    aspects = {}
    for aspect in ("helpfulness", "honesty", "instruction_following", "truthfulness"):
        value = str(rating(1.0 + 2.0 * gold + draw.noise(NOISE)))
        value = "N/A" if draw.chance(MISSING) else value
        aspects[aspect] = {"Rating": value, "Rationale": "the rating follows from the checks of the answer ."}
    known = [int(aspect["Rating"]) for aspect in aspects.values() if aspect["Rating"] != "N/A"]
    overall = float(rating(1.0 + 4.5 * gold + draw.noise(2 * NOISE), 1, 10))
    return {
        "model": model,
        "principle": "helpfulness",
        "custom_system_prompt": "",
        "response": text,
        "critique": "the answer was read and rated .",
        "overall_score": 10.0 if overall == 1.0 else overall,
        "fine-grained_score": sum(known) / len(known) if known else 0.0,
        "annotations": aspects,
    }


def _raw_row(draw: Draw, split: str, mix: Mix) -> Row:
    item = draw_mixed_item(mix, split, draw)
    models = draw.some(tuple(MODELS), 4)
    return {
        "source": f"pocket_{item.skill}",
        "instruction": item.prompt,
        "models": models,
        "completions": [_completion(item, model, MODELS[model], draw) for model in models],
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }


def raw_rows(draw: Draw, split: str) -> list[Row]:
    """Return one row of openbmb/UltraFeedback: an instruction and four rated completions."""
    return [_raw_row(draw, split, EVEN)]


def _pair(
    draw: Draw, split: str, mix: Mix, score: str, allowed: Callable[[float, float], bool]
) -> tuple[Row, Row, Row]:
    """Return a raw row, its completion of the highest ``score`` and a random other one of another text.

    ``allowed`` says of (highest, other) whether the other may be rejected; rows in which none may are drawn again.
    """
    while True:
        row = _raw_row(draw, split, mix)
        best = max(row["completions"], key=lambda completion: completion[score])
        others = [
            other
            for other in row["completions"]
            if other["response"] != best["response"] and allowed(best[score], other[score])
        ]
        if others:
            return row, best, draw.pick(others)


def fine_grained_rows(draw: Draw, split: str) -> list[Row]:
    """Return one row of Argilla's binarised set: the highest mean of four ratings against a random lower one."""
    row, *sides = _pair(draw, split, EVEN, "fine-grained_score", lambda best, other: other < best)
    made = {"source": row["source"], "prompt": row["instruction"]}
    for name, side in zip(("chosen", "rejected"), sides, strict=True):
        made[name] = messages(row["instruction"], side["response"])
        made[f"{name}-rating"] = side["fine-grained_score"]
        made[f"{name}-model"] = side["model"]
    return [made]


def overall_rows(draw: Draw, split: str, mix: Mix) -> list[Row]:
    """Return one row of the hub's binarised set: the highest overall score against a random other one, ties included.

    The scores are those of the raw rows, in which 1 is recorded as 10: such an answer is chosen.
    """
    row, chosen, rejected = _pair(draw, split, mix, "overall_score", lambda best, other: True)
    sides = [messages(row["instruction"], side["response"]) for side in (chosen, rejected)]
    return [
        {
            "prompt": row["instruction"],
            "prompt_id": digest("ultrafeedback", row["instruction"]),
            "chosen": sides[0],
            "rejected": sides[1],
            "messages": sides[0],
            "score_chosen": chosen["overall_score"],
            "score_rejected": rejected["overall_score"],
        }
    ]


def tulu_rows(draw: Draw, split: str) -> list[Row]:
    """Return one row of allenai/tulu-2.5-preference-data, split ultrafeedback_mean_aspects."""
    (row,) = fine_grained_rows(draw, split)
    return [{"chosen": row["chosen"], "rejected": row["rejected"], "source": "ultrafeedback_mean_aspects"}]
