"""What SLURM says of jobs: one squeue call for what is queued or has just ended, one sacct call for what ended before.

Job ids are reused after a database is wiped, so that a job counts only under its own name.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ablate.execution.slurm import commands
from ablate.execution.slurm.commands import SlurmError
from ablate.execution.slurm.ledger import ArrayRecord

OVER = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
        *("REVOKED", "TIMEOUT"),
    }
)
"""States of a job that has ended. In any other, of which newer versions know more, it is or may come to be at work."""
PENDING = frozenset(
    {
        *("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"),
        *("LAUNCH_FAILED", "RECONFIG_FAIL"),
    }
)
"""Those of the others in which it is not at work."""
NEVER = "DependencyNeverSatisfied"
STARTED_EARLIER = 300.0
"""Seconds by which clocks of this machine and the accounting's may differ."""
SQUEUE = ("squeue", "--noheader", "--array", "--states=all", "--format=%i|%j|%T|%N|%M|%r")


@dataclass(frozen=True)
class Job:
    """One element of an array, as SLURM knows it: state and reason in its words, node, time used."""

    id: str
    index: int
    name: str
    state: str
    reason: str = ""
    nodes: str = ""
    used: str = ""

    @property
    def is_live(self) -> bool:
        """Whether it is, or may come to be, at work."""
        return self.state not in OVER and not (self.state == "PENDING" and self.reason == NEVER)

    @property
    def is_pending(self) -> bool:
        """Whether it has not started, or is to start again."""
        return self.state in PENDING


Jobs = Mapping[tuple[str, int], Job]
"""By the job's name and the element's index."""


def queue() -> Jobs:
    """Return this user's jobs that squeue knows; raises SlurmError."""
    printed = commands.call([*SQUEUE, f"--user={os.getuid()}"])
    return {(job.name, job.index): job for line in printed.splitlines() for job in _queued(line)}


def time_limit(job: str) -> float | None:
    """Return the minutes that one job may take, None where SLURM does not say."""
    try:
        printed = commands.call(["squeue", "--noheader", f"--jobs={job}", "--format=%l"], retry=False).strip()
    except SlurmError:
        return None
    return minutes_of(printed) if printed else None


def minutes_of(limit: str) -> float:
    """Return the minutes of a time limit as SLURM prints it: ``30:00``, ``2-00:00:00``, ``infinite``."""
    if limit in ("infinite", "UNLIMITED"):
        return float("inf")
    days, _, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    hours, minutes = (parts[-3] if len(parts) == 3 else 0), (parts[-2] if len(parts) > 1 else parts[0])
    return int(days or 0) * 1440 + hours * 60 + minutes


def accounted(records: Iterable[ArrayRecord]) -> dict[tuple[str, int], Job]:
    """Return what the accounting says of arrays that have job ids; raises SlurmError where there is none."""
    found: dict[tuple[str, int], Job] = {}
    for place, name, state, nodes in sacct(records, ("JobID", "JobName", "State", "NodeList"), "--allocations"):
        for job, index in _elements(place):
            where = "" if nodes == "None assigned" else nodes
            found[name, index] = Job(job, index, name, state.partition(" ")[0], nodes=where)  # CANCELLED by 1000
    return found


def sacct(records: Iterable[ArrayRecord], fields: Sequence[str], *options: str) -> Iterator[list[str]]:
    """Yield, for each line of the accounting about arrays that have job ids, its fields; raises SlurmError.

    It is asked once: what matters is in the store, and a site without accounting never answers.
    """
    known = {record.job: record for record in records if record.job is not None}
    if not known:
        return
    since = min(record.facts["time"] for record in known.values()) - STARTED_EARLIER
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since))
    command = ["sacct", "--noheader", "--parsable2", *options, f"--starttime={stamp}"]
    asked = [f"--jobs={','.join(sorted(known))}", f"--format={','.join(fields)}"]
    for line in commands.call([*command, *asked], retry=False).splitlines():
        values = line.strip().split("|")
        if len(values) == len(fields):
            yield values


def find_by_name(names: Iterable[str]) -> dict[str, str]:
    """Return job ids of arrays by name, from the queue and from the accounting, which may lag or be absent."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    command = ["squeue", "--noheader", "--states=all", f"--user={os.getuid()}", "--format=%F|%j"]
    found = dict(_named(commands.call([*command, f"--name={','.join(wanted)}"])))
    missing = [name for name in wanted if name not in found]
    if missing:
        command = ["sacct", "--noheader", "--parsable2", "--allocations", "--starttime=now-7days"]
        try:
            printed = commands.call([*command, f"--name={','.join(missing)}", "--format=JobID,JobName"], retry=False)
        except SlurmError:
            return found
        found |= dict(_named(printed))
    return found


def _named(printed: str) -> Iterator[tuple[str, str]]:
    for line in printed.splitlines():
        job, _, name = line.strip().partition("|")
        if name:
            yield name, job.partition("_")[0]


def _queued(line: str) -> Iterator[Job]:
    fields = line.strip().split("|", 5)  # an administrator's reason may have any letters
    if len(fields) == 6:
        place, name, state, nodes, used, reason = fields
        for job, index in _elements(place):
            yield Job(job, index, name, state, "" if reason == "None" else reason, nodes, used)


def _elements(place: str) -> Iterator[tuple[str, int]]:
    """Yield the elements of ``12_3``, or of ``12_[0-2,7-11:2%5]``: those that never started, not taken apart."""
    found = re.fullmatch(r"(\d+)_(?:(\d+)|\[([\d,:-]+)(?:%\d+)?\])", place)
    if found is None:
        return
    for part in (found[2] or found[3]).split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        for index in range(int(first), int(last or first) + 1, int(step or 1)):
            yield found[1], index


ENDED = {
    "CANCELLED": "cancelled",
    "FAILED": "its job failed",
    "TIMEOUT": "its job ran out of time before it could requeue itself",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "its job was killed for memory",
    "PREEMPTED": "its job was preempted and not requeued",
    "BOOT_FAIL": "its node did not boot",
    "DEADLINE": "its job could not end before its deadline",
    "COMPLETED": "its job has ended",
}
REASONS = (
    (r"DependencyNeverSatisfied", "what it waits for failed: it will never start"),
    (r"Dependency", "waits for other jobs"),
    (r"Priority", "others come first"),
    (r"Resources", "waits for free nodes"),
    (r"BeginTime", "waits until it may start again"),
    (r"JobArrayTaskLimit", "as many elements as limits.at_once allows run"),
    (r"JobHeld\w*", "held: `ablate release`, or scontrol release"),
    (r"ReqNodeNotAvail.*|Nodes required for job are .*", "nodes it asks for are down or reserved"),
    (r"NodeDown|BadConstraints|PartitionNodeLimit", "no node of its partition can run it"),
    (r"PartitionDown|PartitionInactive", "its partition is closed"),
    (r"PartitionTimeLimit", "its time limit is longer than the partition's: lower limits.time"),
    (r"Reservation\w*", "waits for its reservation"),
    (r"QOSMax(Gres|TRES)?\w*(User|Account)?\w*", "a limit of the QOS for a user or account is reached"),
    (r"QOS\w*", "a limit of the QOS is reached"),
    (r"Assoc\w*|Max\w+Per\w+|MaxSubmit\w*", "a limit of the account is reached"),
    (r"InvalidAccount", "its account is not valid: account of the profile"),
    (r"InvalidQOS", "its QOS is not valid: qos of the profile"),
    (r"NonZeroExitCode", "its script ended with an error"),
    (r".* requeued held|LaunchFailed.*", "a node could not start it and it is held: scontrol release"),
)


def reason_in_words(reason: str) -> str:
    """Return why a job waits, in words, with SLURM's own in brackets."""
    for pattern, words in REASONS:
        if re.fullmatch(pattern, reason):
            return f"{words} ({reason})"
    return reason
