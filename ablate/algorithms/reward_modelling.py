"""No preference tuning: the cell's reward model is trained and evaluated, and its policy stays what it starts from."""

from __future__ import annotations

from ablate.algorithms.base import Method
from ablate.algorithms.reward_model import FORMULAS, SOURCES
from ablate.catalogs.parameters import Parameters


class RewardModellingParameters(Parameters):
    """Nothing of its own: what is trained has the parameters of the section ``reward_model``."""


METHOD = Method(
    name="reward_modelling",
    title="Reward model only",
    parameters=RewardModellingParameters,
    formula="by reward_model.loss: " + "; ".join(f"[{loss}] {formula}" for loss, formula in FORMULAS.items()),
    source="; ".join(f"[{loss}] {source}" for loss, source in SOURCES.items()),
    reads=frozenset({"dataset", "reward_model"}),
    needs=("reward_model",),
    entry="",
    cost="an epoch: one forward and one backward pass of the reward model over its pairs or rankings",
)
