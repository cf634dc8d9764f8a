"""The stage of methods that learn from pairs of their own samples: online DPO and D2PO.

Both run in the loop of all on-policy methods (``ablate.training.on_policy``); they differ in who labels the pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ablate.algorithms.d2po import D2POParameters
from ablate.algorithms.online_dpo import OnlineDPOParameters, OnlinePairParameters
from ablate.algorithms.registry import find_method
from ablate.context import StageContext, read_json, write_json
from ablate.data.json_lines import read_json_lines
from ablate.errors import StageError
from ablate.models.loading import load_reward_model
from ablate.training.discriminator import Discriminator
from ablate.training.experience import Score
from ablate.training.judged import JudgedEpisodes
from ablate.training.learner import Network
from ablate.training.losses import PREFERENCE_LOSSES
from ablate.training.on_policy import OnPolicyStage, OnPolicyTrainer, planned_steps
from ablate.training.online_pairs import Labeller, PairLearner
from ablate.training.pair_log import PairLog
from ablate.training.preference import preference_objective
from ablate.training.rollouts import Episode
from ablate.training.seeding import derive_seed

FILE = "annotator.json"


@dataclass
class Annotator:
    """Online DPO's labeller: the responses to a prompt, ``group`` of them, cost ``price`` labels, ties included.

    The price of a reward model's scores is 0: its labels were spent on its own training.
    """

    score: Score
    group: int
    price: int
    labels: int = 0
    judged: JudgedEpisodes | None = None
    """The judge, where what scores is one: it says how often it could not be read."""

    def __call__(self, episodes: Sequence[Episode]) -> Tensor:
        """Return the annotator's scores."""
        self.labels += len(episodes) // self.group * self.price
        return self.score(episodes)

    def statistics(self) -> dict[str, float]:
        """Return the labels so far."""
        return {"labels": self.labels, **({} if self.judged is None else self.judged.statistics())}

    def save(self, folder: Path) -> None:
        """Write the counts."""
        own = {} if self.judged is None else {"judged": self.judged.counts}
        write_json(folder / FILE, {"labels": self.labels, **own})

    def load(self, folder: Path) -> None:
        """Restore what ``save`` wrote."""
        state = read_json(folder / FILE)
        self.labels = state["labels"]
        if self.judged is not None:
            self.judged.counts = state["judged"]


def within_budget(parameters: OnlinePairParameters, prompts: int) -> OnlinePairParameters:
    """Return the parameters with the steps that the label budget of online DPO has room for, each a whole one.

    D2PO goes on without labels when its budget is used up.
    """
    steps = planned_steps(parameters, prompts)
    if isinstance(parameters, OnlineDPOParameters) and parameters.label_budget is not None:
        labels = parameters.prompts_per_step * parameters.labels_per_prompt
        affordable = parameters.label_budget // labels
        if affordable < steps:
            print(
                f"label_budget {parameters.label_budget} is used up after {affordable} steps of "
                f"{labels} labels: training ends there, not after {steps} steps",
                flush=True,
            )
            steps = affordable
    return parameters.model_copy(update={"steps": steps})


def run(context: StageContext) -> dict[str, Any]:
    """Train a policy on pairs of its own samples; write ``model/``, ``history.jsonl``, samples and ``pairs.jsonl``."""
    name, seed = context.config["algorithm"], int(context.config["seed"])
    parameters = find_method(name).parameters.model_validate(context.config["parameters"])
    if not isinstance(parameters, OnlinePairParameters):
        raise StageError(f"{name!r} does not learn from pairs of its own samples")
    others = ("reward_model",) if "reward_model" in context.inputs else ()
    stage = OnPolicyStage.open(context, parameters, others=others)
    parameters = within_budget(parameters, len(stage.prompts))
    judged = stage.reader("annotator", _group(parameters))
    annotate = judged or stage.judge("annotator", parameters.dtype)
    policy: nn.Module = stage.policy
    own_start = context.inputs["reference"] == context.inputs["policy"]
    learner = PairLearner(
        networks={"policy": Network(policy, parameters.learning_rate, parameters.weight_decay)},
        parameters=parameters,
        pad_id=stage.tokens.pad,
        limits=stage.limits,
        reference=stage.reference,
        objective=preference_objective(PREFERENCE_LOSSES[parameters.loss], parameters, own_reference=own_start),
        labeller=_labeller(stage, parameters, seed, annotate, judged),
        log=_pair_log(stage, name),
    )
    trainer = OnPolicyTrainer(
        learner,
        seed,
        reference=stage.reference,
        score=learner.labeller,
        gold=stage.gold,
        compare=None if judged else annotate,
        prompts=stage.prompts,
        tokens=stage.tokens,
        events=context.events,
    )
    summary = stage.train(trainer)
    learner.log.save(context.output)
    return {**summary, "pairs": len(learner.log.rows)}


def _labeller(
    stage: OnPolicyStage, parameters: OnlinePairParameters, seed: int, annotate: Score, judged: JudgedEpisodes | None
) -> Labeller:
    by_name = "annotator" in stage.context.config  # a formula, a verifier or a judge
    if not isinstance(parameters, D2POParameters):
        price = parameters.labels_per_prompt if by_name else 0
        return Annotator(annotate, parameters.responses_per_prompt, price, judged=judged)
    fresh = parameters.discriminator == "sft"
    model: nn.Module = load_reward_model(
        stage.context.inputs["policy" if fresh else "reward_model"],
        head_seed=derive_seed(seed, "head") if fresh else None,
    )
    return Discriminator(
        model, annotate, parameters, seed, stage.tokens.pad, stage.limits, by_name=by_name, is_asked=judged is not None
    )


def _group(parameters: OnlinePairParameters) -> int:
    """Return how many responses to a prompt are annotated together: D2PO asks about one pair."""
    return 2 if isinstance(parameters, D2POParameters) else parameters.responses_per_prompt


def _pair_log(stage: OnPolicyStage, source: str) -> PairLog:
    rows = read_json_lines(stage.context.inputs["prompt_texts"])
    return PairLog(
        prompts={row["id"]: row["prompt"] for row in rows},
        decode=lambda ids: str(stage.tokenizer.decode(ids, skip_special_tokens=True)),
        source=source,
    )
