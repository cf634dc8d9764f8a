"""What a reward model's folder holds beside a trunk and one output: heads of attributes, and what a score is of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from ablate.errors import DataError

ATTRIBUTES = "attributes.safetensors"
PAIRWISE = "FIRST_IS_BETTER"
"""Label of the one output of a model that reads two responses, in the config's ``id2label``."""


def head_of(model: PreTrainedModel) -> nn.Linear:
    """Return the linear head of a sequence classifier; raises DataError where there is none."""
    for name in ("score", "classifier"):
        head = getattr(model, name, None)
        if isinstance(head, nn.Linear):
            return head
    raise DataError(f"{type(model).__name__} has no linear head called score or classifier")


@dataclass(frozen=True)
class AttributeHeads:
    """One linear head an attribute, [attributes, hidden], and the weight of each in the reward."""

    weights: Mapping[str, float]
    heads_AH: Tensor

    def folded(self) -> Tensor:
        """Return the one head [1, hidden] whose output is the weighted sum of all."""
        weights_A = torch.tensor(list(self.weights.values()), dtype=torch.float64)
        return (weights_A @ self.heads_AH.double()).float().unsqueeze(0)

    def save(self, folder: Path) -> None:
        """Write the heads into a model's folder."""
        heads = {"heads": self.heads_AH.contiguous()}
        save_file(heads, folder / ATTRIBUTES, metadata={"weights": json.dumps(dict(self.weights))})

    @classmethod
    def read(cls, folder: Path) -> AttributeHeads:
        """Read the heads of a model's folder; raises DataError where it has none."""
        path = folder / ATTRIBUTES
        if not path.is_file():
            raise DataError(
                f"{folder} is no model of attributes: it has no {ATTRIBUTES}",
                hint="train the reward model with loss: attributes",
            )
        with safe_open(path, framework="pt") as stored:
            return cls(json.loads(stored.metadata()["weights"]), stored.get_tensor("heads"))


def fold_attributes(model: PreTrainedModel, weights: Mapping[str, float]) -> AttributeHeads:
    """Replace the heads of ``model`` by their weighted sum, so that it is an ordinary reward model; return the heads.

    Heads are linear and without bias, so the score of the new head is the weighted sum of the scores of the old ones.
    """
    heads = AttributeHeads(dict(weights), head_of(model).weight.detach().cpu().clone())
    with_heads(model, heads.folded())
    model.config.num_labels = 1
    return heads


def with_heads(model: PreTrainedModel, weights_AH: Tensor) -> None:
    """Put a head without bias with these weights [outputs, hidden] in the place of the model's own."""
    own = head_of(model)
    head = nn.Linear(own.in_features, len(weights_AH), bias=False).to(own.weight)
    with torch.no_grad():
        head.weight.copy_(weights_AH)
    setattr(model, next(name for name, module in model.named_children() if module is own), head)


def mark_end_of_turn(config: PretrainedConfig) -> None:
    """Write into a config that the head was trained at the end-of-turn token, whatever its template writes after it."""
    config.score_read_at = "end-of-turn"


def reads_end_of_turn(config: PretrainedConfig) -> bool:
    """Whether the head is read at the end-of-turn token; other models' at the last token of the rendered text."""
    return getattr(config, "score_read_at", None) == "end-of-turn"


def mark_pairwise(config: PretrainedConfig) -> None:
    """Write into a config that the score is the log-odds that the first of two responses is better."""
    config.id2label, config.label2id = {0: PAIRWISE}, {PAIRWISE: 0}


def is_pairwise(config: PretrainedConfig) -> bool:
    """Whether a model's score is of two responses."""
    return PAIRWISE in (config.id2label or {}).values()
