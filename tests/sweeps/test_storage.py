"""Trials in a database: the journal in the store is a copy of it, from which a lost database is made again."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from ablate.context import read_json
from ablate.errors import AblateError, StoreError, UsageError
from ablate.experiment.loading import load_experiment
from ablate.sweeps import storage
from ablate.sweeps.storage import Record, answering, open_record
from ablate.trials import read_study
from tests.sweeps.conftest import Folder
from tests.sweeps.test_sweep import begin, earned, wait_for


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'trials.db'}"


def opened(folder: Folder) -> Record:
    """The sweep's record, as a worker opens it."""
    loaded, place = load_experiment(folder.folder / "sweep.yaml"), folder.store.experiment("small")
    assert loaded.experiment.sweep is not None
    place.folder.mkdir(parents=True, exist_ok=True)
    return open_record(loaded, loaded.experiment.sweep, place)


def facts(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
    return [
        (trial.number, trial.state, trial.params, trial.distributions, trial.values if trial.values else None,
         trial.user_attrs, trial.system_attrs, trial.intermediate_values, trial.datetime_start, trial.datetime_complete)
        for trial in trials
    ]  # fmt: skip


def with_trials(record: Record) -> list[FrozenTrial]:
    """Give a study one trial of each state; what it then has."""
    study = record.study
    for beta in (0.1, 0.2, 0.4, 0.8):
        study.enqueue_trial({"dpo.beta": beta}, user_attrs={"why": "asked"})
    ended = {TrialState.COMPLETE: 0.5, TrialState.FAIL: None, TrialState.PRUNED: None, TrialState.RUNNING: None}
    for state, value in ended.items():
        trial = study.ask()
        trial.suggest_float("dpo.beta", 0.01, 10.0, log=True)
        trial.report(0.25, 3)
        if state != TrialState.RUNNING:
            study.tell(trial, value, state)
    study.enqueue_trial({"dpo.beta": 1.6})
    record.keep()
    return study.get_trials()


def test_a_database_is_copied_to_the_journal_and_made_again_from_it(folder: Folder) -> None:
    folder.write(storage=sqlite(folder.folder))
    record = opened(folder)
    trials = with_trials(record)
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "PRUNED", "RUNNING", "WAITING"]
    journal = folder.store.experiment("small").trials_jsonl
    kept = read_study("small", journal)
    assert facts(kept.get_trials()) == facts(trials) and kept.directions == record.study.directions
    name = read_json(journal.with_name("storage.json"))["study"]
    assert record.study.study_name == name and name.startswith("small-")
    (folder.folder / "trials.db").unlink()
    again = opened(folder).study
    assert again.study_name == name and facts(again.get_trials()) == facts(trials)
    other = Folder(folder.folder / "other")
    other.write(storage=sqlite(folder.folder))
    assert not opened(other).study.get_trials(), "another store's sweep of that name is another one"


def test_a_worker_that_is_killed_while_it_makes_a_database_again_loses_no_trial(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write(storage=sqlite(folder.folder))
    trials = with_trials(opened(folder))
    (folder.folder / "trials.db").unlink()
    lock = folder.store.experiment("small").folder / "trials.jsonl.start.lock"
    changed: list[float] = []
    create = RDBStorage._create_new_trial

    def dies(*words: Any) -> FrozenTrial:
        changed.append(lock.stat().st_mtime)
        if len(changed) > 2:
            raise KeyboardInterrupt
        os.utime(lock, (0, 0))
        return create(*words)

    monkeypatch.setattr(RDBStorage, "_create_new_trial", dies)
    with pytest.raises(KeyboardInterrupt):
        opened(folder)
    assert all(changed), "others, who break a lock that does not change, see that it does"
    monkeypatch.setattr(RDBStorage, "_create_new_trial", create)
    again = opened(folder)
    again.keep()
    assert facts(again.study.get_trials()) == facts(trials)
    assert facts(read_study("small", again.file).get_trials()) == facts(trials)


def test_a_copy_reads_ended_trials_once_and_holds_no_connection(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write(storage=sqlite(folder.folder))
    record = opened(folder)
    with_trials(record)
    read, get = [], RDBStorage._get_trials

    def counting(*words: Any, **more: Any) -> list[FrozenTrial]:
        read.extend(trials := get(*words, **more))
        return trials

    monkeypatch.setattr(RDBStorage, "_get_trials", counting)
    record.keep()
    assert {trial.state for trial in read} == {TrialState.RUNNING, TrialState.WAITING}
    held = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    assert str(folder.folder / "trials.db") not in held


def test_a_study_that_is_read_stays_as_it_was_read(folder: Folder) -> None:
    """Reports take seconds, while workers write the copy anew."""
    folder.write(storage=sqlite(folder.folder))
    record = opened(folder)
    trials = with_trials(record)
    read = read_study("small", record.file)
    record.study.set_user_attr("about", "what makes lines in the middle longer" * 10)
    record.study.tell(3, 0.5)
    record.study.enqueue_trial({"dpo.beta": 3.2})
    record.keep()
    assert facts(read.get_trials()) == facts(trials) and "about" not in read.user_attrs
    with pytest.raises(StoreError, match="never can't be read"):
        read_study("small", folder.folder / "never")
    assert not (folder.folder / "never").exists()


def test_a_search_in_a_database_begins_anew_without_both_its_files(folder: Folder) -> None:
    folder.write(storage=sqlite(folder.folder))
    begin(folder)
    folder.write(storage=sqlite(folder.folder), search={"dpo.beta": {"log": [0.1, 1.0]}})
    with pytest.raises(UsageError, match="the sweep small was begun with another search") as refused:
        begin(folder)
    files = folder.store.experiment("small").begun_with
    assert [file.name for file in files] == ["trials.jsonl", "storage.json"]
    assert refused.value.hint == f"give it another name, or move {files[0]} and {files[1]} away to begin again"
    for file in files:
        file.rename(file.with_suffix(".old"))
    begin(folder)


def test_a_lost_journal_comes_back_with_the_next_trial(folder: Folder) -> None:
    folder.write(storage=sqlite(folder.folder))
    trials = with_trials(opened(folder))
    journal = folder.store.experiment("small").trials_jsonl
    journal.unlink()
    opened(folder).keep()
    assert facts(read_study("small", journal).get_trials()) == facts(trials)


@pytest.mark.parametrize("begun", ["journal", "database"])
def test_trials_stay_where_they_are(folder: Folder, begun: str) -> None:
    first, second = (None, sqlite(folder.folder)) if begun == "journal" else (sqlite(folder.folder), None)
    folder.write(storage=first)
    opened(folder)
    folder.write(storage=second)
    with pytest.raises(UsageError, match=r"the trials of small are in .*trials\.(jsonl|db)") as refused:
        opened(folder)
    hint = f"storage: {first}" if first else "leave storage out"
    assert refused.value.hint is not None and refused.value.hint.startswith(hint)
    assert (folder.folder / "trials.db").exists() == (begun == "database"), "a database that is refused is not made"


def test_what_is_to_be_moved_away_to_begin_again(folder: Folder) -> None:
    folder.write(storage=sqlite(folder.folder))
    begin(folder)
    folder.write(storage=sqlite(folder.folder), search={"dpo.beta": {"log": [0.1, 1.0]}})
    with pytest.raises(UsageError, match=r"the sweep small was begun with another search\n") as refused:
        begin(folder)
    kept = folder.store.experiment("small")
    for file in (kept.trials_jsonl, kept.storage_json):
        assert refused.value.hint is not None and str(file) in refused.value.hint
        file.unlink()
    begin(folder)


def test_a_database_that_is_away_for_a_moment(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    there, away = folder.folder / "there", folder.folder / "away"
    there.mkdir()
    folder.write(storage=sqlite(there))
    record = opened(folder)
    there.rename(away)
    monkeypatch.setattr(time, "sleep", lambda seconds: away.rename(there))
    assert record.study.ask().number == 0
    there.rename(away)
    monkeypatch.setattr(storage, "PATIENCE_SECONDS", -1)
    with pytest.raises(StoreError, match=r"does not answer: .*unable to open"), answering("small"):
        record.study.ask()


def test_a_database_that_does_not_answer(folder: Folder) -> None:
    file = folder.folder / "trials.db"
    folder.write(storage=sqlite(folder.folder))
    record = opened(folder)
    file.write_bytes(b"not a database" * 1000)
    refused = pytest.raises(StoreError, match="the database of the trials of small does not answer: ")
    with refused as told, answering("small"):
        record.study.ask()
    assert told.value.hint is not None and "the same command goes on" in told.value.hint


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("trials.db", "a database's URL is needed"),
        ("sqlite:///trials.db", "write the whole path"),
        ("sqlite://", "a database's URL is needed"),
        ("postgresql://me:hidden@host/trials", "no place for a password"),
        ("postgresql://host/trials?sslmode=require&password=hidden", "no place for a password"),
    ],
)
def test_urls_that_no_worker_could_take(folder: Folder, url: str, said: str) -> None:
    folder.write(storage=url)
    with pytest.raises(AblateError, match=said) as refused:
        load_experiment(folder.folder / "sweep.yaml")
    assert "sweep.yaml:" in str(refused.value.location)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://[redacted]@host/trials",  # the specification in a bundle
        "postgresql+psycopg://me@host:5432/trials?sslmode=require",
        "postgresql:///trials?host=/var/run/postgresql",
        "mysql+pymysql://me:@host/trials",
        "sqlite+pysqlite:////folder/file.db?timeout=3",
    ],
)
def test_urls_that_workers_take(folder: Folder, url: str) -> None:
    folder.write(storage=url)
    sweep = load_experiment(folder.folder / "sweep.yaml").experiment.sweep
    assert sweep is not None and sweep.storage == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgres://host/trials", "no driver for 'postgres'\n  did you mean 'postgresql'"),
        ("mssql+pymssql://host/trials", "needs a driver: .*pymssql"),
        ("sqlite:////never/there.db", "does not open: .*unable to open"),
    ],
)
def test_databases_that_no_worker_reaches(folder: Folder, url: str, said: str) -> None:
    folder.write(storage=url)
    with pytest.raises(UsageError) as refused:
        opened(folder)
    assert re.search(said, str(refused.value)) and "sweep.yaml:" in str(refused.value.location)
    assert not (folder.store.experiment("small").folder / "storage.json").exists()


@pytest.mark.slow
def test_workers_share_a_database_and_one_is_killed(folder: Folder) -> None:
    folder.write(storage=sqlite(folder.folder), trials=8)
    killed, stays = (folder.start(LIGHT_SECONDS="0.3") for _ in range(2))
    wait_for(lambda: len(list(folder.store.stages.glob("train-*/done.json"))) > 2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    said = stays.communicate(timeout=240)[0]
    assert stays.returncode == 0, said
    trials = folder.trials()
    assert [trial["number"] for trial in trials] == list(range(8))
    assert {trial["state"] for trial in trials} == {"complete"}
    for trial in trials:
        assert trial["results"]["pocket-validation-gold"] == pytest.approx(earned(trial["values"]["dpo.beta"]))
    in_database = optuna.load_study(
        study_name=read_json(folder.store.experiment("small").storage_json)["study"], storage=sqlite(folder.folder)
    )
    assert [trial.params for trial in in_database.get_trials()] == [trial["values"] for trial in trials]
