"""The record of an experiment for others: a bundle and its check, a model with its card."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from ablate.cli.options import DEFAULT_STORE, Name, StoreOption
from ablate.console import out
from ablate.store import Store

record_app = typer.Typer()

MISSING_SHOWN = 12


@record_app.command()
def bundle(
    name: Name,
    store: StoreOption = DEFAULT_STORE,
    layout: Annotated[Path | None, typer.Option(help="Layout of the tables; default: the experiment's.")] = None,
    to: Annotated[Path | None, typer.Option("--out", help="The zip; default: out/NAME.bundle.zip.")] = None,
) -> None:
    """Write a zip with what is needed to check an experiment's tables: no weights, no responses, no secrets."""
    module = importlib.import_module("ablate.results.bundle.write")
    target = to or Path("out") / f"{name}.bundle.zip"
    written = module.write_bundle(Store(store), name, layout, target)
    if written.missing:
        out.print(f"{len(written.missing)} stages are not done; the bundle says so", highlight=False)
    out.print(f"written to {target}: {written.files} files, sha256 {written.sha256}", highlight=False, soft_wrap=True)


@record_app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="A zip that `ablate bundle` wrote.", show_default=False)],
) -> None:
    """Check a bundle: its files are as they were written, and its tables follow from its results."""
    found = importlib.import_module("ablate.results.bundle.verify").verify_bundle(bundle)
    for line in found.findings:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    if found.not_done:
        shown = ", ".join(found.not_done[:MISSING_SHOWN]) + (", …" if len(found.not_done) > MISSING_SHOWN else "")
        out.print(f"{len(found.not_done)} stages were not done when it was written: {shown}", highlight=False)
    if found.findings:
        out.print(f"{bundle} of {found.experiment}: {len(found.findings)} findings", highlight=False)
        raise typer.Exit(1)
    out.print(
        f"{bundle} of {found.experiment}: {found.files} files are as they were written, "
        f"{found.tables} tables follow from the results",
        highlight=False,
        soft_wrap=True,
    )


@record_app.command()
def export(
    cell: Annotated[
        str, typer.Argument(help="A cell, baseline or reward model: its stage's id, its label, or words of it.")
    ],
    folder: Annotated[Path, typer.Argument(help="New folder of the model.")],
    store: StoreOption = DEFAULT_STORE,
    experiment: Annotated[str | None, typer.Option(help="Look in this experiment alone.")] = None,
) -> None:
    """Write a policy or reward model as an ordinary Hugging Face folder with a model card made from the record."""
    module = importlib.import_module("ablate.results.model_export")
    out.print(f"written to {module.export_model(Store(store), cell, folder, experiment)}/", highlight=False)
