"""What an experiment found: tables, and the long table."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from ablate.cli.options import DEFAULT_STORE, Name, StoreOption, complete_name
from ablate.console import out, print_wide
from ablate.errors import UsageError
from ablate.store import Store

results_app = typer.Typer()


@results_app.command()
def report(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name of an experiment of the store; with --published none is needed.",
            show_default=False,
            autocompletion=complete_name,
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    layout: Annotated[
        Path | None,
        typer.Option(
            help="Layout of the tables, a file or a name in reports/; default: the experiment's or a general one."
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Folder of the files; default: out/NAME.")
    ] = None,
    data: Annotated[bool, typer.Option("--data", help="Add the table of the datasets it reads.")] = False,
    appendix: Annotated[bool, typer.Option("--appendix", help="Write the appendix of a paper, too.")] = False,
    html: Annotated[
        bool, typer.Option("--html", help="Write the page alone: one file that opens from disk and needs no network.")
    ] = False,
    published: Annotated[
        list[str] | None,
        typer.Option("--published", help="Print a published table, e.g. unpacking/table2, and check it; repeatable."),
    ] = None,
) -> None:
    """Print an experiment's tables and write them as Markdown, HTML, LaTeX and CSV, with figures."""
    if published:
        if name or layout or data or appendix or html:
            raise UsageError(
                "--published prints published tables alone",
                hint="to put them beside an experiment's, name them as `published` in its report layout",
            )
        _print_published(published, to or Path("out") / "published")
        return
    if name is None:
        raise UsageError("a report is of an experiment", hint="`ablate status` lists them")
    module = importlib.import_module("ablate.results.report")
    target = to or Path("out") / name
    if html:
        written = module.render_page(Store(store), name, layout, target, data=data).files[0]
        out.print(f"written to {written}", highlight=False)
        return
    rendered = module.render_report(Store(store), name, layout, target, data=data, appendix=appendix)
    print_wide(module.terminal(rendered))
    out.print(f"written to {target}/", highlight=False)


def _print_published(names: list[str], target: Path) -> None:
    rendered = importlib.import_module("ablate.results.published.alone").render_published(names, target)
    print_wide(importlib.import_module("ablate.results.report").terminal(rendered))
    out.print(f"written to {target}/", highlight=False)


@results_app.command()
def results(
    name: Name,
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[
        str | None, typer.Option("--format", help="csv, json or parquet; default: by the suffix of --out, else csv.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--out", help="File; default: standard output (csv, json).")] = None,
) -> None:
    """Write the long table: one row per subject, suite, task and metric."""
    module = importlib.import_module("ablate.results.export")
    text = module.export(Store(store), name, form, to)
    if text is not None:
        typer.echo(text, nl=False)
