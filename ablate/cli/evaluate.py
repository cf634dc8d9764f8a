"""The commands that grade without an experiment."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from ablate.catalogs.suites import find_suite, load_suites
from ablate.console import out, print_wide
from ablate.context import Resources, cores
from ablate.errors import UsageError
from ablate.shipped import search_folders


def complete_suite(incomplete: str) -> list[str]:
    """Offer the project's and the shipped suites to a shell."""
    return [name for name in load_suites(search_folders("evals", Path.cwd())) if name.startswith(incomplete)]


def grade(
    suite: Annotated[
        str, typer.Argument(help="Name of a suite of evals/.", show_default=False, autocompletion=complete_suite)
    ],
    file: Annotated[
        Path | None, typer.Argument(help="Outputs: .jsonl, .json, .csv, .parquet.", show_default=False)
    ] = None,
    baseline: Annotated[
        Literal["random", "majority", "echo", "gold"] | None, typer.Option(help="Grade trivial outputs, not a file.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", envvar="ABLATE_DATA", help="Folder of the suite's data files.")
    ] = None,
    read: Annotated[str | None, typer.Option(help="Format of the file; default: told from its content.")] = None,
    id_column: Annotated[str | None, typer.Option("--id", help="Column of the ids, dotted if nested.")] = None,
    response: Annotated[str | None, typer.Option(help="Column of the responses, dotted if nested.")] = None,
    model: Annotated[str | None, typer.Option(help="Whose outputs, where a file has those of several models.")] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(help="COLUMN=MODEL: a local model that scores responses, e.g. toxic=./model."),
    ] = None,
    by_order: Annotated[bool, typer.Option("--by-order", help="Rows without ids are in the data's order.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Grade the examples that are there, not all.")] = False,
    rule: Annotated[
        Literal["current", "launch"] | None, typer.Option(help="How RewardBench's sections make one score.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Write every example's values to this .parquet or .jsonl file.")
    ] = None,
    unsafe_code: Annotated[
        bool, typer.Option("--unsafe-code", help="Run generated programs without a sandbox.")
    ] = False,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Grade outputs from anywhere with a suite's grader: no model, no experiment. See docs/grading.md."""
    for name in ("TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS"):  # bars of lm-eval, which reads IFEval's rows
        os.environ.setdefault(name, "1")
    found = find_suite(load_suites(search_folders("evals", Path.cwd())), suite)
    if rule is not None:
        found = found.with_options({"rule": rule})
    module = importlib.import_module("ablate.evaluation.grade")
    options = module.ReadOptions(id_column, response, model)
    resources = Resources(threads=cores(), unsafe_code=unsafe_code)
    request = module.Request(
        found, file, baseline, data, read, options, by_order, partial, _judges(judge or []), resources
    )
    report = module.grade(request, examples)
    if form == "json":
        typer.echo(json.dumps(report, indent=1, allow_nan=False))
    else:
        print_report(found.title, report)


def _judges(written: list[str]) -> dict[str, str]:
    """Return models by the column of their scores."""
    if wrong := [entry for entry in written if "=" not in entry]:
        raise UsageError(f"--judge {wrong[0]} is no COLUMN=MODEL", hint="for example --judge truth=./truth-judge")
    return dict(entry.split("=", 1) for entry in written)


def print_report(title: str, report: dict[str, Any]) -> None:
    """Print a suite's score, its metrics as a table, and its health."""
    primary = report["protocol"]["primary"]
    score = report["health"].get("reason", "undefined") if report["score"] is None else f"{report['score']:.4f}"
    out.print(f"{title}: {score} ({primary})", style="bold", markup=False, highlight=False, soft_wrap=True)
    table = Table("task", "metric", "value", "stderr", "n", "unit", box=None, pad_edge=False)
    for row in report["metrics"]:
        numbers = ["" if row[name] is None else f"{row[name]:.4f}" for name in ("value", "stderr")]
        table.add_row(row["task"], row["metric"], *numbers, str(row["n"]), row["unit"])
    print_wide(table)
    known = {name: value for name, value in report["health"].items() if value not in (None, 0)}
    out.print("health: " + ", ".join(f"{name} {_number(value)}" for name, value in known.items()), highlight=False)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
