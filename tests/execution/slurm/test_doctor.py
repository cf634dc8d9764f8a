"""A profile against what a stand-in for SLURM says of its partitions; a real cluster is asked in test_cluster.py."""

from __future__ import annotations

import re
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


@pytest.mark.parametrize("kind", ["(null)", "(none)", "accounting_storage/none"])
def test_a_site_that_keeps_no_accounting_is_told(folder: Path, kind: str) -> None:
    (folder / "scontrol").write_text(f"#!/bin/sh\necho 'AccountingStorageType   = {kind}'\n")
    (folder / "cluster.yaml").write_text(PROFILE)
    findings = examine(load_profile(str(folder / "cluster.yaml")), Store(folder / "store"), on_node=False)
    assert any(finding.text.startswith("no accounting: ") for finding in findings)


SAW = '{"python": "3.11", "host": "n1", "cores": 1, "gpus": ["0"]}'


@pytest.mark.parametrize(
    ("printed", "well", "told"),
    [
        (f"Welcome to the box\n{SAW}", True, "container: it prints more than what runs in it: Welcome to the box"),
        (
            f"{SAW}\nGoodbye from the box",
            False,
            f"container: in place of what Python saw there it prints: {SAW}\nGoodbye from the box",
        ),
        ("42", False, "container: in place of what Python saw there it prints: 42"),
    ],
)
def test_a_container_that_prints_is_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, printed: str, well: bool, told: str
) -> None:
    """The stand-in for sbatch leaves what the node's command would have printed beside the script."""
    sbatch = (
        f'#!/bin/sh\nfor script; do :; done\ncat > "$(dirname "$script")/seen.json" <<\'END\'\n{printed}\nEND\necho 7\n'
    )
    (folder / "sbatch").write_text(sbatch)
    (folder / "cluster.yaml").write_text(PROFILE)
    findings = examine(load_profile(str(folder / "cluster.yaml")), Store(folder / "store"))
    assert [finding.well for finding in findings if finding.text == told] == [well]
    assert any(finding.text == "Python 3.11 with ablate on n1" for finding in findings) is well


@pytest.mark.parametrize(
    ("scratch", "well", "told"),
    [
        ("$HOME/tmp", True, r"scratch .*/tmp with [\d.]+ GB free"),
        ("$HOME/file/tmp", False, "scratch: .*file/tmp: Not a"),
    ],
)
def test_a_scratch_is_looked_for_on_a_node(
    folder: Path, monkeypatch: pytest.MonkeyPatch, scratch: str, well: bool, told: str
) -> None:
    """The stand-in for sbatch runs the script, here."""
    (folder / "sbatch").write_text('#!/bin/sh\nfor script; do :; done\nbash "$script"\necho 7\n')
    (folder / "file").touch()
    monkeypatch.setenv("HOME", str(folder))
    (folder / "cluster.yaml").write_text(f"scratch: {scratch}\n")
    findings = examine(load_profile(str(folder / "cluster.yaml")), Store(folder / "store"))
    assert [finding.well for finding in findings if re.match(told, finding.text)] == [well], findings


def test_a_partition_is_compared_with_what_is_sent_there(folder: Path) -> None:
    assert changes(folder, PROFILE) == []
    assert changes(folder, PROFILE.replace("[transfer]", "[transfer], cpus: 8, gpus: 1")) == [
        "needs.network.gpus: a node of transfer has 0 GPUs",
        "needs.network.cpus: a node of transfer has 4 cores",
    ]
    assert changes(folder, "partitions: [transfer]\n" + PROFILE)[:2] == [
        "gpu.per_node: a node of transfer has 0 GPUs, not 8",
        "needs.train.cpus: a node of transfer has 4 cores",
    ]


def test_a_node_is_compared_with_what_stages_have_where_it_is_not_written(folder: Path) -> None:
    """A small node: 16 GiB for what imports torch, 4 GiB for the rest, or the share of a GPU."""
    (folder / "sinfo").write_text("#!/bin/sh\necho 'main*|infinite|gpu:1|5000|2|up'\n")
    heavy = "respond, label, rate and 13 more kinds have where it is not written"
    assert changes(folder, "limits: {time: 60}\n") == [
        f"needs.default.cpus: a node of main has 2 cores, not 4, which {heavy}",
        f"needs.default.memory: a node of main has 5000 MiB, not 16384, which {heavy}",
    ]
    assert changes(folder, "needs: {default: {cpus: 1, memory: 800M}}\n") == []
    with_gpu = changes(folder, "gpu: {per_node: 1, cpus: 2}\nneeds: {default: {memory: 4G}, merge: {memory: 6G}}\n")
    assert with_gpu == [
        "needs.merge.memory: a node of main has 5000 MiB",
        "needs.default.cpus: a node of main has 2 cores, not 4, which merge, tokenizer, tokenise and 1 more kinds have"
        " where it is not written",
    ]
    packed = changes(folder, "needs: {default: {cpus: 1}, evaluate: {pack: 2}}\n")
    assert packed[1:] == [
        "needs.default.memory: a node of main has 5000 MiB, not 8192, which evaluate have where it is not written"
    ]
