"""What training a run took: examples after truncation, optimiser steps, samples of the policy, hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.context import read_json
from ablate.results.long import Results, Subject

_HOUR = 3600.0


@dataclass(frozen=True)
class Effort:
    """What one run was trained with; None where its stages do not say it.

    ``trained_pairs`` are those that its data, or its reward model's, had after truncation; ``cut`` and ``left_out`` of
    them were cut to the maximum length and left out for theirs. ``policy_samples`` is 0 for methods that learn from
    fixed data. Hours are those of the training and of its reward model's: of GPUs, and of CPU cores.
    """

    trained_pairs: int | None = None
    cut: int = 0
    left_out: int = 0
    steps: int | None = None
    policy_samples: int | None = None
    gpu_hours: float | None = None
    cpu_hours: float | None = None


def read_effort(results: Results, subject: Subject) -> Effort:
    """Return what training ``subject`` took, as far as its stages are done."""
    reward_model = subject.inputs.get("reward_model")
    done = results.store.stage(subject.stage).read_done()
    data = _tokens(results, subject.stage) or (_tokens(results, reward_model) if reward_model else None)
    counts = {} if data is None else {
        "trained_pairs": data.get("kept"),
        "cut": int(data.get("truncated") or 0),
        "left_out": sum(data.get("dropped", {}).values()),
    }  # fmt: skip
    summary: Mapping[str, Any] = (done or {}).get("summary") or {}
    if done is None or "step" not in summary:
        return Effort(**counts)
    records = [done, *([results.store.stage(reward_model).read_done()] if reward_model else [])]
    return Effort(
        **counts,
        steps=int(summary["step"]),
        policy_samples=int(summary.get("samples") or 0),
        gpu_hours=_hours(records, "seconds", per_gpu=True),
        cpu_hours=_hours(records, "cpu_seconds"),
    )


def _hours(records: Sequence[Mapping[str, Any] | None], field: str, *, per_gpu: bool = False) -> float | None:
    """Sum what stages recorded, times their GPUs if asked; None where one is not done or did not record it."""
    total = 0.0
    for record in records:
        if record is None or field not in record or (per_gpu and "gpus" not in record):
            return None
        total += record[field] * (len(record["gpus"]) if per_gpu else 1)
    return total / _HOUR


def _tokens(results: Results, stage: str) -> Mapping[str, Any] | None:
    """The account of the tokens that a stage trains on."""
    folder = results.store.stage(stage)
    data = folder.read_stage().get("inputs", {}).get("data") if folder.stage_json.exists() else None
    path = results.store.stage(data["stage"]).artifact("report.json") if data else None
    return read_json(path) if path is not None and path.exists() else None
