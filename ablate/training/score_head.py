"""A decoder with a linear head: a reward model (one score a sequence) or a value network (one value a token).

transformers' own forward of such a model is not used: it looks for the last id that is not ``pad_token_id`` and reads
one token early wherever a text ends with that id. Which token is real is told by the masks alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ablate.errors import StageError
from ablate.training.logprobs import padding_inputs
from ablate.training.rollouts import EpisodeBatch


def sequence_scores(model: nn.Module, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
    """Return the head's value at each row's last real token (the EOS if the text has one), float32, shape [B]."""
    return sequence_outputs(model, input_ids_BT, attention_mask_BT).squeeze(-1)


def sequence_outputs(model: nn.Module, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
    """Return all outputs of the head at each row's last real token, float32, shape [B, outputs]."""
    hidden_BTH, head = _hidden_and_head(model, input_ids_BT, attention_mask_BT)
    columns_T = torch.arange(input_ids_BT.shape[1], device=input_ids_BT.device)
    last_B = (attention_mask_BT * columns_T).argmax(-1)
    rows_B = torch.arange(len(input_ids_BT), device=input_ids_BT.device)
    return _outputs(head, hidden_BTH[rows_B, last_B])


def response_values(model: nn.Module, batch: EpisodeBatch) -> Tensor:
    """Return V(state before each response token), float32, [B, R]: read where it is predicted; 0 at padding."""
    width = batch.response_mask_BR.shape[1]
    hidden_BTH, head = _hidden_and_head(model, batch.input_ids_BT, batch.attention_mask_BT)
    values_BR = _outputs(head, hidden_BTH[:, -width - 1 : -1]).squeeze(-1)
    return values_BR.where(batch.response_mask_BR.bool(), 0.0)


def _outputs(head: nn.Module, hidden: Tensor) -> Tensor:
    """Return the head's output for every hidden state, float32, in whatever type the trunk multiplied.

    Eight bits of a bfloat16 make ties of near scores, and steps in the values that a return is compared with.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        outputs: Tensor = head(hidden.float())
    return outputs


def _hidden_and_head(model: nn.Module, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> tuple[Tensor, nn.Module]:
    """Return the hidden states [B, T, H] that the model's head reads, and the head.

    The whole model is called, as what wraps it for several processes must see every pass.
    """
    unwrapped = getattr(model, "module", model)
    head = getattr(unwrapped, "score", None)
    if not isinstance(head, nn.Module):
        raise StageError(
            f"{type(unwrapped).__name__} has no head called score: its scores can't be read",
            hint="a reward model is a decoder with a linear head (AutoModelForSequenceClassification, num_labels 1)",
        )
    found: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda layer, inputs: found.append(inputs[0]))
    try:
        model(input_ids=input_ids_BT, **padding_inputs(attention_mask_BT), use_cache=False)
    finally:
        handle.remove()
    return found[0], head
