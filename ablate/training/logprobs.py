"""Log-probabilities of given tokens: one path for training, the reference pass and on-policy methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.context import StageContext
from ablate.errors import StageError
from ablate.models.loading import load_policy, load_tokenizer, require_same_tokenizer
from ablate.models.properties import require_positions
from ablate.training.collate import IntArray, PairTokens, pad_sequences
from ablate.training.devices import autocast, stage_device
from ablate.training.mismatch import mismatched

# Limits of one forward pass of the reference: padded tokens, and elements of the logits array.
PASS_TOKENS = 4096
PASS_LOGITS = 2**26


def selected_logprobs(logits_BTV: Tensor, ids_BT: Tensor, temperature: float = 1.0) -> Tensor:
    """Return log softmax(logits / temperature) at ``ids``, in float32, shape [B, T].

    Row t of the logits must be the one that predicts ``ids[:, t]``; the caller shifts. Without gradients the work
    goes row by row, so that no second [B, T, V] array exists.
    """
    if torch.is_grad_enabled() and logits_BTV.requires_grad:
        return _logprobs(logits_BTV, ids_BT, temperature)
    rows = zip(logits_BTV, ids_BT, strict=True)
    found = [_logprobs(logits_TV, ids_T, temperature) for logits_TV, ids_T in rows]
    return torch.stack(found) if found else logits_BTV.new_zeros(ids_BT.shape, dtype=torch.float32)


def _logprobs(logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
    scaled = logits.float() if temperature == 1.0 else logits.float() / temperature
    return -F.cross_entropy(scaled.flatten(0, -2), ids.flatten(), reduction="none").view(ids.shape)


def completion_logprobs(model: nn.Module, batch: Mapping[str, Tensor], temperature: float = 1.0) -> Tensor:
    """Return the sum of log pi(token) over each row's completion, float32, shape [B].

    ``batch`` has ``input_ids``, ``attention_mask`` and ``completion_mask``, each [B, T]. Positions are counted over
    real tokens, so padding on either side, of any amount and with any id, changes nothing.
    """
    return token_logprobs(model, batch, temperature).sum(-1)


def token_logprobs(model: nn.Module, batch: Mapping[str, Tensor], temperature: float = 1.0) -> Tensor:
    """Return log pi(token t + 1 | tokens up to t) in column t, 0 outside completions; float32, shape [B, T - 1].

    Logits are made for completion tokens only: prompts and padding never reach the vocabulary.
    """
    logits_NV, ids_N = completion_logits(model, batch)
    logps_N = selected_logprobs(logits_NV.unsqueeze(0), ids_N.unsqueeze(0), temperature).flatten()
    mask_BT = batch["completion_mask"][:, 1:].bool()
    return torch.zeros(mask_BT.shape, device=logps_N.device).masked_scatter(mask_BT, logps_N)


def completion_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the logits [N, V] that predict the N completion tokens of a batch, row by row, and these tokens [N].

    A hook in front of the output layer drops the other positions, so that whatever a model does to its logits
    afterwards (scaling, soft-capping) still happens. The first token of a sequence is predicted by nothing.
    """
    mask_BT = batch["completion_mask"][:, 1:].bool()

    def keep_marked(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][:, :-1][mask_BT].unsqueeze(0), *inputs[1:])

    unwrapped: Any = getattr(model, "module", model)  # DistributedDataParallel and DeepSpeed wrap the model
    handle = unwrapped.get_output_embeddings().register_forward_pre_hook(keep_marked)
    try:
        logits_1NV: Tensor = model(
            input_ids=batch["input_ids"], **padding_inputs(batch["attention_mask"]), use_cache=False
        ).logits
    finally:
        handle.remove()
    return logits_1NV.squeeze(0), batch["input_ids"][:, 1:][mask_BT]


def padding_inputs(attention_mask_BT: Tensor) -> dict[str, Tensor]:
    """Return what tells a causal model which tokens are padding: nothing when all padding is on the right.

    There causal attention alone keeps padding out and positions are right, and attention without a mask is faster.
    """
    if bool((attention_mask_BT[:, 1:] <= attention_mask_BT[:, :-1]).all()):
        return {}
    return {"attention_mask": attention_mask_BT, "position_ids": position_ids(attention_mask_BT)}


def position_ids(attention_mask_BT: Tensor) -> Tensor:
    """Return positions counted over real tokens, 0 for the first; padding gets 0 or the last position."""
    return (attention_mask_BT.cumsum(-1) - 1).clamp_min(0)


def sequence_logprobs(
    model: nn.Module,
    prompts: Sequence[IntArray],
    completions: Sequence[IntArray],
    pad_id: int,
    *,
    dtype: str = "float32",
) -> Iterator[tuple[IntArray, Tensor]]:
    """Yield (row numbers, completion log-probabilities) batch by batch, longest sequences first, without gradients."""
    device = next(model.parameters()).device
    lengths = np.array([len(p) + len(c) for p, c in zip(prompts, completions, strict=True)])
    vocabulary = int(getattr(model.config, "vocab_size", 0) or 1)
    for rows in length_batches(lengths, min(PASS_TOKENS, max(PASS_LOGITS // vocabulary, 1))):
        batch = pad_sequences([prompts[row] for row in rows], [completions[row] for row in rows], pad_id)
        with torch.no_grad(), autocast(device, dtype):
            yield rows, completion_logprobs(model, {name: value.to(device) for name, value in batch.items()}).cpu()


def length_batches(lengths_N: IntArray, tokens: int) -> Iterator[IntArray]:
    """Yield row numbers in batches of at most ``tokens`` padded tokens (at least one row), longest rows first."""
    order = np.argsort(-lengths_N, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, tokens // int(lengths_N[order[start]]))
        yield order[start : start + size]
        start += size


def run(context: StageContext) -> dict[str, Any]:
    """Write ``logprobs.parquet``: the reference's log-probabilities of every chosen and rejected completion.

    With ``completions: mismatched`` in the config those of other prompts, as :func:`mismatched` deals them out.
    The input ``tokenizer`` is that of a policy whose reference is another model: it must be the reference's, too.
    """
    pairs = PairTokens.read(context.inputs["data"])
    if context.config.get("completions") == "mismatched":
        pairs = mismatched(pairs)
    device = stage_device(context.resources)
    if "tokenizer" in context.inputs:  # of the policy, which made the tokens
        require_same_tokenizer(*(load_tokenizer(context.inputs[role]) for role in ("tokenizer", "model")))
    model: nn.Module = load_policy(context.inputs["model"], quantisation=context.config.get("quantisation"))
    require_positions(model, int(pairs.lengths_N.max()))
    model.to(device).eval()
    both = [pairs.prompts[i] for i in range(len(pairs))] * 2
    completions = [side[i] for side in (pairs.chosen, pairs.rejected) for i in range(len(pairs))]
    sums_2N = np.zeros(len(both))
    done = 0
    for rows, logps in sequence_logprobs(model, both, completions, pad_id=0, dtype=context.config["dtype"]):
        sums_2N[rows] = logps.double().numpy()
        done += len(rows)
        context.events.progress(done, len(both), "sequences")
    if not np.isfinite(sums_2N).all():
        row = int(np.flatnonzero(~np.isfinite(sums_2N))[0]) % len(pairs)
        raise StageError(f"the reference gives pair {pairs.ids[row]} a log-probability that is not finite")
    table = {
        "id": pairs.ids,
        "chosen_logp": sums_2N[: len(pairs)],
        "rejected_logp": sums_2N[len(pairs) :],
        "chosen_tokens": pairs.chosen.lengths,
        "rejected_tokens": pairs.rejected.lengths,
    }
    pq.write_table(pa.table(table), context.output / "logprobs.parquet")
    return {"pairs": len(pairs), "tokens": int(pairs.chosen.lengths.sum() + pairs.rejected.lengths.sum())}
