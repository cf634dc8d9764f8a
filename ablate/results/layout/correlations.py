"""Correlations as declared: numbers of reward models beside those of the policies trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from ablate.catalogs.closed import Closed
from ablate.catalogs.origins import Origins
from ablate.results.layout.columns import Column, check_columns
from ablate.results.layout.names import refuse_unknown


class CorrelationLayout(Closed):
    """A table of correlations: numbers of reward models with those of the policies that were trained on them."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="name of its files")
    title: str = ""
    reward_model: tuple[Column, ...] = Field(min_length=1, description="columns of reward models, as in a table")
    policy: tuple[Column, ...] = Field(min_length=1, description="columns of policies, as in a table")
    algorithms: tuple[str, ...] = Field(default=("ppo",), min_length=1, description="methods whose cells are points")
    resamples: int = Field(default=2000, ge=100, description="of the bootstrap interval")
    seed: int = Field(default=0, ge=0)


def check_correlation(layout: CorrelationLayout, plan: Mapping[str, Any], origins: Origins) -> None:
    """Raise :class:`SpecError` for a column or an algorithm that the experiment does not have."""
    check_columns(layout.reward_model, "reward_model", plan, origins.inside("reward_model"))
    check_columns(layout.policy, "policy", plan, origins.inside("policy"))
    methods = {str(entry["axes"].get("algorithm")) for entry in plan["subjects"] if entry["role"] == "cell"}
    for i, name in enumerate(layout.algorithms):
        refuse_unknown("algorithm of the experiment", name, methods - {"None"}, origins.locate("algorithms", i))
