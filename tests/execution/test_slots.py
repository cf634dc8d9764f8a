"""What a run takes of this machine: workers, threads of each, GPUs; and what a stage's process is then held to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablate.context import Resources, read_json
from ablate.errors import UsageError
from ablate.execution.runner import run_stage
from ablate.execution.slots import Machine
from ablate.plan.graph import Graph
from ablate.plan.stage import Execution, Stage
from ablate.store import StageFolder

HELPERS = Path(__file__).parent / "helpers"
AddStage = Callable[[Stage], StageFolder]


@pytest.fixture
def offers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Let the machine have so many cores, CUDA_VISIBLE_DEVICES, and an ``nvidia-smi`` (a script) or none."""

    def offer(cores: int, visible: str | None = None, nvidia_smi: str | None = None) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if nvidia_smi else str(tmp_path))
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        if nvidia_smi is not None:
            (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{nvidia_smi}\n")
            (tmp_path / "nvidia-smi").chmod(0o755)

    return offer


@pytest.mark.parametrize(
    ("cores", "visible", "asked", "machine"),
    [
        (2, None, {}, Machine(2, 1, ())),
        (16, None, {}, Machine(8, 2, ())),
        (64, None, {}, Machine(8, 8, ())),
        (12, None, {"jobs": 5}, Machine(5, 2, ())),
        (4, None, {"jobs": 64}, Machine(64, 1, ())),
        (4, None, {"threads": 3}, Machine(4, 3, ())),
        (16, "0,1", {}, Machine(2, 8, (0, 1))),
        (16, " 3, GPU-8f0 ", {}, Machine(2, 8, (0, 1))),
        (16, "0,1,2,3", {"gpus": 1}, Machine(1, 16, (0,))),
        (16, "0,1", {"jobs": 4}, Machine(4, 4, (0, 1))),
        (16, "0,1", {"gpus": 0}, Machine(8, 2, ())),
        (16, "", {}, Machine(8, 2, ())),
        (16, "-1", {}, Machine(8, 2, ())),
        (16, "1,-1,0", {}, Machine(1, 16, (0,))),
    ],
)
def test_what_there_is_is_cut_to_what_is_asked_for(
    offers: Callable[..., None], cores: int, visible: str | None, asked: dict[str, int], machine: Machine
) -> None:
    offers(cores, visible)
    assert Machine.detect(**asked) == machine


def test_stages_of_a_worker_know_the_judges_that_its_job_serves() -> None:
    machine = Machine(1, 2, (), Resources(judges={"m": "http://n1:8000/v1"}))
    for trains in (False, True):
        assert machine.resources((), Execution("", "", trains=trains)).judges == {"m": "http://n1:8000/v1"}


def test_threads_never_outnumber_the_cores(offers: Callable[..., None]) -> None:
    for cores in range(1, 40):
        offers(cores)
        for jobs in (None, *range(1, cores + 1)):
            machine = Machine.detect(jobs)
            assert machine.jobs * machine.threads <= cores
            assert machine.threads >= 1


@pytest.mark.parametrize(
    ("script", "gpus"),
    [
        ("echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'; echo 'GPU 1: NVIDIA H100 (UUID: GPU-2)'", (0, 1)),
        ("echo 'GPU 0: NVIDIA A100 (UUID: GPU-1)'; echo '  MIG 1g.5gb Device 0: (UUID: MIG-1)'", (0,)),
        ("echo 'No devices were found'", ()),
        ("echo 'has failed because it could not communicate with the driver'; exit 9", ()),
    ],
)
def test_gpus_are_those_the_driver_lists(offers: Callable[..., None], script: str, gpus: tuple[int, ...]) -> None:
    offers(4, nvidia_smi=script)
    assert Machine.detect().gpus == gpus


def test_more_gpus_than_there_are_is_an_error(offers: Callable[..., None]) -> None:
    offers(4, "0,1")
    assert Machine.detect(gpus=2).gpus == (0, 1)
    with pytest.raises(UsageError, match="3 GPUs are asked for, and this machine offers 2"):
        Machine.detect(gpus=3)


@pytest.fixture
def look_around(add_stage: AddStage, monkeypatch: pytest.MonkeyPatch) -> StageFolder:
    """A stage that writes down what its process may use."""
    monkeypatch.syspath_prepend(str(HELPERS))
    return add_stage(Graph().add("select", {}, label="look", entry="light_work:look_around"))


def seen(folder: StageFolder, resources: Resources) -> dict[str, Any]:
    assert run_stage(folder.folder, resources).status == "done"
    found = read_json(folder.artifact("seen.json"))
    assert isinstance(found, dict)
    return found


def test_a_stages_process_has_the_threads_it_was_given(look_around: StageFolder) -> None:
    import torch

    assert torch.get_num_threads() == 1
    found = seen(look_around, Resources(threads=3))
    assert found["OMP_NUM_THREADS"] == found["MKL_NUM_THREADS"] == "3"
    assert found["TOKENIZERS_PARALLELISM"] == "false"
    assert found["torch threads"] == 3, "torch was loaded before the process was forked"
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("visible", "gpus", "left"),
    [
        (None, (), ""),
        (None, (1,), "1"),
        ("0,1", (), ""),
        ("", (), ""),
        ("4,GPU-8f0,6", (0,), "4"),
        (" 4, GPU-8f0 ,6", (2, 1), "6,GPU-8f0"),
    ],
)
def test_a_stages_process_sees_its_gpus_alone(
    look_around: StageFolder, offers: Callable[..., None], visible: str | None, gpus: tuple[int, ...], left: str
) -> None:
    offers(2, visible)
    assert seen(look_around, Resources(gpus=gpus))["CUDA_VISIBLE_DEVICES"] == left


def test_a_gpu_that_is_not_there_fails_the_stage_with_the_reason(
    look_around: StageFolder, offers: Callable[..., None]
) -> None:
    offers(2, "0,1")
    outcome = run_stage(look_around.folder, Resources(gpus=(2,)))
    assert (outcome.status, outcome.message) == ("failed", "GPU 2 is asked for, and CUDA_VISIBLE_DEVICES names 2")


def test_a_stage_that_can_t_be_divided_trains_in_one_process_as_it_is_asked_to() -> None:
    asked = Resources(micro_batch=2, processes=2, frozen="other-gpu")
    machine = Machine(1, 8, (0, 1, 2), asked)
    divided, whole, other = (
        Execution("", "", trains=trains, ranks=ranks) for trains, ranks in ((True, True), (True, False), (False, False))
    )
    assert [machine.gpus_of(stage) for stage in (divided, whole, other)] == [3, 2, 1]
    assert machine.resources((0, 1, 2), divided) == replace(asked, threads=4, gpus=(0, 1, 2))
    assert machine.resources((0, 1), whole) == replace(asked, threads=8, gpus=(0, 1), processes=1)
    assert machine.resources((0,), other) == Resources(8, (0,))
