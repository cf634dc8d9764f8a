"""Offline preference methods: DPO and its relatives, which differ in the loss and in nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

from ablate.algorithms.base import TrainingParameters
from ablate.algorithms.registry import find_method
from ablate.catalogs.parameters import OptimiserParameters
from ablate.context import StageContext
from ablate.errors import StageError, suggestion
from ablate.models.loading import load_tokenizer
from ablate.models.properties import pad_id
from ablate.training.batch_losses import BATCH_LOSSES
from ablate.training.checkpoints import Cadence
from ablate.training.collate import PairCollator, PairTokens
from ablate.training.coupling import COUPLINGS, CoupledObjective
from ablate.training.lora import publish, tuned_policy
from ablate.training.losses import PREFERENCE_LOSSES
from ablate.training.mismatch import MismatchCollator, mismatched
from ablate.training.objectives import PreferenceObjective, ReferenceFreeObjective
from ablate.training.offline import train_offline
from ablate.training.reference_free import REFERENCE_FREE_LOSSES
from ablate.training.seeding import seed_everything
from ablate.training.trainer import Objective

# Largest difference of the first loss from that of a policy equal to its reference (ln 2 for DPO).
START_TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}


def make_objective(
    algorithm: str, parameters: TrainingParameters, *, own_reference: bool = True
) -> PreferenceObjective | ReferenceFreeObjective:
    """Return the objective of ``algorithm``; raises StageError if it has no offline preference loss.

    ``own_reference``: the reference is the model that training starts from, so that the first loss is known.
    """
    losses = PREFERENCE_LOSSES | REFERENCE_FREE_LOSSES | BATCH_LOSSES
    if algorithm not in losses:
        raise StageError(f"{algorithm!r} has no offline preference loss", hint=suggestion(algorithm, losses))
    loss, beta = _with_parameters(losses[algorithm], parameters), getattr(parameters, "beta", 1.0)
    if algorithm in REFERENCE_FREE_LOSSES:
        return ReferenceFreeObjective(loss, beta)
    if algorithm in BATCH_LOSSES:
        tolerance = _start_tolerance(parameters, own_reference)
        return CoupledObjective(loss, beta, tolerance, COUPLINGS[algorithm](beta))
    return preference_objective(losses[algorithm], parameters, own_reference=own_reference)


def preference_objective(
    loss: Callable[..., Tensor], parameters: OptimiserParameters, *, own_reference: bool = True
) -> PreferenceObjective:
    """Return the objective of a loss of policy and reference; its keyword arguments are parameters of those names.

    One that the method has no parameter for keeps its default.
    """
    beta, tolerance = getattr(parameters, "beta", 1.0), _start_tolerance(parameters, own_reference)
    return PreferenceObjective(_with_parameters(loss, parameters), beta, tolerance)


def _start_tolerance(parameters: OptimiserParameters, own_reference: bool) -> float | None:
    dtype = "bfloat16" if parameters.quantisation else parameters.dtype  # four bits are multiplied in bfloat16
    return START_TOLERANCE[dtype] if own_reference else None


def _with_parameters(loss: Callable[..., Tensor], parameters: OptimiserParameters) -> Callable[..., Tensor]:
    # The keyword-only arguments of a loss are the method's parameters of the same names.
    options = [item for item in inspect.signature(loss).parameters.values() if item.kind is item.KEYWORD_ONLY]
    given = [item.name for item in options if item.default is item.empty or hasattr(parameters, item.name)]
    return partial(loss, **{option: getattr(parameters, option) for option in given})


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
    """Return the collator of ``pairs``, with what the reference made of them and of their mismatches, if given."""

    def columns(name: str, tokens: PairTokens) -> dict[str, Tensor]:
        return read_reference(inputs[name], tokens) if name in inputs else {}

    own = columns("reference_logprobs", pairs)
    if "mismatched_logprobs" not in inputs:
        return PairCollator(pairs, pad_id=pad, columns=own)
    others = mismatched(pairs)
    other = PairCollator(others, pad_id=pad, columns=columns("mismatched_logprobs", others))
    return MismatchCollator(pairs, pad_id=pad, columns=own, other=other)


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
    model = tuned_policy(context, parameters)
    tokenizer = load_tokenizer(context.inputs["policy"])
    collator = make_collator(pairs, context.inputs, pad_id(tokenizer))
    history = train_offline(context, model, objective, collator, parameters, cadence=cadence)
    publish(model, tokenizer, context.output / "model")
    history.write(context.output / "history.jsonl")
    return {"pairs": len(pairs), **history.last}
