"""The folder of a report: whose it is, and which files in it an earlier report wrote."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ablate.context import read_json, write_json
from ablate.errors import UsageError

MANIFEST = ".ablate-report.json"
"""Name of the file that lists what a report wrote, and of which experiment."""


def written_before(folder: Path, experiment: str) -> list[Path]:
    """Return the files that the last report in ``folder`` wrote; raises UsageError when it is of another experiment."""
    path = folder / MANIFEST
    if not path.is_file():
        return []
    try:
        manifest = read_json(path)
        owner, names = str(manifest["experiment"]), [str(name) for name in manifest["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not readable as a report's list of files", hint="name another --out") from error
    if owner != experiment:
        raise UsageError(
            f"{folder} holds the report of experiment {owner!r}; nothing was written",
            hint=f"name another folder with --out, or remove {path} to write over it",
        )
    # An edited list must not reach out of the folder.
    return [folder / name for name in names if (folder / name).resolve().is_relative_to(folder.resolve())]


def keep_only(folder: Path, experiment: str, files: Iterable[Path], before: Iterable[Path]) -> None:
    """Delete the files of ``before`` that are not among ``files``, with folders left empty, and list ``files``."""
    written = set(files)
    for stale in (path for path in before if path not in written and not path.is_dir()):
        stale.unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or gone
            if stale.parent != folder:
                stale.parent.rmdir()
    names = sorted(path.relative_to(folder).as_posix() for path in written)
    write_json(folder / MANIFEST, {"experiment": experiment, "files": names})
