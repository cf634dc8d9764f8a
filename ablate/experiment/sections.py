"""The sections of a specification and the keys a cell can have: the closed vocabulary of axes."""

from __future__ import annotations

import functools
from typing import Literal

from pydantic import Field

from ablate.algorithms.registry import METHODS
from ablate.algorithms.reward_model import RewardModelParameters
from ablate.algorithms.sft import SFTParameters
from ablate.algorithms.trl_losses import without_trl
from ablate.catalogs.closed import Closed, Strict
from ablate.catalogs.parameters import PretrainParameters
from ablate.errors import suggestion

Scalar = str | int | float | bool | None


class DataSection(Strict):
    """How preference sets are sampled."""

    max_examples: int | None = Field(None, ge=1, description="Rows kept of each preference set; null: all.")
    seed: int = Field(42, ge=0, description="Seed of the sampling; fixed unless swept.")
    cap: Literal["after-filter", "before-filter"] = Field(
        "after-filter", description="Whether max_examples counts what filters leave, or rows before them."
    )
    match: Literal["smallest"] | None = Field(
        None, description="smallest: every preference set of the grid gets as many pairs as the smallest one has."
    )


class SFTSection(SFTParameters):
    """Supervised fine-tuning of the base model before any preference tuning."""

    dataset: str = Field(description="Instruction set of the catalog.")
    max_examples: int | None = Field(None, ge=1, description="Conversations kept; null: all.")
    seed: int = Field(0, ge=0, description="Seed of the data order; fixed unless swept.")


class RewardModelSection(RewardModelParameters):
    """The reward model an on-policy method learns from; trained with the cell's seed."""

    init: str = Field(description="Model whose SFT it starts from; default: the policy.")
    dataset: str = Field(description="Preference set it is trained on; default: the cell's dataset.")


SECTIONS: dict[str, type[Closed]] = {
    "data": DataSection,
    "pretrain": PretrainParameters,
    "sft": SFTSection,
    "reward_model": RewardModelSection,
    **{name: method.parameters for name, method in METHODS.items()},
}

SCALARS = ("policy", "dataset", "algorithm", "seed", "rounds", "prompts", "reference", "reward", "annotator")
"""Keys of a cell that stand alone; every other key is ``section.parameter``."""

SHORTHANDS = {"reward_model": "reward_model.init"}
"""A section given as a plain string means this key."""


@functools.cache
def cell_keys() -> frozenset[str]:
    """Return every key that can be fixed or varied, dotted."""
    return frozenset(
        [*SCALARS, *(f"{section}.{name}" for section, model in SECTIONS.items() for name in model.model_fields)]
    )


def parameter_hint(section: str, name: str) -> str:
    """Return what to write instead of a parameter that a section lacks: whose it is, and which there are."""
    if name == "implementation" and section in METHODS:
        return without_trl(METHODS[section])
    others = sorted(other for other, model in SECTIONS.items() if other in METHODS and name in model.model_fields)
    owners = f"it is a parameter of {', '.join(others)}; " if others else ""
    return owners + suggestion(name, SECTIONS[section].model_fields)
