"""Offline preference methods: DPO and its relatives, which differ in the loss and in nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Callable
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
from ablate.models.loading import load_policy, load_tokenizer
from ablate.models.properties import pad_id
from ablate.training.checkpoints import Cadence
from ablate.training.collate import PairCollator, PairTokens
from ablate.training.logprobs import completion_logprobs
from ablate.training.lora import publish, with_adapter
from ablate.training.losses import PREFERENCE_LOSSES, PairLogprobs
from ablate.training.offline import train_offline
from ablate.training.seeding import seed_everything

# Largest difference of the first loss from that of a policy equal to its reference (ln 2 for DPO).
START_TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}


@dataclass(frozen=True)
class PreferenceObjective:
    """A preference loss over one forward pass of chosen and rejected together."""

    loss: Callable[[PairLogprobs], Tensor]
    beta: float
    tolerance: float

    def units(self, batch: dict[str, Any]) -> int:
        """Return the pairs."""
        return len(batch["rows"])

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss per pair, and implicit rewards beta (log pi - log ref), accuracy, margin and log pi."""
        chosen_B, rejected_B = completion_logprobs(model, batch).chunk(2)
        pairs = _with_policy(batch, chosen_B, rejected_B)
        chosen_reward_B = self.beta * (chosen_B - pairs.reference_chosen_B).detach()
        rejected_reward_B = self.beta * (rejected_B - pairs.reference_rejected_B).detach()
        values = {
            "rewards/chosen": chosen_reward_B,
            "rewards/rejected": rejected_reward_B,
            "rewards/accuracy": (chosen_reward_B > rejected_reward_B).float(),
            "rewards/margin": chosen_reward_B - rejected_reward_B,
            "logps/chosen": chosen_B.detach(),
            "logps/rejected": rejected_B.detach(),
        }
        return self.loss(pairs), values

    def check_start(self, loss_U: Tensor, batch: dict[str, Any]) -> None:
        """Require the loss of a policy equal to its reference: ln 2 for DPO."""
        equal = _with_policy(batch, batch["reference_chosen"], batch["reference_rejected"])
        expected, found = float(self.loss(equal).mean()), float(loss_U.mean())
        if not abs(found - expected) <= self.tolerance:
            raise StageError(
                f"before the first step the loss is {found:.6f}, but a policy equal to its reference gives "
                f"{expected:.6f} (tolerance {self.tolerance:g}): the reference log-probabilities were not made by "
                "this policy from these tokens",
                hint="remove the reference_logprobs stage and run again",
            )


def _with_policy(batch: dict[str, Any], chosen_B: Tensor, rejected_B: Tensor) -> PairLogprobs:
    chosen_tokens_B, rejected_tokens_B = batch["completion_mask"].sum(-1).chunk(2)
    reference = batch["reference_chosen"], batch["reference_rejected"]
    return PairLogprobs(chosen_B, rejected_B, *reference, chosen_tokens_B, rejected_tokens_B)


def preference_loss(algorithm: str, parameters: TrainingParameters) -> Callable[[PairLogprobs], Tensor]:
    """Return the loss of ``algorithm`` with its keyword arguments taken from the parameters of the same names."""
    if algorithm not in PREFERENCE_LOSSES:
        raise StageError(f"{algorithm!r} has no offline preference loss", hint=suggestion(algorithm, PREFERENCE_LOSSES))
    function = PREFERENCE_LOSSES[algorithm]
    options = [option for option in inspect.signature(function).parameters if option != "pairs"]
    return partial(function, **{option: getattr(parameters, option) for option in options})


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


def run(context: StageContext) -> dict[str, Any]:
    """Train a policy with the loss that ``config["algorithm"]`` names; write ``model/`` and ``history.jsonl``."""
    return train_preference(context, Cadence(context.resources.checkpoint_seconds))


def train_preference(context: StageContext, cadence: Cadence) -> dict[str, Any]:
    """Do the work of ``run`` with checkpoints written at ``cadence``, which changes nothing in the result."""
    algorithm = context.config["algorithm"]
    parameters = find_method(algorithm).parameters.model_validate(context.config["parameters"])
    if not isinstance(parameters, TrainingParameters):
        raise StageError(f"{algorithm!r} does not learn from a fixed set of pairs")
    seed_everything(int(context.config["seed"]))
    pairs = PairTokens.read(context.inputs["data"])
    policy = load_policy(context.inputs["policy"], quantisation=parameters.quantisation)
    model = with_adapter(policy, parameters, int(context.config["seed"]))
    tokenizer = load_tokenizer(context.inputs["policy"])
    columns = read_reference(context.inputs["reference_logprobs"], pairs)
    objective = PreferenceObjective(
        loss=preference_loss(algorithm, parameters),
        beta=getattr(parameters, "beta", 1.0),
        tolerance=START_TOLERANCE["bfloat16" if parameters.quantisation else parameters.dtype],
    )
    collator = PairCollator(pairs, pad_id=pad_id(tokenizer), columns=columns)
    history = train_offline(context, model, objective, collator, parameters, cadence=cadence)
    publish(model, tokenizer, context.output / "model")
    history.write(context.output / "history.jsonl")
    return {"pairs": len(pairs), **history.last}
