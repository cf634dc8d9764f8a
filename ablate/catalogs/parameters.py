"""Parameters of what is trained, as they are written and as they enter a stage's identity; and those of base models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import to_jsonable_python

from ablate.catalogs.closed import Closed

DType = Literal["float32", "bfloat16"]
Scheduler = Literal["linear", "constant", "cosine"]
LORA = "Hu et al. 2021 (arXiv 2106.09685)"
ALL_LINEAR = "all-linear"
QUANTISATION_REVISIONS = {"4bit": 2}
"""Raised when what is trained over weights that are held so changes."""


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

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the values, as JSON has them, of the fields that need not be written."""
        fields = cls.model_fields.items()
        values = {name: info.get_default(call_default_factory=True) for name, info in fields if not info.is_required()}
        plain: dict[str, Any] = to_jsonable_python(values)
        return plain


class AdamWParameters(Parameters):
    """AdamW and the numeric type: what every stage that takes gradient steps is given."""

    learning_rate: float = Field(gt=0, description="Peak learning rate of AdamW.")
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="Share of all optimiser steps spent on linear warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this L2 norm.")
    dtype: DType = Field(
        "float32", description="Numeric type of the computation; weights that are trained stay float32 (autocast)."
    )


class OptimiserParameters(AdamWParameters):
    """What every stage that tunes a model is given: AdamW, and which weights it trains: all of them, or an adapter."""

    lora_rank: int | None = Field(
        None,
        ge=1,
        description=f"Rank of the trained update of each layer; null: all weights are trained; {LORA}.",
        json_schema_extra={"since": None},
    )
    lora_alpha: int = Field(
        16,
        ge=1,
        description=f"The update is scaled by lora_alpha / lora_rank; {LORA}.",
        json_schema_extra={"since": 16},
    )
    lora_targets: str = Field(
        ALL_LINEAR,
        pattern=r"^[\w.-]+(, ?[\w.-]+)*$",
        description=f"Layers that get an update: {ALL_LINEAR} (all but the output layer), or names: q_proj, v_proj.",
        json_schema_extra={"since": ALL_LINEAR},
    )
    quantisation: Literal["4bit"] | None = Field(
        None,
        description="4bit: the frozen weights under an adapter are held in NF4 (QLoRA, arXiv 2305.14314).",
        json_schema_extra={"since": None},
    )

    @model_validator(mode="after")
    def _frozen_to_be_quantised(self) -> OptimiserParameters:
        if self.quantisation and self.lora_rank is None:
            raise ValueError("quantisation needs lora_rank: weights of 4 bits can't be trained themselves")
        return self

    def identity(self) -> dict[str, Any]:
        """Return the parameters as they enter a stage's identity; without an adapter nothing is said about one."""
        values = super().identity()
        return values if self.lora_rank else {k: v for k, v in values.items() if not k.startswith("lora_")}


def quantisation_parts(parameters: Mapping[str, Any]) -> dict[str, int]:
    """Return what vouches, in a stage's identity, for the quantisation of its ``parameters``; nothing without one."""
    name = parameters.get("quantisation")
    return {} if name is None else {f"quantisation {name}": QUANTISATION_REVISIONS[name]}


class PretrainParameters(AdamWParameters):
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
