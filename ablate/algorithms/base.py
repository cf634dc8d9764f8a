"""What every method file declares: typed parameters with unit and source, and the facts the planner needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import Field, model_validator

from ablate.catalogs.parameters import OptimiserParameters, Parameters, Scheduler

UNPACKING = "Ivison et al. 2024 (arXiv 2406.09279), launch commands"


class TrainingParameters(OptimiserParameters):
    """What every stage that passes over a fixed set of examples is given."""

    scheduler: Scheduler = Field(
        "linear", description="Shape after warm-up: linear to zero, constant or cosine to zero."
    )
    epochs: int = Field(1, ge=1, description="Passes over the data.")
    batch_size: int = Field(
        ge=1, description="Effective batch (examples an optimiser step), over all devices and micro-batches."
    )


class PairParameters(TrainingParameters):
    """What every method that learns from pairs of completions is given; defaults: the study's for DPO."""

    learning_rate: float = Field(5e-7, gt=0, description=f"Peak learning rate; {UNPACKING}.")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description=f"Share of steps of linear warm-up; {UNPACKING}.")
    epochs: int = Field(3, ge=1, description=f"Passes over the pairs; {UNPACKING}.")
    batch_size: int = Field(32, ge=1, description=f"Pairs an optimiser step; {UNPACKING}.")
    max_length: int = Field(4096, ge=8, description=f"Tokens of prompt and completion; {UNPACKING}.")
    truncation: Literal["drop", "keep-start"] = Field(
        "keep-start", description=f"What happens to pairs over max_length; the study keeps them, cut ({UNPACKING})."
    )


class TRLPairParameters(PairParameters):
    """What methods over pairs are given that TRL has a trainer of, or a loss type of its DPOTrainer for."""

    implementation: Literal["ablate", "trl"] = Field(
        "ablate",
        description="Whose loss and forward pass: ablate's, or those of TRL's trainer, on the same tokens, batches and "
        "reference log-probabilities.",
        json_schema_extra={"since": "ablate"},
    )

    @model_validator(mode="after")
    def _trl_trains_all_weights(self) -> TRLPairParameters:
        if self.implementation == "trl" and (self.lora_rank is not None or self.quantisation is not None):
            raise ValueError("implementation trl trains all weights: leave lora_rank and quantisation out")
        return self


class RankingParameters(PairParameters):
    """What every method that learns from k ranked responses to a prompt is given; defaults: the study's for DPO."""

    epochs: int = Field(3, ge=1, description=f"Passes over the prompts; {UNPACKING} (of pairs).")
    batch_size: int = Field(32, ge=1, description=f"Prompts an optimiser step, each with k responses; {UNPACKING}.")
    max_length: int = Field(4096, ge=8, description=f"Tokens of prompt and response; {UNPACKING}.")
    truncation: Literal["drop", "keep-start"] = Field(
        "keep-start",
        description="What happens to responses over max_length: cut, or left out of their ranking.",
    )


COST_OF_PAIRS = (
    "an epoch: one forward and one backward pass of the policy over both completions of every pair; one forward pass "
    "of the reference over them, shared by all methods, strengths and seeds on the same data"
)

READ_BY_NEEDS = dict.fromkeys(("reference_logprobs", "mismatched_logprobs", "reference"), "reference")
"""The axis by which a stage that a method needs is chosen."""
JUDGES = ("reward", "annotator")
"""The axes that name what scores responses."""
LEARNT = frozenset({"pairs", "rankings", "answers"})
"""Needs that are examples of the cell's dataset."""

COST_OF_BATCHES = (
    f"{COST_OF_PAIRS}; for what the loss takes from the whole batch, one more forward pass of the policy an epoch"
)

COST_WITHOUT_REFERENCE = (
    "an epoch: one forward and one backward pass of the policy over both completions of every pair; no reference"
)


COST_OF_RANKINGS = (
    "an epoch: one forward and one backward pass of the policy over all k responses of every prompt; no reference"
)


@dataclass(frozen=True)
class OwnCode:
    """Where the training step of a researcher's own method is: importable as named, and the sha256 of its files."""

    step: str
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Method:
    """A method as the planner sees it.

    ``reads`` are the axes a cell of this method keeps beyond policy, algorithm and seed, and those of its needs; an
    axis it does not read becomes null, so that equal cells collapse. ``judge`` is the axis that names what scores
    responses, where there is one: the cell keeps its reward model only where that is ``reward_model``, or where the
    parameter that ``reward_model_if`` names has the value beside it. ``needs`` are the shared stages its training
    takes in. ``entry`` is the module and function of its training step, empty where the policy stays as it is;
    ``cost`` says in forward and backward passes what it takes; ``leaves_pairs`` says whether it leaves the pairs it
    learnt from, which a set can replay; ``revision`` is raised when the step's results change. ``rounds`` is the
    parameter that says how many times it is run unless the cell says; None: once. ``formats`` are the kinds of sets it
    can learn from. ``divisible``: several processes can train it together. ``conditions_prompts``: the policy it leaves
    has a chat template of its own, which writes a condition into every prompt. ``own_code`` is set where it is written
    outside ablate.
    """

    name: str
    title: str
    parameters: type[Parameters]
    formula: str
    source: str
    reads: frozenset[str]
    needs: tuple[str, ...]
    entry: str
    cost: str
    judge: str | None = None
    reward_model_if: tuple[str, str] | None = None
    leaves_pairs: bool = False
    revision: int = 1
    rounds: str | None = None
    formats: tuple[str, ...] = ("preference",)
    divisible: bool = True
    conditions_prompts: bool = False
    own_code: OwnCode | None = None

    @cached_property
    def axes(self) -> frozenset[str]:
        """The axes a cell keeps: what the method reads, and what choosing the stages it needs reads."""
        judge = frozenset() if self.judge is None else frozenset({self.judge})
        return frozenset(self.reads) | judge | {axis for need, axis in READ_BY_NEEDS.items() if need in self.needs}
