"""Parameters of what is trained, as they are written and as they enter a stage's identity; and those of base models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from ablate.catalogs.closed import Closed

DType = Literal["float32", "bfloat16"]
Scheduler = Literal["linear", "constant", "cosine"]


class Parameters(Closed):
    """Closed, frozen set of a method's parameters; every field says its unit and where the default comes from.

    A field added after a release names, in ``json_schema_extra={"since": value}``, the value that reproduces the
    behaviour before it existed: at that value it is left out of a stage's identity, so that old results stay valid.
    """

    model_config = ConfigDict(allow_inf_nan=False)

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


class PretrainParameters(OptimiserParameters):
    """Next-token training of a model from scratch; steps are fixed, never the time.

    One document (or conversation) is one row: never packed.
    """

    model_config = ConfigDict(strict=True)

    learning_rate: float = Field(6e-3, gt=0, description="Peak learning rate of AdamW; tuned on the pocket world.")
    scheduler: Scheduler = Field("linear", description="Shape after warm-up.")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="Share of steps of linear warm-up.")
    steps: int = Field(1800, ge=1, description="Optimiser steps.")
    batch_size: int = Field(32, ge=1, description="Documents a step, bucketed by length.")
    max_length: int = Field(256, ge=8, description="Tokens; longer documents are cut.")
    seed: int = Field(0, ge=0, description="Seed of initial weights and data order.")
