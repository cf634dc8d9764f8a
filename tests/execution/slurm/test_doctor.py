"""A profile against what a stand-in for SLURM says of its partitions; a real cluster is asked in test_cluster.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.execution.slurm.doctor import examine
from ablate.execution.slurm.profile import load_profile
from ablate.store import Store

PARTITIONS = "gpu*|2-00:00:00|gpu:a100:8|512000|64|up\ntransfer|1-00:00:00|(null)|16000|4|up\n"
PROFILE = """\
gpu: {per_node: 8}
needs:
  train: {cpus: 48}
  network: {partitions: [transfer]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose SLURM has a partition with GPUs and a small one with a way out."""
    says = {"sinfo": PARTITIONS, "scontrol": "MaxArraySize = 1001\n", "sbatch": ""}
    for command, text in says.items():
        (tmp_path / command).write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n")
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


def changes(folder: Path, profile: str) -> list[str]:
    (folder / "cluster.yaml").write_text(profile)
    findings = examine(load_profile(str(folder / "cluster.yaml")), Store(folder / "store"), on_node=False)
    return [finding.text for finding in findings if not finding.well]


def test_a_partition_is_compared_with_what_is_sent_there(folder: Path) -> None:
    assert changes(folder, PROFILE) == []
    assert changes(folder, PROFILE.replace("[transfer]", "[transfer], cpus: 8, gpus: 1")) == [
        "needs.network.gpus: a node of transfer has 0 GPUs",
        "needs.network.cpus: a node of transfer has 4 cores",
    ]
    assert changes(folder, "partitions: [transfer]\n" + PROFILE) == [
        "gpu.per_node: a node of transfer has 0 GPUs, not 8",
        "needs.train.cpus: a node of transfer has 4 cores",
    ]
