"""The stage that trains with TRL's own trainer of a loss: the implementation of a method as an axis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ablate.algorithms.base import TRLPairParameters
from ablate.algorithms.registry import find_method
from ablate.context import StageContext, import_function
from ablate.errors import StageError
from ablate.models.loading import load_policy, load_tokenizer, save_model
from ablate.models.properties import pad_id
from ablate.training.checkpoints import Cadence
from ablate.training.collate import PairTokens
from ablate.training.distributed import world
from ablate.training.preference import make_collator, make_objective
from ablate.training.seeding import seed_everything
from ablate.training.trainer import TrainingRun
from ablate.training.trl_trainers import TRLTrainer

PAIR_TRAINER = "ablate.training.trl_trainers:PairTrainer"
TRAINERS = {
    "kto": "ablate.training.trl_trainers:CompletionTrainer",
    "simpo": "ablate.training.trl_reference_free:SimPOTrainer",
    "orpo": "ablate.training.trl_reference_free:OddsRatioTrainer",
}
"""Methods that TRL has a trainer of their own for; the others are loss types of its DPOTrainer."""


def run(context: StageContext) -> dict[str, Any]:
    """Train a policy with TRL's trainer; write ``model/`` and ``history.jsonl``."""
    return train_with_trl(context, Cadence(context.resources.checkpoint_seconds))


def train_with_trl(context: StageContext, cadence: Cadence) -> dict[str, Any]:
    """Do the work of ``run`` with checkpoints written at ``cadence``, which changes nothing in the result."""
    algorithm = context.config["algorithm"]
    parameters = find_method(algorithm).parameters.model_validate(context.config["parameters"])
    if not isinstance(parameters, TRLPairParameters):
        raise StageError(f"TRL has no trainer of {algorithm!r}")
    seed_everything(int(context.config["seed"]))
    pairs = PairTokens.read(context.inputs["data"])
    if world() > 1:
        raise StageError(
            f"TRL weighs every micro-batch the same, so that {world()} processes would change its loss",
            hint="run this stage with one process, or implementation: ablate",
        )
    model, tokenizer = load_policy(context.inputs["policy"]), load_tokenizer(context.inputs["policy"])
    trainer = make_trainer(context, model, tokenizer, pairs, parameters, cadence)
    trainer.fit(context.previous_work)
    save_model(model, tokenizer, context.output / "model")
    trainer.run.history.write(context.output / "history.jsonl")
    return {"pairs": len(pairs), **trainer.run.history.last}


def make_trainer(
    context: StageContext,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: PairTokens,
    parameters: TRLPairParameters,
    cadence: Cadence,
) -> TRLTrainer:
    """Return TRL's trainer of ``pairs`` with the loss of the stage's algorithm.

    Raises StageError where a batch would be cut that its loss must see whole.
    """
    algorithm = context.config["algorithm"]
    kind: Any = import_function(TRAINERS.get(algorithm, PAIR_TRAINER), f"TRL's trainer of {algorithm}")
    made = TrainingRun.of(context, cadence)
    if kind.whole_batches:
        if made.micro_batch is not None and made.micro_batch < parameters.batch_size:
            raise StageError(
                f"TRL's loss of {algorithm} depends on what passes at once, so a batch of {parameters.batch_size} "
                f"pairs can't be cut to {made.micro_batch}",
                hint=f"lower {algorithm}.batch_size, or use implementation: ablate, whose loss is the batch's however "
                "it is cut",
            )
        made = replace(made, micro_batch=parameters.batch_size)
    pad = pad_id(tokenizer)
    trainer: TRLTrainer = kind(
        algorithm,
        model,
        make_objective(algorithm, parameters, own_reference="reference" not in context.inputs),
        pairs,
        kind.rows(make_collator(pairs, context.inputs, pad), kind.collator(pad_token_id=pad)),
        parameters,
        made,
        processing_class=tokenizer,
    )
    return trainer
