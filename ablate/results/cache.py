"""The long table kept in the store's cache, so that a notebook has it at once; made again when a marker changes.

One file an experiment, ``cache/results/<name>.parquet``. Its metadata say what it was made of: the stages whose markers
were looked at, and a digest of those markers' times, sizes and inodes (or their absence) and of the plan's. They are
looked up before the results are read, so that what is published meanwhile makes the next call read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

from ablate.context import replacing
from ablate.results.long import collect
from ablate.store import Store

_FORMAT = b"1"
"""Raised when the columns of the long table change."""
_FORMAT_KEY, _STAGES_KEY, _STAMP_KEY = b"ablate.format", b"ablate.stages", b"ablate.stamp"


def long_table(store: Store, experiment: str) -> pa.Table:
    """Return the long table of an experiment, see :meth:`ablate.results.long.Results.arrow`.

    Raises what :func:`ablate.results.long.collect` does. A cache that can't be read or written is done without.
    """
    store.check()
    path = cache_file(store, experiment)
    kept = _read(store, experiment, path)
    if kept is not None:
        return kept
    stages = _stages(store, experiment)
    stamp = _stamp(store, experiment, stages)
    table = collect(store, experiment).arrow()
    metadata = {_FORMAT_KEY: _FORMAT, _STAGES_KEY: "\n".join(stages).encode(), _STAMP_KEY: stamp}
    with suppress(OSError):  # another user's store, a full disk
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            parquet.write_table(table.replace_schema_metadata(metadata), temporary)
    return table


def cache_file(store: Store, experiment: str) -> Path:
    """Return where an experiment's long table is kept; it can be deleted."""
    return store.cache / "results" / f"{experiment}.parquet"


def _read(store: Store, experiment: str, path: Path) -> pa.Table | None:
    try:
        with parquet.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            if metadata.get(_FORMAT_KEY) != _FORMAT:
                return None
            stages = metadata[_STAGES_KEY].decode().split("\n")
            if _stamp(store, experiment, stages) != metadata[_STAMP_KEY]:
                return None
            return file.read().replace_schema_metadata(None)
    except (OSError, pa.ArrowException, KeyError):
        return None


def _stages(store: Store, experiment: str) -> list[str]:
    """Return the stages that the long table is about: what measured, and what was measured."""
    subjects = store.experiment(experiment).read_plan()["subjects"]
    named = (stage for item in subjects for stage in (item["stage"], *(item.get("evaluations") or {}).values()))
    return list(dict.fromkeys(named))


def _stamp(store: Store, experiment: str, stages: Iterable[str]) -> bytes:
    plan = store.experiment(experiment).plan_json.stat()
    whole = hashlib.sha256(f"{plan.st_mtime_ns} {plan.st_size} {plan.st_ino}\n".encode())
    for stage in stages:
        whole.update(f"{store.marker_stamp(stage)}\n".encode())
    return whole.hexdigest().encode()
