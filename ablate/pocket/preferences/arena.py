"""Chatbot Arena: a visitor talks to two models and votes; both forms of release."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ablate.pocket.draws import Draw, digest
from ablate.pocket.language import Item, checks
from ablate.pocket.preferences.shared import (
    EVEN,
    MODEL_QUALITIES,
    Mix,
    Row,
    different_answers,
    draw_mixed_item,
    liking,
    messages,
)

MIX_2023: Mix = {**EVEN, "chat": 3, "safety": 1.5}
MIX_2024: Mix = {**EVEN, "chat": 2, "safety": 1.5, "code": 2}
NOISE_2023, NOISE_2024 = 0.6, 0.5
LENGTH_LIKING_2024 = 0.01
REFUSAL_DISLIKE = 1.0
SMALLEST_GAP, BAD = 0.4, 0.8
SEVERAL_TURNS, NO_ANSWER = 0.2, 0.01


@dataclass(frozen=True)
class Battle:
    """Two models' answers to the same user turns, and who won: ``model_a``, ``model_b``, ``tie``, ``tie (bothbad)``."""

    models: Sequence[str]
    prompts: Sequence[str]
    answers: Sequence[Sequence[str]]
    winner: str


def vote(likings: Sequence[float]) -> str:
    """Return the winner in words; likings nearer than ``SMALLEST_GAP`` tie."""
    if abs(likings[0] - likings[1]) < SMALLEST_GAP:
        return "tie (bothbad)" if max(likings) < BAD else "tie"
    return "model_a" if likings[0] > likings[1] else "model_b"


def enjoyed(item: Item, text: str, draw: Draw, noise: float, length: float) -> float:
    """Return how a visitor likes an answer; a refusal is disliked even where it is right."""
    refused = checks(item, text).get("refused", 0.0)
    return liking(item, text, draw, noise, length) - REFUSAL_DISLIKE * refused


def _battle(draw: Draw, split: str, mix: Mix, noise: float, length: float) -> Battle:
    models = draw.some(tuple(MODEL_QUALITIES), 2)
    items = [draw_mixed_item(mix, split, draw) for _ in range(2 if draw.chance(SEVERAL_TURNS) else 1)]
    texts = [different_answers(item, draw, [MODEL_QUALITIES[model] for model in models]) for item in items]
    totals = [
        sum(enjoyed(item, pair[side], draw, noise, length) for item, pair in zip(items, texts, strict=True))
        for side in range(2)
    ]
    winner = vote([total / len(items) for total in totals])
    return Battle(
        models, [item.prompt for item in items], [[pair[side] for pair in texts] for side in range(2)], winner
    )


def arena_2023_rows(draw: Draw, split: str) -> list[Row]:
    """Return one row of lmsys/chatbot_arena_conversations: conversations as messages, the vote in words."""
    battle = _battle(draw, split, MIX_2023, NOISE_2023, 0.0)
    conversations = [
        messages(*(turn for exchange in zip(battle.prompts, answers, strict=True) for turn in exchange))
        for answers in battle.answers
    ]
    return [
        {
            "question_id": digest("arena", *battle.prompts, *battle.models)[:32],
            "model_a": battle.models[0],
            "model_b": battle.models[1],
            "winner": battle.winner,
            "judge": f"arena_user_{draw.between(1, 9999)}",
            "conversation_a": conversations[0],
            "conversation_b": conversations[1],
            "turn": len(battle.prompts),
            "anony": True,
            "language": "English",
            "tstamp": 1_682_000_000.0 + draw.below(8_000_000),
            "openai_moderation": {"flagged": False},
            "toxic_chat_tag": {"roberta-large": {"flagged": False}},
        }
    ]


def arena_2024_rows(draw: Draw, split: str) -> list[Row]:
    """Return one row of lmsys/lmsys-arena-human-preference-55k: turns as JSON lists, a null for a lost answer."""
    battle = _battle(draw, split, MIX_2024, NOISE_2024, LENGTH_LIKING_2024)
    sides: list[list[str | None]] = [list(answers) for answers in battle.answers]
    if draw.chance(NO_ANSWER):
        sides[draw.below(2)][-1] = None
    return [
        {
            "id": draw.between(1, 4_294_967_295),
            "model_a": battle.models[0],
            "model_b": battle.models[1],
            "prompt": json.dumps(battle.prompts),
            "response_a": json.dumps(sides[0]),
            "response_b": json.dumps(sides[1]),
            "winner_model_a": int(battle.winner == "model_a"),
            "winner_model_b": int(battle.winner == "model_b"),
            "winner_tie": int(battle.winner.startswith("tie")),
        }
    ]
