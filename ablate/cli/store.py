"""Commands about the store itself."""

from __future__ import annotations

from typing import Annotated

import typer

from ablate.cli.options import DEFAULT_STORE, StoreOption
from ablate.console import out
from ablate.execution.garbage import find_garbage, remove
from ablate.store import Store

store_app = typer.Typer()


@store_app.command()
def gc(
    store: StoreOption = DEFAULT_STORE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """List what no experiment of the store needs any more, with its size, and delete it when confirmed."""
    place = Store(store)
    place.check()
    found = find_garbage(place)
    if not found:
        out.print("nothing to delete: experiments name all that is there", highlight=False)
        return
    for item in found:
        text = f"{item.bytes / 1e6:>10.1f} MB  {item.folder.relative_to(place.root)}  {item.why}"
        out.print(text, markup=False, highlight=False, soft_wrap=True)
    total = sum(item.bytes for item in found)
    if not yes and not typer.confirm(f"delete these {len(found)} folders ({total / 1e6:.1f} MB)?"):
        raise typer.Exit(1)
    remove(found)
    out.print(f"{total / 1e6:.1f} MB freed", highlight=False)
