"""Offline preference methods: DPO and its relatives, which differ in the loss and in nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from ablate.algorithms.base import TrainingParameters
from ablate.algorithms.registry import find_method
from ablate.context import StageContext
from ablate.errors import StageError, suggestion
from ablate.models.loading import load_policy, load_tokenizer, save_model
from ablate.models.properties import pad_id
from ablate.training.checkpoints import Cadence
from ablate.training.collate import PairCollator, PairTokens
from ablate.training.logprobs import completion_logprobs
from ablate.training.losses import PREFERENCE_LOSSES, PairLogprobs
from ablate.training.offline import train_offline
from ablate.training.reference_free import REFERENCE_FREE_LOSSES, PolicyLogprobs
from ablate.training.seeding import seed_everything
from ablate.training.trainer import Objective

# Largest difference of the first loss from that of a policy equal to its reference (ln 2 for DPO).
START_TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}


@dataclass(frozen=True)
class PreferenceObjective:
    """A loss of policy and reference over one forward pass of chosen and rejected together.

    ``tolerance`` is how far the first loss may be from that of a policy equal to its reference; None where the
    reference is another model, which the first loss says nothing about.
    """

    loss: Callable[[PairLogprobs], Tensor]
    beta: float
    tolerance: float | None

    def units(self, batch: dict[str, Any]) -> int:
        """Return the pairs."""
        return len(batch["rows"])

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss per pair, and implicit rewards beta (log pi - log ref), accuracy, margin and log pi."""
        pairs = with_reference(batch, *completion_logprobs(model, batch).chunk(2))
        return self.loss(pairs), logged(pairs, self.beta)

    def check_start(self, loss_U: Tensor, batch: dict[str, Any]) -> None:
        """Require the loss of a policy equal to its reference, if it is: ln 2 for DPO."""
        if self.tolerance is not None:
            equal = with_reference(batch, batch["reference_chosen"], batch["reference_rejected"])
            require_start(loss_U, self.loss(equal), self.tolerance)


@dataclass(frozen=True)
class ReferenceFreeObjective:
    """A loss of the policy alone over one forward pass of chosen and rejected together."""

    loss: Callable[[PolicyLogprobs], Tensor]
    beta: float

    def units(self, batch: dict[str, Any]) -> int:
        """Return the pairs."""
        return len(batch["rows"])

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss per pair, and rewards beta (mean log pi), accuracy, margin and log pi, a sum."""
        chosen_B, rejected_B = completion_logprobs(model, batch).chunk(2)
        pairs = PolicyLogprobs(chosen_B, rejected_B, *completion_tokens(batch))
        return self.loss(pairs), logged(pairs, self.beta)

    def check_start(self, loss_U: Tensor, batch: dict[str, Any]) -> None:
        """Require nothing: without a reference no value is known beforehand."""


def with_reference(batch: dict[str, Any], chosen_B: Tensor, rejected_B: Tensor) -> PairLogprobs:
    """Return what a loss reads, from the policy's log-probabilities and the reference's, which are in the batch."""
    reference = batch["reference_chosen"], batch["reference_rejected"]
    return PairLogprobs(chosen_B, rejected_B, *reference, *completion_tokens(batch))


def completion_tokens(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the token counts of the chosen and of the rejected completions, each [B]."""
    chosen_B, rejected_B = batch["completion_mask"].sum(-1).chunk(2)
    return chosen_B, rejected_B


def logged(pairs: PairLogprobs | PolicyLogprobs, beta: float) -> dict[str, Tensor]:
    """Return the detached values per pair that every method's training curve has."""
    chosen_reward_B, rejected_reward_B = (reward_B.detach() for reward_B in pairs.rewards(beta))
    return {
        "rewards/chosen": chosen_reward_B,
        "rewards/rejected": rejected_reward_B,
        "rewards/accuracy": (chosen_reward_B > rejected_reward_B).float(),
        "rewards/margin": chosen_reward_B - rejected_reward_B,
        "logps/chosen": pairs.chosen_B.detach(),
        "logps/rejected": pairs.rejected_B.detach(),
    }


def require_start(loss_U: Tensor, equal_U: Tensor, tolerance: float) -> None:
    """Raise StageError unless the first loss is ``equal_U``, that of a policy equal to its reference, on average."""
    expected, found = float(equal_U.mean()), float(loss_U.mean())
    if not abs(found - expected) <= tolerance:
        raise StageError(
            f"before the first step the loss is {found:.6f}, but a policy equal to its reference gives "
            f"{expected:.6f} (tolerance {tolerance:g}): the reference log-probabilities were not made by "
            "this policy from these tokens",
            hint="remove the reference_logprobs stage and run again",
        )


def make_objective(
    algorithm: str, parameters: TrainingParameters, *, own_reference: bool = True
) -> PreferenceObjective | ReferenceFreeObjective:
    """Return the objective of ``algorithm``; raises StageError if it has no offline preference loss.

    ``own_reference``: the reference is the model that training starts from, so that the first loss is known.
    """
    beta = getattr(parameters, "beta", 1.0)
    if algorithm in REFERENCE_FREE_LOSSES:
        return ReferenceFreeObjective(_with_parameters(REFERENCE_FREE_LOSSES[algorithm], parameters), beta)
    if algorithm in PREFERENCE_LOSSES:
        return preference_objective(PREFERENCE_LOSSES[algorithm], parameters, own_reference=own_reference)
    known = [*PREFERENCE_LOSSES, *REFERENCE_FREE_LOSSES]
    raise StageError(f"{algorithm!r} has no offline preference loss", hint=suggestion(algorithm, known))


def preference_objective(
    loss: Callable[..., Tensor], parameters: TrainingParameters, *, own_reference: bool = True
) -> PreferenceObjective:
    """Return the objective of a loss of policy and reference; its keyword arguments are parameters of those names."""
    tolerance = START_TOLERANCE[parameters.dtype] if own_reference else None
    return PreferenceObjective(_with_parameters(loss, parameters), getattr(parameters, "beta", 1.0), tolerance)


def _with_parameters(loss: Callable[..., Tensor], parameters: TrainingParameters) -> Callable[..., Tensor]:
    # The keyword-only arguments of a loss are the method's parameters of the same names.
    options = [item.name for item in inspect.signature(loss).parameters.values() if item.kind is item.KEYWORD_ONLY]
    return partial(loss, **{option: getattr(parameters, option) for option in options})


def read_reference(path: Path, pairs: PairTokens) -> dict[str, Tensor]:
    """Return the reference's log-probabilities in the order of ``pairs``, float32 [N], joined by id.

    Raises StageError naming pairs that are missing, or whose completions had other token counts.
    """
    table = pq.read_table(path).to_pydict()
    row_of = {identity: row for row, identity in enumerate(table["id"])}
    if missing := [identity for identity in pairs.ids if identity not in row_of]:
        raise StageError(
            f"{path} lacks the reference log-probabilities of {len(missing)} of {len(pairs)} pairs: "
            + ", ".join(missing[:8])
            + (", …" if len(missing) > 8 else ""),
            hint="the reference pass read other data; remove the reference_logprobs stage and run again",
        )
    rows = [row_of[identity] for identity in pairs.ids]
    for side, tokens in (("chosen", pairs.chosen), ("rejected", pairs.rejected)):
        counts = table[f"{side}_tokens"]
        for identity, row, length in zip(pairs.ids, rows, tokens.lengths.tolist(), strict=True):
            if counts[row] != length:
                raise StageError(
                    f"{path}: the {side} completion of pair {identity} had {counts[row]} tokens in the reference pass "
                    f"and has {length} now",
                    hint="the data was tokenised again since; remove the reference_logprobs stage and run again",
                )
    return {
        f"reference_{side}": torch.tensor([table[f"{side}_logp"][row] for row in rows], dtype=torch.float32)
        for side in ("chosen", "rejected")
    }


def make_collator(pairs: PairTokens, inputs: Mapping[str, Path], pad: int) -> PairCollator:
    """Return the collator of ``pairs``, with the reference's log-probabilities where the stage is given them."""
    path = inputs.get("reference_logprobs")
    return PairCollator(pairs, pad_id=pad, columns=read_reference(path, pairs) if path else {})


def run(context: StageContext) -> dict[str, Any]:
    """Train a policy with the loss that ``config["algorithm"]`` names; write ``model/`` and ``history.jsonl``."""
    return train_preference(context, Cadence(context.resources.checkpoint_seconds))


def train_preference(context: StageContext, cadence: Cadence) -> dict[str, Any]:
    """Do the work of ``run`` with checkpoints written at ``cadence``, which changes nothing in the result."""
    algorithm = context.config["algorithm"]
    parameters = find_method(algorithm).parameters.model_validate(context.config["parameters"])
    if not isinstance(parameters, TrainingParameters):
        raise StageError(f"{algorithm!r} does not learn from a fixed set of pairs")
    objective = make_objective(algorithm, parameters, own_reference="reference" not in context.inputs)
    return train_pairs(context, objective, parameters, cadence)


def train_pairs(
    context: StageContext, objective: Objective, parameters: TrainingParameters, cadence: Cadence
) -> dict[str, Any]:
    """Train a policy with ``objective`` on pairs; write ``model/`` and ``history.jsonl``."""
    seed_everything(int(context.config["seed"]))
    pairs = PairTokens.read(context.inputs["data"])
    model = load_policy(context.inputs["policy"])
    tokenizer = load_tokenizer(context.inputs["policy"])
    collator = make_collator(pairs, context.inputs, pad_id(tokenizer))
    history = train_offline(context, model, objective, collator, parameters, cadence=cadence)
    save_model(model, tokenizer, context.output / "model")
    history.write(context.output / "history.jsonl")
    return {"pairs": len(pairs), **history.last}
