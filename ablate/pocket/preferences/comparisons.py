"""Summarize from feedback and WebGPT: two answers of models under development, compared by paid labellers."""

from __future__ import annotations

from functools import cache

from ablate.pocket.behaviour import Behaviour
from ablate.pocket.draws import Draw, digest
from ablate.pocket.language import gold_reward, skill_named
from ablate.pocket.preferences.shared import Mix, Row, different_answers, draw_mixed_item, liking, rating
from ablate.pocket.vocabulary import vocabulary

SUMMARY_MIX: Mix = {"chat": 4, "facts": 2, "truth": 1}
SUMMARY_POLICIES = {"sup1": 0.45, "sup4_ppo_rm3": 0.65, "sup4_6b": 0.75, "ref": 0.85}
SUMMARY_NOISE, SUMMARY_RANDOM = 0.4, 0.05
WEB_MIX: Mix = {"facts": 3, "truth": 3}
WEB_QUALITIES = (0.5, 0.65, 0.8)
WEB_NOISE, WEB_STEPS = 0.4, 6


def summary_rows(draw: Draw, split: str) -> list[Row]:
    """Return one comparison of openai/summarize_from_feedback; ``choice`` is the index of the preferred summary."""
    item = draw_mixed_item(SUMMARY_MIX, split, draw)
    policies = draw.some(tuple(SUMMARY_POLICIES), 2)
    texts = different_answers(item, draw, [SUMMARY_POLICIES[policy] for policy in policies])
    first, second = (liking(item, text, draw, SUMMARY_NOISE) for text in texts)
    gap = draw.noise(1.0) if draw.chance(SUMMARY_RANDOM) else first - second
    info = {
        "id": f"t3_{digest('post', item.prompt)[:6]}",
        "post": item.prompt,
        "title": " ".join(item.prompt.split()[:4]),
        "subreddit": f"ask{item.skill}",
        "site": None,
        "article": None,
    }
    return [
        {
            "info": info,
            "summaries": [
                {"text": text, "policy": policy, "note": None} for text, policy in zip(texts, policies, strict=True)
            ],
            "choice": 0 if gap >= 0 else 1,
            "worker": digest("worker", draw.below(40))[:30],
            "batch": f"batch{draw.between(3, 22)}",
            "split": "train" if split == "train" else "valid1",
            "extra": {"confidence": rating(1.0 + 4.0 * abs(gap), 1, 9)},
        }
    ]


@cache
def _word_ids() -> dict[str, int]:
    return {word: number for number, word in enumerate(vocabulary())}


def _tokens(prompt: str, text: str) -> dict[str, list[int]]:
    ids = _word_ids()
    return {"prefix": [ids[word] for word in prompt.split()], "completion": [ids[word] for word in text.split()]}


def webgpt_rows(draw: Draw, split: str) -> list[Row]:
    """Return one row of openai/webgpt_comparisons: scores of opposite sign, 0 for a tie.

    What an answer quotes is true. The answers carry no marks such as [1], which are no words of the language.
    """
    item = draw_mixed_item(WEB_MIX, split, draw)
    texts = different_answers(item, draw, draw.some(WEB_QUALITIES, 2))
    gap = gold_reward(item, texts[0]) - gold_reward(item, texts[1]) + draw.noise(WEB_NOISE)
    score = round(min(max(gap, -1.0), 1.0) * WEB_STEPS / 2) / (WEB_STEPS / 2)
    extract = skill_named(item.skill).write(item.spec, Behaviour(polite=False), draw)
    row: Row = {"question": {"dataset": "eli5", "id": digest("web", item.prompt)[:6], "full_text": item.prompt}}
    for side, text in enumerate(texts):
        row[f"quotes_{side}"] = {"title": [item.skill], "extract": [extract]}
        row[f"answer_{side}"] = text
        row[f"tokens_{side}"] = _tokens(item.prompt, text)
        row[f"score_{side}"] = score if side == 0 else 0.0 - score
    return [row]
