"""The score stage: a reward's numbers for generated responses, or for both sides of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ablate.context import StageContext, write_json
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.errors import StageError
from ablate.models.chat import Messages
from ablate.models.loading import load_reward_model, load_tokenizer
from ablate.rewards.interface import Reward
from ablate.rewards.pairs import Pair, build_pairs
from ablate.rewards.reward_model import RewardModel
from ablate.training.devices import stage_device

Row = dict[str, Any]


def run(context: StageContext) -> dict[str, Any]:
    """Write ``scores.jsonl`` and ``protocol.json``; config ``what`` is ``responses`` or ``pairs``.

    The reward is the input ``reward_model``.
    """
    what = context.config["what"]
    if what not in ("responses", "pairs"):
        raise StageError(f"unknown kind of things to score {what!r}", hint="allowed: responses, pairs")
    reward = open_reward(context)
    if what == "responses":
        rows = score_responses(reward, context.inputs["responses"])
    else:
        rows = score_pairs(reward, build_pairs(context))
    write_json_lines(context.output / "scores.jsonl", rows)
    write_json(context.output / "protocol.json", {"made": dict(context.config)})
    unscored = sum(None in (row.get("score", 0), row.get("chosen", 0), row.get("rejected", 0)) for row in rows)
    return {"rows": len(rows), "unscored": unscored}


def open_reward(context: StageContext) -> Reward:
    """The reward of a score stage."""
    if "reward_model" not in context.inputs:
        raise StageError("a score stage needs an input reward_model")
    folder = context.inputs["reward_model"]
    model: nn.Module = load_reward_model(folder)
    model.to(stage_device(context.resources))
    return RewardModel(
        model,
        load_tokenizer(folder),
        progress=lambda done, total: context.events.progress(done, total, "conversations"),
    )


def score_responses(reward: Reward, responses: Path) -> list[Row]:
    """One row for each response, in their order; prompts are read from the ``items.jsonl`` beside them."""
    folder = responses if responses.is_dir() else responses.parent
    prompts: dict[str, Messages] = {row["id"]: row["prompt"] for row in read_json_lines(folder / "items.jsonl")}
    rows = read_json_lines(folder / "responses.jsonl")
    scores = reward.score([prompts[row["id"]] for row in rows], [row["response"] for row in rows])
    return [
        {"id": row["id"], "task": row["task"], "sample": row["sample"], "score": score}
        for row, score in zip(rows, scores, strict=True)
    ]


def score_pairs(reward: Reward, pairs: Sequence[Pair]) -> list[Row]:
    """One row for each pair with the scores and lengths (characters) of both responses."""
    prompts = [pair.prompt for pair in pairs]
    texts = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    scores = reward.score([*prompts, *prompts], texts)
    return [
        {**pair.facts(), "chosen": chosen, "rejected": rejected}
        for pair, chosen, rejected in zip(pairs, scores[: len(pairs)], scores[len(pairs) :], strict=True)
    ]
