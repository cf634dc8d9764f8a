"""Where the researcher's folders lie (grids, suites, table layouts, cluster profiles): clone, wheel or project."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal, get_args

from ablate.errors import UsageError

Kind = Literal["experiments", "evals", "reports", "slurm"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SHIPPED = "_shipped"
"""Folder of the package that holds, in a wheel, what a clone has beside the package."""
DATASETS = "datasets"
"""Name of a project's folder of datasets; those of ablate are in the package's catalog, not in a folder beside it."""

_PACKAGE = Path(__file__).resolve().parent

_PROJECT_README = """\
# A project of ablate

    ablate plan experiments/pocket_quick.yaml     # what would run, and why
    ablate run experiments/pocket_quick.yaml      # run it; a second call continues or does nothing
    ablate report pocket-quick                    # the table

`experiments/` holds the questions (one YAML file each), `evals/` the suites, `reports/` the table layouts and `slurm/`
the cluster profiles. A file here is found before the one of the same name that ablate ships; delete what you do not
need. `datasets/` holds sets of your own, beside those of ablate's catalog (`ablate data list`). Results go to `store/`.
"""

_PROJECT_DATASETS = """\
# Datasets of your own: every *.yaml here adds entries to the catalog. Take the marks away and change what is written;
# `ablate data show house-votes` then prints the first rows as they are converted, or says what is wrong.

# house-votes:
#   title: House votes
#   format: preference                         # or instruction (for SFT), prompts
#   source: {files: [house/votes.jsonl]}       # relative to the data root: ABLATE_DATA, data.root or --root
#   converter: columns                         # a prompt and two responses in columns; or house:convert, your function
#   converter_options:
#     {prompt: question, first: answer_a, second: answer_b, label: better, first_preferred: a, second_preferred: b}
#   label_kind: human                          # human, ai, construction or mixed
#   licence: unrecorded                        # SPDX identifiers, several as a list
"""


def shipped_folder(kind: Kind) -> Path:
    """Return the folder of this kind that ablate ships: the clone's own in a source checkout, else the wheel's copy."""
    clone = _PACKAGE.parent
    if (clone / "pyproject.toml").is_file() and (clone / kind).is_dir():
        return clone / kind
    return _PACKAGE / SHIPPED / kind


def search_folders(kind: Kind, start: Path) -> list[Path]:
    """Return the existing folders to look in for files of this kind, the project's own below ``start`` first."""
    folders: list[Path] = []
    for folder in (start / kind, shipped_folder(kind)):
        if folder.is_dir() and not any(folder.samefile(known) for known in folders):
            folders.append(folder)
    return folders


def project_datasets(start: Path) -> list[Path]:
    """Return the project's own folder of datasets below ``start``, where there is one."""
    folder = start / DATASETS
    return [folder] if folder.is_dir() else []


def find_by_name(kind: Kind, name: str, start: Path) -> Path | None:
    """Return the first file called ``name`` in the folders of :func:`search_folders`, or None."""
    places = (folder / name for folder in search_folders(kind, start))
    return next((place for place in places if place.is_file()), None)


def init_project(target: Path) -> list[Path]:
    """Start a researcher's own project in ``target``: copies of the shipped folders, one for datasets, a README.

    Returns the files written. Raises ``UsageError``, with nothing written, when one of them exists already.
    """
    sources = {
        target / kind / path.relative_to(folder): path
        for kind in KINDS
        for folder in [shipped_folder(kind)]
        for path in _files(folder)
    }
    texts = {target / "README.md": _PROJECT_README, target / DATASETS / "own.yaml": _PROJECT_DATASETS}
    _refuse_existing(target, [*texts, *sources])
    for destination, source in sources.items():
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
    for destination, text in texts.items():
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_text(text, encoding="utf-8")
    return [*texts, *sources]


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
    folders = [target / name for name in (*KINDS, DATASETS)]
    blocking += [folder for folder in folders if folder.exists() and not folder.is_dir()]
    existing = blocking + [path for path in destinations if path.exists()]
    if existing:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise UsageError(
            f"{existing[0]} exists already{more}; nothing was written",
            hint="name a new or empty folder: ablate init DIR",
        )
