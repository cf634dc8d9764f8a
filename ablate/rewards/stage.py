"""The score stage: a reward's numbers for generated responses, or for both sides of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ablate.catalogs.suite_parts import Reading
from ablate.context import StageContext, write_json
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.data.suite_files import open_source
from ablate.errors import StageError
from ablate.models.chat import Messages
from ablate.models.loading import compares_responses, load_reward_model, load_tokenizer
from ablate.models.reward_heads import reads_end_of_turn
from ablate.rewards.interface import PairJudge, Reward, Score
from ablate.rewards.pairs import Candidates, Pair, build_pairs, responses_of, scored_row, truncated
from ablate.rewards.reward_model import ComparisonModel, ReadAt, RewardModel
from ablate.rewards.round_robin import round_robin
from ablate.training.devices import stage_device

Row = dict[str, Any]


def run(context: StageContext) -> dict[str, Any]:
    """Write ``scores.jsonl`` and ``protocol.json``; config ``what`` is ``responses`` or ``pairs``.

    The reward is the input ``reward_model``; ``released`` says that it was not trained by a stage, see
    :func:`open_reward_model`.
    """
    what = context.config["what"]
    if what not in ("responses", "pairs"):
        raise StageError(f"unknown kind of things to score {what!r}", hint="allowed: responses, pairs")
    if what == "responses":
        rows = score_responses(open_reward(context), context.inputs["responses"])
    else:
        judge = open_comparison(context)
        rows = score_pairs(judge or open_reward(context), build_pairs(open_source(context), context.config))
    write_json_lines(context.output / "scores.jsonl", rows)
    # Who trained a model is no part of the protocol: its row stands beside ours.
    made = {name: value for name, value in context.config.items() if name != "released"}
    write_json(context.output / "protocol.json", {"made": made})
    return {"rows": len(rows), "unscored": sum(map(_lacks_a_score, rows)), "truncated": truncated(rows)}


def _lacks_a_score(row: Row) -> bool:
    scores = [row.get(name, 0.0) for name in ("score", "chosen", "rejected")]
    return any(None in score if isinstance(score, list) else score is None for score in scores)


def open_reward(context: StageContext) -> RewardModel:
    """The reward of a score stage; raises DataError for a model that compares two responses."""
    return open_reward_model(
        _folder(context),
        released=bool(context.config.get("released")),
        reading=Reading.model_validate(context.config.get("reading") or {}),
        device=stage_device(context.resources),
        progress=_progress(context),
    )


def open_reward_model(
    folder: Path,
    *,
    released: bool = False,
    reading: Reading | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> RewardModel:
    """The reward model of a folder: any sequence classifier with one output, ours or, ``released``, anybody's.

    A released model is read at the last token of the rendered text, unless its config says that it was trained here,
    and both its template and its tokenizer may begin texts: they begin once. Raises DataError for a model of two.
    """
    loaded = load_reward_model(folder)
    at: ReadAt = "last" if released and not reads_end_of_turn(loaded.config) else "end-of-turn"
    model: nn.Module = loaded
    model.to(device)
    tokenizer = load_tokenizer(folder, doubled_bos=released)
    return RewardModel(model, tokenizer, at=at, reading=reading, progress=progress)


def open_comparison(context: StageContext) -> PairJudge | None:
    """The judge of pairs that the stage's reward model is; None where it scores single responses."""
    folder = _folder(context)
    if not compares_responses(folder):
        return None
    model: nn.Module = load_reward_model(folder, pairwise=True)
    model.to(stage_device(context.resources))
    return ComparisonModel(model, load_tokenizer(folder), progress=_progress(context))


def _folder(context: StageContext) -> Path:
    if "reward_model" not in context.inputs:
        raise StageError("a score stage needs an input reward_model")
    return context.inputs["reward_model"]


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


def score_pairs(reward: Reward | PairJudge, asked: Sequence[Pair | Candidates]) -> list[Row]:
    """One row for each prompt with the scores and lengths (characters) of its responses.

    Of a pair the columns ``chosen`` and ``rejected`` hold a number each, of candidates a list each; ``truncated``,
    where it is not 0, counts responses that were scored without a part of their conversation.
    """
    scores = _scores(reward, [one.prompt for one in asked], [responses_of(one) for one in asked])
    return [
        scored_row(one, [score.value for score in own], sum(score.cut for score in own))
        for one, own in zip(asked, scores, strict=True)
    ]


def _scores(reward: Reward | PairJudge, prompts: Sequence[Messages], texts: Sequence[list[str]]) -> list[list[Score]]:
    """Scores of every response to every prompt; a judge's are log-odds and 0 of two, chances to win of more."""
    if isinstance(reward, PairJudge) and all(len(own) == 2 for own in texts):
        odds = reward.compare(prompts, [own[0] for own in texts], [own[1] for own in texts])
        return [[Score(value), Score(None if value is None else 0.0)] for value in odds]
    if isinstance(reward, PairJudge):
        return [[Score(value) for value in own] for own in round_robin(reward, prompts, texts)]
    flat = [(prompt, text) for prompt, own in zip(prompts, texts, strict=True) for text in own]
    asked, said = [prompt for prompt, _ in flat], [text for _, text in flat]
    found = iter(reward.read(asked, said) if isinstance(reward, RewardModel) else map(Score, reward.score(asked, said)))
    return [[next(found) for _ in own] for own in texts]
