"""Does a profile fit its cluster? What SLURM says of partitions and limits, and what a small job sees on a node."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.context import write_text
from ablate.execution.environment import snapshot_package
from ablate.execution.slurm import commands
from ablate.execution.slurm.commands import SlurmError
from ablate.execution.slurm.jobs import minutes_of
from ablate.execution.slurm.profile import LoadedProfile, Profile
from ablate.execution.slurm.shapes import least_host
from ablate.plan.kinds import KINDS
from ablate.store import Store

WAIT_SECONDS = 180.0
"""How long the small job may take to start and end."""
LOOK = """\
import json, os, shutil, sys, tempfile
seen = {"python": sys.version.split()[0], "host": os.uname().nodename, "cores": len(os.sched_getaffinity(0))}
seen["gpus"] = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
if scratch := os.environ.get("ABLATE_SCRATCH"):
    try:
        os.makedirs(scratch, exist_ok=True)
        tempfile.TemporaryFile(dir=scratch).close()
        seen["scratch"] = f"{scratch} with {shutil.disk_usage(scratch).free / 1e9:.1f} GB free"
    except OSError as error:
        seen["no scratch"] = f"{scratch}: {error.strerror}"
try:
    import ablate.execution.slurm.element
except ImportError as error:
    seen["missing"] = str(error)
print(json.dumps(seen))
"""


@dataclass(frozen=True)
class Finding:
    """What was looked at, and whether it is well; otherwise the text says what to change."""

    well: bool
    text: str


def examine(loaded: LoadedProfile, store: Store, *, on_node: bool = True) -> list[Finding]:
    """Check a profile against the cluster it is for; with ``on_node`` a small job looks around there."""
    commands.require_slurm()
    try:
        findings = [*_partitions(loaded), *_limits(loaded.profile), *_account(loaded.profile)]
        if on_node and all(finding.well for finding in findings):
            findings += _node(loaded, store)
    except SlurmError as error:
        return [Finding(False, error.message)]
    return findings


def _partitions(loaded: LoadedProfile) -> Iterator[Finding]:
    profile = loaded.profile
    rows = [line.split("|") for line in commands.call(["sinfo", "-h", "-e", "-o", "%P|%l|%G|%m|%c|%a"]).splitlines()]
    known: dict[str, list[list[str]]] = {}
    for row in rows:
        known.setdefault(row[0].rstrip("*"), []).append(row)
    asked = {*profile.partitions, *(name for needs in profile.needs.values() for name in needs.partitions or ())}
    default = [row[0].rstrip("*") for row in rows if row[0].endswith("*")]
    if not profile.partitions and not default:
        yield Finding(False, "partitions: none is written and the cluster has no default")
    usual = set(profile.partitions or default)
    for name in sorted(asked | usual):
        if name not in known:
            yield Finding(False, f"partitions: the cluster has no {name!r}; it has {', '.join(sorted(known))}")
            continue
        yield from _partition(name, known[name], profile, usual)


def _partition(name: str, rows: list[list[str]], profile: Profile, usual: set[str]) -> Iterator[Finding]:
    """Compare a partition with what is to run there: of ``needs`` those alone that are sent to it."""
    longest = max(minutes_of(row[1]) for row in rows)
    if longest < profile.limits.time:
        yield Finding(False, f"limits.time: partition {name} allows {longest} minutes, not {profile.limits.time}")
    if all(row[5] != "up" for row in rows):
        yield Finding(False, f"partitions: {name} is not up")
    gpus = max(_gpus(row[2]) for row in rows)
    if profile.gpu and name in usual and gpus < profile.gpu.per_node:
        yield Finding(False, f"gpu.per_node: a node of {name} has {gpus} GPUs, not {profile.gpu.per_node}")
    cpus, memory = (max(int(re.sub(r"\D", "", row[column]) or 0) for row in rows) for column in (4, 3))
    sent = {key: needs for key, needs in profile.needs.items() if name in (needs.partitions or usual)}
    for key, needs in sent.items():
        if (needs.gpus or 0) * (needs.pack or 1) > gpus:
            yield Finding(False, f"needs.{key}.gpus: a node of {name} has {gpus} GPUs")
        if (needs.cpus or 0) * (needs.pack or 1) > cpus:
            yield Finding(False, f"needs.{key}.cpus: a node of {name} has {cpus} cores")
        if (needs.memory or 0) * (needs.pack or 1) > memory:
            yield Finding(False, f"needs.{key}.memory: a node of {name} has {memory} MiB")
    yield from _unwritten(name, cpus, memory, profile, usual)
    yield Finding(True, f"partition {name}: nodes of up to {cpus} cores, {memory} MiB, {gpus} GPUs")


def _unwritten(name: str, cpus: int, memory: int, profile: Profile, usual: set[str]) -> Iterator[Finding]:
    """Compare a node of a partition with what kinds of stages have there because the profile doesn't say it."""
    found: dict[str, list[str]] = {}
    for kind, facts in KINDS.items():
        own = profile.for_network() if facts.network else profile
        if own.need("runs_on", kind, None) == "login" or name not in (own.need("partitions", kind, None) or usual):
            continue
        place = ("gpu.cpus", "gpu.ram") if profile.gpu and facts.gpu else ("needs.default.cpus", "needs.default.memory")
        pack = own.need("pack", kind, None) or 1
        one = least_host(kind, own)
        if own.need("cpus", kind, None) is None and one[0] * pack > cpus:
            found.setdefault(f"{place[0]}: a node of {name} has {cpus} cores, not {one[0] * pack}", []).append(kind)
        if own.need("memory", kind, None) is None and one[1] * pack > memory:
            found.setdefault(f"{place[1]}: a node of {name} has {memory} MiB, not {one[1] * pack}", []).append(kind)
    for text, kinds in found.items():
        more = f" and {len(kinds) - 3} more kinds" if len(kinds) > 3 else ""
        yield Finding(False, f"{text}, which {', '.join(kinds[:3])}{more} have where it is not written")


def _gpus(gres: str) -> int:
    return sum(int(number) for number in re.findall(r"gpu(?::[^:,()]+)?:(\d+)", gres))


def _limits(profile: Profile) -> Iterator[Finding]:
    printed = commands.call(["scontrol", "show", "config"])
    config = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", printed, re.M))
    indices = int(config.get("MaxArraySize", "1001"))
    if profile.limits.array > indices:
        yield Finding(False, f"limits.array: {profile.limits.array} is too much, MaxArraySize is {indices}")
    else:
        yield Finding(True, f"arrays of {profile.limits.array} elements (MaxArraySize {indices})")
    jobs = int(config.get("MaxJobCount", "10000"))
    if profile.limits.submit > jobs:
        yield Finding(False, f"limits.submit: {profile.limits.submit} is too much, MaxJobCount is {jobs}")
    if config.get("JobRequeue") == "0" and profile.requeue:
        yield Finding(True, "the site does not requeue by itself (JobRequeue=0): jobs ask for it")
    if re.search("none|null", config.get("AccountingStorageType", "none")):
        age = config.get("MinJobAge", "300 sec")
        yield Finding(True, f"no accounting: how a job ended is known for {age} only; what a stage did is in the store")


def _account(profile: Profile) -> Iterator[Finding]:
    """Compare account and QOS with the user's associations, where the site keeps any."""
    if shutil.which("sacctmgr") is None or not (profile.account or profile.qos):
        return
    command = ["sacctmgr", "-n", "-P", "show", "assoc", f"user={os.environ.get('USER', '')}", "format=account,qos"]
    try:
        rows = [line.split("|") for line in commands.call(command, retry=False).splitlines() if line]
    except SlurmError:
        return
    accounts = {row[0] for row in rows}
    if profile.account and accounts and profile.account not in accounts:
        yield Finding(False, f"account: {profile.account!r} is none of yours: {', '.join(sorted(accounts))}")


def _node(loaded: LoadedProfile, store: Store) -> Iterator[Finding]:
    """Run a small job that looks around, and read what it left: that it can be read says the store is shared."""
    store.open()
    folder = store.slurm / f".doctor-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    try:
        write_text(folder / "look.py", LOOK)
        write_text(folder / "look.sbatch", _script(loaded.profile, folder, snapshot_package(store)))
        job = commands.submit(["sbatch", "--parsable", str(folder / "look.sbatch")])
        seen = _wait(folder, job)
        if seen is None:
            commands.call(["scancel", job])
            yield Finding(False, f"job {job} left nothing in {folder} within {WAIT_SECONDS:.0f} s: {_state(job)}")
            return
        yield from _seen(seen, loaded.profile, store)
    except commands.Refused as error:
        yield Finding(False, f"SLURM refuses a small job: {error.message}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _script(profile: Profile, folder: Path, code: Path) -> str:
    lines = ["#!/bin/bash", "#SBATCH --job-name=ablate-doctor", f"#SBATCH --output={folder}/out", "#SBATCH --time=5"]
    written = {"partition": ",".join(profile.partitions), "account": profile.account, "qos": profile.qos}
    written |= {"constraint": profile.constraint, "reservation": profile.reservation}
    written["gres"] = f"gpu:{profile.gpu.name + ':' if profile.gpu.name else ''}1" if profile.gpu else None
    lines += [f"#SBATCH --{name}={value}" for name, value in written.items() if value]
    lines += [f"#SBATCH {flag}" for flag in profile.flags]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in profile.environment.items()]
    lines += [f'export ABLATE_SCRATCH="{profile.scratch}"'] if profile.scratch else []
    lines += [profile.setup.rstrip(), f'export PYTHONPATH={shlex.quote(str(code))}"${{PYTHONPATH:+:$PYTHONPATH}}"']
    python = f"{profile.container} {shlex.quote(profile.python or sys.executable)} -P".strip()
    lines += [f"cd {shlex.quote(str(folder))}", f"{python} look.py > seen.tmp 2> error; mv seen.tmp seen.json"]
    return "\n".join(lines) + "\n"


def _wait(folder: Path, job: str) -> dict[str, Any] | None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if (folder / "seen.json").exists():
            error = (folder / "error").read_text(encoding="utf-8") if (folder / "error").exists() else ""
            return _read((folder / "seen.json").read_text(encoding="utf-8"), error)
        time.sleep(0.5)
        os.listdir(folder)  # a network file system looks again
    return None


def _read(text: str, error: str) -> dict[str, Any]:
    """Return what the small job saw, as its last line says; ``printed`` is what came with it or in its place."""
    if not text:
        return {"error": error[-300:].strip()}
    *before, last = text.strip().splitlines() or [""]
    try:
        seen = json.loads(last)
    except ValueError:
        seen = None
    if not isinstance(seen, dict):
        return {"printed": f"{text}{error}"[-300:].strip()}
    return {**seen, "printed": "\n".join(before)[-300:]}


def _state(job: str) -> str:
    try:
        return commands.call(["squeue", "-h", "-j", job, "-o", "%T %r"], retry=False).strip() or "it has ended"
    except SlurmError as error:
        return error.message


def _seen(seen: dict[str, Any], profile: Profile, store: Store) -> Iterator[Finding]:
    yield Finding(True, f"the store {store.root} is seen from a node")
    if "error" in seen:
        yield Finding(False, f"python: it does not start there: {seen['error']}")
        return
    if "python" not in seen:
        yield Finding(False, f"container: in place of what Python saw there it prints: {seen['printed']}")
        return
    if seen["printed"]:
        yield Finding(True, f"container: it prints more than what runs in it: {seen['printed']}")
    if "missing" in seen:
        yield Finding(False, f"python: ablate can't be imported there: {seen['missing']} (see setup and python)")
    else:
        yield Finding(True, f"Python {seen['python']} with ablate on {seen['host']}")
    if "scratch" in seen:
        yield Finding(True, f"scratch {seen['scratch']}")
    if "no scratch" in seen:
        yield Finding(False, f"scratch: a job can't write to {seen['no scratch']}")
    if profile.gpu and not seen["gpus"]:
        yield Finding(False, "gpu: a job that asked for one sees none (CUDA_VISIBLE_DEVICES is empty)")
