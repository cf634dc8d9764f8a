"""The batch script of a job array: a pure function of the array, the profile and the template."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2

from ablate.errors import Location, SpecError
from ablate.execution.slurm.arrays import Array, spelled_indices, spelled_needs
from ablate.execution.slurm.profile import Profile
from ablate.execution.slurm.shapes import Shape


@dataclass(frozen=True)
class Paths:
    """Where a job finds what it runs: its array's folder, a snapshot of the code, Python."""

    record: Path
    code: Path
    python: str


def render(
    template: str, array: Array, name: str, jobs: Mapping[str, str], profile: Profile, paths: Paths, file: str
) -> str:
    """Return the batch script; ``jobs`` maps keys of arrays to job ids, ``file`` is the template's name for errors.

    Raises SpecError for a template that is no Jinja or asks for what there is not.
    """
    values = {
        "name": name,
        "array": array,
        "indices": spelled_indices(array.elements),
        "dependency": spelled_needs(array.needs, jobs),
        "options": options(array.shape, profile),
        "profile": profile,
        "paths": paths,
    }
    try:
        return _compiled(template).render(values)
    except jinja2.TemplateSyntaxError as error:
        raise SpecError(f"no valid Jinja: {error.message}", location=Location(file, error.lineno)) from error
    except jinja2.UndefinedError as error:
        raise SpecError(f"the template asks for what there is not: {error.message}", location=Location(file)) from error


@functools.lru_cache(maxsize=4)
def _compiled(template: str) -> jinja2.Template:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["quote"] = shlex.quote
    return environment.from_string(template)


def gpus_of_node(shape: Shape, profile: Profile) -> int:
    """Return the GPUs that a job asks for on each of its nodes: those of its stages, and of the services they ask."""
    return shape.gpus * shape.pack + sum(profile.services[name].gpus for name in shape.services)


def options(shape: Shape, profile: Profile) -> list[str]:
    """Return the options of sbatch that follow from resources and profile."""
    served = [profile.services[name] for name in shape.services]
    gpus = gpus_of_node(shape, profile)
    cpus = shape.cpus * shape.pack + sum(service.cpus for service in served)
    memory = shape.memory * shape.pack + sum(service.memory for service in served)
    kind = f"{profile.gpu.name}:" if profile.gpu and profile.gpu.name else ""
    written = {
        "partition": ",".join(shape.partitions or profile.partitions),
        "account": profile.account,
        "qos": shape.qos or profile.qos,
        "constraint": shape.constraint or profile.constraint,
        "reservation": profile.reservation,
        "exclude": ",".join(profile.exclude),
        "nodes": str(shape.nodes),
        "ntasks": str(shape.nodes),
        "cpus-per-task": str(cpus),
        "mem": f"{memory}M",
        "gres": f"gpu:{kind}{gpus}" if gpus else None,
        "time": str(shape.minutes),
        "signal": f"B:USR1@{profile.signal}",
    }
    requeue = "--requeue" if profile.requeue else "--no-requeue"
    return [*(f"--{option}={value}" for option, value in written.items() if value), requeue, *profile.flags]
