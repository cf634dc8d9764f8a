"""Submitting against a stand-in for SLURM: nothing is lost and nothing is twice, whatever breaks off and when."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.context import Resources, write_json
from ablate.errors import UsageError
from ablate.execution.environment import snapshot_package
from ablate.execution.runner import run_stage
from ablate.execution.slurm import submit
from ablate.execution.slurm.control import unnamed_jobs
from ablate.execution.slurm.ledger import Turn, new_submission, submissions
from ablate.store import StageFolder, Store
from tests.execution.slurm.conftest import PROFILE

HELPERS = Path(__file__).parents[1] / "helpers"
SPEC = """\
name: small
policy: pocket-small
sft: {dataset: pocket-instructions}
grid:
  - {dataset: [pocket-hh, pocket-ultrafeedback], algorithm: dpo, dpo.beta: [0.1, 0.2]}
evaluate: {policy: [pocket-gold, pocket-safety]}
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def queued(tmp_path: Path, standin: Any) -> Counter[str]:
    """How often each stage is in the queue, by what was written down beside the jobs' names."""
    live = {(job["name"], job["index"]) for job in standin.jobs() if job["state"] in ("PENDING", "RUNNING")}
    found: Counter[str] = Counter()
    for path in (tmp_path / "store" / "slurm").glob("*/*/array.json"):
        facts = json.loads(path.read_text())
        for index, stages in facts["elements"].items():
            if (facts["name"], int(index)) in live and not (path.parent / "void.json").exists():
                found.update(stages)
    return found


def planned(tmp_path: Path, name: str = "small") -> set[str]:
    return set(Store(tmp_path / "store").experiment(name).read_plan()["stages"])


def test_every_stage_is_queued_once_and_a_second_call_queues_nothing(ablate: Run, standin: Any, tmp_path: Path) -> None:
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert queued(tmp_path, standin) == dict.fromkeys(planned(tmp_path), 1)
    names = [job["name"] for job in standin.jobs()]
    calls = len(set(names))
    assert calls <= 12 and f"submitted as {calls} job arrays" in answer.stdout
    again = ablate("run", "small.yaml", "--on", "cluster")
    assert again.returncode == 2 and "unknown cluster profile 'cluster'" in again.stderr
    again = ablate("run", "small.yaml", "--on", "cluster.yaml")
    assert again.returncode == 0 and "nothing to submit, all that is not done is queued" in again.stdout
    assert len(standin.jobs()) == len(names)


def test_a_key_that_nodes_may_not_have_is_a_warning_and_one_that_is_missing_here_an_error(
    ablate: Run, standin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    asked = "evaluate: {policy: [pocket-judged], judge: {model: m, url: 'http://127.0.0.1:9/v1', key: A_KEY}}\n"
    (tmp_path / "small.yaml").write_text(SPEC.partition("evaluate")[0] + asked)
    words = ("run", "small.yaml", "--on", "cluster.yaml", "--dry-run")
    warning = "warning: A_KEY is set neither here nor in the profile: on a node judge ("
    assert warning in ablate(*words).stdout
    assert "warning: A_KEY" not in ablate(*words, A_KEY="secret").stdout
    (tmp_path / "cluster.yaml").write_text(PROFILE + "environment: {A_KEY: secret}\n")
    assert "warning: A_KEY" not in ablate(*words).stdout
    (tmp_path / "cluster.yaml").write_text(PROFILE.replace("needs: {", "needs: {judge: {runs_on: login}, "))
    assert "warning: A_KEY" not in ablate(*words).stdout
    answer = ablate("run", "small.yaml")
    assert answer.returncode == 2 and "the environment variable A_KEY is not set: judge (" in answer.stderr
    assert not (tmp_path / "store" / "experiments").exists() and not standin.jobs()


def test_an_experiment_that_overlaps_depends_on_what_is_queued(ablate: Run, standin: Any, tmp_path: Path) -> None:
    ablate("run", "small.yaml", "--on", "cluster.yaml")
    before = {job["job"] for job in standin.jobs()}
    (tmp_path / "more.yaml").write_text(SPEC.replace("small\npolicy", "more\npolicy").replace("0.2]", "0.2, 0.4]"))
    answer = ablate("run", "more.yaml", "--on", "cluster.yaml")
    assert "were queued already" in answer.stdout
    assert queued(tmp_path, standin) == dict.fromkeys(planned(tmp_path) | planned(tmp_path, "more"), 1)
    later = [job for job in standin.jobs() if job["job"] not in before]
    first = next(job for job in later if job["name"].startswith("train"))
    assert {int(job) for job in re.findall(r":(\d+)", first["dependency"])} <= before


@pytest.mark.parametrize("moment", [pytest.param(1, marks=pytest.mark.slow), 6])
def test_a_crash_between_sbatch_and_its_bookkeeping(apart: Run, standin: Any, tmp_path: Path, moment: int) -> None:
    standin.set("kill-after", str(moment))
    assert apart("run", "small.yaml", "--on", "cluster.yaml").returncode == -9
    assert len({job["job"] for job in standin.jobs()}) == moment
    answer = apart("run", "small.yaml", "--on", "cluster.yaml")
    assert answer.returncode == 0, answer.stderr
    assert queued(tmp_path, standin) == dict.fromkeys(planned(tmp_path), 1)


@pytest.mark.slow
def test_ctrl_c_amid_a_call_lets_it_end_and_be_written_down(apart: Run, standin: Any, tmp_path: Path) -> None:
    standin.set("interrupt-after", "3")
    assert apart("run", "small.yaml", "--on", "cluster.yaml").returncode not in (0, 2)
    assert len({job["job"] for job in standin.jobs()}) == 3
    assert len(list((tmp_path / "store" / "slurm").glob("*/*/job.json"))) == 3
    answer = apart("run", "small.yaml", "--on", "cluster.yaml")
    assert answer.returncode == 0, answer.stderr
    assert queued(tmp_path, standin) == dict.fromkeys(planned(tmp_path), 1)


@pytest.mark.slow
def test_an_intent_that_sbatch_never_heard_of_is_void(apart: Run, standin: Any, tmp_path: Path) -> None:
    standin.set("kill-after", "2")
    apart("run", "small.yaml", "--on", "cluster.yaml")
    standin.change(lambda job: {"purged": True, "name": "another's"} if job["job"] == 101 else {})
    assert apart("run", "small.yaml", "--on", "cluster.yaml").returncode == 0
    assert queued(tmp_path, standin) == dict.fromkeys(planned(tmp_path), 1)
    assert len(list((tmp_path / "store" / "slurm").glob("*/*/void.json"))) == 1


@pytest.mark.parametrize("heard", [True, False])
def test_a_busy_controller_is_asked_again_and_a_job_it_took_is_found(
    ablate: Run, standin: Any, tmp_path: Path, heard: bool
) -> None:
    standin.set("busy", "Batch job submission failed: Socket timed out on send/recv operation 1")
    if heard:
        standin.set("heard")
    # squeue is the first to be refused where sbatch is not
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert queued(tmp_path, standin) == dict.fromkeys(planned(tmp_path), 1)
    assert len({job["job"] for job in standin.jobs()}) <= 12


def test_a_refusal_takes_back_what_was_queued_and_names_the_line(ablate: Run, standin: Any, tmp_path: Path) -> None:
    standin.set("refuse", "Batch job submission failed: Requested node configuration is not available\ntrain")
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml")
    assert answer.returncode == 2
    assert "cluster.yaml:3: needs.default: SLURM refuses train" in answer.stderr
    assert "Requested node configuration is not available; nothing is queued" in answer.stderr
    assert {job["state"] for job in standin.jobs()} == {"CANCELLED"}
    (standin.folder / "refuse").unlink()
    assert ablate("run", "small.yaml", "--on", "cluster.yaml").returncode == 0
    assert queued(tmp_path, standin) == dict.fromkeys(planned(tmp_path), 1)


def test_what_can_never_start_is_cancelled_and_queued_again(ablate: Run, standin: Any, tmp_path: Path) -> None:
    ablate("run", "small.yaml", "--on", "cluster.yaml")

    def fail(job: dict[str, Any]) -> dict[str, Any]:
        if job["name"].startswith("train") and job["index"] == 0:
            return {"state": "FAILED"}
        stuck = job["name"].startswith("evaluate") and job["index"] == 0
        return {"reason": "DependencyNeverSatisfied"} if stuck else {}

    standin.change(fail)
    assert ablate("run", "small.yaml", "--on", "cluster.yaml").returncode == 0
    assert queued(tmp_path, standin) == dict.fromkeys(planned(tmp_path), 1)


def test_stages_of_the_login_node_run_before_the_rest_is_queued(
    ablate: Run, standin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(HELPERS))
    (tmp_path / "cluster.yaml").write_text(PROFILE.replace("needs: {", "needs: {pocket: {runs_on: login}, "))
    assert ablate("run", "small.yaml", "--on", "cluster.yaml", "--dry-run").returncode == 0
    assert not (tmp_path / "store" / "stages").exists()
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml", LIGHT_WORK_FAILS="pocket")
    assert answer.returncode == 1 and "there are no rows" in answer.stderr and "are for this machine" in answer.stdout
    left = {stage.rpartition("-")[0] for stage in queued(tmp_path, standin)}
    assert not left & {"pocket", "dataset"}, "what hangs on it has nothing to wait for"
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml")
    assert (answer.returncode, answer.stderr) == (0, "")
    here = {stage for stage in planned(tmp_path) if stage.startswith("pocket")}
    assert all(Store(tmp_path / "store").stage(stage).is_done() for stage in here)
    assert queued(tmp_path, standin) == dict.fromkeys(planned(tmp_path) - here, 1)


def test_stages_of_the_login_node_wait_for_what_they_need(
    ablate: Run, standin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cluster.yaml").write_text(PROFILE.replace("needs: {", "needs: {generate: {runs_on: login}, "))
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml")
    assert "are for this machine, and " in answer.stdout and answer.returncode == 0
    kinds = {stage.rpartition("-")[0] for stage in queued(tmp_path, standin)}
    assert "train" in kinds and not kinds & {"generate", "evaluate"}
    monkeypatch.syspath_prepend(str(HELPERS))
    monkeypatch.setenv("LIGHT_WORK_FOLDER", str(tmp_path))
    store = Store(tmp_path / "store")
    left = list(queued(tmp_path, standin))
    while left:  # those that are blocked at first come again
        ended = {stage: run_stage(store.stage(stage).folder, Resources()).status for stage in left}
        assert "done" in ended.values()
        left = [stage for stage, status in ended.items() if status != "done"]
    standin.change(lambda job: {"state": "COMPLETED"})
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml")
    assert (answer.returncode, answer.stderr) == (0, "") and "for this machine" not in answer.stdout
    assert {stage.rpartition("-")[0] for stage in queued(tmp_path, standin)} == {"evaluate"}


def test_no_more_is_queued_than_a_user_may_have_there(ablate: Run, standin: Any, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(PROFILE.replace("calls: 12", "calls: 12, submit: 11"))
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml")
    assert answer.returncode == 0 and "do not fit limits.submit" in answer.stdout
    assert 0 < len(standin.jobs()) <= 11
    standin.change(lambda job: {})
    more = [{"job": 900, "index": i, "name": "x", "state": "RUNNING", "reason": ""} for i in range(11)]
    write_json(standin.folder / "jobs.json", [*standin.jobs(), *more])
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml")
    assert answer.returncode == 2 and "limits.submit is 11" in answer.stderr


def test_the_rest_waits_for_a_canary_that_an_earlier_call_queued(ablate: Run, standin: Any, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(PROFILE.replace("calls: 12", "calls: 12, submit: 16"))
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml", "--canary")
    assert answer.returncode == 0 and "do not fit limits.submit" in answer.stdout
    canary = standin.jobs()
    assert {job["name"].partition(".")[0] for job in canary} >= {"train", "evaluate"}
    (tmp_path / "cluster.yaml").write_text(PROFILE)
    assert ablate("run", "small.yaml", "--on", "cluster.yaml", "--canary").returncode == 0
    assert queued(tmp_path, standin) == dict.fromkeys(planned(tmp_path), 1)
    rest = [job for job in standin.jobs() if job not in canary]
    assert rest
    for job in rest:
        exact = {name for need in job["dependency"].split(",") for name in need.removeprefix("afterok:").split(":")}
        assert exact >= {f"{job['job']}_{job['index']}" for job in canary}


def test_a_user_who_may_have_few_jobs_comes_to_the_end(ablate: Run, standin: Any, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(PROFILE.replace("calls: 12", "calls: 12, submit: 2"))
    store = Store(tmp_path / "store")
    for _ in range(40):
        answer = ablate("run", "small.yaml", "--on", "cluster.yaml")
        assert answer.returncode == 0, answer.stderr
        if "all stages are done" in answer.stdout:
            break
        there = queued(tmp_path, standin)
        assert 0 < len(there) <= 2
        for stage in there:
            write_json(store.stage(stage).done_json, {})
        standin.change(lambda job: {"state": "COMPLETED"})
    assert all(store.stage(stage).is_done() for stage in planned(tmp_path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("run", "small.yaml", "--on", "cluster.yaml", "--dry-run", "--prune"),
            "--dry-run submits nothing, and --prune",
        ),
        (("run", "small.yaml", "--on", "cluster.yaml", "--unsafe-code"), "--unsafe-code is about this machine"),
        (("retry", "small", "--on", "cluster.yaml", "--unsafe-code"), "--unsafe-code is about this machine"),
        *(
            ((*command, "--on", "cluster.yaml", *option.split()), f"{option.split()[0]} is about this machine")
            for command in (("run", "small.yaml"), ("retry", "small"))
            for option in (
                *("--jobs 2", "--threads 2", "--gpus 0", "--processes 2", "--micro-batch 4", "--frozen host"),
                "--rollout-server http://localhost:8000",
            )
        ),
    ],
)
def test_options_that_contradict_the_cluster_are_refused_and_cancel_nothing(
    ablate: Run, standin: Any, words: tuple[str, ...], message: str
) -> None:
    assert ablate("run", "small.yaml", "--on", "cluster.yaml").returncode == 0
    before = standin.jobs()
    answer = ablate(*words)
    assert answer.returncode == 2 and message in answer.stderr
    assert standin.jobs() == before


def test_nothing_is_pruned_while_another_submits(ablate: Run, tmp_path: Path) -> None:
    ablate("run", "small.yaml", "--on", "cluster.yaml")
    store = Store(tmp_path / "store")
    with Turn(store), pytest.raises(UsageError, match="another ablate submits from this store now"):
        unnamed_jobs(store)


def test_who_lost_the_turn_queues_nothing(
    ablate: Run, standin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken_over_meanwhile(store: Store) -> Path:
        StageFolder(store.slurm / "turn").attempt(99).folder.mkdir()
        return snapshot_package(store)

    monkeypatch.setattr(submit, "snapshot_package", taken_over_meanwhile)
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml")
    assert answer.returncode != 0 and "another ablate took the submission over" in answer.stderr
    assert not standin.jobs() and not list((tmp_path / "store" / "slurm").glob("*/*/array.json"))


def elements_of(tmp_path: Path, stage: str) -> list[tuple[str, ...]]:
    """The elements that a stage was handed over in."""
    records = [json.loads(path.read_text()) for path in (tmp_path / "store" / "slurm").glob("*/*/array.json")]
    return [tuple(stages) for facts in records for stages in facts["elements"].values() if stage in stages]


def test_pruning_leaves_the_jobs_that_named_stages_share(ablate: Run, standin: Any, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(PROFILE.replace("}}", "}, evaluate: {pack: 8}}"))
    ablate("run", "small.yaml", "--on", "cluster.yaml")
    first = planned(tmp_path)
    (tmp_path / "small.yaml").write_text(SPEC.replace("[0.1, 0.2]", "[0.1]"))
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml", "--prune", said="y\n")
    assert answer.returncode == 0, answer.stderr
    named = planned(tmp_path)
    stale = {stage for stage in first - named if not named.intersection(*elements_of(tmp_path, stage))}
    assert {stage.partition("-")[0] for stage in first - named - stale} == {"evaluate"}
    assert len(stale) == 4 and f"cancel the jobs of {len(stale)} stages? [y/N]: " in answer.stdout
    assert f"{len(stale)} jobs cancelled" in answer.stdout
    assert queued(tmp_path, standin) == dict.fromkeys(first - stale, 1)


def test_cancelling_a_stage_names_those_that_share_its_job(ablate: Run, standin: Any, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(PROFILE.replace("}}", "}, evaluate: {pack: 8}}"))
    ablate("run", "small.yaml", "--on", "cluster.yaml")
    stage = next(stage for stage in sorted(planned(tmp_path)) if stage.startswith("evaluate"))
    (shared,) = elements_of(tmp_path, stage)
    answer = ablate("cancel", "small", stage, said="n\n")
    assert answer.returncode == 1 and len(shared) > 1
    assert all(f"  {other}  " in answer.stdout for other in shared)
    assert f"cancel the jobs of {len(shared)} stages?" in answer.stdout
    assert queued(tmp_path, standin) == dict.fromkeys(planned(tmp_path), 1)
    answer = ablate("cancel", "small", stage, said="y\n")
    assert answer.returncode == 0 and "small: 1 job cancelled" in answer.stdout
    assert queued(tmp_path, standin) == dict.fromkeys(planned(tmp_path) - set(shared), 1)


def test_what_has_started_is_not_held(ablate: Run, standin: Any, tmp_path: Path) -> None:
    ablate("run", "small.yaml", "--on", "cluster.yaml")
    first = standin.jobs()[0]["name"]
    standin.change(lambda job: {"state": "RUNNING"} if job["name"] == first else {})
    running = {job["index"] for job in standin.jobs() if job["state"] == "RUNNING"}
    answer = ablate("hold", "small")
    held = [job for job in standin.jobs() if job["reason"] == "JobHeldUser"]
    assert held and not any(job["state"] == "RUNNING" for job in held)
    assert answer.stdout == f"small: {len(held)} jobs held; {len(running)} have started and go on\n"
    assert len(held) + len(running) == len(standin.jobs())


@pytest.mark.parametrize("command", ["cancel", "hold", "release"])
def test_a_beginning_that_no_stage_has_is_an_error(ablate: Run, standin: Any, tmp_path: Path, command: str) -> None:
    ablate("run", "small.yaml", "--on", "cluster.yaml")
    stage = next(iter(sorted(planned(tmp_path))))
    answer = ablate(command, "small", stage, "evaluat3-")
    assert answer.returncode == 2
    assert "no stage starts with 'evaluat3-' in small\n  ids are listed by `ablate status NAME --all`" in answer.stderr
    assert queued(tmp_path, standin) == dict.fromkeys(planned(tmp_path), 1)
    assert not any(job["reason"] == "JobHeldUser" for job in standin.jobs())


def test_without_accounting_usage_says_what_the_store_knows(ablate: Run, standin: Any, tmp_path: Path) -> None:
    ablate("run", "small.yaml", "--on", "cluster.yaml")
    standin.set("no-accounting")
    answer = ablate("usage", "small")
    assert answer.returncode == 0 and re.search(r"^evaluate +0/8 ", answer.stdout, re.M), answer
    silent = "the accounting does not answer: sacct: Slurm accounting storage is disabled"
    assert answer.stdout.splitlines()[-1].endswith(silent)
    told = json.loads(ablate("usage", "small", "--json").stdout)
    assert told["stages"] and told["cluster"] is None
    assert told["cluster_reason"] == "sacct: Slurm accounting storage is disabled"


def test_a_dry_run_writes_scripts_and_nothing_else(ablate: Run, standin: Any, tmp_path: Path) -> None:
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml", "--dry-run", PATH="/usr/bin:/bin")
    assert (answer.returncode, answer.stderr) == (0, "")
    scripts = sorted((tmp_path / "out" / "small" / "slurm").glob("*.sbatch"))
    assert 5 < len(scripts) <= 12
    assert all(subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0 for path in scripts)
    assert not (tmp_path / "store" / "slurm").exists() and not standin.jobs()


def test_a_dry_run_shows_what_would_be_submitted(ablate: Run, standin: Any, tmp_path: Path) -> None:
    folder, words = tmp_path / "out" / "small" / "slurm", ("run", "small.yaml", "--on", "cluster.yaml", "--canary")
    folder.mkdir(parents=True)
    (folder / "77-train.sbatch").write_text("of an earlier call")
    assert ablate("run", "small.yaml", "--on", "cluster.yaml").returncode == 0
    standin.change(lambda job: {"state": "NODE_FAIL"})
    record = next((tmp_path / "store" / "slurm").glob("*/*-dataset"))
    index = next(iter(json.loads((record / "array.json").read_text())["elements"]))
    (record / f"{index}.jsonl").write_text('{"what": "lost", "node": "n7"}\n' * 2)
    answer = ablate(*words, "--dry-run")
    assert answer.returncode == 0 and "not sent to n7, where jobs were lost before" in answer.stdout
    shown = {path.stem: path.read_text() for path in folder.glob("*.sbatch")}
    assert ablate(*words).returncode == 0
    newest = max((tmp_path / "store" / "slurm").glob("2*"), key=lambda path: path.stat().st_mtime)
    sent = {path.parent.name: path.read_text() for path in newest.glob("*/stage.sbatch")}
    keys = {str(json.loads(path.read_text())["job"]): path.parent.name for path in newest.glob("*/job.json")}

    def told(text: str) -> list[str]:
        """Its options, jobs by their arrays' keys, without the paths and the name, which are known later."""
        options = [line for line in text.splitlines() if line.startswith("#SBATCH") and "--output" not in line]
        return [re.sub(r":<?([\w-]+)>?", lambda found: f":{keyed(found[1])}", line) for line in options[1:]]

    def keyed(job: str) -> str:
        number, line, rest = job.partition("_")
        return f"{keys[number]}{line}{rest}" if number in keys else job

    assert {key: told(text) for key, text in shown.items()} == {key: told(text) for key, text in sent.items()}


def test_submissions_of_one_second_are_in_their_order(tmp_path: Path) -> None:
    store = Store(tmp_path / "store").open()
    made = [new_submission(store).folder.name for _ in range(30)]
    assert [submission.folder.name for submission in submissions(store)] == made
