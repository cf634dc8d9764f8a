"""Commands about the store itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ablate.cli.options import DEFAULT_STORE, READERS, Overrides, StoreOption
from ablate.console import out
from ablate.errors import UsageError
from ablate.execution import study
from ablate.execution.adopt import adopt as adopt_checkpoint
from ablate.execution.garbage import find_garbage, remove
from ablate.execution.record import record_plan
from ablate.store import Store

store_app = typer.Typer()


@store_app.command()
def adopt(
    stage: Annotated[str, typer.Argument(help="Id of a stage, or its first letters and digits.", show_default=False)],
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a model, with safetensors weights.")],
    overrides: Overrides = None,
    of: Annotated[
        str | None, typer.Option(help="Specification that has the stage, where it was never run in this store.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Take an existing checkpoint over as the model of a stage: checked against what the stage starts from, copied."""
    place = Store(store)
    place.check()
    if of is not None:
        record_plan(place.open(), study.make_plan(of, overrides or [], place, READERS))
    elif overrides:
        raise UsageError("overrides are those of a specification: name it with --of")
    found = study.find_stage(place, stage)
    adopt_checkpoint(place, found, checkpoint.absolute())
    label = found.read_stage()["label"]
    out.print(f"{found.id} is done: {label}, adopted from {checkpoint}", markup=False, highlight=False, soft_wrap=True)


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
        why = "experiments name all that is there" if place.marker.exists() else f"{place.root} is no store yet"
        out.print(f"nothing to delete: {why}", markup=False, highlight=False, soft_wrap=True)
        return
    for item in found:
        text = f"{item.bytes / 1e6:>10.1f} MB  {item.folder.relative_to(place.root)}  {item.why}"
        out.print(text, markup=False, highlight=False, soft_wrap=True)
    total = sum(item.bytes for item in found)
    if not yes and not typer.confirm(f"delete these {len(found)} folders ({total / 1e6:.1f} MB)?"):
        raise typer.Exit(1)
    freed = sum(item.bytes for item in remove(place, found))
    out.print(f"{freed / 1e6:.1f} MB freed", highlight=False)
