"""Can a store be handed to a cluster? Nodes must see it, and Python, and it must take what is written."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

from ablate.errors import UsageError
from ablate.execution.slurm import commands
from ablate.execution.slurm.commands import SlurmError
from ablate.execution.slurm.profile import LoadedProfile
from ablate.store import Store

LOCAL = frozenset({"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"})
"""File systems of one machine's own disks and memory; a machine may export one to others, though."""
MOUNTS = Path("/proc/self/mountinfo")
PROBE_BYTES = 8 * 2**20
"""More than a submission of thousands of stages writes down."""


def require_shared(store: Store, loaded: LoadedProfile) -> None:
    """Raise UsageError where a store, or the Python of the jobs, is on this machine's own file system and jobs are not.

    The Python that submits is that of the jobs unless the profile says otherwise; what a system installs below /usr its
    nodes may have, too. SLURM is asked for its nodes in the first case alone; where it does not answer, the jobs
    themselves will tell.
    """
    _require_seen(store.root, "the store", "shared", loaded, "take a --store that nodes see")
    profile, prefix = loaded.profile, Path(sys.prefix)
    if not (profile.python or profile.container or profile.setup or prefix.is_relative_to("/usr")):
        hint = "install ablate in a folder that nodes see, or give python, setup or container as nodes have it"
        _require_seen(prefix, "the Python that submits", "python", loaded, hint)


def _require_seen(folder: Path, what: str, key: str, loaded: LoadedProfile, hint: str) -> None:
    root = folder.resolve()
    kind = file_system(root)
    if kind not in LOCAL or any(root.is_relative_to(Path(shared).resolve()) for shared in loaded.profile.shared):
        return
    if others := _other_machines():
        raise UsageError(
            f"{what}, {root}, is on {kind}, a file system of this machine alone, and jobs run on {others[0]}"
            f"{f' and {len(others) - 1} more' if len(others) > 1 else ''}; nothing is queued",
            location=loaded.origins.locate(key),
            hint=f"{hint}; should they see this one under the same path, name its folder: shared: [{root}]",
        )


def file_system(path: Path) -> str:
    """Return the type of the file system that an absolute path lies on; empty where the system does not tell."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    deepest, found = -1, ""
    for line in lines:
        place, _, rest = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), place.split(" ")[4]))
        if path.is_relative_to(point) and len(point.parts) >= deepest:  # of two at one place the later hides the other
            deepest, found = len(point.parts), rest.partition(" ")[0]
    return found


def _other_machines() -> list[str]:
    try:
        printed = commands.call(["sinfo", "--noheader", "--Node", "--format=%n"], retry=False)
    except SlurmError:
        return []
    here = platform.node().partition(".")[0]
    return sorted({name for name in printed.split() if name.partition(".")[0] != here})


def require_room(store: Store) -> None:
    """Write what a submission may write, and delete it: raises UsageError where disk or quota do not take that."""
    probe = store.root / f".probe-{os.getpid()}"
    try:
        with probe.open("wb") as handle:
            handle.write(bytes(PROBE_BYTES))
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise UsageError(
            f"the store {store.root} takes no more: {error.strerror}; nothing is queued",
            hint="`ablate gc` lists what no experiment needs",
        ) from error
    finally:
        probe.unlink(missing_ok=True)
