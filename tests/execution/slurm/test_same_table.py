"""A study that trains gives the same table on a cluster as on this machine, at equal numbers of threads."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SPEC = """\
name: tiny
policy: pocket-small
pretrain: {steps: 40}
data: {max_examples: 240}
sft: {dataset: pocket-instructions, max_examples: 200, learning_rate: 1e-3, epochs: 1, batch_size: 16, max_length: 128}
dpo: {learning_rate: 1.0e-4, epochs: 1, batch_size: 16, max_length: 128}
grid: [{dataset: pocket-hh, algorithm: dpo}]
baselines: [sft]
evaluate: {policy: [pocket-gold]}
"""
PATIENCE = 1800
PROFILE = "limits: {time: 120}\nneeds: {default: {cpus: 1, memory: 1200M, time: 60}}\n"


@pytest.mark.timeout(3600)
def test_the_table_of_a_cluster_is_the_local_one(tmp_path: Path, really: Callable[..., str]) -> None:
    (tmp_path / "tiny.yaml").write_text(SPEC)
    (tmp_path / "cluster.yaml").write_text(PROFILE)
    really("run", "tiny.yaml", "--on", "cluster.yaml", "--store", "there")
    really("run", "tiny.yaml", "--store", "here", "--jobs", "1", "--threads", "1")
    deadline = time.monotonic() + 1800
    while True:
        lines = json.loads(really("status", "tiny", "--json", "--store", "there"))["tiny"]
        if {line["status"] for line in lines} <= {"done", "failed", "blocked"}:
            break
        assert time.monotonic() < deadline, lines
        time.sleep(2)
    assert {line["status"] for line in lines} == {"done"}, lines
    texts = [really("results", "tiny", "--store", store, "--format", "csv") for store in ("here", "there")]
    taken = dict.fromkeys(("seconds", "subject_seconds"), "")
    here, there = ([row | taken for row in csv.DictReader(io.StringIO(text))] for text in texts)
    assert here == there and any(row["metric"].startswith("gold") for row in here)
