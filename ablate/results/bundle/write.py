"""``ablate bundle``: the record of an experiment as one zip, without weights, responses and secrets.

bundle.json                 experiment, version, and of every file its sha256 and size; what was left out
report/                     the report and its appendix, made from the zip's own store
layout.yaml                 the layout that it is declared by, where there is one
store/                      as much of the store as the report needs, in the store's own layout: the plan and the
                            specification; of every stage its identity, its marker, versions, the end of its log, and
                            its small results (JSON, curves, values of examples)
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

import ablate
from ablate.context import read_json, replacing, write_json
from ablate.results.bundle.secrets import redact_file, secret_values
from ablate.results.long import collect
from ablate.results.report import render_report, resolve_layout_file
from ablate.store import StageFolder, Store

VERSION = 1
MANIFEST, LAYOUT, REPORT, STORE = "bundle.json", "layout.yaml", "report", "store"

_LOG_LINES = 100
_WHEN = (1980, 1, 1, 0, 0, 0)
"""The time of every file, so that equal records make equal zips."""


@dataclass(frozen=True)
class Bundle:
    """A written bundle: its sha256 is what a paper can quote."""

    path: Path
    files: int
    sha256: str
    missing: tuple[str, ...]


def write_bundle(store: Store, experiment: str, layout: Path | None, to: Path) -> Bundle:
    """Write the bundle of an experiment to ``to``, which appears whole.

    ``layout`` is what :func:`ablate.results.report.render_report` takes; ``missing`` are the stages that are not done.
    Raises what that function does.
    """
    plan = collect(store, experiment).plan
    named = resolve_layout_file(layout, plan)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        copy = Store(root / STORE).open()
        _copy_experiment(store, experiment, copy)
        left_out: dict[str, int] = {}
        for stage in plan["stages"]:
            left_out |= _copy_stage(store.stage(stage), copy.stage(stage))
        if named is not None:
            shutil.copyfile(named, root / LAYOUT)
        _redact_all(root)
        render_report(
            copy,
            experiment,
            None if named is None else root / LAYOUT,
            root / REPORT,
            data=bool(plan.get("data")),
            appendix=True,
        )
        shutil.rmtree(copy.cache)
        _redact_all(root / REPORT)
        missing = tuple(stage for stage in plan["stages"] if not store.stage(stage).is_done())
        write_json(root / MANIFEST, _manifest(root, experiment, missing, left_out))
        to.parent.mkdir(parents=True, exist_ok=True)
        with replacing(to) as unfinished:
            count = _zip(root, unfinished)
    return Bundle(to, count, _sha256(to), missing)


def _copy_experiment(store: Store, experiment: str, copy: Store) -> None:
    source, target = store.experiment(experiment), copy.experiment(experiment)
    target.folder.mkdir(parents=True)
    for path in (source.spec, source.plan_json, source.evaluation, source.trials_jsonl):
        if path.exists():
            shutil.copyfile(path, target.folder / path.name)
    for path in sorted(source.tuning.glob("*/outcome.json")):
        group = target.group(path.parent.name)
        group.folder.mkdir(parents=True)
        shutil.copyfile(path, group.outcome_json)
    if source.source_json.exists():
        made_from = read_json(source.source_json)
        write_json(target.source_json, {**made_from, "file": Path(made_from["file"]).name})


def _copy_stage(source: StageFolder, target: StageFolder) -> dict[str, int]:
    """Copy a stage's record; returns the published files that are left out, with their bytes."""
    target.folder.mkdir(parents=True)
    for path in (source.stage_json, source.done_json):
        if path.exists():
            shutil.copyfile(path, target.folder / path.name)
    attempts = source.attempts()
    if attempts:
        last, place = attempts[-1], target.attempt(attempts[-1].number)
        place.folder.mkdir(parents=True)
        for path in (last.environment_json, last.failure_json, last.ended_json):
            if path.exists():
                shutil.copyfile(path, place.folder / path.name)
        if last.log.exists():
            lines = last.log.read_text(encoding="utf-8", errors="replace").splitlines()
            place.log.write_text("".join(f"{line}\n" for line in lines[-_LOG_LINES:]), encoding="utf-8")
    return dict(_copy_output(source, target)) if source.is_done() else {}


def _copy_output(source: StageFolder, target: StageFolder) -> Iterator[tuple[str, int]]:
    target.output.mkdir()
    for path in sorted(path for path in source.output.rglob("*") if path.is_file()):
        name = path.relative_to(source.output)
        if path.name == "examples.parquet":
            _copy_values(path, target.output / name)
        elif len(name.parts) == 1 and (path.suffix == ".json" or path.name == "history.jsonl"):
            shutil.copyfile(path, target.output / name)
        else:
            yield f"{source.id}/{name.as_posix()}", path.stat().st_size


def _copy_values(path: Path, to: Path) -> None:
    """Copy a table of graded examples with its responses empty."""
    table = parquet.read_table(path)
    place = table.schema.get_field_index("response")
    if place >= 0:
        table = table.set_column(place, "response", pa.nulls(table.num_rows, pa.string()))
    parquet.write_table(table, to)


def _redact_all(folder: Path) -> None:
    """Take secrets out of every file that is text."""
    values = secret_values()
    for path in (path for path in folder.rglob("*") if path.is_file()):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        clean = redact_file(path.suffix, text, values)
        if clean != text:
            path.write_text(clean, encoding="utf-8")


def _manifest(root: Path, experiment: str, missing: tuple[str, ...], left_out: dict[str, int]) -> dict[str, Any]:
    files = {
        path.relative_to(root).as_posix(): {"sha256": _sha256(path), "bytes": path.stat().st_size}
        for path in _files(root)
    }
    return {
        "version": VERSION, "ablate": ablate.__version__, "experiment": experiment, "files": files,
        "not_done": list(missing), "left_out": left_out,
    }  # fmt: skip


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def _zip(root: Path, to: Path) -> int:
    files = _files(root)
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            entry = zipfile.ZipInfo(path.relative_to(root).as_posix(), _WHEN)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    return len(files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
