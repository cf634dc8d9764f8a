"""Losses that couple the pairs of a batch: pure functions of tensors, one value a pair.

What such a loss takes from the whole effective batch comes as an argument of its own, shape [B] and without gradient
(``ablate/training/coupling.py`` finds it), so that a part of the batch gives its part of the loss and the gradient.
Notation and shapes as in ``ablate/training/losses.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ablate.training.losses import PairLogprobs


def kto(
    pairs: PairLogprobs, kl_B: Tensor, *, beta: float, desirable_weight: float, undesirable_weight: float
) -> Tensor:
    """Return the mean KTO loss of a pair's two completions; Ethayarajh et al. 2024 (arXiv 2402.01306).

    Chosen completions are desirable examples, rejected ones undesirable; nothing depends on which are of one pair. The
    loss of an example is lambda_y - v(x, y), lambda_y its weight. ``kl_B`` is z0, the batch's estimate of
    KL(pi || ref), at least 0.
    """
    desirable_B = 1 - torch.sigmoid(beta * (pairs.chosen_ratio_B - kl_B))
    undesirable_B = 1 - torch.sigmoid(beta * (kl_B - pairs.rejected_ratio_B))
    return (desirable_weight * desirable_B + undesirable_weight * undesirable_B) / 2


def bco(pairs: PairLogprobs, shift_B: Tensor, *, beta: float) -> Tensor:
    """Return the mean BCO loss of a pair's two completions; Jung et al. 2024 (arXiv 2404.04656).

    The binary cross-entropy of a classifier with logit r - delta, r = beta (log pi - log ref): chosen completions are
    positive, rejected ones negative. ``shift_B`` is delta, the running mean of r. Prompts are not reweighted.
    """
    chosen_B, rejected_B = pairs.rewards(beta)
    return -(logsigmoid(chosen_B - shift_B) + logsigmoid(-(rejected_B - shift_B))) / 2


def aot(pairs: PairLogprobs, quantile_B: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """Return the loss of AOT on pairs, one value a pair; Melnyk et al. 2024 (arXiv 2406.05882), paired.

    The policy's log pi(c) - log pi(r) is compared with the reference's of equal rank in the batch, ``quantile_B``.
    """
    return _smoothed(beta * (pairs.chosen_B - pairs.rejected_B - quantile_B), label_smoothing)


def aot_unpaired(
    pairs: PairLogprobs, rejected_quantile_B: Tensor, chosen_quantile_B: Tensor, *, beta: float, label_smoothing: float
) -> Tensor:
    """Return the loss of AOT on unpaired completions, one value a chosen one; Melnyk et al. 2024 (arXiv 2406.05882).

    The log-ratio of a chosen completion is compared with that of the rejected one of equal rank in the batch,
    ``rejected_quantile_B``. Ranks tie completions of different pairs together, and their micro-batches may differ:
    ``chosen_quantile_B`` is the same seen from the pair's rejected completion, which adds its gradient and no value.
    """
    value_B = _smoothed(beta * (pairs.chosen_ratio_B - rejected_quantile_B), label_smoothing)
    other_B = _smoothed(beta * (chosen_quantile_B - pairs.rejected_ratio_B), label_smoothing)
    return value_B + (other_B - other_B.detach())


def _smoothed(h_B: Tensor, label_smoothing: float) -> Tensor:
    return -(1 - label_smoothing) * logsigmoid(h_B) - label_smoothing * logsigmoid(-h_B)


# Losses that take something from the whole batch, by name; keyword arguments are the method's parameters.
BATCH_LOSSES: dict[str, Callable[..., Tensor]] = {"kto": kto, "bco": bco, "aot": aot, "aot_unpaired": aot_unpaired}
