"""``ablate verify``: whether a bundle is as it was written, and whether its tables follow from its results."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ablate.errors import AblateError, DataError
from ablate.results.bundle.write import LAYOUT, MANIFEST, REPORT, STORE, VERSION
from ablate.results.long import collect
from ablate.results.report import build_report
from ablate.results.tables.text import to_csv
from ablate.store import Store

_CLOSE = 1e-6
"""Relative difference of two numbers that libraries of other versions may make."""


@dataclass(frozen=True)
class Verification:
    """What was checked, and every finding in words; none: the bundle holds."""

    experiment: str
    files: int
    tables: int
    findings: tuple[str, ...]
    not_done: tuple[str, ...]


def verify_bundle(path: Path) -> Verification:
    """Check the sizes and sha256 of all files, then make the tables again from the bundle's results and compare them.

    Raises :class:`ablate.errors.DataError` for what is no bundle of this version.
    """
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as temporary:
            manifest = _manifest(archive, path)
            findings = list(_unpack(archive, manifest["files"], Path(temporary)))
            tables, differences = _tables(Path(temporary), manifest)
    except FileNotFoundError as error:
        raise DataError(f"there is no bundle {path}") from error
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is no zip, or a damaged one: {error}") from error
    return Verification(
        manifest["experiment"], len(manifest["files"]), tables, (*findings, *differences), tuple(manifest["not_done"])
    )


def _manifest(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(archive.read(MANIFEST))
        version, _ = manifest["version"], [manifest[key] for key in ("experiment", "files", "not_done")]
        _ = [about[key] for about in manifest["files"].values() for key in ("bytes", "sha256")]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no bundle: {MANIFEST} is missing or unreadable") from error
    if version != VERSION:
        raise DataError(f"{path} is a bundle of version {version}; this ablate reads {VERSION}")
    return manifest


def _unpack(archive: zipfile.ZipFile, files: Mapping[str, Mapping[str, Any]], root: Path) -> Iterator[str]:
    """Unpack the files that the manifest names and vouches for; yields what is missing, changed or beside it."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    for name, about in files.items():
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            yield f"{name}: no name of a file in a bundle"
        elif name not in entries:
            yield f"{name}: missing"
        elif entries[name].file_size != about["bytes"]:
            yield f"{name}: changed ({entries[name].file_size} bytes, written with {about['bytes']})"
        else:
            try:
                content = archive.read(name)
            except zipfile.BadZipFile as error:
                yield f"{name}: damaged ({error})"
                continue
            if hashlib.sha256(content).hexdigest() != about["sha256"]:
                yield f"{name}: changed"
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    yield from (f"{name}: not in {MANIFEST}" for name in entries if name not in files and name != MANIFEST)


def _tables(root: Path, manifest: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Make the tables of the unpacked store and compare them with the report's; returns how many, and differences."""
    layout, folder = root / LAYOUT, root / REPORT / "tables"
    has_data = (folder / "data.csv").exists()
    try:
        store = Store(root / STORE)
        report = build_report(store, manifest["experiment"], layout if layout.exists() else None, data=has_data)
    except (AblateError, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        return 0, [f"the tables can't be made from the results: {reason}"]
    findings: list[str] = []
    for table in report.tables:
        written = folder / f"{table.name}.csv"
        if written.exists():
            findings += _differences(f"table {table.name}", written.read_text(encoding="utf-8"), to_csv(table))
        else:
            findings.append(f"table {table.name}: the results give it, the report has none")
    long = root / REPORT / "results.csv"
    if long.exists():
        made_again = collect(store, manifest["experiment"]).table().to_csv(index=False, lineterminator="\n")
        findings += _differences("results.csv", long.read_text(encoding="utf-8"), made_again)
    made = {table.name for table in report.tables}
    written_names = {path.stem for path in folder.glob("*.csv")} if folder.is_dir() else set()
    findings += [f"table {name}: the results do not give it" for name in sorted(written_names - made)]
    return len(report.tables), findings


def _differences(what: str, written: str, made: str) -> Iterator[str]:
    """Yield every cell of two CSV texts that differs."""
    before, after = (list(csv.reader(io.StringIO(text))) for text in (written, made))
    if before[:1] != after[:1]:
        yield f"{what}: other columns than the results give"
        return
    if len(before) != len(after):
        yield f"{what}: {len(before) - 1} rows, the results give {len(after) - 1}"
        return
    for number, (old, new) in enumerate(zip(before[1:], after[1:], strict=True), start=1):
        for column, one, other in zip(before[0], old, new, strict=False):
            if not _is_same(one, other):
                yield f"{what}: row {number}, {column}: {one or 'nothing'}; the results give {other or 'nothing'}"


def _is_same(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return math.isclose(float(one), float(other), rel_tol=_CLOSE, abs_tol=1e-9)
    except ValueError:
        return False
