"""What a stage is given on a cluster: by its kind, its method and the size of its model, unless the profile says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablate.catalogs.models import ModelEntry
from ablate.context import Resources, Sharding
from ablate.errors import SpecError
from ablate.execution.slurm.profile import DEFAULT, NETWORK, SWEEP, LoadedProfile, Needs, Profile
from ablate.plan.judges import judges_asked
from ablate.plan.kinds import KINDS
from ablate.plan.size import model_sizes
from ablate.plan.stage import Stage


@dataclass(frozen=True)
class Size:
    """Defaults for models of up to so many parameters: GPUs of 80 GiB to train all weights, to compute; minutes."""

    parameters: float
    trains: int
    training_minutes: int
    computing_minutes: int


SIZES = (
    Size(0.2e9, 1, 4 * 60, 60),  # 125M
    Size(0.6e9, 1, 8 * 60, 2 * 60),  # 350M to 560M
    Size(2e9, 1, 12 * 60, 4 * 60),  # 1.5B
    Size(3.6e9, 1, 24 * 60, 6 * 60),  # 3B
    Size(8.5e9, 4, 24 * 60, 8 * 60),  # 7B and 8B: ZeRO-3
    Size(14e9, 8, 36 * 60, 12 * 60),  # 13B: ZeRO-3
    Size(35e9, 16, 48 * 60, 16 * 60),  # 34B: ZeRO-3 over two nodes
    Size(75e9, 32, 72 * 60, 24 * 60),  # 70B: ZeRO-3 over four nodes
)
"""float32 weights and moments, bfloat16 passes (catalogs/memory.py); how ranks share them follows from their number."""

LIGHT_MINUTES, LIGHT_MEMORY = 60, 4 * 1024
HEAVY_MINUTES, HEAVY_MEMORY, HEAVY_CPUS = 120, 16 * 1024, 4
WORKER_MEMORY = 1024
"""MiB that a worker takes beside its stages: for the search, and for the servers that stages are forked from."""
SMALL = 50e6
"""Parameters below which a model needs no GPU memory worth counting, nor much of the host's."""


@dataclass(frozen=True)
class Shape:
    """What a job of one stage asks for; a job of ``pack`` stages asks for as many times cores, memory and GPUs.

    Cores, memory, GPUs and ``processes`` are those of each of the ``nodes``.
    """

    kind: str
    minutes: int
    cpus: int
    memory: int
    gpus: int = 0
    pack: int = 1
    partitions: tuple[str, ...] = ()
    qos: str | None = None
    constraint: str | None = None
    micro_batch: int | None = None
    unsafe_code: bool = False
    hub: bool = False
    nodes: int = 1
    processes: int = 1
    sharding: Sharding | None = None
    services: tuple[str, ...] = ()

    def resources(self, position: int = 0) -> Resources:
        """Return what the stage at ``position`` of a job's stages computes with: its own part of the job's GPUs."""
        return Resources(
            threads=max(1, self.cpus // self.processes),
            gpus=tuple(range(position * self.gpus, (position + 1) * self.gpus)),
            micro_batch=self.micro_batch,
            processes=self.processes,
            unsafe_code=self.unsafe_code,
            sharding=self.sharding,
            nodes=self.nodes,
        )


def shapes_of(stages: Mapping[str, Stage], loaded: LoadedProfile, models: Mapping[str, ModelEntry]) -> dict[str, Shape]:
    """Return what each stage is given; raises SpecError for what the profile says no node has."""
    sizes = model_sizes(stages, models)
    made: dict[tuple[Any, ...], Shape] = {}
    shapes = {}
    for stage in stages.values():
        execution = stage.execution
        config = stage.identity.config.value if execution.trains else {}
        method = _method(stage)
        adapter = config.get("parameters", {}).get("lora_rank") is not None
        services = services_of(stage, loaded.profile)
        asked = (execution.heavy, execution.gpu, execution.trains, execution.ranks, execution.network, services)
        key = (stage.kind, method, sizes[stage.id], adapter, *asked)
        if key not in made:
            made[key] = _shape(stage, method, sizes[stage.id], adapter, services, loaded)
        shapes[stage.id] = made[key]
    return shapes


def worker_shape(
    stages: Mapping[str, Stage], loaded: LoadedProfile, models: Mapping[str, ModelEntry]
) -> tuple[Shape, str]:
    """Return what a worker is given that runs any of these stages, and the kind of stage whose needs it has.

    What the profile says of ``sweep`` comes first; ``pack`` is how many stages it runs at a time. Raises SpecError
    for what the profile says no node has, and for stages that can't run in one job on one node.
    """
    profile, own = loaded.profile, loaded.profile.needs.get(SWEEP, Needs())
    shapes = shapes_of(stages, loaded, models)
    _check_workers(stages, shapes, loaded)
    heaviest = max(stages.values(), key=lambda stage: (stage.execution.trains, _weight(shapes[stage.id])))
    base, of_all = shapes[heaviest.id], list(shapes.values())
    gpus = max(shape.gpus for shape in of_all) if own.gpus is None else own.gpus
    pack = own.pack or 1
    shape = replace(
        base,
        kind=SWEEP,
        minutes=profile.need("time", SWEEP, None) or profile.limits.time,
        cpus=own.cpus or max(shape.cpus for shape in of_all),
        memory=own.memory or max(shape.memory for shape in of_all) + -(-WORKER_MEMORY // pack),
        gpus=gpus,
        pack=pack,
        partitions=own.partitions or base.partitions,
        qos=own.qos or base.qos,
        constraint=own.constraint or base.constraint,
        micro_batch=own.micro_batch or base.micro_batch,
        hub=own.hub or any(shape.hub for shape in of_all),
        processes=gpus or own.processes or max(shape.processes for shape in of_all),
        sharding=own.sharding or base.sharding,
        services=tuple(dict.fromkeys(name for shape in of_all for name in shape.services)),
    )
    _check(shape, heaviest, (SWEEP, *_names(heaviest)), loaded)
    return shape, SWEEP if SWEEP in profile.needs else heaviest.kind


def _weight(shape: Shape) -> tuple[int, int, int]:
    return shape.gpus, shape.cpus, shape.memory


def _check_workers(stages: Mapping[str, Stage], shapes: Mapping[str, Shape], loaded: LoadedProfile) -> None:
    """Raise SpecError, at the line that asks for it, for a stage that a worker in one job on one node can't run."""
    here = on_login(stages, loaded)
    for stage in stages.values():
        shape, what = shapes[stage.id], f"{stage.kind} ({stage.execution.label})"
        if stage.id in here:
            raise SpecError(
                f"{what} is for the machine that submits, and a sweep's workers run on nodes",
                location=_place(loaded, "runs_on", _names(stage), ("needs", NETWORK, "runs_on")),
                hint="send the workers where there is a way out: needs.sweep.partitions; or leave --on out",
            )
        if shape.nodes > 1:
            raise SpecError(
                f"{what} takes {shape.nodes} nodes, and a sweep's worker has one",
                location=_place(loaded, "nodes", _names(stage), ("gpu", "per_node")),
            )
        if samplers := [name for name in shape.services if loaded.profile.services[name].model is None]:
            raise SpecError(
                f"{what} asks service {samplers[0]}, which has one policy, and a sweep's worker trains several",
                location=loaded.origins.locate("services", samplers[0]),
            )


def on_login(stages: Mapping[str, Stage], loaded: LoadedProfile) -> frozenset[str]:
    """Return the stages that the profile has run on the machine that submits."""
    return frozenset(
        stage.id
        for stage in stages.values()
        if _profile_of(stage, loaded).need("runs_on", stage.kind, _method(stage)) == "login"
    )


def _method(stage: Stage) -> str | None:
    return str(stage.identity.config.value["algorithm"]) if stage.kind == "train" else None


def _profile_of(stage: Stage, loaded: LoadedProfile) -> Profile:
    """Return the profile as it is for a stage: what asks services of its own job alone asks nothing outside."""
    asked = set(judges_asked(stage))
    is_served = bool(asked) and asked <= {service.model for service in loaded.profile.services.values()}
    return loaded.profile.for_network() if stage.execution.network and not is_served else loaded.profile


def services_of(stage: Stage, profile: Profile) -> tuple[str, ...]:
    """Return the services of a profile that a stage asks: those of its judges' models, and of its rollouts."""
    models: set[str | None] = set(judges_asked(stage))
    if stage.identity.config.value.get("parameters", {}).get("rollout_engine") == "vllm":
        models.add(None)
    return tuple(name for name, service in profile.services.items() if service.model in models)


def _shape(
    stage: Stage, method: str | None, parameters: float, adapter: bool, services: tuple[str, ...], loaded: LoadedProfile
) -> Shape:
    profile, kind = _profile_of(stage, loaded), stage.kind
    trains, ranks = stage.execution.trains, stage.execution.ranks
    size = next((size for size in SIZES if parameters <= size.parameters), SIZES[-1])
    nodes, gpus = _devices(stage, method, _gpus(stage, parameters, adapter, size, profile), profile)
    cpus, memory = _host(stage.execution.heavy, parameters, gpus, profile)
    minutes = size.training_minutes if trains else size.computing_minutes
    if not stage.execution.heavy:
        minutes = LIGHT_MINUTES
    elif not stage.execution.gpu:
        minutes = HEAVY_MINUTES
    minutes = min(minutes, profile.limits.time)
    shape = Shape(
        f"{kind}.{method}" if method and f"{kind}.{method}" in profile.needs else kind,
        _written(profile, "time", kind, method, minutes),
        _written(profile, "cpus", kind, method, cpus),
        _written(profile, "memory", kind, method, memory),
        gpus,
        _written(profile, "pack", kind, method, 1),
        _written(profile, "partitions", kind, method, ()),
        _written(profile, "qos", kind, method, None),
        _written(profile, "constraint", kind, method, None),
        profile.need("micro_batch", kind, method) if trains else None,
        profile.unsafe_code,
        _written(profile, "hub", kind, method, False),
        nodes,
        (gpus or _written(profile, "processes", kind, method, 1)) if ranks else 1,
        profile.need("sharding", kind, method) if ranks else None,
        services,
    )
    _check(shape, stage, _names(stage), loaded)
    return shape


def _written(profile: Profile, key: str, kind: str, method: str | None, default: Any) -> Any:
    value = profile.need(key, kind, method)
    return default if value is None else value


def _gpus(stage: Stage, parameters: float, adapter: bool, size: Size, profile: Profile) -> int:
    """Return the GPUs of a stage: those its model needs, scaled to the memory that a GPU has here."""
    if profile.gpu is None or not (stage.execution.heavy and stage.execution.gpu):
        return 0
    if not stage.execution.ranks or adapter or parameters < SMALL:
        return 1
    needed = size.trains * 80 / profile.gpu.memory
    return next((count for count in (1, 2, 4, 8, 16, 32, 64) if count >= needed), 64)


def _devices(stage: Stage, method: str | None, needed: int, profile: Profile) -> tuple[int, int]:
    """Return nodes, and GPUs of each: as few nodes as hold what is ``needed``, unless the profile says it."""
    most = profile.gpu.per_node if profile.gpu else 0
    can_spread = stage.execution.ranks
    nodes = -(-needed // most) if can_spread and most else 1
    if can_spread:
        nodes = _written(profile, "nodes", stage.kind, method, nodes)
    return nodes, _written(profile, "gpus", stage.kind, method, min(-(-needed // nodes), most))


def least_host(kind: str, profile: Profile) -> tuple[int, int]:
    """Return cores and MiB of memory that stages of a kind have unless it is written: a small model's, on one GPU."""
    facts = KINDS[kind]
    return _host(facts.heavy, 0, int(profile.gpu is not None and facts.heavy and facts.gpu), profile)


def _host(heavy: bool, parameters: float, gpus: int, profile: Profile) -> tuple[int, int]:
    """Return cores and MiB of memory."""
    if not heavy:
        return 1, LIGHT_MEMORY
    if gpus and profile.gpu:
        return gpus * profile.gpu.cpus, gpus * profile.gpu.ram
    loaded = int(parameters * 8 / 2**20)  # the weights twice over while they are read
    return HEAVY_CPUS, HEAVY_MEMORY + loaded


def _check(shape: Shape, stage: Stage, names: Sequence[str], loaded: LoadedProfile) -> None:
    """Raise SpecError where a stage asks for more than a node or the site has, at the line of ``needs`` that asks."""
    profile, kind = loaded.profile, shape.kind.partition(".")[0]
    most = profile.gpu.per_node if profile.gpu else 0
    served = sum(profile.services[name].gpus for name in shape.services)
    if (gpus := shape.gpus * shape.pack + served) > most:
        what = f"{shape.pack} packed stages of {kind}" if shape.pack > 1 else kind
        what += f" with {', '.join(shape.services)}" if served else ""
        raise SpecError(
            f"{what} ({stage.execution.label}) take {gpus} GPUs, and a node has {most}",
            location=_place(loaded, "pack" if shape.pack > 1 else "gpus", names, ("gpu", "per_node")),
            hint="gpus are those of one node: write fewer, and nodes for what trains on several",
        )
    if shape.nodes > 1 and profile.container:
        raise SpecError(
            f"{kind} ({stage.execution.label}) takes {shape.nodes} nodes: no srun in a container",
            location=loaded.origins.locate("container"),
            hint="bring Python's environment in with setup, or ask for GPUs of one node (needs)",
        )
    if shape.nodes > 1 and shape.pack > 1:
        raise SpecError(
            f"{shape.pack} packed stages of {kind} can't share {shape.nodes} nodes: each takes all of them",
            location=_place(loaded, "pack", names, ("gpu", "per_node")),
        )
    samplers = [name for name in shape.services if profile.services[name].model is None]
    if samplers and shape.pack > 1:
        raise SpecError(
            f"{shape.pack} packed stages of {kind} can't share service {samplers[0]}, which has one policy",
            location=_place(loaded, "pack", names, ("services", samplers[0])),
        )
    if shape.minutes > profile.limits.time:
        raise SpecError(
            f"{kind} asks for {shape.minutes} minutes, and limits.time is {profile.limits.time}",
            location=_place(loaded, "time", names, ("limits", "time")),
            hint="a stage that trains goes on from its checkpoint: the limit may be shorter than the training",
        )


def _names(stage: Stage) -> tuple[str, ...]:
    """Return the keys of ``needs`` that a stage's resources may stand under, the most particular first."""
    method = _method(stage)
    return (*([f"{stage.kind}.{method}"] if method else []), stage.kind, DEFAULT)


def _place(loaded: LoadedProfile, key: str, names: Sequence[str], other: tuple[str, ...]) -> Any:
    for name in names:
        if name in loaded.profile.needs and getattr(loaded.profile.needs[name], key) is not None:
            return loaded.origins.locate("needs", name, key)
    return loaded.origins.locate(*other)
