"""Arguments and options that several commands have."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
import yaml

from ablate.catalogs.closed import Closed, validated
from ablate.catalogs.loading import YamlLoader
from ablate.context import Frozen, Resources, Sharding
from ablate.errors import Location, UsageError
from ablate.execution.record import Readers
from ablate.execution.slots import Machine
from ablate.execution.study import known_experiments
from ablate.results.layout import load_layout
from ablate.results.layout.claims import read_claims
from ablate.store import Store

Model = TypeVar("Model", bound=Closed)

DEFAULT_STORE = Path("store")

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

READERS = Readers(load_layout, read_claims)
"""What reads the layout and the claims of a specification when it is planned."""


def complete_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the experiments of the store that the command line names so far to a shell."""
    names = Store(ctx.params.get("store") or DEFAULT_STORE).experiment_names()
    return [name for name in names if name.startswith(incomplete)]


def complete_spec(incomplete: str) -> list[str]:
    """Offer the project's and the shipped experiments to a shell."""
    return [name for name in known_experiments() if name.startswith(incomplete)]


Spec = Annotated[
    str,
    typer.Argument(
        help="A specification file, or the name of a shipped experiment.",
        show_default=False,
        autocompletion=complete_spec,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Overrides, dotted.key=value, e.g. dpo.beta=0.05 data.max_examples=500.", show_default=False),
]
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


def written(option: str, text: str, form: type[Model], key: str) -> Model:
    """Return what an option's YAML in one line says, as the value of ``key`` of a ``form``."""
    try:
        value: Any = yaml.load(text, YamlLoader)
    except yaml.YAMLError as error:
        raise UsageError(f"{option} {text!r} is no YAML: {str(error).splitlines()[0]}") from error
    place = Location(file=option)
    return validated(form, {key: value}, lambda *path: place)


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
SharedBy = Annotated[
    Sharding | None, typer.Option("--sharding", help="How processes share a model; default: by its size and memory.")
]
FrozenModels = Annotated[Frozen, typer.Option("--frozen", help="Where PPO keeps its reference and reward model.")]


PROFILE_SAYS = {
    "--unsafe-code": "a cluster's profile says unsafe_code: true",
    "--processes": "a cluster's profile says needs.train.gpus: a process for each",
    "--micro-batch": "a cluster's profile says needs.train.micro_batch",
    "--sharding": "a cluster's profile says needs.train.sharding",
    "--rollout-server": "a cluster's profile says services: one without a model samples",
    "--gpus": "a cluster's profile says needs.train.gpus",
    "--threads": "a cluster's profile says needs.default.cpus",
    "--jobs": "a cluster's profile says limits.at_once",
}
"""Where a profile says what an option says of this machine."""


@dataclass(frozen=True)
class ThisMachine:
    """How a run uses this machine, as options that several commands have: see :func:`spread_out`."""

    jobs: Jobs = None
    threads: Threads = None
    gpus: Gpus = None
    processes: Processes = 1
    micro_batch: MicroBatch = None
    sharding: SharedBy = None
    frozen: FrozenModels = "device"
    rollout_server: RolloutServer = None
    unsafe_code: UnsafeCode = False

    @property
    def machine(self) -> Machine:
        """This machine, with how stages that train run there."""
        training = Resources(
            micro_batch=self.micro_batch,
            processes=self.processes,
            sharding=self.sharding,
            frozen=self.frozen,
            rollout_server=self.rollout_server,
            unsafe_code=self.unsafe_code,
        )
        return Machine.detect(self.jobs, self.threads, self.gpus, training)

    def refuse_any(self) -> None:
        """Raise UsageError where any of it is asked of a cluster."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) != field.default:
                option = f"--{field.name.replace('_', '-')}"
                raise UsageError(f"{option} is about this machine", hint=PROFILE_SAYS.get(option, "leave it out"))


AS_USUAL = ThisMachine()


def spread_out(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of :class:`ThisMachine` in place of its one parameter of that type."""
    hints, spread = get_type_hints(command, include_extras=True), get_type_hints(ThisMachine, include_extras=True)
    [name] = [name for name, kind in hints.items() if kind is ThisMachine]
    parameters: list[inspect.Parameter] = []
    for own in inspect.signature(command).parameters.values():
        if own.name == name:
            keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
            fields = dataclasses.fields(ThisMachine)
            parameters += [inspect.Parameter(f.name, keyword, default=f.default) for f in fields]
        else:
            parameters.append(own)

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        here = ThisMachine(**{option: given.pop(option) for option in spread})
        command(**given, **{name: here})

    kinds = spread | {other: kind for other, kind in hints.items() if other != name}
    with_options.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(annotation=kinds[parameter.name]) for parameter in parameters]
    )
    with_options.__annotations__ = kinds
    return with_options
