"""Random seeds: one place that sets the generators, one function that derives independent seeds."""

from __future__ import annotations

import hashlib
import json
import random

import numpy as np
import torch


def derive_seed(*parts: str | int) -> int:
    """Return a seed in [0, 2^32) that depends on ``parts`` alone, equal on every machine and Python version.

    ``derive_seed(seed, "order", epoch)`` and ``derive_seed(seed, "head")`` are independent streams of one seed.
    """
    digest = hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode("utf-8")).digest()
    return int.from_bytes(digest[:4], "big")


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch (all devices) with ``seed``."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
