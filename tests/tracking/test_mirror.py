"""The mirror in MLflow holds what the store holds, and mirroring again changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import optuna
import pytest
import requests
from mlflow.tracking import MlflowClient
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial
from typer.testing import CliRunner

from ablate.cli.app import app
from ablate.cli.track import serve
from ablate.errors import TrackingError
from ablate.store import Store
from ablate.tracking import bulk
from ablate.tracking import mirror as mirroring
from ablate.tracking.bulk import insert_runs
from ablate.tracking.interface import VIEWS, database, tracking_uri, ui_command
from ablate.tracking.mirror import mirror
from ablate.tracking.wanted import wanted_runs

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CELL, REWARD_MODEL = "dataset=hh seed=0", "reward_model.init=pocket-small reward_model.dataset=hh seed=0"
CONFIG = {"algorithm": "dpo", "parameters": {"beta": 0.1, "betas": [0.9, 0.95]}, "seed": 0, "limit": None}


def write_stage(store: Store, stage: str, summary: dict[str, Any] | None = None, **files: str) -> None:
    folder = store.stage(stage)
    folder.output.mkdir(parents=True)
    for name, text in files.items():
        (folder.output / name.replace("__", ".")).write_text(text)
    inputs = {"policy": {"stage": "sft-1", "artifact": "model"}} if stage.startswith("train") else {}
    folder.stage_json.write_text(json.dumps({"id": stage, "config": CONFIG, "inputs": inputs}))
    attempt = folder.attempt(1)
    attempt.folder.mkdir(parents=True)
    attempt.environment_json.write_text(json.dumps({"commit": "c0ffee", "slurm_job": "77", "python": "3.11"}))
    done = {
        "stage": stage, "attempt": 1, "seconds": 2.0, "started": 1699999998.0, "ended": 1700000000.0, "host": "h",
        "gpus": [], "summary": summary or {},
    }  # fmt: skip
    folder.done_json.write_text(json.dumps(done))


def metrics_json(score: float | None) -> str:
    entry = {"task": "t one", "metric": "accuracy@1", "value": score, "n": 4, "stderr": 0.1, "unit": "proportion"}
    return json.dumps({"score": score, "metrics": [entry], "health": {}, "protocol": {}})


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take a second to make."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> Store:
    """A policy with a curve and one of two suites done, an SFT baseline, a reward model, a failure, a cell not run."""
    store = Store(tmp_path / "store").open()
    curve = "".join(json.dumps({"step": step, "loss": 1.0 / step, "note": "x"}) + "\n" for step in (1, 2, 5))
    write_stage(store, "dataset-1", {"kept": 3, "dropped": {}})
    write_stage(store, "train-1", {"loss": 0.2}, history__jsonl=curve)
    write_stage(store, "sft-1")
    write_stage(store, "reward_model-1")
    write_stage(store, "evaluate-1", metrics__json=metrics_json(0.25))
    write_stage(store, "evaluate-3", metrics__json=metrics_json(0.75))
    failed = store.stage("generate-1").attempt(1)
    failed.folder.mkdir(parents=True)
    failed.failure_json.write_text(json.dumps({"type": "StageError", "message": "no room"}))
    failed.ended_json.write_text(json.dumps({"status": "failed", "time": 1700000100.0}))

    def subject(name: str, role: str, label: str, axes: dict[str, Any], stage: str, **done: str) -> dict[str, Any]:
        return {"subject": name, "role": role, "label": label, "axes": axes, "stage": stage, "evaluations": done}

    cell = {"dataset": "hh", "algorithm": "dpo", "seed": 0, "reward_model.init": None}
    reward_axes = {"reward_model.init": "pocket-small", "reward_model.dataset": "hh", "seed": 0}
    named = ("dataset-1", "sft-1", "reward_model-1", "train-1", "train-2", "generate-1", "evaluate-1", "evaluate-2",
             "evaluate-3", "evaluate-9")  # fmt: skip
    plan = {
        "version": 1, "name": "study", "question": "Why?", "suites": {}, "datasets": {}, "created": 1699999000.0,
        "stages": {stage: {"kind": stage[:-2], "label": f"label of {stage}"} for stage in named},
        "subjects": [
            subject("policy", "cell", CELL, cell, "train-1", facts="evaluate-1", math="evaluate-2"),
            subject("policy", "baseline", "sft", {"dataset": None}, "sft-1"),
            subject("reward_model", "cell", REWARD_MODEL, reward_axes, "reward_model-1", pairs="evaluate-3"),
            subject("policy", "cell", "not run", cell, "train-2", facts="evaluate-9"),
        ],
    }  # fmt: skip
    folder = store.experiment("study")
    folder.folder.mkdir(parents=True)
    folder.plan_json.write_text(json.dumps(plan))
    shutil.copy(empty_database, database(store))
    return store


def runs(uri: str) -> dict[str, Any]:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("study")
    found = client.search_runs([experiment.experiment_id])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def history(uri: str, run: Any, name: str) -> list[tuple[int, float]]:
    client = MlflowClient(tracking_uri=uri)
    return sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))


def check_content(uri: str) -> None:
    """All that the store of the fixture holds is in MLflow."""
    found = runs(uri)
    stages = {"dataset-1", "generate-1", "evaluate-1", "evaluate-3"}
    assert set(found) == {"study", CELL, "sft", REWARD_MODEL, *(f"label of {stage}" for stage in stages)}
    parent = found["study"]
    assert {run.data.tags.get("mlflow.parentRunId") for run in found.values() if run is not parent} == {
        parent.info.run_id
    }
    assert parent.info.status == "RUNNING" and parent.data.tags["ablate.question"] == "Why?"

    cell = found[CELL]
    assert cell.data.params == {
        "dataset": "hh", "algorithm": "dpo", "seed": "0", "config.algorithm": "dpo", "config.seed": "0",
        "config.parameters.beta": "0.1", "config.parameters.betas": "[0.9, 0.95]",
    }  # fmt: skip
    tags = cell.data.tags
    assert (tags["ablate.stage"], tags["ablate.kind"], tags["ablate.role"]) == ("train-1", "train", "cell")
    assert (tags["axis.dataset"], tags["axis.seed"], tags["ablate.input.policy"]) == ("hh", "0", "sft-1")
    assert (tags["mlflow.source.git.commit"], tags["ablate.slurm_job"]) == ("c0ffee", "77")
    assert cell.data.metrics["facts"] == 0.25 and cell.data.metrics["facts.t one.accuracy_1"] == 0.25
    assert history(uri, cell, "train/loss") == [(1, 1.0), (2, 0.5), (5, 0.2)]
    assert (cell.info.status, cell.info.start_time, cell.info.end_time) == ("FINISHED", 1699999998000, 1700000000000)

    assert found[REWARD_MODEL].data.metrics["pairs"] == 0.75
    assert found["label of evaluate-3"].data.metrics == {"score": 0.75, "t one.accuracy_1": 0.75}
    assert found["label of dataset-1"].data.metrics == {"summary/kept": 3.0}
    failed = found["label of generate-1"]
    assert (failed.info.status, failed.data.tags["ablate.failure"]) == ("FAILED", "no room")
    assert failed.info.end_time == 1700000100000


def test_mirror_holds_what_the_store_holds_and_is_idempotent(store: Store) -> None:
    uri = tracking_uri(store)
    done = mirror(store, "study")
    assert (done.created, done.updated, done.unchanged) == (8, 0, 0)
    assert str(done) == "8 runs created in MLflow, 0 updated, 0 unchanged"
    check_content(uri)

    again = mirror(store, "study")
    assert (again.created, again.updated, again.unchanged) == (0, 0, 8)
    check_content(uri)
    assert history(uri, runs(uri)[CELL], "facts") == [(0, 0.25)]

    # what has been finished since is added; the rest stays
    write_stage(store, "evaluate-2", metrics__json=metrics_json(0.5))
    write_stage(store, "train-2")
    later = mirror(store, "study")
    assert (later.created, later.updated, later.unchanged) == (2, 1, 7)
    found = runs(uri)
    assert found[CELL].data.metrics["math"] == 0.5 and len(found) == 10
    assert history(uri, found[CELL], "train/loss") == [(1, 1.0), (2, 0.5), (5, 0.2)]


def test_artifacts_are_links_into_the_store(store: Store) -> None:
    mirror(store, "study")
    client = MlflowClient(tracking_uri=tracking_uri(store))
    found = runs(tracking_uri(store))

    def names(run: str) -> set[str]:
        return {file.path for file in client.list_artifacts(found[run].info.run_id)}

    assert names(CELL) == {"history.jsonl"} and "failure.json" in names("label of generate-1")
    assert "plan.json" in names("study")
    copy = client.download_artifacts(found["label of evaluate-1"].info.run_id, "metrics.json")
    assert json.loads(Path(copy).read_text())["score"] == 0.25


def test_rebuilding_makes_every_run_anew(store: Store) -> None:
    uri = tracking_uri(store)
    mirror(store, "study")
    client = MlflowClient(tracking_uri=uri)
    before = runs(uri)
    client.log_metric(before[CELL].info.run_id, "by hand", 1.0)
    mine = client.create_run(before[CELL].info.experiment_id, run_name="of a colleague").info.run_id
    done = mirror(store, "study", rebuild=True)
    assert (done.created, done.unchanged) == (8, 0)
    after = runs(uri)
    assert after.pop("of a colleague").info.run_id == mine
    assert not {run.info.run_id for run in before.values()} & {run.info.run_id for run in after.values()}
    assert "by hand" not in after[CELL].data.metrics
    assert {file.path for file in client.list_artifacts(after[CELL].info.run_id)} == {"history.jsonl"}


@pytest.fixture
def elsewhere(store: Store, empty_database: Path) -> str:
    """A database that is not the store's own: it gets its runs through MLflow's client, as a server does."""
    path = store.root / "elsewhere.db"
    shutil.copy(empty_database, path)
    return f"sqlite:///{path}"


def content(uri: str) -> dict[str, Any]:
    """All that MLflow's client says of the runs of the study, by name; without ids and what follows from them."""
    found, parents = {}, {run.info.run_id: name for name, run in runs(uri).items()}
    for name, run in runs(uri).items():
        tags = {**run.data.tags, "mlflow.parentRunId": parents.get(run.data.tags.get("mlflow.parentRunId"))}
        points = {key: history(uri, run, key) for key in run.data.metrics}
        info = {key: value for key, value in dict(run.info).items() if key not in ("run_id", "run_uuid")}
        info["artifact_uri"] = Path(info["artifact_uri"]).name
        found[name] = (info, tags, run.data.params, run.data.metrics, points)
    return found


def test_the_stores_own_database_gets_what_the_client_of_mlflow_writes(store: Store, elsewhere: str) -> None:
    attempt = store.stage("evaluate-9").attempt(1)
    attempt.folder.mkdir(parents=True)
    attempt.ended_json.write_text(json.dumps({"status": "interrupted", "time": 1700000200.0}))
    curve = '{"loss": 1.0}\n{"loss": 3.0}\n{"loss": 2.0}\n{"step": 2, "loss": 2.0}\n{"step": 0, "loss": 5.0}\n'
    write_stage(store, "train-2", history__jsonl=curve)
    mirror(store, "study")
    mirror(store, "study", uri=elsewhere)
    own, theirs = content(tracking_uri(store)), content(elsewhere)
    for name, about in theirs.items():
        for made, expected in zip(own[name], about, strict=True):
            if "start_time" in expected and expected["start_time"] > 1.75e12:  # no start is known: now
                made["start_time"] = expected["start_time"]
            assert made == expected, name
    assert set(own) == set(theirs) and own["not run"][3]["train/loss"] == 2.0


@pytest.mark.parametrize("stop_at", [0, 1])
def test_runs_are_written_in_transactions_that_are_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    calls = [0]

    def stopped(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] > stop_at:
            raise KeyboardInterrupt
        insert_runs(*arguments)

    monkeypatch.setattr(mirroring, "_RUNS", 3)
    with monkeypatch.context() as patched:
        patched.setattr(mirroring, "insert_runs", stopped)
        with pytest.raises(KeyboardInterrupt):
            mirror(store, "study")
    assert len(runs(tracking_uri(store))) == 1 + 3 * stop_at
    done = mirror(store, "study")
    assert (done.created, done.updated, done.unchanged) == (7 - 3 * stop_at, 0, 1 + 3 * stop_at)
    check_content(tracking_uri(store))


def test_runs_that_are_there_have_their_artifacts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, link = [0], mirroring._Mirror._link

    def stopped(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 4:
            raise KeyboardInterrupt
        link(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(mirroring._Mirror, "_link", stopped)
        with pytest.raises(KeyboardInterrupt):
            mirror(store, "study")
    mirror(store, "study")
    for name, run in runs(tracking_uri(store)).items():
        assert Path(urlsplit(run.info.artifact_uri).path).is_dir(), name


def test_what_the_database_refuses_is_said_and_nothing_is_half_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(mirroring, "uuid", SimpleNamespace(uuid4=lambda: SimpleNamespace(hex="0" * 32)))
        with pytest.raises(TrackingError, match="does not take the runs of 'study'"):
            mirror(store, "study")
    assert set(runs(tracking_uri(store))) == {"study"}
    mirror(store, "study")
    check_content(tracking_uri(store))


@pytest.mark.parametrize("columns", [{"colour"}, set()], ids=["one that is not there", "one that needs a value"])
def test_tables_of_another_mlflow_are_left_to_its_client(
    store: Store, monkeypatch: pytest.MonkeyPatch, columns: set[str]
) -> None:
    assert bulk.tables_are_known()
    monkeypatch.setitem(bulk._WRITTEN, "SqlTag", columns)
    monkeypatch.setattr(mirroring, "insert_runs", None)
    mirror(store, "study")
    check_content(tracking_uri(store))


def test_an_mlflow_that_keeps_its_tables_elsewhere_is_left_to_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.delattr("mlflow.store.tracking.dbmodels.models.SqlLatestMetric")
        assert not bulk.tables_are_known()
    assert bulk.tables_are_known()


def test_a_folder_where_a_link_belongs_is_said_and_left_alone(store: Store) -> None:
    mirror(store, "study")
    client = MlflowClient(tracking_uri=tracking_uri(store))
    run = runs(tracking_uri(store))[CELL].info
    place = Path(urlsplit(run.artifact_uri).path)
    place.unlink()
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    client.delete_tag(run.run_id, mirroring.DIGEST_TAG)
    with pytest.raises(TrackingError, match=f"{place} can't be a link to .*: File exists") as raised:
        mirror(store, "study")
    assert "move away" in str(raised.value.hint)
    mirror(store, "study", rebuild=True)
    assert (place / "notes.txt").read_text() == "mine"
    check_content(tracking_uri(store))


@pytest.mark.parametrize("more", ["", "drop table webhooks"], ids=["its revision", "a table less"])
def test_a_database_of_another_mlflow_is_refused_and_says_what_helps(store: Store, more: str) -> None:
    path = database(store)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"update alembic_version set version_num = 'of-a-later-one'; {more}")
        connection.commit()
    with pytest.raises(TrackingError, match="of-a-later-one") as raised:
        mirror(store, "study")
    assert f"MLflow at sqlite:///{path} does" in str(raised.value) and f"{path} can be deleted" in str(raised.value)


def test_a_mirror_stopped_half_way_is_finished_by_the_next(
    store: Store, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_batch, calls = MlflowClient.log_batch, [0]

    def stopped(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == 5:
            raise KeyboardInterrupt
        return log_batch(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_batch", stopped)
        with pytest.raises(KeyboardInterrupt):
            mirror(store, "study", uri=elsewhere)
    done = mirror(store, "study", uri=elsewhere)
    assert done.updated == 1 and done.created > 0 < done.unchanged  # the one it stopped in, those after, those before
    assert done.created + done.updated + done.unchanged == 8
    check_content(elsewhere)


def test_a_run_made_twice_is_kept_once(store: Store) -> None:
    """A request is sent again when its answer was lost."""
    uri = tracking_uri(store)
    mirror(store, "study")
    client = MlflowClient(tracking_uri=uri)
    cell = runs(uri)[CELL]
    client.create_run(cell.info.experiment_id, tags={mirroring.KEY_TAG: "train-1"}, run_name="twice")
    mirror(store, "study")
    check_content(uri)


def test_many_points_go_in_batches_that_mlflow_takes(
    store: Store, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirroring, "_MOST_METRICS", 2)
    monkeypatch.setattr(mirroring, "_MOST_PARAMS", 3)
    mirror(store, "study", uri=elsewhere)
    check_content(elsewhere)


def test_a_parameter_that_changed_makes_the_run_anew(store: Store) -> None:
    uri = tracking_uri(store)
    mirror(store, "study")
    file = store.experiment("study").plan_json
    file.write_text(file.read_text().replace('"dataset": "hh", "algorithm"', '"dataset": "shp", "algorithm"'))
    done = mirror(store, "study")
    assert (done.created, done.updated) == (0, 1)
    assert runs(uri)[CELL].data.params["dataset"] == "shp"


def test_every_view_finds_its_runs(store: Store) -> None:
    mirror(store, "study")
    client = MlflowClient(tracking_uri=tracking_uri(store))
    experiment = client.get_experiment_by_name("study")
    found = {
        title: {run.info.run_name for run in client.search_runs([experiment.experiment_id], search)}
        for title, search in VIEWS
    }
    assert found == {
        "Policies": {CELL, "sft"},
        "Reward models": {REWARD_MODEL},
        "Trials": set(),
        "Training": {CELL},
        "Evaluations": {"label of evaluate-1", "label of evaluate-3"},
        "Failed": {"label of generate-1"},
    }
    note = experiment.tags["mlflow.note.content"]
    assert note.startswith("Why?") and "(#/experiments/1/runs?searchFilter=tags.%60ablate.subject%60%20%3D" in note


def search(store: Store, *states: TrialState) -> optuna.Study:
    """Make a sweep of the study, with a trial of each state: 0.5, 1.5, … reached, in that order."""
    folder = store.experiment("study")
    plan = folder.read_plan()
    plan["sweep"] = {"maximise": ["facts", "-kl@1"], "search": ["dpo.beta"], "sampler": "tpe", "seed": 0, "trials": 4}
    folder.plan_json.write_text(json.dumps(plan))
    study = optuna.create_study(
        study_name="study", storage=JournalStorage(JournalFileBackend(str(folder.trials_jsonl))),
        directions=["maximize", "minimize"],
    )  # fmt: skip
    study.set_user_attr("asked", {"maximise": ["facts", "-kl@1"]})
    for number, state in enumerate(states):
        values = [number + 0.5, 3.0] if state == TrialState.COMPLETE else None
        attributes = {"policies": ["train-1"] if number == 0 else [f"train-{number + 1}"]}
        attributes |= {"cause": "no room"} if state == TrialState.FAIL else {}
        distributions = {"dpo.beta": FloatDistribution(0.01, 1.0, log=True)}
        study.add_trial(
            create_trial(
                state=state, params={"dpo.beta": 0.1 + number / 10}, distributions=distributions, values=values,
                user_attrs=attributes,
            )
        )  # fmt: skip
    return study


def test_the_trials_of_a_sweep_are_runs_above_those_of_their_policies(store: Store) -> None:
    study = search(store, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    for stage, inputs in (("generate-1", ["train-1"]), ("evaluate-1", ["generate-1", "dataset-1"])):
        wired = {f"of-{other}": {"stage": other, "artifact": ""} for other in inputs}
        store.stage(stage).stage_json.write_text(json.dumps({"id": stage, "inputs": wired}))
    mirror(store, "study")
    found = runs(tracking_uri(store))
    first, root = found["trial 0"], found["study"].info.run_id
    assert first.data.params == {"dpo.beta": "0.1"} and first.data.metrics == {"facts": 0.5, "kl_1": 3.0}
    tags = {"ablate.kind": "trial", "ablate.state": "complete", "ablate.best": "true", "ablate.policy.0": "train-1"}
    assert tags.items() <= first.data.tags.items() and first.data.tags["mlflow.parentRunId"] == root
    for below in (CELL, "label of generate-1", "label of evaluate-1"):
        assert found[below].data.tags["mlflow.parentRunId"] == first.info.run_id
    for beside in ("sft", "label of dataset-1", REWARD_MODEL):
        assert found[beside].data.tags["mlflow.parentRunId"] == root
    assert [found[f"trial {number}"].info.status for number in range(3)] == ["FINISHED", "KILLED", "FAILED"]
    assert found["trial 2"].data.tags["ablate.failure"] == "no room" and found["trial 2"].data.metrics == {}
    assert found["study"].info.status == "RUNNING"

    again = mirror(store, "study")
    assert (again.created, again.updated) == (0, 0)
    values = [1.5, 2.0]
    distributions = {"dpo.beta": FloatDistribution(0.01, 1.0, log=True)}
    study.add_trial(create_trial(params={"dpo.beta": 0.7}, distributions=distributions, values=values))
    later = mirror(store, "study")
    assert (later.created, later.updated) == (1, 2), "the new trial, the one that is the best no longer, and the sweep"
    found = runs(tracking_uri(store))
    assert (found["trial 0"].data.tags["ablate.best"], found["trial 3"].data.tags["ablate.best"]) == ("false", "true")
    assert found["study"].info.status == "FINISHED"

    before = {name: run.info.run_id for name, run in found.items()}
    assert mirror(store, "study", rebuild=True).created == len(before)
    after = runs(tracking_uri(store))
    assert after.keys() == before.keys() and after["trial 0"].info.run_id != before["trial 0"]
    assert after[CELL].data.tags["mlflow.parentRunId"] == after["trial 0"].info.run_id


def test_runs_follow_a_trial_whose_run_was_deleted(store: Store) -> None:
    search(store, TrialState.COMPLETE)
    file = store.experiment("study").plan_json
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "sweep"}))
    mirror(store, "study")
    client = MlflowClient(tracking_uri=tracking_uri(store))
    client.delete_run(runs(tracking_uri(store))["trial 0"].info.run_id)
    mirror(store, "study")
    found = runs(tracking_uri(store))
    assert found[CELL].data.tags["mlflow.parentRunId"] == found["trial 0"].info.run_id


def test_what_waits_has_no_run_and_what_runs_is_running(store: Store) -> None:
    plan = store.experiment("study").read_plan()
    assert "evaluate-9" not in {run.key for run in wanted_runs(store, plan)}
    attempt = store.stage("evaluate-9").attempt(1)
    attempt.folder.mkdir(parents=True)
    assert {run.key: run.status for run in wanted_runs(store, plan)}["evaluate-9"] == "KILLED"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_ends_with_the_command_that_began_it(tmp_path: Path, number: signal.Signals) -> None:
    script = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    before = signal.getsignal(number)
    timer = threading.Timer(2.0, os.kill, (os.getpid(), number))
    timer.start()
    assert serve([sys.executable, "-c", script]) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert signal.getsignal(number) == before
    assert serve([sys.executable, "-c", "raise SystemExit(3)"]) == 3


def test_ui_command_opens_the_stores_own_database(store: Store) -> None:
    command = ui_command(store, port=5123)
    assert command[1:4] == ["-m", "mlflow", "ui"]
    assert f"sqlite:///{store.root}/cache/mlflow.db" in command and command[command.index("--port") + 1] == "5123"
    assert os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"  # eight processes that wait for nothing


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_down_is_said_at_once_without_its_password(store: Store) -> None:
    place = f"http://me:hunter2@127.0.0.1:{free_port()}"
    with pytest.raises(TrackingError, match="no MLflow server answers at http://127") as raised:
        mirror(store, "study", uri=place)
    assert "hunter2" not in str(raised.value) and "nothing is lost" in str(raised.value)
    command = ["track", "study", "--store", str(store.root), "--uri", place]
    assert isinstance(CliRunner().invoke(app, command).exception, TrackingError)


class Server:
    """A real MLflow server in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--artifacts-destination", str(self.folder),
        ]  # fmt: skip
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                if requests.get(f"{self.uri}/health", timeout=5).ok:
                    return
            except requests.RequestException:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.3)
        raise AssertionError("the server did not come up")

    def stop(self) -> None:
        os.killpg(self.process.pid, 15)
        self.process.wait(60)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder)
    server.start()
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.mark.slow
def test_a_server_gets_the_same_and_may_be_down_in_between(
    store: Store, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = mirror(store, "study", uri=server.uri)
    assert (done.created, done.updated, done.unchanged) == (8, 0, 0)
    check_content(server.uri)
    server.stop()
    with pytest.raises(TrackingError, match="no MLflow server answers"):
        mirror(store, "study", uri=server.uri)
    server.start()

    # it goes down in the middle of a call: the requests wait for it
    write_stage(store, "evaluate-2", metrics__json=metrics_json(0.5))
    create_run = MlflowClient.create_run

    def restarted(*arguments: Any, **named: Any) -> Any:
        server.stop()
        server.start()
        return create_run(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "create_run", restarted)
        done = mirror(store, "study", uri=server.uri)
    assert (done.created, done.updated, done.unchanged) == (1, 1, 7)

    # and for good: an error, nothing lost
    write_stage(store, "train-2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")

    def stopped(*arguments: Any, **named: Any) -> Any:
        server.stop()
        return create_run(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "create_run", stopped)
        with pytest.raises(TrackingError, match="does not take the runs of 'study'"):
            mirror(store, "study", uri=server.uri)
    server.start()
    done = mirror(store, "study", uri=server.uri)
    assert (done.created, done.updated, done.unchanged) == (1, 0, 9)
    assert len(runs(server.uri)) == 10
