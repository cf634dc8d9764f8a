"""The scheduler on light stages: order, failures, sharing with other processes, interruption, what is printed."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ablate.context import Resources, read_json, write_json
from ablate.errors import StageError
from ablate.execution.display import LiveDisplay, PlainDisplay
from ablate.execution.local import Change, LocalRun, run_local
from ablate.execution.runner import Outcome, run_stage
from ablate.execution.servers import Server
from ablate.execution.slots import Machine
from ablate.liveness import is_running
from ablate.plan.graph import Graph
from ablate.plan.stage import Stage
from ablate.store import Store

HELPERS = Path(__file__).parent / "helpers"
WORK = "light_work"
"""The module of helpers/ that has the work of these stages; worker servers import it by this name."""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers inherit this process's path."""
    monkeypatch.syspath_prepend(str(HELPERS))


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def started(self, stage: Stage) -> None:
        self.events.append(("started", stage.execution.label))

    def ended(self, stage: Stage, outcome: Outcome) -> None:
        self.events.append((outcome.status, stage.execution.label))

    def waiting(self, stage: Stage) -> None:
        self.events.append(("waiting", stage.execution.label))

    def tick(self) -> None:
        return None


class Study:
    """A graph of light stages by label, recorded in a store."""

    def __init__(self, store: Store) -> None:
        self.store, self.graph = store, Graph()
        self.ids: dict[str, str] = {}

    def add(self, label: str, *parents: str, work: str = "write", gpu: bool = False, **config: Any) -> str:
        inputs = {f"from_{parent}": self.graph.stages[self.ids[parent]].ref() for parent in parents}
        entry = work if ":" in work else f"{WORK}:{work}"
        # Of a kind that forks from the light server: select is one.
        stage = self.graph.add("select", {"label": label, **config}, inputs, label=label, entry=entry)
        stage = replace(stage, execution=replace(stage.execution, gpu=gpu))
        self.graph.stages[stage.id] = stage
        self.ids[label] = stage.id
        folder = self.store.stage(stage.id)
        folder.folder.mkdir(parents=True, exist_ok=True)
        write_json(folder.stage_json, stage.as_json())
        return stage.id

    def run(self, jobs: int = 2, observer: Any = None, gpus: int = 0) -> LocalRun:
        wanted = [i for i in self.graph.stages if not self.store.stage(i).is_done()]
        machine = Machine(jobs, 1, tuple(range(gpus)))
        return run_local(self.store, self.graph.stages, wanted, machine, observer or Recorder())

    def record(self, label: str) -> dict[str, Any]:
        record = self.store.stage(self.ids[label]).read_done()
        assert record is not None
        return record

    def interval(self, label: str) -> tuple[float, float]:
        record = self.record(label)
        return record["started"], record["ended"]

    def overlap(self, one: str, other: str) -> bool:
        (begun, ended), (other_begun, other_ended) = self.interval(one), self.interval(other)
        return begun < other_ended and other_begun < ended

    def status(self, run: LocalRun) -> dict[str, str]:
        return {label: run.outcomes[i].status for label, i in self.ids.items() if i in run.outcomes}


@pytest.fixture
def study(store: Store) -> Study:
    return Study(store)


def test_stages_run_after_their_parents(study: Study) -> None:
    study.add("a")
    study.add("b", "a")
    study.add("c", "a")
    study.add("d", "b", "c")
    study.add("e")
    run = study.run(jobs=3)
    assert set(study.status(run).values()) == {"done"}
    assert run.count("done") == 5
    assert not run.interrupted
    for child, parent in (("b", "a"), ("c", "a"), ("d", "b"), ("d", "c")):
        assert study.interval(parent)[1] <= study.interval(child)[0]
    assert study.run().outcomes == {}


def test_the_longest_way_goes_first(study: Study) -> None:
    for label in ("x", "y"):
        study.add(label)
    study.add("long")
    study.add("longer", "long")
    recorder = Recorder()
    study.run(jobs=1, observer=recorder)
    assert next(label for word, label in recorder.events if word == "started") == "long"


def test_no_more_stages_at_a_time_than_jobs(study: Study) -> None:
    for label in "abcdef":
        study.add(label, seconds=0.1)
    recorder, running, most = Recorder(), 0, 0
    study.run(jobs=2, observer=recorder)
    for word, _ in recorder.events:
        running += 1 if word == "started" else -1
        most = max(most, running)
    assert most == 2


def test_a_gpu_has_one_stage_at_a_time_and_the_processor_goes_on_beside(study: Study) -> None:
    on_gpu, on_processor = [f"g{row}" for row in range(6)], [f"p{row}" for row in range(4)]
    for label in (*on_gpu, *on_processor):
        study.add(label, work="look_around", seconds=0.3, gpu=label in on_gpu)
    run = study.run(jobs=3, gpus=2)
    assert set(study.status(run).values()) == {"done"}
    seen = {label: read_json(study.store.stage(i).artifact("seen.json")) for label, i in study.ids.items()}
    for label in on_gpu:
        (gpu,) = study.record(label)["gpus"]
        assert seen[label]["CUDA_VISIBLE_DEVICES"] == str(gpu)
    assert {seen[label]["CUDA_VISIBLE_DEVICES"] for label in on_gpu} == {"0", "1"}
    assert {seen[label]["CUDA_VISIBLE_DEVICES"] for label in on_processor} == {""}
    for one, other in itertools.combinations(on_gpu, 2):
        same = study.record(one)["gpus"] == study.record(other)["gpus"]
        assert not (same and study.overlap(one, other)), f"{one} and {other} shared a GPU"
    assert any(study.overlap(one, other) for one, other in itertools.product(on_processor, on_gpu))


def test_a_gpu_comes_back_from_a_stage_that_fails(study: Study) -> None:
    study.add("bad", work="look_around", fails=True, gpu=True)
    study.add("good", work="look_around", gpu=True)
    assert study.status(study.run(jobs=2, gpus=1)) == {"bad": "failed", "good": "done"}


def test_without_a_gpu_every_stage_runs_on_the_processor(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # there, and not to be used: --gpus 0
    stage_id = study.add("any", work="look_around", gpu=True)
    assert study.run(gpus=0).count("done") == 1
    assert read_json(study.store.stage(stage_id).artifact("seen.json"))["CUDA_VISIBLE_DEVICES"] == ""


def test_a_failure_stops_only_what_needs_it(study: Study) -> None:
    study.add("good")
    study.add("bad", work="fail")
    study.add("child", "good", "bad")
    study.add("grandchild", "child")
    study.add("other", "good")
    run = study.run()
    assert study.status(run) == {
        "good": "done",
        "bad": "failed",
        "child": "blocked",
        "grandchild": "blocked",
        "other": "done",
    }
    assert run.outcomes[study.ids["bad"]].message == "there are no rows"
    assert study.ids["bad"] in run.outcomes[study.ids["child"]].message
    assert not study.store.stage(study.ids["child"]).attempts_folder.exists(), "a blocked stage is not tried"


def test_a_failed_stage_is_tried_again_by_the_next_run(study: Study, tmp_path: Path) -> None:
    study.add("flaky", work="fail_unless", path=str(tmp_path / "there"))
    study.add("child", "flaky")
    assert set(study.status(study.run()).values()) == {"failed", "blocked"}
    (tmp_path / "there").touch()
    assert set(study.status(study.run()).values()) == {"done"}


def test_work_that_cannot_be_imported_fails_alone(study: Study) -> None:
    study.add("gone", work="no_such_module:run")
    study.add("fine")
    run = study.run()
    assert study.status(run) == {"gone": "failed", "fine": "done"}
    assert "can't import the work of this stage, no_such_module:run" in run.outcomes[study.ids["gone"]].message


def test_a_server_survives_a_module_it_cannot_preload(study: Study, tmp_path: Path) -> None:
    stage_id = study.add("fine")
    server = Server(["no_such_module", WORK], tmp_path / "server.log")
    server.run(study.store.stage(stage_id).folder, Resources())
    replies: list[dict[str, Any]] = []
    while len(replies) < 2:
        replies += server.replies()
    server.close()
    assert [reply.get("status") for reply in replies] == [None, "done"]
    assert "No module named 'no_such_module'" in (tmp_path / "server.log").read_text()


def test_a_server_that_ends_is_an_error_that_names_its_log(tmp_path: Path) -> None:
    server = Server(["ends_at_import"], tmp_path / "server.log")
    with pytest.raises(StageError, match=r"(?s)exit code 7.*server\.log"):
        while True:
            server.replies()
    with pytest.raises(StageError, match="exit code 7"):
        server.stop("x")
        server.stop("x")
    server.close()


def test_a_server_leaves_a_signal_to_all_of_a_job_to_the_scheduler(study: Study, tmp_path: Path) -> None:
    stage_id = study.add("slow", work="slow", path=str(tmp_path / "begun"))
    server = Server([WORK], tmp_path / "server.log")
    server.run(study.store.stage(stage_id).folder, Resources())
    while not server.replies():  # that it is ready
        continue
    os.kill(server._process.pid, signal.SIGTERM)
    server.stop(stage_id)  # of a stage that may have begun in this moment
    (reply,) = server.replies()
    server.close()
    assert reply["status"] == "interrupted"
    assert server._process.returncode == 0


def test_a_stage_run_elsewhere_is_waited_for(study: Study) -> None:
    busy = study.add("busy")
    study.add("child", "busy")
    folder = study.store.stage(busy)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "claimed\n"
    recorder = Recorder()
    run = study.run(observer=recorder)
    holder.communicate(timeout=60)
    assert ("waiting", "busy") in recorder.events
    assert set(study.status(run).values()) == {"done"}


HOLD = """
import sys, time
from pathlib import Path
from ablate.execution import lease
from ablate.store import StageFolder
attempt = lease.claim(StageFolder(Path(sys.argv[1])))
print("claimed", flush=True)
time.sleep(3)
"""


def test_a_stage_published_meanwhile_is_done(study: Study) -> None:
    first = study.add("first")
    folder = study.store.stage(first)
    assert run_stage(folder.folder, Resources()).status == "done"
    run = run_local(study.store, study.graph.stages, [first], Machine(1, 1, ()), Recorder())
    assert run.outcomes[first].status == "done"
    assert len(folder.attempts()) == 1


def test_two_runs_at_once_run_every_stage_once(study: Study, tmp_path: Path) -> None:
    for row in range(6):
        study.add(f"a{row}", work="append", path=str(tmp_path / "runs"), seconds=0.05)
        study.add(f"b{row}", f"a{row}", work="append", path=str(tmp_path / "runs"), seconds=0.05)
    graph = {i: stage.as_json() for i, stage in study.graph.stages.items()}
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    command = [sys.executable, str(HELPERS / "run_graph.py"), str(study.store.root), str(tmp_path / "graph.json")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=300)[0]) for process in processes]
    assert all(set(answer.values()) == {"done"} and len(answer) == 12 for answer in answers)
    assert sorted((tmp_path / "runs").read_text().split()) == sorted(study.ids)
    assert all(len(study.store.stage(i).attempts()) == 1 for i in study.graph.stages)


@pytest.fixture
def interrupted(study: Study, tmp_path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Interrupt a run in a process of its own once its slow stages run; exit code and how the stages ended."""
    study.add("quick")
    for row in range(3):
        study.add(f"slow{row}", "quick", work="slow", path=str(tmp_path / f"slow{row}"))
    graph = {i: stage.as_json() for i, stage in study.graph.stages.items()}
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    command = [sys.executable, str(HELPERS / "run_graph.py"), str(study.store.root), str(tmp_path / "graph.json")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: sum((tmp_path / f"slow{row}").exists() for row in range(3)) == 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    output, _ = process.communicate(timeout=60)
    yield process.returncode, json.loads(output)


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_ctrl_c_stops_what_runs_and_a_rerun_continues(
    study: Study, interrupted: tuple[int, dict[str, str]], tmp_path: Path
) -> None:
    code, ended = interrupted
    assert code == 130
    assert ended[study.ids["quick"]] == "done"
    assert sorted(ended.values()) == ["done", "interrupted", "interrupted"], "the third slow stage was never started"
    assert not any(is_running(folder.attempts()[-1]) for i in ended if (folder := study.store.stage(i)))
    (tmp_path / "go").touch()
    run = study.run()
    assert set(study.status(run).values()) == {"done"}
    assert study.ids["quick"] not in run.outcomes


def test_plain_lines_say_what_ended_and_how(study: Study) -> None:
    study.add("[good]")
    study.add("bad", work="fail")
    study.add("child", "bad")
    text = io.StringIO()
    with PlainDisplay(Console(file=text, width=40), 3) as display:
        study.run(jobs=1, observer=display)
    lines = sorted(line.partition("] ")[2] for line in text.getvalue().splitlines())
    assert len(lines) == 2, "what a failure blocks has no line of its own"
    assert lines[0].startswith("done    select             [good] (")
    assert lines[1].startswith("failed  select             bad (")
    assert lines[1].endswith(": there are no rows")


def test_the_live_display_counts_and_keeps_failures(study: Study) -> None:
    study.add("[good]", seconds=0.5)
    study.add("bad", work="fail")
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True)
    with LiveDisplay(console, study.store, study.graph.stages) as display:
        study.run(jobs=2, observer=display)
    assert "└ [good]" in text.getvalue()
    assert "bad: there are no rows" in text.getvalue()
    assert "2 stages" in text.getvalue()


class Scripted:
    """A source of changes, each made once its condition holds."""

    def __init__(self, *steps: tuple[Callable[[LocalRun], bool], Change]) -> None:
        self.steps = list(steps)

    def change(self, run: LocalRun) -> Change | None:
        if not self.steps:
            return None
        if not self.steps[0][0](run):
            return Change()
        return self.steps.pop(0)[1]


def added(study: Study, *labels: str) -> Change:
    return Change(add={study.ids[label]: study.graph.stages[study.ids[label]] for label in labels})


def at_once(run: LocalRun) -> bool:
    return True


def after(study: Study, label: str) -> Callable[[LocalRun], bool]:
    return lambda run: study.ids[label] in run.outcomes


def run_source(study: Study, *steps: tuple[Callable[[LocalRun], bool], Change], jobs: int = 2) -> LocalRun:
    return run_local(study.store, {}, [], Machine(jobs, 1, ()), Recorder(), Scripted(*steps))


def test_a_source_adds_stages_while_a_run_goes_on(study: Study) -> None:
    study.add("shared"), study.add("one", "shared"), study.add("two", "shared"), study.add("of two", "two")
    first, second = added(study, "shared", "one"), added(study, "shared", "two", "of two")
    run = run_source(study, (at_once, first), (after(study, "one"), second))
    assert study.status(run) == dict.fromkeys(("shared", "one", "two", "of two"), "done")
    assert len(study.store.stage(study.ids["shared"]).attempts()) == 1
    assert study.interval("one")[1] <= study.interval("two")[0]


def test_what_was_added_first_goes_first(study: Study) -> None:
    study.add("first"), study.add("last of first", "first")
    study.add("second"), study.add("end", "second"), study.add("end of end", "end")
    first, second = added(study, "first", "last of first"), added(study, "second", "end", "end of end")
    run_source(study, (at_once, first), (at_once, second), jobs=1)
    assert study.interval("last of first")[0] < study.interval("second")[0]


def test_what_a_source_stops_can_be_added_again(study: Study, tmp_path: Path) -> None:
    study.add("long", work="slow", path=str(tmp_path / "runs")), study.add("next", "long")

    def is_stopped(run: LocalRun) -> bool:
        (tmp_path / "go").touch()  # the second attempt takes no time
        return after(study, "long")(run)

    stop = Change(stop=[study.ids["long"], study.ids["next"]])
    run = run_source(
        study,
        (at_once, added(study, "long", "next")),
        (lambda run: (tmp_path / "runs").exists(), stop),
        (is_stopped, added(study, "long", "next")),
    )
    assert study.status(run) == {"long": "done", "next": "done"}
    assert len(study.store.stage(study.ids["long"]).attempts()) == 2


def test_what_is_added_below_a_failure_is_blocked(study: Study) -> None:
    study.add("bad", work="fail"), study.add("below", "bad")
    run = run_source(study, (at_once, added(study, "bad")), (after(study, "bad"), added(study, "below")))
    assert study.status(run) == {"bad": "failed", "below": "blocked"}
