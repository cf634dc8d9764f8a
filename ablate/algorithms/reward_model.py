"""Reward models: a head on the SFT model, trained on pairs, on rankings of k responses, or on rated attributes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ablate.algorithms.base import UNPACKING, TrainingParameters

RewardLoss = Literal["bradley-terry", "margin", "k-wise", "instruct-k", "attributes", "pairwise"]
TokensOf = Literal["pairs", "rankings", "rated"]

TOKENS_OF_LOSS: dict[RewardLoss, TokensOf] = {
    "bradley-terry": "pairs",
    "margin": "pairs",
    "pairwise": "pairs",
    "k-wise": "rankings",
    "instruct-k": "rankings",
    "attributes": "rated",
}
"""What each loss learns from: pairs, k ranked responses a prompt, or k responses whether or not they are ordered."""

LOSS_REVISIONS: dict[RewardLoss, int] = {"pairwise": 2}
"""Revisions of losses whose results have changed, each once raised from 1."""

FORMULAS: dict[RewardLoss, str] = {
    "bradley-terry": "L = -log sigma(r(x, y_chosen) - r(x, y_rejected))",
    "margin": "L = -log sigma(r(x, y_chosen) - r(x, y_rejected) - m), m = margin_scale max(0, score gap of the pair)",
    "k-wise": "L = -sum_i [r_i - log(exp r_i + sum_{j ranked below i} exp r_j)]",
    "instruct-k": "L = mean over the pairs (i, j) of a prompt, j ranked below i, of -log sigma(r_i - r_j)",
    "attributes": "L = mean over the rated attributes a of (r_a - rating_a)^2; the reward is sum_a w_a r_a",
    "pairwise": "L = -[log sigma(f(x, c, r)) + log sigma(-f(x, r, c))] / 2; f reads both responses",
}
SOURCES: dict[RewardLoss, str] = {
    "bradley-terry": f"Bradley & Terry 1952; Ouyang et al. 2022; {UNPACKING}",
    "margin": "Touvron et al. 2023 (arXiv 2307.09288), eq. 2",
    "k-wise": "Zhu et al. 2023 (arXiv 2301.11270), K-wise maximum likelihood (Plackett-Luce); Starling",
    "instruct-k": "Ouyang et al. 2022 (arXiv 2203.02155), eq. 1",
    "attributes": "Dong et al. 2023 (arXiv 2310.05344); squared errors, weights: Wang et al. 2024 (arXiv 2406.08673)",
    "pairwise": "Dong et al. 2024 (arXiv 2405.07863), the pair preference model",
}

STEERLM_WEIGHTS = (
    "quality=0, toxicity=0, humor=0, creativity=0, "
    "helpfulness=0.65, correctness=0.8, coherence=0.45, complexity=0.55, verbosity=-0.4"
)
"""SteerLM's nine attributes with the weights that HelpSteer2's authors give their 70B reward model."""

CENTRED = ("bradley-terry", "margin", "k-wise", "instruct-k")


class RewardModelParameters(TrainingParameters):
    """Parameters of a reward model; defaults: the study's."""

    learning_rate: float = Field(1e-5, gt=0, description=f"Peak learning rate; {UNPACKING}.")
    min_learning_rate: float = Field(1e-6, ge=0, description=f"Learning rate at the end of the decay; {UNPACKING}.")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description=f"Share of steps of linear warm-up; {UNPACKING}.")
    epochs: int = Field(1, ge=1, description=f"Passes over the pairs; {UNPACKING}.")
    batch_size: int = Field(
        512, ge=1, description=f"Pairs an optimiser step; prompts, where a loss is over rankings; {UNPACKING}."
    )
    max_length: int = Field(4096, ge=8, description=f"Tokens of prompt and completion; {UNPACKING}.")
    truncation: Literal["drop", "keep-start"] = Field(
        "drop", description=f"What happens to pairs over max_length; the study removes them ({UNPACKING})."
    )
    loss: RewardLoss = Field(
        "bradley-terry",
        description="What it minimises: see `ablate algorithms show reward_modelling`.",
        json_schema_extra={"since": "bradley-terry"},
    )
    margin_scale: float = Field(
        1.0,
        gt=0,
        description="Of loss margin: the margin of a pair is this times its score gap; in rewards a unit of score.",
        json_schema_extra={"since": 1.0},
    )
    centring: float = Field(
        0.0,
        ge=0,
        description="Weight of the mean of (r_i + r_j)^2 over a prompt's pairs; 0: none. "
        "Eisenstein et al. 2023 (arXiv 2312.09244) use 0.01; TRL's center_rewards_coefficient.",
        json_schema_extra={"since": 0.0},
    )
    attributes: str = Field(
        STEERLM_WEIGHTS,
        description="Of loss attributes: a head for each name, and its weight in the reward. "
        "Names: SteerLM's nine (arXiv 2310.05344); weights: HelpSteer2's for 70B (arXiv 2406.08673).",
        json_schema_extra={"since": STEERLM_WEIGHTS},
    )

    @field_validator("attributes")
    @classmethod
    def _spelt_in_one_way(cls, value: str) -> str:
        return ", ".join(f"{name}={weight:g}" for name, weight in attribute_weights(value).items())

    @model_validator(mode="after")
    def _read_by_the_loss(self) -> RewardModelParameters:
        """Refuse what the loss does not read: varying it would vary nothing."""
        readers = {"margin_scale": ("margin",), "centring": CENTRED, "attributes": ("attributes",)}
        for name, losses in readers.items():
            if self.loss not in losses and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is read with loss {' or '.join(losses)}; the loss is {self.loss}")
        return self


def attribute_weights(written: str) -> dict[str, float]:
    """Return the weight of every attribute of ``name=weight, name=weight``; raises ValueError for anything else."""
    weights: dict[str, float] = {}
    for part in written.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = float("nan")
        if not name or not equals or not abs(weight) < float("inf"):
            raise ValueError(f"attributes are written as name=weight, name=weight (found {part.strip()!r})")
        if name in weights:
            raise ValueError(f"attribute {name!r} is written twice")
        weights[name] = weight
    if not any(weights.values()):
        raise ValueError("every attribute has weight 0: the reward would be 0 for every response")
    return weights
