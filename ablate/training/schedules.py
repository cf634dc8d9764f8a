"""Learning-rate schedules as functions of the optimiser step."""

from __future__ import annotations

import math


def learning_rate_factor(step: int, *, steps: int, warmup_ratio: float, shape: str, floor: float = 0.0) -> float:
    """Return the share of the peak learning rate at ``step`` (0-based) of ``steps``.

    Linear from 0 over the first ceil(warmup_ratio * steps) steps, then ``constant``, or ``linear`` or ``cosine``
    down to ``floor`` (a share of the peak) at ``steps``. The last step is never part of the warm-up: a run of a single
    step would learn nothing, as the first rate of a warm-up is 0 (transformers' rule, and the study's).
    """
    warmup = min(math.ceil(warmup_ratio * steps), steps - 1)
    if step < warmup:
        return step / warmup
    done = min((step - warmup) / max(steps - warmup, 1), 1.0)
    decay = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[shape]
    return floor + (1.0 - floor) * decay
