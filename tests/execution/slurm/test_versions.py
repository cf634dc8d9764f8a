"""What SLURM's commands print, by version and site: as recorded from 22.05, else as their manuals describe it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.context import write_json
from ablate.execution.slurm import commands, jobs
from ablate.execution.slurm.commands import Refused, SlurmBusy, SlurmError
from ablate.execution.slurm.ledger import ArrayRecord

Prints = Callable[..., None]


@pytest.fixture
def prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prints:
    """Put a command on PATH that prints a text."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(commands, "PAUSES", ())

    def put(command: str, text: str = "", error: str = "", code: int = 0) -> None:
        (tmp_path / f"{command}.out").write_text(text)
        (tmp_path / f"{command}.err").write_text(error)
        script = f"#!/bin/sh\ncat {tmp_path}/{command}.out\ncat {tmp_path}/{command}.err >&2\nexit {code}\n"
        (tmp_path / command).write_text(script)
        (tmp_path / command).chmod(0o755)

    return put


@pytest.mark.parametrize(
    ("printed", "job"),
    [
        ("20109202\n", "20109202"),
        ("4711;dev\n", "4711"),  # of several clusters
        ("This partition costs double at night.\n4711;gpu-cluster\n", "4711"),  # a site's own submission filter
    ],
)
def test_the_id_of_what_was_queued(prints: Prints, printed: str, job: str) -> None:
    prints("sbatch", printed, "sbatch: Warning: can't honor --ntasks-per-node set to 8\n")
    assert commands.submit(["sbatch", "x"]) == job


QUEUE = """\
70_0|train.a.1|RUNNING|n1|1-02:03:04|None
70_1|train.a.1|PENDING||0:00|(null)
70_2|train.a.1|PENDING||0:00|Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions
70_3|train.a.1|PENDING||0:00|down | for repair until Monday
70_4|train.a.1|COMPLETING|n[1-2,7]|INVALID|NonZeroExitCode
70_[5-6,9%2]|train.a.1|PENDING||0:00|JobArrayTaskLimit
70_[10-14:2]|train.a.1|CANCELLED||0:00|DependencyNeverSatisfied
70_20|train.a.1|POWER_UP_NODE|n3|0:00|None
71|interactive|RUNNING|n1|5:00|None
72+0|het|RUNNING|n1|5:00|None
73+1|het|PENDING||0:00|Priority
CLUSTER: dev
slurm_load_jobs warning

"""


def test_lines_of_squeue(prints: Prints) -> None:
    prints("squeue", QUEUE)
    found = jobs.queue()
    assert {name for name, _ in found} == {"train.a.1"}
    assert {index for _, index in found} == {*range(7), 9, 10, 12, 14, 20}
    by_index = {index: job for (_, index), job in found.items()}
    assert by_index[2].reason.startswith("Nodes required for job are DOWN, DRAINED")
    assert by_index[3].reason == "down | for repair until Monday" and by_index[3].is_live
    assert {index for index, job in by_index.items() if not job.is_live} == {10, 12, 14}
    assert {index for index, job in by_index.items() if job.is_pending} == {1, 2, 3, 5, 6, 9}
    assert by_index[20].is_live and by_index[4].nodes == "n[1-2,7]"


PAST = """\
70_0|train.a.1|COMPLETED|n1
70_1|train.a.1|CANCELLED by 1000|None assigned
70_2|train.a.1|OUT_OF_MEMORY|n1
70_3|train.a.1|NODE_FAIL|n[1-2]
70_[4-6,9%2]|train.a.1|PENDING|None assigned
70_[10-14:2]|train.a.1|CANCELLED by 0|
70_20|train.a.1|TIMEOUT|n1
99_0|another.b.7|FAILED|n1
70_0.batch|batch|COMPLETED|n1
"""


def test_lines_of_sacct(prints: Prints, tmp_path: Path) -> None:
    prints("sacct", PAST)
    write_json(tmp_path / "array.json", {"time": 0.0})
    record = ArrayRecord(tmp_path)
    record.write_job("70")
    found = {index: job for (name, index), job in jobs.accounted([record]).items() if name == "train.a.1"}
    assert set(found) == {*range(7), 9, 10, 12, 14, 20}
    assert (found[1].state, found[1].nodes) == ("CANCELLED", "")
    assert (found[3].state, found[3].nodes) == ("NODE_FAIL", "n[1-2]")
    assert {index for index, job in found.items() if job.is_live} == {4, 5, 6, 9}


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [("30:00", 30), ("1:30:00", 90), ("2-00:00:00", 2880), ("UNLIMITED", float("inf")), ("infinite", float("inf"))],
)
def test_time_limits(prints: Prints, limit: str, minutes: float) -> None:
    prints("squeue", f"{limit}\n")
    assert jobs.time_limit("70_1") == minutes


def test_a_time_limit_of_a_job_that_is_gone(prints: Prints) -> None:
    prints("squeue", "", "slurm_load_jobs error: Invalid job id specified\n", 1)
    assert jobs.time_limit("70_1") is None


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", SlurmBusy),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", SlurmBusy),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", SlurmBusy),
        ("sbatch: error: invalid partition specified: gpus\nsbatch: error: Batch job submission failed: x", Refused),
        ("sbatch: error: Batch job submission failed: Invalid partition name specified", Refused),
        ("sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates", Refused),
    ],
)
def test_errors_of_sbatch(prints: Prints, words: str, kind: type[SlurmError]) -> None:
    prints("sbatch", "", f"{words}\n", 1)
    with pytest.raises(kind):
        commands.submit(["sbatch", "x"])


def test_habits_of_a_user_hide_no_jobs(prints: Prints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "squeue").write_text("#!/bin/sh\nenv\n")
    (tmp_path / "squeue").chmod(0o755)
    for name in ("SQUEUE_PARTITION", "SQUEUE_FORMAT", "SACCT_FORMAT", "SLURM_TIME_FORMAT", "SLURM_CONF"):
        monkeypatch.setenv(name, "mine")
    seen = dict(line.partition("=")[::2] for line in commands.call(["squeue"]).splitlines())
    assert not any(name.startswith(("SQUEUE_", "SACCT_")) for name in seen)
    assert (seen["SLURM_TIME_FORMAT"], seen["SLURM_CONF"]) == ("standard", "mine")
