"""The score stage: a reward's numbers for generated responses, or for both sides of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from ablate.context import StageContext, write_json
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.errors import StageError
from ablate.models.chat import Messages
from ablate.models.loading import compares_responses, load_reward_model, load_tokenizer
from ablate.rewards.interface import PairJudge, Reward
from ablate.rewards.pairs import Pair, build_pairs
from ablate.rewards.reward_model import ComparisonModel, RewardModel
from ablate.training.devices import stage_device

Row = dict[str, Any]


def run(context: StageContext) -> dict[str, Any]:
    """Write ``scores.jsonl`` and ``protocol.json``; config ``what`` is ``responses`` or ``pairs``.

    The reward is the input ``reward_model``.
    """
    what = context.config["what"]
    if what not in ("responses", "pairs"):
        raise StageError(f"unknown kind of things to score {what!r}", hint="allowed: responses, pairs")
    if what == "responses":
        rows = score_responses(open_reward(context), context.inputs["responses"])
    else:
        judge = open_comparison(context)
        rows = score_pairs(judge or open_reward(context), build_pairs(context))
    write_json_lines(context.output / "scores.jsonl", rows)
    write_json(context.output / "protocol.json", {"made": dict(context.config)})
    unscored = sum(None in (row.get("score", 0), row.get("chosen", 0), row.get("rejected", 0)) for row in rows)
    return {"rows": len(rows), "unscored": unscored}


def open_reward(context: StageContext) -> Reward:
    """The reward of a score stage; raises DataError for a model that compares two responses."""
    folder = _folder(context)
    return RewardModel(*_loaded(context, load_reward_model(folder)), progress=_progress(context))


def open_comparison(context: StageContext) -> PairJudge | None:
    """The judge of pairs that the stage's reward model is; None where it scores single responses."""
    folder = _folder(context)
    if not compares_responses(folder):
        return None
    model = load_reward_model(folder, pairwise=True)
    return ComparisonModel(*_loaded(context, model), progress=_progress(context))


def _folder(context: StageContext) -> Path:
    if "reward_model" not in context.inputs:
        raise StageError("a score stage needs an input reward_model")
    return context.inputs["reward_model"]


def _loaded(context: StageContext, model: nn.Module) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    model.to(stage_device(context.resources))
    return model, load_tokenizer(_folder(context))


def _progress(context: StageContext) -> Callable[[int, int], None]:
    return lambda done, total: context.events.progress(done, total, "conversations")


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


def score_pairs(reward: Reward | PairJudge, pairs: Sequence[Pair]) -> list[Row]:
    """One row for each pair with the scores and lengths (characters) of both responses."""
    return [
        {**pair.facts(), "chosen": chosen, "rejected": rejected}
        for pair, (chosen, rejected) in zip(pairs, pair_scores(reward, pairs), strict=True)
    ]


def pair_scores(reward: Reward | PairJudge, pairs: Sequence[Pair]) -> list[tuple[float | None, float | None]]:
    """Scores of the chosen and the rejected response of each pair; a judge's are its log-odds and 0."""
    prompts = [pair.prompt for pair in pairs]
    chosen, rejected = [pair.chosen for pair in pairs], [pair.rejected for pair in pairs]
    if isinstance(reward, PairJudge):
        odds = reward.compare(prompts, chosen, rejected)
        return [(value, None if value is None else 0.0) for value in odds]
    scores = reward.score([*prompts, *prompts], [*chosen, *rejected])
    return list(zip(scores[: len(pairs)], scores[len(pairs) :], strict=True))
