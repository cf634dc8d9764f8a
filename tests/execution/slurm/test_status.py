"""How stages stand: the store before the queue, the queue before the accounting, and no failure out of silence."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from ablate.cli import slurm as cli_slurm
from ablate.context import Resources, write_json
from ablate.errors import UnknownNameError, UsageError
from ablate.execution import lease
from ablate.execution.overview import listed, overview, seconds_left, standing_code
from ablate.execution.runner import run_stage
from ablate.execution.slurm import commands
from ablate.execution.slurm.arrays import Array
from ablate.execution.slurm.commands import SlurmBusy, SlurmError
from ablate.execution.slurm.control import why
from ablate.execution.slurm.jobs import reason_in_words
from ablate.execution.slurm.ledger import ArrayRecord, new_submission
from ablate.execution.slurm.shapes import Shape
from ablate.execution.slurm.status import chosen_statuses, cluster_statuses
from ablate.execution.study import StageStatus
from ablate.plan.graph import Graph
from ablate.plan.stage import Stage
from ablate.store import Store

HELPERS = Path(__file__).parents[1] / "helpers"
COUNT = 6


class Cluster:
    """Three pairs of a parent and its child, handed over as two arrays, and what SLURM says of them."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.calls = store, list[str]()
        self.queue: dict[str, str | Exception] = {}
        self.past: str | Exception = ""
        graph = Graph()
        for number in range(COUNT // 2):
            label, entry = f"parent {number}", "light_work:write"
            parent = graph.add("pocket", {"label": label}, label=label, entry=entry)
            graph.add(
                "dataset", {"label": f"child {number}"}, {"x": parent.ref()}, label=f"child {number}", entry=entry
            )
        self.stages = list(graph.stages.values())
        self.parents, self.children = self.stages[::2], self.stages[1::2]
        for stage in self.stages:
            store.stage(stage.id).folder.mkdir(parents=True)
            write_json(store.stage(stage.id).stage_json, stage.as_json())
        plan = {stage.id: {"kind": stage.kind, "label": stage.execution.label} for stage in self.stages}
        subjects = [
            {"axes": {"seed": number}, "stage": stage.id, "evaluations": {}}
            for number, stage in enumerate(self.children)
        ]
        store.experiment("small").folder.mkdir(parents=True)
        write_json(store.experiment("small").plan_json, {"stages": plan, "subjects": subjects})
        submission = new_submission(store, experiment="small", profile="cluster.yaml")
        self.records = []
        for key, stages, job in (("00-pocket", self.parents, "70"), ("01-dataset", self.children, "71")):
            record = submission.array(key)
            elements = {index: (stage.id,) for index, stage in enumerate(stages)}
            record.write_intent(Array(key, Shape("x", 60, 1, 1), elements, ()), submission.job_name(key), {}, {})
            record.write_job(job)
            self.records.append(record)
        monkeypatch.setattr(commands, "call", self.call)

    def call(self, command: Sequence[str], *, retry: bool = True) -> str:
        self.calls.append(command[0])
        if command[0] == "sacct":
            if isinstance(self.past, Exception):
                raise self.past
            return self.past
        lines = []
        for place, told in self.queue.items():
            if isinstance(told, Exception):
                raise told
            job = int(place.partition("_")[0])
            state, _, reason = told.partition(" ")
            lines.append(f"{place}|{self.records[job - 70].name}|{state}|n1|0:05|{reason or 'None'}")
        return "\n".join(lines)

    def states(self) -> dict[str, tuple[str, str]]:
        return {line.label: (line.status, line.note) for line in cluster_statuses(self.store, ["small"])["small"]}

    def do(self, *stages: Stage) -> None:
        for stage in stages:
            assert run_stage(self.store.stage(stage.id).folder, Resources()).status == "done"

    def note(self, record: ArrayRecord, index: int, **event: object) -> None:
        with record.events(index).open("a") as handle:
            handle.write(json.dumps(event) + "\n")


@pytest.fixture
def cluster(store: Store, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.syspath_prepend(str(HELPERS))
    return Cluster(store, monkeypatch)


def test_what_is_queued_says_why_and_takes_one_call(cluster: Cluster) -> None:
    cluster.queue = {"70_0": "RUNNING", "70_1": "PENDING Resources", "70_2": "PENDING QOSMaxJobsPerUserLimit"}
    cluster.queue |= {
        "71_0": "PENDING Dependency",
        "71_1": "PENDING JobHeldUser",
        "71_2": "PENDING DependencyNeverSatisfied",
    }
    found = cluster.states()
    assert found["parent 0"] == ("running", "on n1, 0:05 (job 70_0)")
    assert found["parent 1"] == ("queued", "waits for free nodes (Resources) (job 70_1)")
    assert found["parent 2"][1].startswith("a limit of the QOS for a user or account is reached")
    assert found["child 0"] == ("queued", "waits for other jobs (Dependency) (job 71_0)")
    assert found["child 1"][1].startswith("held: `ablate release`")
    assert found["child 2"][0] == "blocked"
    assert cluster.calls == ["squeue"]


def test_several_experiments_take_one_call(cluster: Cluster) -> None:
    store = cluster.store
    store.experiment("other").folder.mkdir()
    write_json(store.experiment("other").plan_json, store.experiment("small").read_plan())
    cluster.queue = {"70_0": "RUNNING"}
    found = cluster_statuses(store, ["small", "other"])
    assert found["small"] == found["other"] and cluster.calls == ["squeue", "sacct"]


def test_a_marker_counts_whatever_slurm_says(cluster: Cluster) -> None:
    cluster.do(*cluster.stages)
    cluster.queue = {"70_0": "FAILED NonZeroExitCode"}
    assert {status for status, _ in cluster.states().values()} == {"done"}
    assert cluster.calls == [], "nothing is asked where all is done"


@pytest.mark.parametrize("past", ["", SlurmError("sacct: Slurm accounting storage is disabled")])
def test_silence_is_no_failure(cluster: Cluster, past: str | Exception) -> None:
    cluster.past = past
    assert {status for status, _ in cluster.states().values()} == {"unknown"}
    assert cluster.calls == ["squeue", "sacct"]
    cluster.queue = {"70_0": SlurmBusy("squeue: Unable to contact slurm controller")}
    found = cluster.states()
    assert found["parent 0"] == ("unknown", "70_0 squeue: Unable to contact slurm controller")


def test_a_stranger_with_a_job_id_used_again_counts_nothing(cluster: Cluster) -> None:
    cluster.past = "70_0|somebody.else|FAILED|n3\n"
    assert cluster.states()["parent 0"][0] == "unknown"


def test_how_ended_jobs_of_unfinished_stages_are_told(cluster: Cluster) -> None:
    name = cluster.records[0].name
    rows = [(0, "NODE_FAIL", "n2"), (1, "CANCELLED by 1000", ""), (2, "OUT_OF_MEMORY", "n1")]
    cluster.past = "".join(f"70_{i}|{name}|{state}|{node}\n" for i, state, node in rows)
    found = cluster.states()
    assert found["parent 0"] == ("interrupted", "its node failed on n2 (job 70_0)")
    assert found["parent 1"] == ("cancelled", "before it started (job 70_1)")
    assert found["parent 2"][1].startswith("its job was killed for memory")


def test_a_job_that_never_came_to_its_stage_says_why(cluster: Cluster) -> None:
    one, two, three = (cluster.records[0].output(index) for index in range(3))
    cluster.queue = {f"70_{index}": "FAILED JobLaunchFailure" for index in range(3)}
    two.write_text("bash: line 20: /opt/python: No such file or directory\n\n")
    three.touch()
    found = cluster.states()
    words = f"n1 could not write {one}: does it see the store? `ablate doctor --on` finds out (job 70_0)"
    assert found["parent 0"] == ("interrupted", words)
    assert found["parent 1"][1].startswith("its script ended before the stage began: bash: line 20: /opt/python: No")
    assert found["parent 2"][1].startswith("its script ended before the stage began, and printed nothing")
    cluster.note(cluster.records[0], 0, what="started")
    assert cluster.states()["parent 0"][1].startswith("its job failed on n1")


def test_an_accounting_that_lags_ends_nothing(cluster: Cluster) -> None:
    cluster.past = "".join(f"70_{index}|{cluster.records[0].name}|RUNNING|n1\n" for index in range(3))
    words = "it left the queue, and the accounting lags (job 70_0)"
    assert cluster.states()["parent 0"] == ("unknown", words)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        *(("REQUEUE_HOLD", "queued"), ("RESV_DEL_HOLD", "queued"), ("LAUNCH_FAILED", "queued")),
        *(("POWER_UP_NODE", "running"), ("EXPEDITING", "running"), ("COMPLETING", "running")),
    ],
)
def test_states_of_any_version(cluster: Cluster, state: str, status: str) -> None:
    cluster.queue = {"70_0": state}
    assert cluster.states()["parent 0"][0] == status


def test_elements_that_never_started_are_not_taken_apart(cluster: Cluster) -> None:
    cluster.past = f"71_[0,1-2%4]|{cluster.records[1].name}|CANCELLED|\n"
    cluster.queue = {"70_[0-2:2,1]": "CANCELLED DependencyNeverSatisfied"}
    assert {status for status, _ in cluster.states().values()} == {"cancelled"}


def test_what_hangs_on_a_failure_is_blocked_by_it(cluster: Cluster) -> None:
    attempt = lease.claim(cluster.store.stage(cluster.parents[0].id))
    assert attempt is not None
    write_json(attempt.failure_json, {"message": "no rows"})
    lease.end(attempt, "failed")
    name = cluster.records[1].name
    cluster.past = f"71_0|{name}|CANCELLED by 0|\n"
    found = cluster.states()
    assert found["parent 0"] == ("failed", "no rows")
    assert found["child 0"] == ("blocked", f"needs {cluster.parents[0].id}, which is failed")
    told = why(cluster.store, "small", cluster.children[0].id)
    assert any("parent 0: failed, no rows" in line for line in told)


def test_what_hangs_on_a_failure_by_another_stage_is_blocked_in_whatever_order_they_are_listed(
    cluster: Cluster,
) -> None:
    grandchild = Graph().add("sft", {}, {"x": cluster.children[0].ref()}, label="grandchild")
    folder = cluster.store.stage(grandchild.id)
    folder.folder.mkdir()
    write_json(folder.stage_json, grandchild.as_json())
    plan = cluster.store.experiment("small").read_plan()
    listed = {grandchild.id: {"kind": "sft", "label": "grandchild"}, **plan["stages"]}
    attempt = lease.claim(cluster.store.stage(cluster.parents[0].id))
    assert attempt is not None
    write_json(attempt.failure_json, {"message": "no rows"})
    lease.end(attempt, "failed")
    for order in (listed, dict(reversed(listed.items()))):
        cluster.store.experiment("small").plan_json.write_text(json.dumps(plan | {"stages": order}))
        assert cluster.states()["grandchild"] == ("blocked", f"needs {cluster.parents[0].id}, which is failed")


def test_a_stage_that_was_begun_again_says_after_what(cluster: Cluster) -> None:
    again = {"what": "ended", "code": 75}
    for what in ("timeout", "timeout", "node"):
        for event in ({"what": "started"}, {"what": what}, again):
            cluster.note(cluster.records[0], 0, **event)
    for event in ({"what": "started"}, {"what": "lost"}, {"what": "started"}):
        cluster.note(cluster.records[0], 0, **event)
    with cluster.records[0].events(0).open("a") as handle:
        handle.write('{"what": "pree')  # torn
    cluster.queue = {"70_0": "PENDING BeginTime"}
    assert "begun again after 2 time-outs, 2 losses" in cluster.states()["parent 0"][1]


def test_what_ended_for_good_was_not_begun_again(cluster: Cluster) -> None:
    for event in ({"what": "started"}, {"what": "failure"}, {"what": "ended", "code": 1}):
        cluster.note(cluster.records[0], 0, **event)
    assert not any("begun again" in line for line in why(cluster.store, "small", cluster.parents[0].id))


def test_stages_by_state_and_axis(cluster: Cluster) -> None:
    cluster.do(cluster.parents[0], cluster.children[0])

    def labels(states: list[str], where: list[str]) -> set[str]:
        return {line.label for line in chosen_statuses(cluster.store, ["small"], states, where)["small"]}

    assert labels([], ["seed=0"]) == {"parent 0", "child 0"}
    assert labels(["done"], []) == {"parent 0", "child 0"}
    for states, where, error in ((["dne"], [], UnknownNameError), ([], ["sed=0"], UnknownNameError)):
        with pytest.raises(error, match="did you mean"):
            labels(states, where)
    with pytest.raises(UsageError, match="axis=value"):
        labels([], ["seed"])
    with pytest.raises(UnknownNameError, match="unknown value of seed '7'"):
        labels([], ["seed=7"])


def test_exit_codes_and_the_time_to_go(cluster: Cluster) -> None:
    cluster.queue = {"70_0": "RUNNING"}
    lines = cluster_statuses(cluster.store, ["small"])["small"]
    assert standing_code(lines) == 3 and seconds_left(lines) is None
    cluster.do(*cluster.parents[1:], *cluster.children[1:])
    lines = cluster_statuses(cluster.store, ["small"])["small"]
    left = seconds_left(lines)
    assert left is not None and 0 < left < 10
    assert standing_code([line for line in lines if line.status == "done"]) == 0


def told(*standing: str) -> list[StageStatus]:
    """Stages of one kind that stand so; each that is done took a minute."""
    states = [StageStatus(str(i), "train", f"stage {i}", s) for i, s in enumerate(standing)]  # type: ignore[arg-type]
    return [dataclasses.replace(line, seconds=60.0) if line.status == "done" else line for line in states]


def test_what_waits_on_this_machine_is_to_go_while_something_runs() -> None:
    lines = told("done", "running", "running", "waiting", "waiting", "waiting", "failed")
    assert seconds_left(lines) == 60.0 * 5 / 2
    assert standing_code(lines) == 3
    console = Console(width=100)
    with console.capture() as shown:
        console.print(overview("small", lines, time.time() - 600))
    assert "1/7  2 running, 3 waiting, 1 failed" in shown.get()
    assert re.search(r"1/7 stages  begun 10 min ago, about 2 min left \(until (\w+ )?\d\d:\d\d\)", shown.get())
    with console.capture() as shown:
        console.print(overview("small", told("done", "failed"), 0.0))
    assert "1/2 stages  \n" in shown.get(), "nothing goes on"


def test_what_is_queued_is_a_line_for_each_reason(cluster: Cluster) -> None:
    cluster.queue = {f"70_{index}": "PENDING Resources" for index in range(3)}
    cluster.queue |= {f"71_{index}": "PENDING Dependency" for index in range(2)} | {"71_2": "PENDING JobHeldUser"}
    lines = cluster_statuses(cluster.store, ["small"])["small"]
    assert listed(lines, everything=False) == [
        "  queued      3 stages: waits for free nodes (Resources)",
        "  queued      2 stages: waits for other jobs (Dependency)",
        "  queued      1 stage: held: `ablate release`, or scontrol release (JobHeldUser)",
    ]
    assert len(listed(lines, everything=True)) == COUNT


def test_watching_without_a_terminal_prints_what_changes(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = iter(["running queued", "running queued", "done running", "done done"])
    monkeypatch.setattr(cli_slurm, "cluster_statuses", lambda store, names: {"small": told(*next(looks).split())})
    monkeypatch.setattr(cli_slurm, "WATCH_SECONDS", 0.0)
    cli_slurm.watch(store, ["small"])
    printed = [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()]
    assert printed == ["small: 1 running, 1 queued", "small: 1 done, 1 running", "small: 2 done"]


@pytest.mark.parametrize(
    ("standing", "code"),
    [("done done", 0), ("done waiting", 1), ("failed blocked", 1), ("done queued", 3), ("unknown failed", 3)],
)
def test_exit_codes_for_scripts(standing: str, code: int) -> None:
    assert standing_code(told(*standing.split())) == code


@pytest.mark.parametrize(
    ("looks", "taken"),
    [
        (["running waiting", "done waiting", "done running", "done done"], 4),  # between two stages none runs
        (["done waiting", "done waiting", "done waiting", "done waiting"], 3),
        (["failed blocked", "done done"], 1),
    ],
)
def test_watching_ends_with_what_is_watched(
    looks: list[str], taken: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = iter(looks)
    monkeypatch.setattr(cli_slurm, "cluster_statuses", lambda store, names: {"small": told(*next(seen).split())})
    monkeypatch.setattr(cli_slurm, "WATCH_SECONDS", 0.0)
    cli_slurm.watch(store, ["small"])
    assert list(seen) == looks[taken:]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Priority", "others come first"),
        ("AssocGrpGRES", "a limit of the account"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "nodes it asks for"),
        ("PartitionTimeLimit", "lower limits.time"),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "nodes it asks",
        ),
        ("user env retrieval failed requeued held", "held: scontrol release"),
        ("launch failed requeued held", "held: scontrol release"),
        ("MaxGRESPerAccount", "a limit of the account"),
        ("SomethingNew", "SomethingNew"),
    ],
)
def test_reasons_in_words(reason: str, words: str) -> None:
    assert words in reason_in_words(reason) and reason in reason_in_words(reason)
