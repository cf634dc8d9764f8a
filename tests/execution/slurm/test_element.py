"""One element of an array: its exit code, its budgets, its signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ablate.context import Resources, read_json, write_json
from ablate.execution import lease
from ablate.execution.slurm import commands, element
from ablate.execution.slurm.element import element_events
from ablate.execution.slurm.ledger import ArrayRecord
from ablate.execution.slurm.profile import Service
from ablate.plan.graph import Graph
from ablate.plan.stage import Ref, Stage
from ablate.store import StageFolder, Store

HELPERS = Path(__file__).parents[1] / "helpers"
RETRIES = {"preemption": 2, "timeout": 1, "failure": 0, "node": 1, "time_factor": 1}

AddStage = Callable[[Stage], StageFolder]
Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def begin(store: Store) -> Begin:
    """Start an element that has these stages."""

    def start(*stages: str, **facts: Any) -> subprocess.Popen[str]:
        record = prepared(store, *stages, **facts)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HELPERS), *filter(None, sys.path)])}
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "ablate.execution.slurm.element", str(record.folder), "3"],
            env={**environment, "SLURMD_NODENAME": "n1", "SLURM_JOB_ID": "12"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def prepared(store: Store, *stages: str, **facts: Any) -> ArrayRecord:
    """Write down an array whose element 3 has these stages."""
    record = the_record(store)
    record.folder.mkdir(parents=True, exist_ok=True)
    known = {"elements": {"3": list(stages)}, "pack": len(stages), "retries": RETRIES, "minutes": 600, "signal": 60}
    known["longest"] = 600
    known |= {
        "resources": [asdict(Resources())] * len(stages),
        "requeue": True,
        "alike": 3,
        "services": {},
        "name": "n",
        "time": 0.0,
    }
    write_json(record.array_json, known | facts)
    return record


def the_record(store: Store) -> ArrayRecord:
    return ArrayRecord(store.slurm / "20260101-000000-00000000" / "00-dataset")


def happened(store: Store) -> list[str]:
    return [event["what"] for event in element_events(the_record(store), 3)]


def light(add_stage: AddStage, entry: str, label: str = "a", **config: Any) -> str:
    stage = Graph().add("dataset", {"label": label, **config}, label=label, entry=f"light_work:{entry}")
    return add_stage(stage).id


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    printed, _ = process.communicate(timeout=120)
    return process.returncode, printed


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.05)


def test_done_failed_and_a_late_duplicate(store: Store, add_stage: AddStage, begin: Begin) -> None:
    well, bad = light(add_stage, "write"), light(add_stage, "fail", "b")
    assert end(begin(well)) == (0, f"{well}: done\n")
    code, printed = end(begin(bad))
    assert code == 1 and "there are no rows" in printed
    assert end(begin(well))[0] == 0
    assert len(store.stage(well).attempts()) == 1


def test_a_missing_input_ends_blocked(add_stage: AddStage, begin: Begin) -> None:
    graph = Graph()
    parent = graph.add("pocket", {"label": "p"}, label="p", entry="light_work:write")
    child = graph.add("dataset", {"label": "c"}, {"x": Ref(parent.id, "")}, label="c", entry="light_work:write")
    add_stage(parent)
    add_stage(child)
    code, printed = end(begin(child.id))
    assert code == 3 and f"waits for {parent.id}" in printed


def test_packed_stages_have_their_own_fate(store: Store, add_stage: AddStage, begin: Begin) -> None:
    ids = [light(add_stage, "fail"), light(add_stage, "write", "b"), light(add_stage, "write", "c")]
    assert end(begin(*ids))[0] == 0, "one that was made is enough: whoever needs another looks at its inputs"
    assert [store.stage(stage).is_done() for stage in ids] == [False, True, True]
    only = [light(add_stage, "fail", "d"), light(add_stage, "fail", "e")]
    assert end(begin(*only))[0] == 1


def test_a_withdrawn_array_does_nothing(store: Store, add_stage: AddStage, begin: Begin) -> None:
    stage = light(add_stage, "write")
    record = the_record(store)
    record.folder.mkdir(parents=True)
    record.write_void("another array of the same call was refused")
    code, printed = end(begin(stage))
    assert code == 0 and "withdrawn" in printed
    assert not store.stage(stage).attempts()


@pytest.mark.parametrize(
    ("minutes", "cause", "budget"), [(600, "preemption", 2), (0, "timeout", 1)], ids=["preempted", "out of time"]
)
def test_a_signal_is_counted_against_its_own_budget(
    store: Store, add_stage: AddStage, begin: Begin, tmp_path: Path, minutes: int, cause: str, budget: int
) -> None:
    stage = light(add_stage, "slow", path=str(tmp_path / "running"))
    codes = []
    for _ in range(budget + 1):
        (tmp_path / "running").unlink(missing_ok=True)
        process = begin(stage, minutes=minutes, signal=100)
        wait_for(tmp_path / "running")
        process.send_signal(signal.SIGUSR1)
        codes.append(end(process)[0])
    assert codes == [75] * budget + [1]
    assert happened(store).count(cause) == budget + 1
    failure = store.stage(stage).last_failure()
    assert failure is not None and f"stopped by {cause} {budget + 1} times" in failure["message"]


def test_a_time_out_asks_for_more_time_up_to_the_longest(
    store: Store, monkeypatch: pytest.MonkeyPatch, add_stage: AddStage
) -> None:
    retries = RETRIES | {"timeout": 3, "time_factor": 1.5}
    stage = light(add_stage, "write")
    record = prepared(store, stage, minutes=70, longest=150, retries=retries)
    granted = iter(["1:45:00\n", "2:30:00\n"])
    monkeypatch.setattr(commands, "call", lambda command, retry: next(granted))
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "77")
    asked = []
    for _ in range(3):
        one = element.Element(record, 3)
        one.asked, one.begun = True, one.begun - 60 * 149  # seconds of work: the last of every limit so far
        monkeypatch.setattr(one, "_run_all", lambda: {stage: "interrupted"})
        monkeypatch.setattr(signal, "signal", lambda number, handler: None)
        assert one.run() == 75
        asked.append(record.minutes(3).read_text())
    assert asked == ["105\n", "150\n", "150\n"]
    limits = [event["minutes"] for event in element_events(record, 3) if event["what"] == "timeout"]
    assert limits == [70, 105, 150]


def test_more_time_that_was_not_granted_is_not_counted_on(
    store: Store, monkeypatch: pytest.MonkeyPatch, add_stage: AddStage
) -> None:
    stage = light(add_stage, "write")
    record = prepared(store, stage, minutes=70, retries=RETRIES | {"time_factor": 2})
    record.minutes(3).write_text("140\n")
    monkeypatch.setattr(commands, "call", lambda command, retry: "1:10:00\n")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "77")
    one = element.Element(record, 3)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    one.asked, one.begun = True, one.begun - 60 * 69
    monkeypatch.setattr(one, "_run_all", lambda: {stage: "interrupted"})
    assert one.run() == 75 and happened(store)[-2:] == ["timeout", "ended"]


def test_a_cancelled_element_stops_and_is_not_begun_again(
    store: Store, add_stage: AddStage, begin: Begin, tmp_path: Path
) -> None:
    stage = light(add_stage, "slow", path=str(tmp_path / "running"))
    process = begin(stage)
    wait_for(tmp_path / "running")
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 130
    assert store.stage(stage).last_failure() is None


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put back what an element that runs in this process does on signals."""
    known = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
    yield
    for number, handler in known.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 75), (signal.SIGTERM, 130)])
@pytest.mark.parametrize("when", ["before the fork", "before the child is known"])
@pytest.mark.usefixtures("handlers")
def test_a_signal_reaches_stages_that_are_about_to_begin(
    store: Store, add_stage: AddStage, monkeypatch: pytest.MonkeyPatch, when: str, number: int, code: int
) -> None:
    monkeypatch.syspath_prepend(str(HELPERS))
    stages = [light(add_stage, "write", label, seconds=4.0) for label in "ab"]
    one = element.Element(prepared(store, *stages), 3)
    fork, serve = one._fork, one._serve

    held = threading.Event()  # a thread that holds no signal back takes it, as those of a library would
    other = threading.Thread(target=held.wait)
    other.start()

    def slow_fork(position: int) -> int:
        child = fork(position)
        if position == 1:
            os.kill(os.getpid(), number)
            time.sleep(0.2)
        return child

    def slow_serve(servers: ExitStack) -> dict[str | None, str]:
        os.kill(os.getpid(), number)
        return serve(servers)

    if when == "before the fork":
        monkeypatch.setattr(one, "_serve", slow_serve)
    else:
        monkeypatch.setattr(one, "_fork", slow_fork)
    try:
        assert one.run() == code
    finally:
        held.set()
        other.join()
    assert not any(store.stage(stage).is_done() for stage in stages)
    assert ("preemption" in happened(store)) == (code == 75)


def test_an_element_that_was_gone_without_a_word(
    store: Store, add_stage: AddStage, begin: Begin, tmp_path: Path
) -> None:
    stage = light(add_stage, "slow", path=str(tmp_path / "running"))
    for number in range(2):
        (tmp_path / "running").unlink(missing_ok=True)
        process = begin(stage)
        wait_for(tmp_path / "running")
        process.kill()
        process.communicate()
        assert happened(store).count("lost") == number
    code, printed = end(begin(stage))
    assert code == 1 and "given up: gone without a word 2 times (retries.node" in printed


def test_losses_of_either_kind_are_counted_against_one_budget(
    store: Store, add_stage: AddStage, begin: Begin, tmp_path: Path
) -> None:
    """The profile lets an element be lost once: its worker was killed, and then its script."""
    stage = light(add_stage, "slow", path=str(tmp_path / "running"))
    process = begin(stage)
    wait_for(tmp_path / "running")
    os.kill(read_json(store.stage(stage).attempts()[-1].owner_json)["pid"], signal.SIGKILL)
    assert end(process)[0] == 75
    (tmp_path / "running").unlink()
    process = begin(stage)
    wait_for(tmp_path / "running")
    process.kill()
    process.communicate()
    code, printed = end(begin(stage))
    assert code == 1 and "given up: gone without a word 2 times (retries.node" in printed


def test_a_killed_worker_is_begun_again(store: Store, add_stage: AddStage, begin: Begin, tmp_path: Path) -> None:
    stage = light(add_stage, "slow", path=str(tmp_path / "running"))
    process = begin(stage)
    wait_for(tmp_path / "running")
    owner = read_json(store.stage(stage).attempts()[-1].owner_json)
    os.kill(owner["pid"], signal.SIGKILL)
    assert end(process)[0] == 75
    (tmp_path / "go").touch()
    assert end(begin(stage))[0] == 0
    assert len(store.stage(stage).attempts()) == 2


@pytest.mark.slow
def test_another_owner_is_waited_for(store: Store, add_stage: AddStage, begin: Begin) -> None:
    stage = light(add_stage, "write")
    attempt = lease.claim(store.stage(stage))
    assert attempt is not None
    process = begin(stage)
    time.sleep(3)
    assert process.poll() is None
    owner = json.loads(attempt.owner_json.read_text())
    write_json(attempt.owner_json, owner | {"started": "1"})  # same number, another process
    assert end(process)[0] == 0


@pytest.mark.slow
def test_failures_alike_end_what_was_not_begun(store: Store, add_stage: AddStage, begin: Begin) -> None:
    for label in "abc":
        assert end(begin(light(add_stage, "fail", label)))[0] == 1
    code, printed = end(begin(last := light(add_stage, "write", "d")))
    assert code == 3 and "the last 3 elements failed alike: there are no rows" in printed
    assert not store.stage(last).attempts()
    with the_record(store).ends.open("a") as handle:
        handle.write('{"stage": "another", "reason": null}\n')
    assert end(begin(last))[0] == 0


def service(tmp_path: Path, **changes: object) -> dict[str, dict[str, Any]]:
    """A service as array.json has it: a real server that answers after a second."""
    server = f"{sys.executable} {HELPERS / 'judge_service.py'} {{port}} {{model}} {tmp_path}"
    written = Service(model="m", command=server, gpus=2).model_dump(mode="json")
    return {"judge": written | changes}


def served(tmp_path: Path) -> list[int]:
    """Process ids of the servers that were started and of their children."""
    return [int(pid) for path in tmp_path.glob("pids-*") for pid in path.read_text().split()]


def is_there(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_service_answers_all_stages_of_an_element_and_ends_with_the_last(
    store: Store, add_stage: AddStage, begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    stages = [light(add_stage, "ask", label) for label in "ab"]
    code, printed = end(begin(*stages, services=service(tmp_path)))
    assert code == 0, printed
    assert [store.stage(stage).read_done()["summary"]["value"] for stage in stages] == [9.0, 9.0]  # type: ignore[index]
    assert len(pids := served(tmp_path)) == 2 and not any(map(is_there, pids))
    assert (the_record(store).folder / "3.judge.log").read_text().startswith("serving 0,1\n")
    assert end(begin(*stages, services=service(tmp_path)))[0] == 0
    assert len(served(tmp_path)) == 2, "stages that are done ask nobody"


def test_a_service_that_does_not_come_up_fails_its_stages_with_the_reason(
    store: Store, add_stage: AddStage, begin: Begin, tmp_path: Path
) -> None:
    stage = light(add_stage, "ask")
    code, printed = end(begin(stage, services=service(tmp_path, command="echo no such model {model} {port}; false")))
    assert code == 1 and "service judge ended before it answered" in printed and "3.judge.log" in printed
    last = element_events(the_record(store), 3)[-1]
    assert last["what"] == "ended" and last["reason"] == "service judge ended before it answered"
    assert not store.stage(stage).attempts()
    code, printed = end(begin(stage, services=service(tmp_path, health="/never", start=0.02)))
    assert code == 1 and "/never no answer after 0.02 minutes" in printed
    assert len(pids := served(tmp_path)) == 2 and not any(map(is_there, pids))


def test_a_job_that_is_stopped_while_its_service_starts_ends_it(
    store: Store, add_stage: AddStage, begin: Begin, tmp_path: Path
) -> None:
    stage = light(add_stage, "ask")
    process = begin(stage, services=service(tmp_path, health="/never"))
    while not served(tmp_path):
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    assert end(process)[0] == 75, "begun again"
    assert not any(map(is_there, served(tmp_path))) and happened(store).count("preemption") == 1
