"""The command that asks a judge without an experiment."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from ablate.catalogs.closed import Closed
from ablate.catalogs.judges import WrittenPanel
from ablate.catalogs.suites import find_suite, load_suites
from ablate.cli.evaluate import complete_suite, print_report
from ablate.cli.options import written
from ablate.shipped import search_folders


class Judging(Closed):
    """A judge as the command line takes it."""

    judge: WrittenPanel


def judge(
    suite: Annotated[str, typer.Argument(help="A suite with a judge, or one of pairs.", autocompletion=complete_suite)],
    file: Annotated[
        Path | None, typer.Argument(help="Outputs to judge, as `ablate grade` reads them; none for pairs.")
    ] = None,
    by: Annotated[str | None, typer.Option("--judge", help="Name of a judge, or its keys: '{model: …}'.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", envvar="ABLATE_DATA", help="Folder of the suite's data files.")
    ] = None,
    answers: Annotated[Path, typer.Option(help="Folder where answers are kept: none is paid for twice.")] = Path(
        "answers"
    ),
    model: Annotated[str | None, typer.Option(help="Whose outputs, where a file has those of several models.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Judge the examples that are there, not all.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Examples to ask about, of each task or subset.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Ask a judge about outputs from anywhere, or how often it agrees with people's labels of pairs (llmbar)."""
    found = find_suite(load_suites(search_folders("evals", Path.cwd())), suite)
    if limit is not None:
        found = found.limited(limit)
    module = importlib.import_module("ablate.evaluation.ask")
    options = module.ReadOptions(model=model)
    asked = module.Asked(
        found,
        answers,
        None if by is None else written("--judge", by, Judging, "judge").judge,
        file,
        data,
        options,
        partial,
    )
    report = module.ask(asked)
    if form == "json":
        typer.echo(json.dumps(report, indent=1, allow_nan=False))
    else:
        print_report(f"{found.title}, judged", report)
