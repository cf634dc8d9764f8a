"""What an experiment found: tables, the long table, and their view in MLflow."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from ablate.cli.options import DEFAULT_STORE, Name, StoreOption, complete_name
from ablate.console import out, print_wide
from ablate.errors import UsageError
from ablate.store import Store
from ablate.tracking.interface import ui_command

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
    to: Annotated[Path | None, typer.Option("--out", help="Folder of the files; default: out/NAME.")] = None,
    data: Annotated[bool, typer.Option("--data", help="Add the table of the datasets it reads.")] = False,
    published: Annotated[
        list[str] | None,
        typer.Option("--published", help="Print a published table, e.g. unpacking/table2, and check it; repeatable."),
    ] = None,
) -> None:
    """Print an experiment's tables and write them as Markdown, HTML, LaTeX and CSV, with figures."""
    module = importlib.import_module("ablate.results.report")
    if published:
        if name or layout or data:
            raise UsageError(
                "--published prints published tables alone",
                hint="to put them beside an experiment's, name them as `published` in its report layout",
            )
        target = to or Path("out") / "published"
        rendered = importlib.import_module("ablate.results.published.alone").render_published(published, target)
    elif name is None:
        raise UsageError("a report is of an experiment", hint="`ablate status` lists them")
    else:
        target = to or Path("out") / name
        rendered = module.render_report(Store(store), name, layout, target, data=data)
    print_wide(module.terminal(rendered))
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


@results_app.command()
def ui(
    store: StoreOption = DEFAULT_STORE, port: Annotated[int, typer.Option(help="Port of the MLflow server.")] = 5000
) -> None:
    """Mirror the store into MLflow and open its user interface; Ctrl-C ends it."""
    module = importlib.import_module("ablate.tracking.mirror")
    place = Store(store).open()
    for name in place.experiment_names():
        out.print(f"{name}: {module.mirror(place, name)}", highlight=False)
    subprocess.run(ui_command(place, port=port), check=False)
