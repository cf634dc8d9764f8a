"""What an attempt ran with: code, versions, hardware, job. No other environment variables, which may hold secrets."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ablate.shipped import KINDS, SHIPPED, shipped_folder
from ablate.store import Store

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "lm-eval", "numpy", "pyarrow", "pydantic")
_PACKAGE = Path(__file__).resolve().parents[1]


COMPUTING = (
    *("context.py", "algorithms", "catalogs", "pocket", "models", "data", "training", "rewards", "evaluation"),
    "sandbox",
)
"""What a stage's result can depend on; a change of the command line or of the tables is no drift."""


@functools.cache
def code_digest() -> str:
    """Return the sha256 (16 digits) over the sources that a stage's result can depend on."""
    whole = hashlib.sha256()
    for path in (path for path in _sources() if path.relative_to(_PACKAGE).parts[0] in COMPUTING):
        whole.update(f"{path.relative_to(_PACKAGE).as_posix()}\0".encode())
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]


@functools.cache
def code_commit() -> str | None:
    """Return the git commit of the clone that the package lies in, ``-dirty`` where it was changed; None elsewhere."""
    clone = _PACKAGE.parent
    if not (clone / ".git").exists():
        return None
    command = [
        "git",
        "--no-optional-locks",
        "-C",
        str(clone),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def snapshot_code(store: Store) -> str:
    """Keep a copy of the package's sources in the store, once per digest; returns the digest."""
    digest = code_digest()
    _copy({path.relative_to(_PACKAGE.parent): path for path in _sources()}, store.code / digest)
    return digest


def snapshot_package(store: Store) -> Path:
    """Keep a copy of the whole package in the store, once per digest; returns the folder to put on PYTHONPATH.

    A job that starts hours later runs this copy, with the suites that it came with, whatever happens to the sources.
    """
    files = {path.relative_to(_PACKAGE.parent): path for path in _files(_PACKAGE)}
    for kind in KINDS:
        folder = shipped_folder(kind)
        files |= {Path(_PACKAGE.name, SHIPPED, kind, path.relative_to(folder)): path for path in _files(folder)}
    whole = hashlib.sha256()
    for place, path in sorted(files.items()):
        whole.update(f"{place.as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    target = store.code / f"package-{whole.hexdigest()[:16]}"
    _copy(files, target)
    return target


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def _copy(files: Mapping[Path, Path], target: Path) -> None:
    """Copy files, by where they go in ``target``, unless it is there; it appears whole."""
    if target.exists():
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    for place, path in files.items():
        copy = temporary / place
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    try:
        os.rename(temporary, target)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        if not target.exists():
            raise


def describe_environment(threads: int, gpus: tuple[int, ...]) -> dict[str, Any]:
    """Return versions and hardware as JSON."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "executable": sys.executable,
        "cores": os.cpu_count(),
        "threads": threads,
        "gpus": list(gpus),
        "code": code_digest(),
        "commit": code_commit(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "packages": _versions(),
    }


@functools.cache
def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _sources() -> list[Path]:
    return sorted(path for path in _PACKAGE.rglob("*.py") if SHIPPED not in path.parts)
