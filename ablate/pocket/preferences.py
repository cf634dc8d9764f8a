"""Preference data in the native schemas of HH-RLHF, UltraFeedback, Nectar and SHP, with the noise of each kind.

========  ==========================================  ====================================================
family    responses                                   labels
========  ==========================================  ====================================================
hh        two authors, quality 0.2-0.8; mostly        one human: the better gold reward plus bell-shaped
          safety and chat; a quarter two-turn         noise (sd 0.8), a slight liking for length, and one
          dialogues                                   label in ten at random
uf        four models, quality 0.25 / 0.5 / 0.75 / 1  ratings 1-5 in four aspects (noise sd 0.5), 2 % "N/A";
                                                      an overall score of 1 is recorded as 10, as upstream
nectar    seven models, quality 0.2-1                 one ranking of noisy gold (sd 0.35), earlier answers
                                                      favoured a little
shp       two authors, quality 0.3-1; no safety       votes: gold plus noise (sd 0.35), and the older comment
                                                      has more of them
noise-NN  two authors, quality 0.75 and 0.45, gold    true order, NN % of the labels flipped; the same
          0.25 or more apart                          prompts and responses, flips nested as NN grows
========  ==========================================  ====================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ablate.errors import UnknownNameError
from ablate.pocket.draws import Draw, digest
from ablate.pocket.language import SKILLS, Item, answer, draw_item, gold_reward, skill_named

Row = dict[str, Any]

EVEN = dict.fromkeys(SKILLS, 1.0)
MIXES: dict[str, dict[str, float]] = {
    "hh": {"facts": 1, "truth": 1, "arithmetic": 0.5, "code": 0.5, "safety": 4, "chat": 3, "constraints": 1},
    "uf": EVEN,
    "nectar": {**EVEN, "chat": 2, "safety": 1.5, "arithmetic": 0.7},
    "shp": {**EVEN, "safety": 0, "facts": 2, "truth": 1.5},
    "noise": EVEN,
}
NOISE_LEVELS = {"noise-00": 0.0, "noise-10": 0.10, "noise-25": 0.25, "noise-40": 0.40}
MODEL_QUALITIES = {
    "pocket-1": 0.2,
    "pocket-2": 0.35,
    "pocket-3": 0.5,
    "pocket-4": 0.65,
    "pocket-5": 0.75,
    "pocket-6": 0.9,
    "pocket-7": 1.0,
}
UF_MODELS = {"pocket-1": 0.25, "pocket-3": 0.5, "pocket-5": 0.75, "pocket-7": 1.0}
HH_NOISE, HH_LENGTH_LIKING, HH_RANDOM, HH_DIALOGUES = 0.8, 0.01, 0.1, 0.25
UF_NOISE, UF_MISSING = 0.5, 0.02
NECTAR_NOISE, NECTAR_POSITION = 0.35, 0.03
SHP_NOISE, SHP_OLDER = 0.35, 0.2
SMALLEST_PAIR_GAP = 0.25
PAIR_QUALITIES = (0.75, 0.45)


def draw_mixed_item(mix: dict[str, float], split: str, draw: Draw) -> Item:
    """Draw an item of ``split`` whose skill follows the weights of ``mix``."""
    name = draw.weighted(tuple(mix), tuple(mix.values()))
    return draw_item(skill_named(name), split, draw)


def transcript(turns: Sequence[str]) -> str:
    """Join turns, the first a human's, in the form of HH-RLHF."""
    speakers = ("Human", "Assistant")
    return "".join(f"\n\n{speakers[index % 2]}: {turn}" for index, turn in enumerate(turns))


def hh_row(draw: Draw, split: str) -> Row:
    """Return one HH-RLHF row: ``chosen`` and ``rejected`` transcripts that share all but the last turn."""
    item = draw_mixed_item(MIXES["hh"], split, draw)
    turns = [item.prompt]
    if draw.chance(HH_DIALOGUES):
        earlier = draw_mixed_item(MIXES["hh"], split, draw)
        turns = [earlier.prompt, answer(earlier, draw, 0.7), item.prompt]
    responses = [answer(item, draw, 0.2 + 0.6 * draw.unit()) for _ in range(2)]
    while responses[0] == responses[1]:
        responses[1] = answer(item, draw, 0.2 + 0.6 * draw.unit())
    liking = [
        gold_reward(item, text) + HH_LENGTH_LIKING * len(text.split()) + draw.noise(HH_NOISE) for text in responses
    ]
    first = draw.chance(0.5) if draw.chance(HH_RANDOM) else liking[0] >= liking[1]
    chosen, rejected = responses if first else responses[::-1]
    return {"chosen": transcript([*turns, chosen]), "rejected": transcript([*turns, rejected])}


def _rating(value: float, low: int = 1, high: int = 5) -> int:
    return min(max(int(value + 0.5), low), high)


def uf_completion(item: Item, model: str, quality: float, draw: Draw) -> Row:
    """Return one UltraFeedback completion with its ratings (strings, as upstream)."""
    text = answer(item, draw, quality)
    gold = gold_reward(item, text)
    aspects = {}
    for aspect in ("helpfulness", "honesty", "instruction_following", "truthfulness"):
        rating = str(_rating(1.0 + 2.0 * gold + draw.noise(UF_NOISE)))
        rating = "N/A" if draw.chance(UF_MISSING) else rating
        aspects[aspect] = {"Rating": rating, "Rationale": "the rating follows from the checks of the answer ."}
    known = [int(aspect["Rating"]) for aspect in aspects.values() if aspect["Rating"] != "N/A"]
    overall = float(_rating(1.0 + 4.5 * gold + draw.noise(2 * UF_NOISE), 1, 10))
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


def uf_row(draw: Draw, split: str) -> Row:
    """Return one row of openbmb/UltraFeedback: an instruction and four rated completions."""
    item = draw_mixed_item(MIXES["uf"], split, draw)
    models = draw.some(tuple(UF_MODELS), 4)
    return {
        "source": f"pocket_{item.skill}",
        "instruction": item.prompt,
        "models": models,
        "completions": [uf_completion(item, model, UF_MODELS[model], draw) for model in models],
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }


def nectar_row(draw: Draw, split: str) -> Row:
    """Return one Nectar row: seven answers with ranks 1 (best) to 7."""
    item = draw_mixed_item(MIXES["nectar"], split, draw)
    models = draw.some(tuple(MODEL_QUALITIES), 7)
    texts = [answer(item, draw, MODEL_QUALITIES[model]) for model in models]
    liking = [
        gold_reward(item, text) + draw.noise(NECTAR_NOISE) - NECTAR_POSITION * place for place, text in enumerate(texts)
    ]
    order = sorted(range(7), key=lambda place: -liking[place])
    ranks = {place: float(rank) for rank, place in enumerate(order, 1)}
    answers = [
        {"answer": texts[place], "model": models[place], "rank": ranks[place]}
        for place in sorted(range(7), key=lambda place: models[place])
    ]
    return {
        "prompt": f"{transcript([item.prompt])}\n\nAssistant: ",
        "answers": answers,
        "turns": 1,
        "num_responses": 7,
        "source": [f"pocket_{item.skill}"],
        "good_natured": not item.spec.get("harmful", False),
    }


def shp_row(draw: Draw, split: str) -> Row:
    """Return one SHP row: two comments with votes; ``labels`` is 1 where A has more."""
    item = draw_mixed_item(MIXES["shp"], split, draw)
    older = draw.below(2)
    texts = [answer(item, draw, 0.3 + 0.7 * draw.unit()) for _ in range(2)]
    while texts[0] == texts[1]:
        texts[1] = answer(item, draw, 0.3 + 0.7 * draw.unit())
    likings = [
        gold_reward(item, text) + draw.noise(SHP_NOISE) + (SHP_OLDER if side == older else 0.0)
        for side, text in enumerate(texts)
    ]
    votes = [2 + int(max(liking + 0.5, 0.0) ** 2 * 12) for liking in likings]
    if votes[0] == votes[1]:
        votes[older] += 1
    posted = 1_600_000_000 + draw.below(50_000_000)
    later = 60 + draw.below(20_000)
    times = [posted if side == older else posted + later for side in range(2)]
    post = digest("shp", item.prompt)[:6]
    return {
        "post_id": post,
        "domain": f"ask{item.skill}_train" if split == "train" else f"ask{item.skill}_{split}",
        "upvote_ratio": round(0.7 + 0.3 * draw.unit(), 2),
        "history": item.prompt,
        "c_root_id_A": f"{post}a",
        "c_root_id_B": f"{post}b",
        "created_at_utc_A": times[0],
        "created_at_utc_B": times[1],
        "score_A": votes[0],
        "score_B": votes[1],
        "human_ref_A": texts[0],
        "human_ref_B": texts[1],
        "labels": int(votes[0] > votes[1]),
        "seconds_difference": float(later),
        "score_ratio": round(max(votes) / min(votes), 4),
    }


def clean_pair(item: Item, draw: Draw) -> tuple[str, str]:
    """Return a better and a worse response of ``item``: authors of near quality, gold rewards 0.25 or more apart."""
    while True:
        better, worse = (answer(item, draw, quality) for quality in PAIR_QUALITIES)
        if gold_reward(item, better) - gold_reward(item, worse) >= SMALLEST_PAIR_GAP:
            return better, worse


def noise_row(draw: Draw, split: str, noise: float) -> Row:
    """Return one row in HH's schema: a true pair, flipped with probability ``noise``.

    The number that decides the flip is drawn before and apart from the rest, so that rows of equal seed differ
    between noise levels only in their labels, and what is flipped at 10 % is flipped at 25 %.
    """
    flipped = draw.unit() < noise
    item = draw_mixed_item(MIXES["noise"], split, draw)
    better, worse = clean_pair(item, draw)
    chosen, rejected = (worse, better) if flipped else (better, worse)
    return {"chosen": transcript([item.prompt, chosen]), "rejected": transcript([item.prompt, rejected])}


FAMILIES: dict[str, Callable[[Draw, str], Row]] = {"hh": hh_row, "uf": uf_row, "nectar": nectar_row, "shp": shp_row}
SCHEMAS = {"hh": "hh_rlhf", "uf": "ultrafeedback_raw", "nectar": "nectar", "shp": "shp", "noise": "hh_rlhf"}


def preference_names() -> tuple[str, ...]:
    """Return the names of the preference sets."""
    return (*FAMILIES, *NOISE_LEVELS)


def preference_row(name: str, seed: int, split: str, index: int, noise: float | None = None) -> Row:
    """Return row ``index`` of a preference set; ``noise`` overrides the level of the noise-only family."""
    if name in FAMILIES:
        return FAMILIES[name](Draw("preferences", name, seed, split, index), split)
    if name == "noise" or name in NOISE_LEVELS:
        level = NOISE_LEVELS.get(name, 0.0) if noise is None else noise
        return noise_row(Draw("preferences", "noise", seed, split, index), split, level)
    raise UnknownNameError("pocket preference set", name, (*preference_names(), "noise"))
