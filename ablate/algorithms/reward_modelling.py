"""No preference tuning: the cell's reward model is trained and evaluated, and its policy stays what it starts from."""

from __future__ import annotations

from ablate.algorithms.base import Method
from ablate.catalogs.parameters import Parameters


class RewardModellingParameters(Parameters):
    """Nothing of its own: what is trained has the parameters of the section ``reward_model``."""


METHOD = Method(
    name="reward_modelling",
    title="Reward model only",
    parameters=RewardModellingParameters,
    formula="the policy stays as it is; the reward model's loss is that of reward_model.loss",
    source="for studies of reward models, whose suites need no policy to be trained",
    reads=frozenset({"dataset", "reward_model"}),
    needs=("reward_model",),
    entry="",
    cost="the reward model's training alone",
)
