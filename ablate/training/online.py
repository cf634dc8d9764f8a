"""The stage of methods that learn from pairs of their own samples: online DPO and D2PO.

Both run in the loop of all on-policy methods (``ablate.training.on_policy``); they differ in who labels the pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from ablate.training.objectives import PreferenceObjective
from ablate.training.on_policy import OnPolicyStage, OnPolicyTrainer, planned_steps
from ablate.training.online_pairs import Labeller, PairLearner
from ablate.training.pair_log import PairLog
from ablate.training.preference import START_TOLERANCE
from ablate.training.rollouts import Episode
from ablate.training.seeding import derive_seed

FILE = "annotator.json"


@dataclass
class Annotator:
    """Online DPO's labeller: every prompt of a step costs one label, whatever comes of it."""

    score: Score
    group: int
    labels: int = 0
    judged: JudgedEpisodes | None = None
    """The judge, where what scores is one: it says how often it could not be read."""

    def __call__(self, episodes: Sequence[Episode]) -> Tensor:
        """Return the annotator's scores."""
        self.labels += len(episodes) // self.group
        return self.score(episodes)

    def statistics(self) -> dict[str, float]:
        """Return the labels so far."""
        return {"labels": self.labels, **({} if self.judged is None else self.judged.statistics())}

    def save(self, folder: Path) -> None:
        """Write the counts."""
        own = {} if self.judged is None else {"asked": self.judged.asked, "unscored": self.judged.unscored}
        write_json(folder / FILE, {"labels": self.labels, **own})

    def load(self, folder: Path) -> None:
        """Restore what ``save`` wrote."""
        state = read_json(folder / FILE)
        self.labels = state["labels"]
        if self.judged is not None:
            self.judged.asked, self.judged.unscored = state["asked"], state["unscored"]


def pair_objective(parameters: OnlinePairParameters, *, own_start: bool = True) -> PreferenceObjective:
    """Return the offline objective with the loss that the parameters name.

    ``own_start``: the reference is what training starts from, so that the first loss is known.
    """
    loss = partial(PREFERENCE_LOSSES[parameters.loss], beta=parameters.beta)
    return PreferenceObjective(loss, parameters.beta, START_TOLERANCE[parameters.dtype] if own_start else None)


def within_budget(parameters: OnlinePairParameters, prompts: int) -> OnlinePairParameters:
    """Return the parameters with the steps that the label budget of online DPO has room for, each a whole one.

    D2PO goes on without labels when its budget is used up.
    """
    steps = planned_steps(parameters, prompts)
    if isinstance(parameters, OnlineDPOParameters) and parameters.label_budget is not None:
        affordable = parameters.label_budget // parameters.prompts_per_step
        if affordable < steps:
            print(
                f"label_budget {parameters.label_budget} is used up after {affordable} steps of "
                f"{parameters.prompts_per_step} labels: training ends there, not after {steps} steps",
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
    policy: nn.Module = stage.policy
    learner = PairLearner(
        networks={"policy": Network(policy, parameters.learning_rate, parameters.weight_decay)},
        parameters=parameters,
        pad_id=stage.tokens.pad,
        limits=stage.limits,
        reference=stage.reference,
        objective=pair_objective(parameters, own_start=context.inputs["reference"] == context.inputs["policy"]),
        labeller=_labeller(stage, parameters, seed),
        log=_pair_log(stage, name),
    )
    trainer = OnPolicyTrainer(
        learner,
        seed,
        reference=stage.reference,
        score=learner.labeller,
        gold=stage.gold,
        prompts=stage.prompts,
        tokens=stage.tokens,
        events=context.events,
    )
    summary = stage.train(trainer)
    learner.log.save(context.output)
    return {**summary, "pairs": len(learner.log.rows)}


def _labeller(stage: OnPolicyStage, parameters: OnlinePairParameters, seed: int) -> Labeller:
    by_name = "annotator" in stage.context.config
    judged = stage.asked_judge(_group(parameters)) if _is_asked(stage.context) else None
    annotate = judged or stage.judge("annotator", parameters.dtype)
    if not isinstance(parameters, D2POParameters):
        return Annotator(annotate, parameters.responses_per_prompt, judged=judged)
    fresh = parameters.discriminator == "sft"
    model: nn.Module = load_reward_model(
        stage.context.inputs["policy" if fresh else "reward_model"],
        head_seed=derive_seed(seed, "head") if fresh else None,
    )
    is_free = by_name and judged is None  # a formula or a verifier, which can be looked at for nothing
    return Discriminator(model, annotate, parameters, seed, stage.tokens.pad, stage.limits, is_measured=is_free)


def _is_asked(context: StageContext) -> bool:
    """Whether the annotator is a judge that is asked in words."""
    return isinstance(context.config.get("annotator"), Mapping)


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
