"""Judges as annotators of online methods: what an on-policy stage opens by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from ablate.catalogs.judges import judges_of_stage
from ablate.context import StageContext, import_function
from ablate.models.chat import Messages
from ablate.rewards.api import Asker
from ablate.rewards.judge import AskedJudge, JudgeOfPairs, JudgeReward, open_judge
from ablate.rewards.round_robin import round_robin

OWN_ANNOTATOR = "ablate.evaluation.own_judge:open_own_annotator"
ScoreTexts = Callable[[Sequence[Messages], Sequence[str]], list[float | None]]


def open_annotator(context: StageContext, policy: nn.Module, group: int) -> ScoreTexts:
    """Return what scores responses, ``group`` to a prompt, by the judge of config ``annotator``.

    Where that is the policy itself, ``policy`` is asked, as it is at that step. A judge that compares two responses
    gives each its share of wins against the others of its prompt.
    """
    (judge,) = judges_of_stage([context.config["annotator"]["judge"]], context.locations)
    if judge.is_self:
        asker: Asker = import_function(OWN_ANNOTATOR, "the policy as its own judge")(context, policy)
        asked = AskedJudge(judge, asker)
    else:
        asked = open_judge(context, judge)
    if asked.template.kind == "single":
        return JudgeReward(asked).score

    def score(prompts: Sequence[Messages], responses: Sequence[str]) -> list[float | None]:
        rows = range(0, len(responses), group)
        shares = round_robin(
            JudgeOfPairs(asked),
            [prompts[start] for start in rows],
            [responses[start : start + group] for start in rows],
        )
        return [share for own_shares in shares for share in own_shares]

    return score
