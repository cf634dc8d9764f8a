"""What every method file declares: typed parameters with unit and source, and the facts the planner needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

UNPACKING = "Ivison et al. 2024 (arXiv 2406.09279), launch commands"

DType = Literal["float32", "bfloat16"]
Scheduler = Literal["linear", "constant", "cosine"]


class Parameters(BaseModel):
    """Closed, frozen set of a method's parameters; every field says its unit and where the default comes from.

    A field added after a release names, in ``json_schema_extra={"since": value}``, the value that reproduces the
    behaviour before it existed: at that value it is left out of a stage's identity, so that old results stay valid.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def identity(self) -> dict[str, Any]:
        """Return the parameters as they enter a stage's identity; fields at their ``since`` value are left out."""
        values = self.model_dump(mode="json")
        for name, info in type(self).model_fields.items():
            extra = info.json_schema_extra
            if isinstance(extra, dict) and "since" in extra and values[name] == extra["since"]:
                del values[name]
        return values


class OptimiserParameters(Parameters):
    """AdamW and the numeric type: what every stage that takes gradient steps is given."""

    learning_rate: float = Field(gt=0, description="Peak learning rate of AdamW.")
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="Share of all optimiser steps spent on linear warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this L2 norm.")
    dtype: DType = Field(
        "float32", description="Numeric type of the computation; weights that are trained stay float32 (autocast)."
    )


class TrainingParameters(OptimiserParameters):
    """What every stage that passes over a fixed set of examples is given."""

    scheduler: Scheduler = Field(
        "linear", description="Shape after warm-up: linear to zero, constant or cosine to zero."
    )
    epochs: int = Field(1, ge=1, description="Passes over the data.")
    batch_size: int = Field(
        ge=1, description="Effective batch (examples an optimiser step), over all devices and micro-batches."
    )


@dataclass(frozen=True)
class Method:
    """A method as the planner sees it.

    ``reads`` are the axes a cell of this method keeps beyond policy, algorithm and seed; an axis it does not read
    becomes null, so that equal cells collapse. ``needs`` are the shared stages its training takes in. ``entry`` is
    the module and function of its training step; ``revision`` is raised when the step's results change.
    """

    name: str
    title: str
    parameters: type[Parameters]
    formula: str
    source: str
    reads: frozenset[str]
    needs: tuple[str, ...]
    entry: str
    revision: int = 1
