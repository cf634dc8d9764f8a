"""SteerLM: imitation of all responses on condition of how a reward model of attributes rates each of them."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping

from pydantic import Field, field_validator, model_validator

from ablate.algorithms.base import Method
from ablate.algorithms.sft import SFTParameters
from ablate.algorithms.supervised import COST

STEERLM = "Dong et al. 2023 (arXiv 2310.05344)"
HELPSTEER = "helpfulness", "correctness", "coherence", "complexity", "verbosity"


class SteerLMParameters(SFTParameters):
    """Parameters of SteerLM; those of the fine-tuning that it does not give default to Tülu 2's."""

    learning_rate: float = Field(5e-6, gt=0, description=f"Peak learning rate; {STEERLM}.")
    condition: str = Field(
        ",".join(f"{name}:{{{name}}}" for name in HELPSTEER),
        description="What is written behind the last user turn, each attribute in braces standing for its value. "
        f"Form: {STEERLM}; attributes: HelpSteer's, which have weights in the reward model's default.",
    )
    ask: str = Field(
        "helpfulness=4, correctness=4, coherence=4, complexity=4, verbosity=2",
        description="Values that are asked of the trained policy: the condition of every prompt it is given.",
    )
    lowest: int = Field(0, ge=0, description="Lowest value of an attribute; HelpSteer's ratings are 0 to 4.")
    highest: int = Field(4, ge=1, description="Highest value of an attribute; ratings are rounded and kept within.")

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes of the condition, in its order."""
        return attributes_of(self.condition)

    @property
    def asked(self) -> str:
        """The condition with the values that are asked for."""
        return self.condition.format(**asked_values(self.ask))

    @field_validator("condition")
    @classmethod
    def _names_attributes(cls, value: str) -> str:
        try:
            fields = [field for field in string.Formatter().parse(value) if field[1] is not None]
        except ValueError as error:
            raise ValueError(f"condition {value!r}: {error}") from error
        plain = all(str(name).isidentifier() and not spec and not turn for _, name, spec, turn in fields)
        if not fields or not plain or len({name for _, name, _, _ in fields}) < len(fields):
            raise ValueError(
                f"condition {value!r} must name each of its attributes once, in braces: helpfulness:{{helpfulness}}"
            )
        return value

    @field_validator("ask")
    @classmethod
    def _spelt_in_one_way(cls, value: str) -> str:
        return ", ".join(f"{name}={number}" for name, number in asked_values(value).items())

    @model_validator(mode="after")
    def _asks_for_what_it_says(self) -> SteerLMParameters:
        if self.highest <= self.lowest:
            raise ValueError(f"highest {self.highest} is not above lowest {self.lowest}")
        asked = asked_values(self.ask)
        if set(asked) != set(self.attributes):
            raise ValueError(
                f"ask has values for {', '.join(asked)}; the condition has the attributes {', '.join(self.attributes)}"
            )
        for name, number in asked.items():
            if not self.lowest <= number <= self.highest:
                raise ValueError(f"ask: {name}={number} is not within {self.lowest} to {self.highest}")
        return self


def attributes_of(condition: str) -> tuple[str, ...]:
    """Return the attributes that a condition has in braces, in its order."""
    return tuple(name for _, name, _, _ in string.Formatter().parse(condition) if name is not None)


def asked_values(written: str) -> dict[str, int]:
    """Return the value of every attribute of ``name=value, name=value``; raises ValueError for anything else."""
    values: dict[str, int] = {}
    for part in written.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if not name or not equals or not number.isdecimal():
            raise ValueError(f"ask is written as name=value, name=value with whole values (found {part.strip()!r})")
        if name in values:
            raise ValueError(f"attribute {name!r} is written twice")
        values[name] = int(number)
    return values


def quantised(ratings: Mapping[str, float], lowest: int, highest: int) -> dict[str, int]:
    """Return ratings as whole values from ``lowest`` to ``highest``; halves are rounded up."""
    return {name: min(max(math.floor(value + 0.5), lowest), highest) for name, value in ratings.items()}


METHOD = Method(
    name="steerlm",
    title="SteerLM",
    parameters=SteerLMParameters,
    formula="L = -sum_t log pi(y_t | y_<t, x, v), v = the ratings of (x, y) by the reward model's heads, rounded; "
    "then y ~ pi(. | x, v*), v* = the values asked for",
    source=STEERLM,
    reads=frozenset({"dataset", "reward_model"}),
    needs=("conditioned_answers",),
    entry="ablate.training.sft:run_method",
    cost=f"one forward pass of the reward model over every response of the set; {COST}, one for each response",
    conditions_prompts=True,
)
