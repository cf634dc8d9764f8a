"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ablate.context import Frozen
from ablate.execution import study
from ablate.store import Store

DEFAULT_STORE = Path("store")


def complete_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the experiments of the store that the command line names so far to a shell."""
    names = Store(ctx.params.get("store") or DEFAULT_STORE).experiment_names()
    return [name for name in names if name.startswith(incomplete)]


Name = Annotated[
    str,
    typer.Argument(
        help="Name of an experiment of the store, see `ablate status`.",
        show_default=False,
        autocompletion=complete_name,
    ),
]
AnyName = Annotated[
    str | None,
    typer.Argument(help="Name of an experiment; without one, all are listed.", autocompletion=complete_name),
]
StoreOption = Annotated[Path, typer.Option("--store", envvar="ABLATE_STORE", help="Folder of results.")]


def _complete_spec(incomplete: str) -> list[str]:
    """Offer the project's and the shipped experiments to a shell."""
    return [name for name in study.known_experiments() if name.startswith(incomplete)]


Spec = Annotated[
    str,
    typer.Argument(
        help="A specification file, or the name of a shipped experiment.",
        show_default=False,
        autocompletion=_complete_spec,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Overrides, dotted.key=value, e.g. dpo.beta=0.05 data.max_examples=500.", show_default=False),
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, help="Stages at a time; default: one per core (at most 8) or per GPU."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of each stage; default: cores / jobs.")]
Gpus = Annotated[int | None, typer.Option(min=0, help="GPUs to use; default: all.")]
Processes = Annotated[int, typer.Option(min=1, help="Processes that train one model together, a GPU each.")]
MicroBatch = Annotated[
    int | None, typer.Option(min=1, help="Most examples of a training pass; default: by size, halved without room.")
]
RolloutServer = Annotated[
    str | None, typer.Option(help="Address of a vLLM server, for methods with rollout_engine: vllm.")
]
UnsafeCode = Annotated[bool, typer.Option("--unsafe-code", help="Run generated programs without a sandbox.")]
FrozenModels = Annotated[Frozen, typer.Option("--frozen", help="Where PPO keeps its reference and reward model.")]
