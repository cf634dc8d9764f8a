"""The commands of ``ablate algorithms``: which methods there are, and what each is, needs and costs."""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape
from rich.table import Table

from ablate.algorithms.base import Method
from ablate.algorithms.own import is_own, load_method
from ablate.algorithms.registry import METHODS, find_method
from ablate.console import Json, out, print_wide

algorithms_app = typer.Typer(help="See what methods there are, their formulas and parameters.", no_args_is_help=True)


@algorithms_app.command("list")
def algorithms_list(as_json: Json = False) -> None:
    """List the methods: name, title, what each needs, source."""
    if as_json:
        typer.echo(json.dumps([facts(method) for method in METHODS.values()], indent=1))
        return
    table = Table("name", "title", "needs", "source", box=None, pad_edge=False)
    for method in METHODS.values():
        table.add_row(method.name, method.title, ", ".join(method.needs), escape(method.source))
    print_wide(table)
    out.print(f"{len(METHODS)} methods; ablate algorithms show NAME", highlight=False)


@algorithms_app.command("show")
def algorithms_show(
    name: Annotated[
        str,
        typer.Argument(
            help="A method, see `ablate algorithms list`; or one of yours, `package.module:NAME` or `./file.py:NAME`.",
            show_default=False,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show one method: formula, source, what it needs and costs, parameters with defaults and their sources."""
    method = load_method(name, Path.cwd()) if is_own(name) else find_method(name)
    if as_json:
        typer.echo(json.dumps(facts(method), indent=1))
        return
    out.print(f"{method.name}: {method.title}", style="bold", markup=False, highlight=False)
    for key in ("formula", "source", "needs", "reads", "cost"):
        value = facts(method)[key]
        typer.echo(f"  {key:<9}{', '.join(value) if isinstance(value, list) else value}")
    typer.echo(f"\nparameters, in the section {method.name} or as axes ({method.name}.…):")
    for parameter in facts(method)["parameters"]:
        default = "required" if parameter["required"] else json.dumps(parameter["default"])
        typer.echo(f"  {parameter['name']} = {default}  ({parameter['type']})\n      {parameter['description']}")


def facts(method: Method) -> dict[str, Any]:
    """Return what is known about a method as JSON values."""
    return {
        "name": method.name,
        "title": method.title,
        "formula": method.formula,
        "source": method.source,
        "needs": list(method.needs),
        "reads": sorted(method.axes),
        "cost": method.cost,
        "revision": method.revision,
        "parameters": [_parameter(name, field) for name, field in method.parameters.model_fields.items()],
    }


def _parameter(name: str, field: FieldInfo) -> dict[str, Any]:
    return {
        "name": name,
        "type": _type_name(field.annotation),
        "required": field.is_required(),
        "default": None if field.is_required() else field.default,
        "description": field.description,
    }


def _type_name(annotation: Any) -> str:
    """Return a type as a researcher writes values of it: ``float or null``, ``drop or keep-start``."""
    if annotation is type(None):
        return "null"
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(map(str, typing.get_args(annotation)))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(map(_type_name, typing.get_args(annotation)))
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
