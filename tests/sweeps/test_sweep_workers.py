"""A sweep's workers on a cluster: a stand-in for SLURM, and the one that answers `sinfo` here."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from ablate.cli import main
from ablate.cli.slurm import print_workers
from ablate.errors import StoreError, UsageError
from ablate.execution.local import LocalRun
from ablate.execution.slurm.control import live_jobs
from ablate.execution.slurm.element import element_events
from ablate.execution.slurm.ledger import open_submissions, submissions
from ablate.execution.slurm.profile import load_profile
from ablate.execution.slurm.status import cluster_statuses, worker_statuses
from ablate.experiment.loading import load_copy, load_experiment
from ablate.sweeps.cluster import hand_over
from ablate.sweeps.run import Sweeper
from tests.execution.slurm.conftest import StandIn
from tests.sweeps.conftest import HELPERS, SHARED, Folder
from tests.sweeps.test_sweep import Deaf, begin, earned, lost_workers, wait_for
from tests.sweeps.test_tuning import Tuned

PROFILE = {"limits": {"time": 60}, "needs": {"default": {"cpus": 1, "memory": "300M", "time": 10}}}


def profile(folder: Folder, **changes: Any) -> str:
    """Write a profile and return its file."""
    path = folder.folder / "cluster.yaml"
    path.write_text(json.dumps(PROFILE | changes))  # JSON is YAML
    return str(path)


def sweeper_of(folder: Folder) -> Sweeper:
    return Sweeper(folder.store, load_experiment(folder.folder / "sweep.yaml"), 1, Deaf())


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn(tmp_path / "standin")
    monkeypatch.setenv("STANDIN", str(made.folder))
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    return made


def test_a_second_call_adds_the_workers_that_are_missing(folder: Folder, standin: StandIn) -> None:
    loaded = load_profile(profile(folder))
    first = hand_over(sweeper_of(folder), 2, None, loaded)
    assert (first.workers, first.queued) == (2, 0)
    assert [line.status for line in worker_statuses(folder.store, "small")] == ["queued", "queued"]
    assert hand_over(sweeper_of(folder), 2, None, loaded).workers == 0
    more = hand_over(sweeper_of(folder), 3, None, loaded)
    assert (more.workers, more.queued) == (1, 2)
    standin.change(lambda job: {"state": "CANCELLED"} if job["index"] == 1 else {})
    assert hand_over(sweeper_of(folder), 3, None, loaded).workers == 1
    assert [job["state"] for job in standin.jobs()] == ["PENDING", "CANCELLED", "PENDING", "PENDING"]
    assert hand_over(sweeper_of(folder), 50, None, loaded).workers == 3, "six trials need no more than six"


def test_workers_that_do_not_fit_the_limit_are_left_for_another_call(
    folder: Folder, standin: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_profile(profile(folder, limits={"submit": 3}))
    first = hand_over(sweeper_of(folder), 2, None, loaded)
    assert (first.workers, first.left) == (2, 0)
    more = hand_over(sweeper_of(folder), 5, None, loaded)
    assert (more.workers, more.left, len(standin.jobs())) == (1, 2, 3)
    print_workers("small", more)
    assert "2 workers do not fit limits.submit: repeat the command when some have ended" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"3 jobs are queued, and limits\.submit is 3"):
        hand_over(sweeper_of(folder), 5, None, loaded)


def test_one_worker_is_not_those_whose_names_begin_as_its_own(folder: Folder, standin: StandIn) -> None:
    folder.write(trials=12)
    hand_over(sweeper_of(folder), 12, None, load_profile(profile(folder)))
    known = {line.id for line in worker_statuses(folder.store, "small")}
    array = next(iter(known)).rpartition("_")[0]
    assert known == {f"{array}_{index}" for index in range(12)}
    assert live_jobs(folder.store, "small", [f"{array}_1"]).keys() == {f"{array}_1"}
    assert live_jobs(folder.store, "small", [f"{array}_1", f"{array}_10"]).keys() == {f"{array}_1", f"{array}_10"}
    assert live_jobs(folder.store, "small", [array]).keys() == live_jobs(folder.store, "small").keys() == known


def test_workers_that_died_are_no_news_once_another_one_has_ended_all_trials(folder: Folder, standin: StandIn) -> None:
    folder.write(trials=2)
    hand_over(sweeper_of(folder), 1, None, load_profile(profile(folder)))
    standin.change(lambda job: {"state": "CANCELLED"})
    here = begin(folder)
    for left in (1, 0):
        assert [line.status for line in worker_statuses(folder.store, "small")] == ["cancelled"]
        assert here.change(LocalRun()).add  # type: ignore[union-attr]
        [item] = here.open.values()
        here._fail(item, "the loss is NaN")
        assert here.unfinished == left
    assert here.change(LocalRun()) is None and not worker_statuses(folder.store, "small")
    assert {line.kind for line in cluster_statuses(folder.store, ["small"])["small"]}.isdisjoint({"sweep"})
    folder.write(trials=4)
    assert hand_over(sweeper_of(folder), 1, None, load_profile(profile(folder))).workers == 1
    assert [line.status for line in worker_statuses(folder.store, "small")] == ["queued"]


def test_workers_that_slurm_refuses_leave_nothing(folder: Folder, standin: StandIn) -> None:
    standin.set("refuse", "invalid partition specified: nowhere\nsweep")
    with pytest.raises(UsageError) as caught:
        hand_over(sweeper_of(folder), 2, None, load_profile(profile(folder, partitions=["nowhere"])))
    assert "cluster.yaml:1: partitions: SLURM refuses sweep: " in str(caught.value) and caught.value.exit_code == 2
    assert not standin.jobs() and not open_submissions(folder.store)
    (standin.folder / "refuse").unlink()
    assert hand_over(sweeper_of(folder), 2, None, load_profile(profile(folder))).workers == 2


def test_a_worker_searches_what_was_handed_over(folder: Folder, standin: StandIn) -> None:
    file = folder.folder / "sweep.yaml"
    loaded = load_experiment(file, ["sweep.trials=5", "dpo.epochs=2"])
    hand_over(Sweeper(folder.store, loaded, 1, Deaf()), 1, None, load_profile(profile(folder)))
    folder.write(search={"dpo.beta": {"log": [5.0, 6.0]}})
    [submission] = submissions(folder.store)
    code = next(folder.store.code.glob("package-*"))
    assert (code / "ablate/_shipped/evals/pocket-validation.yaml").is_file()
    copy = load_copy(submission.specification, file, loaded.overrides)
    assert copy.experiment == loaded.experiment and (copy.file, copy.overrides) == (file, loaded.overrides)
    assert Sweeper(folder.store, copy, 1, Deaf()).cells == Sweeper(folder.store, loaded, 1, Deaf()).cells


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"needs": {"train": {"runs_on": "login"}}}, "needs.train.runs_on: train (DPO on pocket-ultrafeedback"),
        ({"gpu": {"per_node": 4}, "needs": {"train": {"nodes": 2}}}, "needs.train.nodes: train (DPO on "),
        ({"gpu": {"per_node": 4}, "needs": {"sweep": {"gpus": 8}}}, "needs.sweep.gpus: sweep (SFT of "),
        ({"gpu": {"per_node": 4}, "needs": {"sweep": {"pack": 8}}}, "needs.sweep.pack: 8 packed stages of sweep ("),
        ({"needs": {"sweep": {"time": 90}}}, "needs.sweep.time: sweep asks for 90 minutes, and limits.time is 60"),
    ],
)
def test_what_a_worker_can_not_run_is_told_at_its_line(folder: Folder, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        hand_over(sweeper_of(folder), 1, None, load_profile(profile(folder, **changes)), dry_run=folder.folder / "out")
    assert words in str(caught.value) and "cluster.yaml:1" in str(caught.value)
    assert not (folder.folder / "out").exists() and not folder.store.root.exists()


@pytest.mark.parametrize(
    ("needs", "options"),
    [
        ({"train": {"cpus": 6}, "generate": {"memory": "99G"}}, ["cpus-per-task=6", "mem=102400M", "time=60"]),
        ({"train": {"cpus": 6}, "sweep": {"cpus": 2, "pack": 3, "time": 30}}, ["cpus-per-task=6", "time=30"]),
        ({"generate": {"memory": "99G"}, "sweep": {"pack": 4}}, ["mem=406528M"]),  # a gibibyte once
    ],
)
def test_a_worker_has_what_the_heaviest_stage_of_a_trial_needs(
    folder: Folder, needs: dict[str, Any], options: list[str]
) -> None:
    target = folder.folder / "out"
    hand_over(sweeper_of(folder), 4, None, load_profile(profile(folder, needs=needs)), dry_run=target)
    [script] = [path.read_text() for path in target.iterdir()]
    assert all(f"#SBATCH --{option}\n" in script for option in [*options, "array=0-3"])
    assert not folder.store.root.exists(), "a dry run records nothing"


def test_a_dry_run_has_no_more_workers_than_trials_to_end(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    target, loaded = folder.folder / "out", load_profile(profile(folder))

    def dry_run() -> int:
        return hand_over(sweeper_of(folder), 8, None, loaded, dry_run=target).workers

    folder.write(trials=3)
    assert dry_run() == 3 and "array=0-2\n" in next(target.iterdir()).read_text()
    here = begin(folder)
    for left in (2, 1, 0):
        assert here.change(LocalRun()).add  # type: ignore[union-attr]
        [item] = here.open.values()
        here._tell(item, (1.0,), TrialState.COMPLETE)
        assert dry_run() == left
    print_workers("small", hand_over(sweeper_of(folder), 8, None, loaded, dry_run=target), dry_run=True)
    assert capsys.readouterr().out == "small: nothing to submit, no trial is left to run\n"
    folder.write(trials=3, search={"dpo.beta": {"log": [0.1, 1.0]}})
    with pytest.raises(UsageError, match="was begun with another search"):
        dry_run()


@pytest.mark.parametrize("words", [["--workers", "2"], ["--dry-run"], ["--on", "cluster.yaml", "--jobs", "2"]])
def test_options_that_do_not_go_together(
    folder: Folder, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    profile(folder)
    monkeypatch.chdir(folder.folder)
    monkeypatch.setattr(sys, "argv", ["ablate", "sweep", "sweep.yaml", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "belongs to --on" in error or "--jobs is about this machine" in error
    assert not folder.store.root.exists()


def test_a_key_that_is_not_there_is_told_before_the_first_trial(
    folder: Folder, standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    monkeypatch.chdir(folder.folder)
    profile(folder)
    asked = (
        "evaluate={policy: [pocket-validation-gold, pocket-judged], judge: {model: m, url: 'http://h/v1', key: A_KEY}}"
    )

    def said(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["ablate", "sweep", "sweep.yaml", asked, *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == (0 if words else 2)
        printed = capsys.readouterr()
        return (printed.out if words else printed.err).replace("\n", " ")

    assert "warning: A_KEY is set neither here nor in the profile" in said("--on", "cluster.yaml", "--dry-run")
    assert "the environment variable A_KEY is not set: judge (" in said()
    assert not begin(folder, asked).study.trials


def test_a_database_that_does_not_answer_gets_no_workers(
    folder: Folder, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(sweeper: Sweeper) -> None:
        raise StorageInternalError("gone")

    monkeypatch.setattr(Sweeper, "begin", fails)
    with pytest.raises(StoreError, match="the database of the trials of small does not answer: gone"):
        hand_over(sweeper_of(folder), 1, None, load_profile(profile(folder)))
    assert not standin.jobs()


class ClusterTuned(Tuned):
    """An experiment of one group, which a stand-in for SLURM tunes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(folder)
        self.write_whole({"grid": GROUP}, search={"dpo.beta": {"choice": [0.1, 0.3, 1.0]}})
        monkeypatch.chdir(folder)
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def hand_over(self, *words: str) -> str:
        """What `ablate run --on` says, in this process."""
        self.monkeypatch.setattr(sys, "argv", ["ablate", "run", "sweep.yaml", "--on", "cluster.yaml", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self.capsys.readouterr()
        assert not ended.value.code, printed.err
        return printed.out


GROUP = [{"dataset": "pocket-hh", "algorithm": "dpo", "seed": [0, 1]}]


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> ClusterTuned:
    return ClusterTuned(tmp_path, monkeypatch, capsys)


def test_a_cluster_gets_workers_that_tune_and_no_cell_before_they_are_done(
    tuned: ClusterTuned, standin: StandIn
) -> None:
    profile(tuned)
    said = tuned.hand_over("--workers", "8", "--dry-run")
    assert said.startswith("tuned: its cells are tuned first, 1 of 1 groups have trials to go\ntuned: 3 workers; noth")
    assert not tuned.store.root.exists() and len(list((tuned.folder / "out/tuned/slurm").iterdir())) == 1
    assert "tuned: 1 worker submitted" in tuned.hand_over()
    assert "tuned: 2 workers submitted; 1 were there already" in tuned.hand_over("--workers", "8")
    assert "tuned: no worker is missing, 3 are at work or queued" in tuned.hand_over("--workers", "8")
    assert [line.status for line in cluster_statuses(tuned.store, ["tuned"])["tuned"]] == ["queued"] * 3
    tuned.write_whole({"grid": GROUP, "tune": "leave out"})
    with pytest.raises(AssertionError, match="has no section tune: --workers are jobs that tune its cells"):
        tuned.hand_over("--workers", "2")


def test_a_key_of_the_cells_that_is_not_there_is_told_before_they_are_tuned(
    tuned: ClusterTuned, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    profile(tuned)
    judge = {"model": "m", "url": "http://h/v1", "key": "A_KEY"}
    evaluate = {"policy": ["pocket-judged"], "judge": judge}
    tuned.write_whole({"grid": GROUP, "evaluate": evaluate}, search={"dpo.beta": {"choice": [0.1, 0.3]}})
    assert "warning: A_KEY is set neither here nor in the profile" in tuned.hand_over("--dry-run")
    refused = tuned.run("run", "sweep.yaml")
    assert refused.returncode == 2 and "the environment variable A_KEY is not set: judge (" in refused.stderr
    assert not tuned.store.root.exists()


@pytest.mark.slow
def test_cells_are_handed_over_with_what_workers_found(tuned: ClusterTuned, standin: StandIn) -> None:
    Cluster(tuned)
    tuned.hand_over()
    [submission] = submissions(tuned.store)
    [record] = submission.arrays()
    command = [tuned.folder / "python", "-P", "-m", "ablate.execution.slurm.element", str(record.folder), "0"]
    environment = tuned.settings(LIGHT_WORK="light_tuning", SLURM_JOB_ID="100")
    assert subprocess.run(command, cwd=tuned.folder, env=environment, timeout=300, check=False).returncode == 0
    standin.change(lambda job: {"state": "COMPLETED"})
    assert tuned.outcome("pocket-hh,dpo")["best"]["values"] == {"dpo.beta": 0.1}
    assert not worker_statuses(tuned.store, "tuned") and tuned.store.experiment("tuned").read_over() is not None
    assert "stages submitted as" in tuned.hand_over()
    elements = [stages for array in list(submissions(tuned.store))[-1].arrays() for stages in array.elements.values()]
    kinds = [stage.partition("-")[0] for stages in elements for stage in stages]
    assert kinds.count("train") == 1, "seed 0 was trained as a trial"


class Cluster:
    """A folder's sweep on the cluster, with light stages."""

    def __init__(self, folder: Folder, **variables: str) -> None:
        self.folder = folder
        python = folder.folder / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -P {HELPERS / "light_element.py"} "$4" "$5"\n')
        python.chmod(0o755)
        paths = os.pathsep.join(map(str, [HELPERS, SHARED]))
        profile(folder, python=str(python), environment={"PYTHONPATH": paths, **variables})

    def hand_over(self, workers: int) -> str:
        answer = self.folder.run("sweep", "sweep.yaml", "--on", "cluster.yaml", "--workers", str(workers))
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    def jobs(self) -> dict[str, str]:
        """Ids and states of the workers that are queued or run."""
        tokens = {path.name.rpartition("-")[2] for path in self.folder.store.slurm.glob("2*")}
        listed = (line.split("|") for line in self.slurm("squeue", "-h", "-r", "-o", "%i|%j|%T").splitlines())
        return {job: state for job, name, state in listed if tokens & set(name.split(".")) and state != "COMPLETING"}

    def running(self, count: int) -> bool:
        return list(self.jobs().values()).count("RUNNING") == count

    @staticmethod
    def slurm(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout

    def training(self) -> int:
        """How many stages are at the gate, or have been there."""
        return len(list(self.folder.store.stages.glob("train-*/attempts/1/events.jsonl")))


@pytest.fixture
def cluster(folder: Folder) -> Iterator[Cluster]:
    made = Cluster(folder, LIGHT_GATE=str(folder.folder / "gate"))
    yield made
    if left := made.jobs():
        made.slurm("scancel", *left)


@pytest.mark.slow
def test_a_worker_that_is_asked_to_stop_leaves_its_trial_and_goes_on_later(folder: Folder, standin: StandIn) -> None:
    folder.write(trials=2)
    Cluster(folder)
    hand_over(sweeper_of(folder), 1, None, load_profile(str(folder.folder / "cluster.yaml")))
    [submission] = submissions(folder.store)
    [record] = submission.arrays()
    words = ["-P", "-m", "ablate.execution.slurm.element", str(record.folder), "0"]
    environment = folder.settings(LIGHT_GATE=str(folder.folder / "gate"), SLURM_JOB_ID="100")

    def begin() -> subprocess.Popen[str]:
        command = [folder.folder / "python", *words]
        return subprocess.Popen(command, cwd=folder.folder, env=environment, text=True, start_new_session=True)

    for attempt, number, code in ((1, signal.SIGUSR1, 75), (2, signal.SIGTERM, 130)):
        worker, at_work = begin(), f"train-*/attempts/{attempt}/work"
        wait_for(lambda: bool(list(folder.store.stages.glob(at_work))), 240)  # noqa: B023
        os.killpg(worker.pid, number)  # as SLURM does: the element hands on what its worker has heard already
        assert worker.wait(120) == code
        assert lost_workers(folder) == 0
    assert [event["what"] for event in element_events(record, 0)] == [
        "started",
        "preemption",
        "ended",
        "started",
        "ended",
    ]
    assert [line.status for line in worker_statuses(folder.store, "small")] == ["queued"]
    (folder.folder / "gate").touch()
    assert begin().wait(240) == 0
    assert {trial["state"] for trial in folder.trials()} == {"complete"} and lost_workers(folder) == 0
    assert sorted(folder.attempts("train")) == [1, 1, 1, 3]


@pytest.mark.slow
@pytest.mark.slurm
def test_workers_on_a_cluster_lose_no_trial(folder: Folder, cluster: Cluster) -> None:
    """One worker is cancelled and one requeued while they train; another joins."""
    folder.write(trials=8, sampler="random")
    assert "2 workers submitted" in cluster.hand_over(2)
    wait_for(lambda: cluster.running(2) and cluster.training() == 2, 300)
    assert "2 are at work or queued" in cluster.hand_over(2)
    first, second = cluster.jobs()
    assert f"worker-{first}: running, on n" in folder.run("sweep", "show", "small").stdout
    cluster.slurm("scancel", first)
    cluster.slurm("scontrol", "requeue", second)
    wait_for(lambda: list(cluster.jobs()) == [second], 120)
    assert "1 worker submitted; 1 were there already" in cluster.hand_over(2)
    (folder.folder / "gate").touch()
    wait_for(lambda: not cluster.jobs(), 600)
    trials = folder.trials()
    assert [trial["number"] for trial in trials] == list(range(8))
    for trial in trials:
        assert trial["state"] == "complete"
        assert math.isclose(trial["results"]["pocket-validation-gold"], earned(trial["values"]["dpo.beta"]))
    assert len(list(folder.store.stages.glob("train-*/done.json"))) == cluster.training() == 16
    attempts = sorted(folder.attempts("train"))
    assert attempts[:14] == [1] * 14 and attempts[14] > 1, "two were interrupted, and begun again once or twice"
    alone = Folder(folder.folder / "alone")
    alone.write(trials=8, sampler="random")
    assert alone.sweep().returncode == 0
    assert [trial["values"] for trial in alone.trials()] == [trial["values"] for trial in trials]
    assert json.loads(folder.run("status", "small", "--json").stdout)["small"][-1]["status"] == "done"
    time.sleep(1)
    assert "nothing to submit, no trial is left to run" in cluster.hand_over(2)
