"""Where the trials of a sweep are: in the journal in its store, or in a database of which the journal is a copy."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock
from optuna.study import StudyDirection
from sqlalchemy import dialects, event
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from ablate.context import read_json, write_json, write_text
from ablate.errors import Location, StoreError, UsageError, suggestion
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.sweep import Sweep
from ablate.store import ExperimentFolder
from ablate.trials import Memory, read_study, readable

MINIMIZE, MAXIMIZE = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
PATIENCE_SECONDS = 60
"""How long a worker waits for others that write to the same SQLite file, and for a server that is away."""


@dataclass(frozen=True)
class Record:
    """The study of a sweep, and the journal in its store, ``file``, which reports and tracking read.

    Where the study is in a database, the journal is a copy of it, called ``copied_as``.
    """

    study: optuna.Study
    file: Path
    copied_as: str | None = None

    def enqueue(self, starts: Iterable[Mapping[str, Any]]) -> None:
        """Let the study begin with these values; each is one trial, whoever begins the sweep beside.

        Optuna looks for a trial and adds it in two steps, so that this has a lock of its own beside the storage's.
        """
        with _holding(JournalFileOpenLock(f"{self.file}.start")):
            for start in starts:
                self.study.enqueue_trial(dict(start), skip_if_exists=True)

    def keep(self) -> None:
        """Copy the trials from the database to the journal; of several workers' copies the newest stays."""
        if self.copied_as is None:
            return
        lock, memory = JournalFileOpenLock(f"{self.file}.copy"), Memory()
        with _holding(lock):
            _complete(_begun(JournalStorage(memory), self.copied_as, self.study.directions), self.study, lock)
            lines = (json.dumps(log, separators=(",", ":")) + "\n" for log in memory.logs)
            write_text(self.file, "".join(lines))


def open_record(loaded: LoadedExperiment, sweep: Sweep, folder: ExperimentFolder) -> Record:
    """Open or begin the study of a sweep; a database that has lost it gets it from the journal.

    Raises StoreError for a journal that can't be read and a database that does not answer, UsageError where the trials
    are kept elsewhere and where a database needs another package.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name, file, place = loaded.experiment.name, folder.trials_jsonl, loaded.origins.locate(sweep.section, "storage")
    directions = [MINIMIZE if objective.startswith("-") else MAXIMIZE for objective in sweep.maximise]

    _mend_tail(file, is_begun=folder.plan_json.exists())
    lock = JournalFileOpenLock(f"{file}.start")
    with _holding(lock):
        there = _kept(folder, name, sweep.storage, place)
        if there is None:
            with readable(file):
                return Record(_begun(JournalStorage(JournalFileBackend(str(file))), name, directions), file)
        database = _connect(there["url"], place)
        if not folder.storage_json.exists():
            write_json(folder.storage_json, there)
        with answering(name):
            kept = read_study(name, file) if file.exists() else None
            study = _begun(database, there["study"], directions)
            if kept is not None and len(kept.trials) > len(study.trials):
                _complete(study, kept, lock)
            return Record(study, file, copied_as=name)


@contextmanager
def answering(name: str) -> Iterator[None]:
    """Raise StoreError where the database that a sweep's trials are in does not answer."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = str(error.__cause__ or error).partition("\n")[0]
        raise StoreError(
            f"the database of the trials of {name} does not answer: {cause}",
            hint="nothing is lost: the same command goes on once it does",
        ) from error


def _connect(url: str, place: Location) -> RDBStorage:
    patience = {"connect_args": {"timeout": PATIENCE_SECONDS}} if url.startswith("sqlite") else {}
    try:  # no connection is held while trials train: servers drop idle ones, and have few
        storage = RDBStorage(url, engine_kwargs={"poolclass": NullPool, **patience})
    except NoSuchModuleError as error:
        kind = url.partition(":")[0]
        hint = suggestion(kind, dialects.__all__)
        raise UsageError(f"storage {url}: no driver for {kind!r}", location=place, hint=hint) from error
    except ImportError as error:
        raise UsageError(f"storage {url} needs a driver: {error.__cause__ or error}", location=place) from error
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = str(error.__cause__ or error).partition("\n")[0]
        raise UsageError(f"storage {url} does not open: {cause}", location=place) from error
    event.listen(storage.engine, "do_connect", _connect_patiently)
    return storage


def _connect_patiently(dialect: Any, record: Any, words: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Connect to a database that has been there, which may be away for a moment."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return dialect.connect(*words, **options)
        except dialect.loaded_dbapi.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(1.0)


def _kept(folder: ExperimentFolder, name: str, url: str | None, place: Location) -> dict[str, str] | None:
    """Return the database of a sweep and what its study is called there, where no other store has one of that name.

    None in a journal. Raises UsageError where the sweep was begun in another place.
    """
    kept: dict[str, str] | None
    if folder.storage_json.exists():
        kept = read_json(folder.storage_json)
    elif url is None or folder.trials_jsonl.exists():
        kept = None
    else:
        kept = {"url": url, "study": f"{name}-{uuid.uuid4().hex[:8]}"}
    if (kept and kept["url"]) != url:
        where, hint = (kept["url"], f"storage: {kept['url']}") if kept else (folder.trials_jsonl, "leave storage out")
        raise UsageError(f"the trials of {name} are in {where}", location=place, hint=f"{hint}, or take another name")
    return kept


def _begun(storage: BaseStorage, name: str, directions: Sequence[StudyDirection]) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)


def _complete(study: optuna.Study, source: optuna.Study, lock: JournalFileOpenLock) -> None:
    """Give a study the trials that it lacks of another one's, and what that one was begun with.

    A database takes a trial in some hundredths of a second, and others break a lock that is unchanged for 30 seconds.
    """
    for key, value in source._storage.get_study_system_attrs(source._study_id).items():
        study._storage.set_study_system_attr(study._study_id, key, value)
    for key, value in source.user_attrs.items():
        study.set_user_attr(key, value)
    for trial in source.get_trials(deepcopy=False)[len(study.trials) :]:
        study._storage.create_new_trial(study._study_id, template_trial=trial)
        os.utime(lock._lock_file)


def _mend_tail(file: Path, *, is_begun: bool) -> None:
    """Cut an unfinished last line off: its writer was killed, and no one has acted on it.

    Raises StoreError where a sweep that has begun would have no line left.
    """
    if not file.exists():
        return
    with _holding(JournalFileSymlinkLock(str(file))):
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if is_begun and not whole:
            raise StoreError(f"{file} has lost its trials", hint="restore it, or move it away to begin again")
        if whole < len(content):
            with file.open("r+b") as handle:
                handle.truncate(whole)


@contextmanager
def _holding(lock: JournalFileOpenLock | JournalFileSymlinkLock) -> Iterator[None]:
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
