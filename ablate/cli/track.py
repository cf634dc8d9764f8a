"""The store's mirror in MLflow."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from ablate.cli.options import DEFAULT_STORE, StoreOption, complete_name
from ablate.console import out
from ablate.store import Store
from ablate.tracking.interface import ui_command

track_app = typer.Typer()

Uri = Annotated[
    str | None,
    typer.Option(
        envvar="MLFLOW_TRACKING_URI",
        help="Address of an MLflow server or database; default: the store's own database, cache/mlflow.db.",
    ),
]


Port = Annotated[int, typer.Option(min=1, max=65535, help="Port of the MLflow server.")]
Mirrored = Annotated[
    str | None,
    typer.Argument(help="Name of an experiment; without one, all are mirrored.", autocompletion=complete_name),
]


@track_app.command()
def track(
    name: Mirrored = None,
    store: StoreOption = DEFAULT_STORE,
    uri: Uri = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Delete the runs made earlier and make them anew.")
    ] = False,
) -> None:
    """Mirror an experiment into MLflow, or all of the store: a run for it, and one below it for every stage."""
    _mirror(Store(store), name, uri, rebuild)


@track_app.command()
def ui(store: StoreOption = DEFAULT_STORE, port: Port = 5000) -> None:
    """Mirror the store into its own database and serve MLflow's pages on it; Ctrl-C ends it."""
    place = Store(store).open()
    _mirror(place, None, None, False)
    out.print(f"http://127.0.0.1:{port} - the views are links above each experiment's runs", highlight=False)
    raise typer.Exit(serve(ui_command(place, port=port)))


def serve(command: Sequence[str]) -> int:
    """Run a server in a session of its own until it or this process is ended; returns its exit code, 0 after Ctrl-C."""
    server = subprocess.Popen(command, start_new_session=True)  # which it would answer with tracebacks

    def end(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _mirror(store: Store, name: str | None, uri: str | None, rebuild: bool) -> None:
    module = importlib.import_module("ablate.tracking.mirror")
    store.check()
    for experiment in [name] if name is not None else store.experiment_names():
        done = module.mirror(store, experiment, uri=uri, rebuild=rebuild)
        out.print(f"{experiment}: {done}", highlight=False, markup=False)
