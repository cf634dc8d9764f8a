"""The policy as its own judge: questions rendered in its chat template and answered by sampling from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from ablate.context import StageContext
from ablate.evaluation.policy import Policy, open_policy
from ablate.evaluation.sampling import Sampling
from ablate.models.chat import plain_text
from ablate.models.loading import load_tokenizer
from ablate.rewards.api import Body
from ablate.training.seeding import derive_seed


class OwnJudge:
    """Answers questions with a policy; one without a chat template is asked in plain text."""

    def __init__(self, policy: Policy, progress: Callable[[int, int], None] | None = None) -> None:
        self.policy, self.progress = policy, progress

    def answers(self, bodies: Sequence[Body]) -> list[dict[str, Any]]:
        """One answer to each question; one that does not fit the model's context is not asked."""
        groups: dict[tuple[float, int, int], list[int]] = defaultdict(list)
        for row, body in enumerate(bodies):
            groups[body["temperature"], body["max_tokens"], body["seed"]].append(row)
        found: list[dict[str, Any]] = [{}] * len(bodies)
        done = 0
        for (temperature, limit, seed), rows in groups.items():
            prompts = [self._prompt(bodies[row]) for row in rows]
            answers = self.policy.generate(
                prompts, Sampling(limit, temperature=temperature, seed=derive_seed(seed, "judge"))
            )
            for row, answer in zip(rows, answers, strict=True):
                found[row] = {"text": answer.text, "finish": answer.finish}
            done += len(rows)
            if self.progress:
                self.progress(done, len(bodies))
        return found

    def _prompt(self, body: Body) -> str:
        messages = body["messages"]
        return self.policy.render(messages) if self.policy.chat else plain_text(messages)


def open_own_judge(context: StageContext, progress: Callable[[int, int], None]) -> OwnJudge:
    """Return the policy of a stage's input as a judge; config ``chat`` says whether it knows a chat template."""
    chat = bool(context.config["chat"])
    return OwnJudge(open_policy(context.inputs["policy"], context.resources, chat=chat), progress)


def open_own_annotator(context: StageContext, model: nn.Module) -> OwnJudge:
    """Return a policy in training as the judge of its own samples, each time as it is then."""
    return OwnJudge(Policy(model, load_tokenizer(context.inputs["policy"]), chat=True))
