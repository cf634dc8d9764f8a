"""What the numbers of an experiment can bear: effects of its axes, power, and two experiments or cells compared."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer

from ablate.cli.options import DEFAULT_STORE, Name, StoreOption
from ablate.console import print_wide
from ablate.store import Store

statistics_app = typer.Typer()

Form = Annotated[Literal["text", "json"], typer.Option("--format", help="How to print it.")]


@statistics_app.command()
def effects(
    name: Name,
    store: StoreOption = DEFAULT_STORE,
    column: Annotated[
        list[str] | None,
        typer.Option(help="A column: average, a category, a suite, suite/metric; may be repeated. Default: average."),
    ] = None,
    axis: Annotated[
        list[str] | None, typer.Option(help="An axis to analyse; may be repeated. Default: all that vary but seeds.")
    ] = None,
    form: Form = "text",
) -> None:
    """Say which axis explains how much of the variance between runs, and which axes act together."""
    module = importlib.import_module("ablate.results.tables.effects")
    results = importlib.import_module("ablate.results.long").collect(Store(store), name)
    _print([module.effects_of(results, column or ["average"], axis or [])], form)


@statistics_app.command()
def power(
    name: Name,
    comparison: Annotated[
        str,
        typer.Argument(
            help="What is compared, e.g. 'average[algorithm=ppo] - average[algorithm=dpo]'.", show_default=False
        ),
    ],
    difference: Annotated[
        float, typer.Option(min=1e-9, help="The difference to find, in points for proportions.")
    ] = 1.0,
    over: Annotated[list[str] | None, typer.Option(help="An axis that is averaged over; may be repeated.")] = None,
    each: Annotated[list[str] | None, typer.Option(help="An axis, a row for each value; may be repeated.")] = None,
    alpha: Annotated[float, typer.Option(min=1e-9, max=0.999, help="Level of the two-sided test.")] = 0.05,
    wanted: Annotated[float, typer.Option("--power", min=0.01, max=0.999, help="The power that is wanted.")] = 0.8,
    store: StoreOption = DEFAULT_STORE,
    form: Form = "text",
) -> None:
    """Say what a comparison can find with the runs there are, and how many seeds or examples a difference takes."""
    module = importlib.import_module("ablate.results.claims.plan_ahead")
    results = importlib.import_module("ablate.results.long").collect(Store(store), name)
    table = module.build_power(
        results, comparison, difference, over=tuple(over or ()), each=tuple(each or ()), alpha=alpha, power=wanted
    )
    _print([table], form)


@statistics_app.command()
def compare(
    first: Annotated[str, typer.Argument(help="An experiment NAME, or models of it: NAME:axis=value,axis=value.")],
    second: Annotated[str, typer.Argument(help="What it is compared with, of the same form.")],
    store: StoreOption = DEFAULT_STORE,
    test: Annotated[
        Literal["paired", "mcnemar", "bootstrap"],
        typer.Option(help="paired: exact sign flips with one run, seeds and examples as random effects with several."),
    ] = "paired",
    form: Form = "text",
) -> None:
    """Compare two experiments or two models: what differs in their configuration, what in their results, with tests."""
    module = importlib.import_module("ablate.results.comparison.compare")
    tables = importlib.import_module("ablate.results.comparison.table")
    found = module.compare(Store(store), first, second, test)
    if form == "json":
        typer.echo(json.dumps(module.as_json(found, test), indent=1))
    else:
        _print([tables.config_table(found), tables.numbers_table(found, test)], form)


def _print(tables: Sequence[Any], form: str) -> None:
    if form == "json":
        as_json = importlib.import_module("ablate.results.tables.as_json").table_json
        typer.echo(json.dumps([as_json(table) for table in tables], indent=1))
        return
    terminal = importlib.import_module("ablate.results.tables.text").terminal
    for table in tables:
        print_wide(terminal(table))
