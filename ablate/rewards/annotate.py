"""Judges as annotators of online methods: what an on-policy stage opens by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from ablate.catalogs.judges import judges_of_stage
from ablate.context import StageContext, import_function
from ablate.errors import StageError
from ablate.models.chat import Messages
from ablate.rewards.api import Asker
from ablate.rewards.interface import PairJudge
from ablate.rewards.judge import AskedJudge, JudgeOfPairs, JudgeReward, open_judge
from ablate.rewards.round_robin import round_robin
from ablate.rewards.stage import open_comparison

OWN_ANNOTATOR = "ablate.evaluation.own_judge:open_own_annotator"
ScoreTexts = Callable[[Sequence[Messages], Sequence[str]], list[float | None]]


def open_annotator(context: StageContext, policy: nn.Module, axis: str, group: int) -> ScoreTexts:
    """Return what scores responses, ``group`` to a prompt, by the judge of config ``axis``.

    Where that is the policy itself, ``policy`` is asked, as it is at that step. A judge that compares two responses
    gives each its share of wins against the others of its prompt.
    """
    (judge,) = judges_of_stage([context.config[axis]["judge"]], context.locations)
    if judge.is_self:
        asker: Asker = import_function(OWN_ANNOTATOR, "the policy as its own judge")(context, policy)
        asked = AskedJudge(judge, asker)
    else:
        asked = open_judge(context, judge)
    if asked.template.kind == "single":
        return JudgeReward(asked).score

    return _by_comparisons(JudgeOfPairs(asked), group)


def open_comparing_annotator(context: StageContext, group: int) -> ScoreTexts:
    """Return what scores responses, ``group`` to a prompt, by the stage's reward model, which compares two."""
    judge = open_comparison(context)
    if judge is None:
        raise StageError("the reward model scores single responses and compares none")
    return _by_comparisons(judge, group)


def _by_comparisons(judge: PairJudge, group: int) -> ScoreTexts:
    def score(prompts: Sequence[Messages], responses: Sequence[str]) -> list[float | None]:
        rows = range(0, len(responses), group)
        shares = round_robin(
            judge,
            [prompts[start] for start in rows],
            [responses[start : start + group] for start in rows],
        )
        return [share for own_shares in shares for share in own_shares]

    return score
