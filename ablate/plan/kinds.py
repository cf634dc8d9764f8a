"""The kinds of stages: which code does the work, and the revision that is raised when its results change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of stage: ``entry`` is the module and function of its work.

    ``revision`` vouches for what all stages of the kind share; methods, converters, prompts and graders have their own.
    ``heavy``: it imports the training stack, so it is forked from the server that has. ``gpu``: it computes on one.
    ``trains``: it trains, so that several processes can do it together unless its method says otherwise.
    ``network``: it asks servers outside this machine.
    """

    entry: str
    revision: int = 1
    heavy: bool = True
    gpu: bool = True
    trains: bool = False
    network: bool = False


KINDS: dict[str, Kind] = {
    "pocket": Kind("ablate.pocket.stage:run", heavy=False, gpu=False),
    "dataset": Kind("ablate.data.stage:run", heavy=False, gpu=False),
    "respond": Kind("ablate.evaluation.respond:run"),
    "label": Kind("ablate.rewards.label:run"),
    "best": Kind("ablate.data.best:run", heavy=False, gpu=False),
    "rate": Kind("ablate.rewards.rate:run"),
    "condition": Kind("ablate.data.condition:run", heavy=False, gpu=False),
    "split": Kind("ablate.data.split:run", heavy=False, gpu=False),
    "mixture": Kind("ablate.data.mixture:run", heavy=False, gpu=False),
    "match": Kind("ablate.data.mixture:match", heavy=False, gpu=False),
    "merge": Kind("ablate.models.merge:run", gpu=False),
    "tokenizer": Kind("ablate.models.tokenizers:run", gpu=False),
    "tokenise": Kind("ablate.data.tokenise:run", gpu=False),
    "pretrain": Kind("ablate.training.pretrain:run"),
    "model": Kind("ablate.models.stage:run", gpu=False),
    "sft": Kind("ablate.training.sft:run", trains=True),
    "reward_model": Kind("ablate.training.reward:run", trains=True),
    "reference_logprobs": Kind("ablate.training.logprobs:run"),
    "train": Kind("", trains=True),  # the entry is the method's own
    "generate": Kind("ablate.evaluation.generate:run"),
    "score": Kind("ablate.rewards.stage:run"),
    "likelihoods": Kind("ablate.rewards.implicit:run"),
    "select": Kind("ablate.evaluation.select:run", heavy=False, gpu=False),
    "judge": Kind("ablate.evaluation.judging:run", heavy=False, gpu=False, network=True),
    "response_scores": Kind("ablate.evaluation.local_judges:run"),
    "evaluate": Kind("ablate.evaluation.evaluate:run", heavy=False, gpu=False),
}
