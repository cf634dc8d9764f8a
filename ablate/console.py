"""What commands print with."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console, RenderableType
from rich.measure import Measurement

out = Console(width=None if sys.stdout.isatty() else 160)  # a pipe has no width: tables get room
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def print_wide(what: RenderableType) -> None:
    """Print tables at their own width: a terminal wraps a long line, it does not drop columns or digits."""
    needed = Measurement.get(out, out.options.update(width=2000), what)
    Console(width=max(out.width, min(needed.maximum, 180), needed.minimum)).print(what)
