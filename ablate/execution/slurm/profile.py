"""The profile of a cluster, as it is written in slurm/*.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from ablate.algorithms.registry import METHODS
from ablate.catalogs.closed import Closed, Names, unknown_name, validated
from ablate.catalogs.loading import read_yaml
from ablate.catalogs.origins import Origins
from ablate.context import Sharding
from ablate.errors import SpecError, UnknownNameError
from ablate.plan.kinds import KINDS
from ablate.shipped import find_by_name, search_folders

DEFAULT, NETWORK, SWEEP = "default", "network", "sweep"
"""Keys of needs that are of no kind: for all stages, for those that ask servers outside, for workers of a sweep."""
TEMPLATE = "stage.sbatch.j2"
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>\d\d)(?::(?P<seconds>\d\d))?")
_MEMORY = re.compile(r"(?P<number>\d+)(?P<unit>[MGT])")
_UNITS = {"M": 1, "G": 1024, "T": 1024 * 1024}


def _minutes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = _TIME.fullmatch(value)
    if found is None:
        raise PydanticCustomError("time", "a time is minutes, 'hours:minutes' or 'days-hours:minutes'")
    part = {name: int(text or 0) for name, text in found.groupdict().items()}
    return part["days"] * 1440 + part["hours"] * 60 + part["minutes"] + (part["seconds"] > 0)


def _mebibytes(value: Any) -> Any:
    found = _MEMORY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise PydanticCustomError("memory", "an amount of memory is a number with a unit: 800M, 16G or 1T")
    return int(found["number"]) * _UNITS[found["unit"]]


Minutes = Annotated[int, BeforeValidator(_minutes), Field(gt=0)]
Memory = Annotated[int, BeforeValidator(_mebibytes), Field(gt=0)]


class Gpus(Closed):
    """The GPUs of a node."""

    per_node: int = Field(gt=0, description="GPUs of a node.")
    memory: int = Field(80, gt=0, description="Memory of one, GiB.")
    name: str | None = Field(None, pattern=r"^[\w.-]+$", description="Type as gres knows it: --gres=gpu:NAME:n.")
    cpus: int = Field(8, gt=0, description="Cores that come with one.")
    ram: Memory = Field(60 * 1024, description="Memory of the host that comes with one: 60G.")


class Needs(Closed):
    """What a kind of stage is given; what is not written follows from the kind and the size of its model."""

    time: Minutes | None = Field(None, description="Time limit: minutes, 'hours:minutes' or 'days-hours:minutes'.")
    nodes: int | None = Field(None, ge=1, description="Nodes, for what trains; the other resources are those of each.")
    gpus: int | None = Field(None, ge=0, description="GPUs of a node.")
    processes: int | None = Field(None, ge=1, description="Processes of a node that train; with GPUs: one a GPU.")
    sharding: Sharding | None = Field(None, description="How they share a model: ddp, zero2, zero3; default: by size.")
    cpus: int | None = Field(None, gt=0, description="Cores.")
    memory: Memory | None = Field(None, description="Memory of the host: 16G.")
    partitions: Names | None = Field(None, description="Instead of the profile's.")
    qos: str | None = Field(None, description="Instead of the profile's.")
    constraint: str | None = Field(None, description="Instead of the profile's.")
    pack: int | None = Field(None, ge=1, description="Stages at the same time in one job; resources are those of each.")
    micro_batch: int | None = Field(None, ge=1, description="Most examples of a training pass.")
    runs_on: Literal["nodes", "login"] | None = Field(
        None, description="login: on the machine that submits, when it does; default: nodes."
    )
    hub: bool | None = Field(None, description="Whether jobs may ask the hub: on partitions with a way out.")

    def over(self, others: Needs) -> Needs:
        """Return what is written here, and what others say of the rest."""
        own = {key: value for key in type(self).model_fields if (value := getattr(self, key)) is not None}
        return others.model_copy(update=own)


class Service(Closed):
    """A server behind an OpenAI-compatible API, which a job starts beside the stages that ask it."""

    model: str | None = Field(
        None,
        min_length=1,
        description="The judge it answers for, as experiments call its model; null: it samples for the policy that a "
        "stage trains with rollout_engine: vllm.",
    )
    command: str = Field(
        "vllm serve {model} --port {port}",
        description="What starts it; {model} is the judge's model or the folder of the policy, {port} a free port.",
    )
    setup: str = Field("", description="Shell lines before it: an environment of its own.")
    container: str = Field("", description="Words before it: apptainer exec --nv --bind /data vllm.sif.")
    health: str = Field("/health", pattern=r"^/", description="Path that gives status 200 when it is ready.")
    start: Minutes = Field(15, description="How long it may take until then.")
    gpus: int = Field(1, ge=0, description="GPUs that it gets, beside those of the stages.")
    cpus: int = Field(4, gt=0, description="Cores.")
    memory: Memory = Field(32 * 1024, description="Memory of the host: 32G.")

    @field_validator("command")
    @classmethod
    def _has_a_port(cls, value: str) -> str:
        if "{port}" not in value:
            raise PydanticCustomError("port", "the command of a service says where {port} goes")
        return value


class Limits(Closed):
    """What a site allows, and what one run asks of it."""

    time: Minutes = Field(24 * 60, description="Longest time limit of the partitions.")
    array: int = Field(1000, gt=0, description="Elements of an array: MaxArraySize, or less.")
    submit: int = Field(5000, gt=0, description="Jobs of a user in the queue, array elements counted.")
    calls: int = Field(40, gt=0, description="sbatch calls of a run: arrays are split no further than this allows.")
    gpu_hours: float | None = Field(
        None, gt=0, description="Most GPU hours that one run may ask for, by the time limits of what it submits."
    )
    alike: int = Field(10, gt=1, description="Failures in a row for one reason that end an array: no more is begun.")
    at_once: int | None = Field(None, gt=0, description="Elements of an array that run at the same time.")


class Retries(Closed):
    """How often a stage is begun again, by what stopped it."""

    preemption: int = Field(50, ge=0, description="Preempted, or asked to stop with a signal.")
    timeout: int = Field(10, ge=0, description="Out of time; training goes on from its checkpoint.")
    time_factor: float = Field(
        1, ge=1, description="What multiplies the time limit of a stage that ran out of it, up to limits.time."
    )
    failure: int = Field(0, ge=0, description="The work failed.")
    node: int = Field(3, ge=0, description="Gone without a word: the node failed, or the job was killed.")


def _misspelt(method: str) -> PydanticCustomError | None:
    """Return what is wrong with the name of a method; one like no other may be a researcher's, of another study."""
    if method in METHODS or not get_close_matches(method, METHODS, n=1):
        return None
    return unknown_name("method", method, METHODS)


class JobOptions(Closed):
    """Options of sbatch that all jobs have."""

    partitions: Names = Field((), description="Partitions; of several SLURM takes the one that starts first.")
    account: str | None = Field(None, description="Account that is charged.")
    qos: str | None = Field(None, description="Quality of service.")
    constraint: str | None = Field(None, description="Features a node must have.")
    reservation: str | None = Field(None, description="Reservation to run in.")
    exclude: Names = Field((), description="Nodes that are never used.")
    flags: Names = Field((), description="Further options of sbatch, each as --name=value.")

    @field_validator("flags")
    @classmethod
    def _options(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for flag in value:
            if not re.fullmatch(r"--[a-z-]+(=\S+)?", flag):
                raise PydanticCustomError(
                    "flag", "not an option of sbatch: {flag} (write --name=value)", {"flag": flag}
                )
        return value


class Profile(JobOptions):
    """A cluster: where stages run there, what they are given, and what the site allows."""

    template: str = Field(TEMPLATE, description="Batch script, beside this file or in slurm/.")
    python: str | None = Field(None, description="Python on the nodes; default: the one that submits.")
    environment: dict[str, str] = Field(default_factory=dict, description="Variables that every job is given.")
    setup: str = Field("", description="Shell lines before Python starts: modules, a virtual environment.")
    container: str = Field("", description="Words before Python: apptainer exec --nv image.sif.")
    shared: Names = Field((), description="Folders that nodes see, too, though on a disk of the machine that submits.")
    scratch: str | None = Field(
        None,
        pattern=r"^[/$][\w/.${}:-]*$",
        description="Folder on a node's own disk for temporary files, with the node's variables: /scratch/$USER.",
    )
    gpu: Gpus | None = Field(None, description="GPUs of a node; null: a cluster without.")
    unsafe_code: bool = Field(False, description="Run generated programs without a sandbox: nodes without bubblewrap.")
    limits: Limits = Limits()
    retries: Retries = Retries()
    services: dict[str, Service] = Field(default_factory=dict, description="Servers that stages ask, by name.")
    signal: int = Field(120, ge=10, description="Seconds before the time limit at which a job is told.")
    requeue: bool = Field(True, description="Whether jobs may be requeued, by themselves and by SLURM.")
    needs: dict[str, Needs] = Field(
        default_factory=dict,
        description="By kind of stage, train.METHOD for one method, network for what asks servers outside, sweep for "
        "workers of a sweep, default for all.",
    )

    @field_validator("environment")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not re.fullmatch(r"[A-Za-z_]\w*", name) or "\n" in text:
                raise PydanticCustomError("variable", "{name} is no variable of one line", {"name": name})
        return value

    @field_validator("needs")
    @classmethod
    def _kinds(cls, value: dict[str, Needs]) -> dict[str, Needs]:
        for key in value:
            kind, dot, method = key.partition(".")
            if dot and kind == "train":
                wrong = _misspelt(method)
            else:
                known = (DEFAULT, NETWORK, SWEEP, *KINDS)
                wrong = None if key in known else unknown_name("kind of stage", key, known)
            if wrong is not None:  # at the key's own line
                raise ValidationError.from_exception_data("needs", [{"type": wrong, "loc": (key,), "input": key}])
        return value

    def for_network(self) -> Profile:
        """Return the profile of stages that ask servers outside: where no kind is named, ``network`` is the default."""
        if NETWORK not in self.needs:
            return self
        merged = self.needs[NETWORK].over(self.needs.get(DEFAULT, Needs()))
        return self.model_copy(update={"needs": {**self.needs, DEFAULT: merged}})

    def need(self, key: str, kind: str, method: str | None) -> Any:
        """Return what is written for a kind of stage: its method's, else the kind's, else the default's; or None."""
        names = ([f"{kind}.{method}"] if method else []) + [kind, DEFAULT]
        written = (getattr(self.needs[name], key) for name in names if name in self.needs)
        return next((value for value in written if value is not None), None)


@dataclass(frozen=True)
class LoadedProfile:
    """A profile, its file, where its keys are written, and the text of its batch script."""

    profile: Profile
    file: Path
    origins: Origins
    template: str

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.file.stem


def load_profile(name: str) -> LoadedProfile:
    """Read a profile: a file, or a name in the project's or the shipped slurm/.

    Raises SpecError with file, line and key, UnknownNameError with the profiles there are.
    """
    path = _find(name)
    values, origins = read_yaml(path)
    if values is not None and not isinstance(values, Mapping):
        raise SpecError("a profile is a mapping of keys", location=origins.locate())
    profile = validated(Profile, values or {}, origins.locate)
    return LoadedProfile(profile, path.absolute(), origins, _template(profile, path, origins))


def _find(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    found = find_by_name("slurm", path.with_suffix(".yaml").name, Path.cwd())
    if found is None or path.suffix not in ("", ".yaml"):
        known = sorted({file.stem for folder in search_folders("slurm", Path.cwd()) for file in folder.glob("*.yaml")})
        raise UnknownNameError("cluster profile", name, known)
    return found


def _template(profile: Profile, path: Path, origins: Origins) -> str:
    beside = path.parent / profile.template
    found = beside if beside.is_file() else find_by_name("slurm", Path(profile.template).name, Path.cwd())
    if found is None:
        raise SpecError(f"no batch script {profile.template}", location=origins.locate("template"))
    return found.read_text(encoding="utf-8")
