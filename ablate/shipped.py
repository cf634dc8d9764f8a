"""Where the researcher's folders lie (grids, suites, table layouts, cluster profiles): clone, wheel or project."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal, get_args

from ablate.errors import UsageError

Kind = Literal["experiments", "evals", "reports", "slurm"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_PACKAGE = Path(__file__).resolve().parent

_PROJECT_README = """\
# A project of ablate

    ablate plan experiments/pocket_quick.yaml     # what would run, and why
    ablate run experiments/pocket_quick.yaml      # run it; a second call continues or does nothing
    ablate report pocket-quick                    # the table

`experiments/` holds the questions (one YAML file each), `evals/` the suites, `reports/` the table layouts and `slurm/`
the cluster profiles. A file here is found before the one of the same name that ablate ships; delete what you do not
need. Results go to `store/`.
"""


def shipped_folder(kind: Kind) -> Path:
    """Return the folder of this kind that ablate ships: the clone's own in a source checkout, else the wheel's copy."""
    clone = _PACKAGE.parent
    if (clone / "pyproject.toml").is_file() and (clone / kind).is_dir():
        return clone / kind
    return _PACKAGE / "_shipped" / kind


def search_folders(kind: Kind, start: Path) -> list[Path]:
    """Return the existing folders to look in for files of this kind, the project's own below ``start`` first."""
    folders: list[Path] = []
    for folder in (start / kind, shipped_folder(kind)):
        if folder.is_dir() and not any(folder.samefile(known) for known in folders):
            folders.append(folder)
    return folders


def find_by_name(kind: Kind, name: str, start: Path) -> Path | None:
    """Return the first file called ``name`` in the folders of :func:`search_folders`, or None."""
    places = (folder / name for folder in search_folders(kind, start))
    return next((place for place in places if place.is_file()), None)


def init_project(target: Path) -> list[Path]:
    """Start a researcher's own project in ``target``: copies of the shipped folders and a README.

    Returns the files written. Raises ``UsageError``, with nothing written, when one of them exists already.
    """
    sources = {
        target / kind / path.relative_to(folder): path
        for kind in KINDS
        for folder in [shipped_folder(kind)]
        for path in _files(folder)
    }
    readme = target / "README.md"
    _refuse_existing(target, [readme, *sources])
    for destination, source in sources.items():
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
    readme.write_text(_PROJECT_README, encoding="utf-8")
    return [readme, *sources]


def _files(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted, without caches and hidden files."""
    skipped = ("__pycache__",)
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") or part in skipped for part in path.relative_to(folder).parts)
    ]


def _refuse_existing(target: Path, destinations: list[Path]) -> None:
    """Raise ``UsageError`` when a file would be overwritten or a folder cannot be made."""
    blocking = [path for path in (target, *target.parents) if path.exists() and not path.is_dir()]
    blocking += [target / kind for kind in KINDS if (target / kind).exists() and not (target / kind).is_dir()]
    existing = blocking + [path for path in destinations if path.exists()]
    if existing:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise UsageError(
            f"{existing[0]} exists already{more}; nothing was written",
            hint="name a new or empty folder: ablate init DIR",
        )
