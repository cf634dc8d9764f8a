"""The commands of ``ablate data``: what datasets there are, what is in them, their files."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ablate.catalogs.datasets import (
    DatasetEntry,
    Format,
    LabelKind,
    data_files,
    datasets,
    fetched_revisions,
    with_sample,
)
from ablate.catalogs.pins import LOCK, read_pins
from ablate.catalogs.suites import fetchable, find_suite, load_suites
from ablate.cli.options import DEFAULT_STORE, Overrides, Spec, StoreOption
from ablate.console import Json, err, out, print_wide
from ablate.errors import DataError, FetchError, UnknownNameError, UsageError
from ablate.shipped import project_datasets, search_folders
from ablate.store import Store

AUDITS = Path("out") / "audits"

data_app = typer.Typer(help="See what datasets the catalog has and what is in them.", no_args_is_help=True)


@data_app.command("list")
def data_list(
    form: Annotated[str | None, typer.Option("--format", help=f"One of {', '.join(get_args(Format))}.")] = None,
    label: Annotated[str | None, typer.Option("--label", help=f"One of {', '.join(get_args(LabelKind))}.")] = None,
    licence: Annotated[str | None, typer.Option(help="Part of the licence, e.g. MIT.")] = None,
    as_json: Json = False,
) -> None:
    """List the datasets of the catalog: name, format, who labelled them, rows as released, sample, licence."""
    for kind, value, known in (("format", form, get_args(Format)), ("label kind", label, get_args(LabelKind))):
        if value is not None and value not in known:
            raise UnknownNameError(kind, value, known)
    found = [
        entry
        for entry in _catalog().values()
        if form in (None, entry.format)
        and label in (None, entry.label_kind)
        and (licence is None or any(licence.lower() in name.lower() for name in entry.licence))
    ]
    if as_json:
        typer.echo(json.dumps([entry.facts() for entry in found], indent=1))
        return
    table = Table("name", "format", "label kind", "rows", "sample", "licence", box=None, pad_edge=False)
    for entry in found:
        rows = next((f"{count:,} {split}" for split, count in entry.size.items()), "")
        table.add_row(
            entry.name,
            entry.format,
            entry.label_kind or "",
            rows,
            entry.sample.name if entry.sample else "",
            ", ".join(entry.licence),
        )
    print_wide(table)
    hint = "ablate data show NAME (--embedded: the rows of its embedded sample)"
    out.print(f"{len(found)} datasets; {hint}", highlight=False)


@data_app.command("show")
def data_show(
    name: Annotated[str, typer.Argument(help="Name of a dataset, see `ablate data list`.", show_default=False)],
    rows: Annotated[int, typer.Option(min=0, help="Converted rows shown where the files are there.")] = 2,
    root: Annotated[Path | None, typer.Option("--root", envvar="ABLATE_DATA", help="Folder of data files.")] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show the rows as a model gets them, see --model.")] = False,
    model: Annotated[
        str | None, typer.Option(help="With --tokens: a catalog model, ./folder (a stage's too) or hub/id@commit.")
    ] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Show rows of its embedded sample instead of its files'.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show one dataset: where it is, what the study did, its traps, and its first rows as they are converted."""
    if tokens != (model is not None):
        raise UsageError("--tokens and --model go together", hint="for example --tokens --model pocket-small")
    entry, missing, unreadable = _dataset(name), None, False
    converted: list[dict[str, Any]] = []
    if embedded:
        entry = with_sample(entry, _catalog())
    if model is not None:
        module = importlib.import_module("ablate.data.shown_tokens")
        converted = module.show_tokens(entry, root, rows, model)
        if not as_json:
            colour = out.is_terminal and not out.no_color
            out.print(module.view(converted, out.width, colour=colour), highlight=False, soft_wrap=True, end="")
            return
    elif rows:
        converted, missing, unreadable = _first_rows(entry, root, rows)
    if as_json:
        facts = {**entry.facts(), "fetched": fetched_revisions(entry, root)}
        typer.echo(json.dumps({**facts, "rows": converted, "rows_missing": missing}, indent=1))
    else:
        _print_dataset(entry, fetched_revisions(entry, root), converted, missing)
    if unreadable:
        raise typer.Exit(DataError.exit_code)


@data_app.command("fetch")
def data_fetch(
    names: Annotated[
        list[str],
        typer.Argument(help="Names of datasets, see `ablate data list`, or of suites of evals/.", show_default=False),
    ],
    root: Annotated[Path | None, typer.Option("--root", envvar="ABLATE_DATA", help="Folder of data files.")] = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit, branch or tag, for one dataset whose entry names no revision.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which files would be fetched, and fetch none.")
    ] = False,
) -> None:
    """Download the files of sets and suites, at their pinned revisions, into the data root; what is there is kept."""
    wanted, known = fetchable(names, _catalog(), load_suites(search_folders("evals", Path.cwd())))
    known = read_pins(Path.cwd()).over(known)
    module = importlib.import_module("ablate.data.fetch")
    for item in module.fetch_all(wanted, known, root, revision=revision, dry_run=dry_run):
        out.print(f"{item.status:<18}{item.name}  {module.megabytes(item.size)}", highlight=False, soft_wrap=True)


@data_app.command("pin")
def data_pin(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of datasets, or of suites of evals/.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All sets of the catalog that are at no full commit.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Ask for the newest commit of those that are pinned or fetched, too.")
    ] = False,
    root: Annotated[Path | None, typer.Option("--root", envvar="ABLATE_DATA", help="Folder of data files.")] = None,
) -> None:
    """Write down at which commit the repositories of sets are: fetched, planned and recorded at it from then on.

    The file is datasets.lock.yaml in this folder. A repository whose files are fetched is pinned to their commit.
    """
    if every == bool(names):
        raise UsageError("give names of datasets, or --all")
    module = importlib.import_module("ablate.data.pin")
    catalog = _written_catalog()
    wanted, known = fetchable(
        names or module.unpinned(catalog), catalog, load_suites(search_folders("evals", Path.cwd()))
    )
    missed = 0
    for item in module.pin_all(wanted, known, Path.cwd(), root, again=again):
        out.print(f"{item.status:<20}{item.repository}  {item.commit or ''}", highlight=False, soft_wrap=True)
        if item.error is not None:
            missed += 1
            err.print(f"{item.error}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if missed:
        raise FetchError(f"{missed} of the repositories could not be pinned; the others are in {LOCK}")


def prefetch(spec: Spec, overrides: Overrides = None, store: StoreOption = DEFAULT_STORE) -> None:
    """Download all data and models that an experiment reads, where there is a network, for nodes that have none."""
    place = Store(store)
    place.check()

    def say(line: str) -> None:
        out.print(line, markup=False, highlight=False, soft_wrap=True)

    plan = importlib.import_module("ablate.execution.prefetch").prefetch(spec, overrides or [], place, say)
    say(f"{plan.name}: all that its {len(plan.stages)} stages read is here")


@data_app.command("audit")
def data_audit(
    names: Annotated[list[str], typer.Argument(help="Names of datasets, see `ablate data list`.", show_default=False)],
    against: Annotated[
        list[str] | None,
        typer.Option(help="Suites of evals/ whose questions are looked for in the prompts (commas or again), or all."),
    ] = None,
    to: Annotated[Path, typer.Option("--out", help="Folder of the pages, one folder a dataset in it.")] = AUDITS,
    root: Annotated[Path | None, typer.Option("--root", envvar="ABLATE_DATA", help="Folder of data files.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Records audited, drawn by seed; default: all.")] = None,
    as_json: Json = False,
) -> None:
    """Check what is in datasets: labels, duplicates, overlap with evaluation sets, lengths, refusals, languages."""
    entries = [_dataset(name) for name in dict.fromkeys(names)]
    for entry in entries:
        data_files(entry, root)  # a missing file is said before a long audit of another set
    if (taken := next((path for path in (to, *to.parents) if path.exists() and not path.is_dir()), None)) is not None:
        raise UsageError(f"--out: {taken} is no folder")
    asked = _questions(against, root)
    audits = importlib.import_module("ablate.data.audit.audit")
    pages = importlib.import_module("ablate.data.audit.report")
    found = []
    for entry in entries:
        with _counting_rows(entry) as progress:
            audit = audits.audit(entry, root, against=asked, sampled=sample, progress=progress)
        pages.write(audit, to / entry.name)
        found.append(audit)
        if not as_json:
            _print_audit(audit, to / entry.name)
    if as_json:
        typer.echo(json.dumps([audit.as_json() for audit in found], indent=1))


def _first_rows(entry: DatasetEntry, root: Path | None, rows: int) -> tuple[list[dict[str, Any]], str | None, bool]:
    """Return converted rows, why there are none, and whether that is because files that are there can't be read."""
    try:
        data_files(entry, root)
    except DataError as error:
        return [], str(error), False
    try:
        converted = importlib.import_module("ablate.data.preview").preview(entry, root, rows)
    except DataError as error:
        return [], str(error), True
    return converted, None if converted or entry.converter is None else "its files hold none", False


def _print_dataset(
    entry: DatasetEntry, fetched: dict[str, str], rows: list[dict[str, Any]], missing: str | None
) -> None:
    out.print(f"{entry.name}: {entry.shown_title}", style="bold", markup=False, highlight=False, soft_wrap=True)
    facts, hub = entry.facts(), entry.source.hub
    if hub is not None and hub.revision is None:
        facts["revision"] = f"none pinned: `ablate data pin {entry.name}` writes the newest into {LOCK}"
    for key, value in facts.items():
        if key not in ("name", "title") and value not in (None, {}, []):
            lines = value if isinstance(value, list) else [value]
            for position, line in enumerate(lines):
                typer.echo(f"  {key if position == 0 else '':<{_FACT}}{_fact(line)}")
    for position, (name, revision) in enumerate(fetched.items()):
        typer.echo(f"  {'fetched' if position == 0 else '':<{_FACT}}{name} at {revision}")
    for row in rows:
        typer.echo(f"\n{row['file']}, row {row['row']}" + (f" and {row['rows'] - 1} more" if row["rows"] > 1 else ""))
        if "dropped" in row:
            typer.echo(f"  dropped: {row['dropped']}")
        for example in row.get("examples", ()):
            typer.echo(json.dumps(example, indent=1, ensure_ascii=False))
    if missing:
        typer.echo(f"\nno rows: {missing}")


_FACT = len("converter_revision") + 2
"""Columns of the names of a set's facts."""


def _fact(value: object) -> str:
    """Return a fact as a line; what a mapping leaves open is left out."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_fact(item)}" for key, item in value.items() if item is not None)
    return str(value)


def _catalog() -> Mapping[str, DatasetEntry]:
    return read_pins(Path.cwd()).over(_written_catalog())


def _written_catalog() -> Mapping[str, DatasetEntry]:
    """Return the entries as they are written, without the project's pins."""
    return datasets(*project_datasets(Path.cwd()))


def _dataset(name: str) -> DatasetEntry:
    known = _catalog()
    if name not in known:
        raise UnknownNameError("dataset", name, known)
    return known[name]


def _questions(against: list[str] | None, root: Path | None) -> Any:
    """Return the questions of the named suites; of all suites, those whose files are there. None without a name."""
    if not against:
        return None
    suites = load_suites(search_folders("evals", Path.cwd()))
    names = [name for part in against for name in part.split(",") if name]
    chosen = suites.values() if "all" in names else [find_suite(suites, name) for name in dict.fromkeys(names)]
    module = importlib.import_module("ablate.evaluation.questions")
    return module.collect(chosen, root, skip_missing="all" in names)


@contextmanager
def _counting_rows(entry: DatasetEntry) -> Iterator[Callable[[int], None]]:
    """Show how many rows of a set are read; in a pipe nothing is shown."""
    hub, pocket = entry.source.hub, entry.source.pocket
    total = pocket.n if pocket else entry.size.get((hub and hub.split) or "")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(f"{entry.name}: rows", total=total)
        yield lambda rows: bar.update(task, completed=rows)


def _print_audit(audit: Any, folder: Path) -> None:
    out.print(f"{audit.name}: {audit.title}", style="bold", markup=False, highlight=False, soft_wrap=True)
    table = Table("verdict", "check", "finding", box=None, pad_edge=False)
    for finding in audit.findings:
        style = "yellow" if finding.verdict == "look" else None
        table.add_row(Text(finding.verdict, style or ""), finding.title, Text(finding.summary))
    out.print(table, width=min(out.width, 120))  # sentences: a longer line is harder to read
    for finding in audit.findings:
        for why in finding.look:
            out.print(f"look: {why}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    out.print(f"written to {folder}/: audit.html, audit.md, audit.json", highlight=False)
