"""Whether a store can be handed to a cluster: seen by its nodes, and with room for what is written."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ablate.errors import UsageError
from ablate.execution.slurm import commands, storage
from ablate.execution.slurm.commands import SlurmError
from ablate.execution.slurm.profile import load_profile
from ablate.execution.slurm.storage import file_system, require_room, require_shared
from ablate.store import Store

MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:40 / /users rw,relatime shared:7 - nfs4 server:/users rw,vers=4.2
41 27 0:41 / /lustre rw master:1 shared:2 - lustre 10.0.0.1@o2ib:/fs rw
42 40 0:42 / /users/ann/my\\040disk rw - xfs /dev/sdb rw
43 27 0:43 / /beegfs rw - autofs /etc/auto.fs rw
44 43 0:44 / /beegfs rw - beegfs beegfs_nodev rw
45 27 0:45 / /dev/shm rw - tmpfs tmpfs rw
"""


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTS)
    monkeypatch.setattr(storage, "MOUNTS", file)
    return file


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/store", "ext4"),
        ("/userset", "ext4"),
        ("/users/ann/store", "nfs4"),
        ("/users/ann/my disk/store", "xfs"),
        ("/lustre", "lustre"),
        ("/beegfs/store", "beegfs"),
        ("/dev/shm/a", "tmpfs"),
    ],
)
def test_the_file_system_of_a_path(mounts: Path, path: str, kind: str) -> None:
    assert file_system(Path(path)) == kind


def test_where_the_system_does_not_tell(mounts: Path) -> None:
    mounts.unlink()
    assert file_system(Path("/var/store")) == ""


@pytest.mark.parametrize(
    ("kind", "nodes", "profile", "refused"),
    [
        (
            "ext4",
            "login.site\nn1\nn2\nn2\n",
            "",
            "is on ext4, a file system of this machine.* and jobs run on n1 and 1 more",
        ),
        (
            "tmpfs",
            "n1\n",
            "shared: [/elsewhere]",
            "cluster.yaml:1: shared: the store, .*, is on tmpfs.* jobs run on n1; nothing",
        ),
        ("ext4", "n1\n", "shared: [{folder}]", None),
        ("ext4", "login\n", "", None),
        ("ext4", SlurmError("sinfo: no"), "", None),
        ("nfs4", AssertionError("asked"), "", None),
    ],
)
def test_a_store_that_other_machines_do_not_see(
    tmp_path: Path,
    mounts: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    nodes: str | Exception,
    profile: str,
    refused: str | None,
) -> None:
    def sinfo(command: Sequence[str], *, retry: bool) -> str:
        if isinstance(nodes, Exception):
            raise nodes
        return nodes

    monkeypatch.setattr(commands, "call", sinfo)
    monkeypatch.setattr(platform, "node", lambda: "login.cluster.site")
    monkeypatch.setattr(sys, "prefix", "/usr")
    mounts.write_text(f"27 1 254:0 / / rw - {kind} /dev/vda rw\n")
    (tmp_path / "cluster.yaml").write_text(profile.format(folder=tmp_path))
    store, loaded = Store(tmp_path / "store"), load_profile(str(tmp_path / "cluster.yaml"))
    if refused is None:
        require_shared(store, loaded)
        return
    with pytest.raises(UsageError) as error:
        require_shared(store, loaded)
    error.match(refused)
    error.match(rf"shared: \[{store.root}\]")


@pytest.mark.parametrize(
    ("prefix", "profile", "is_refused"),
    [
        ("{local}/venv", "", True),
        ("{local}/venv", "python: /site/venv/bin/python", False),
        ("{local}/venv", "setup: module load ablate", False),
        ("{local}/venv", "shared: ['{local}']", False),
        ("{shared}/venv", "", False),
        ("/usr", "", False),
    ],
)
def test_a_python_that_other_machines_do_not_have(
    tmp_path: Path, mounts: Path, monkeypatch: pytest.MonkeyPatch, prefix: str, profile: str, is_refused: bool
) -> None:
    places = {"local": tmp_path / "local", "shared": tmp_path / "shared"}
    mounts.write_text(
        "27 1 254:0 / / rw - ext4 /dev/vda rw\n" + f"28 27 0:5 / {places['shared']} rw - nfs4 server:/home rw\n"
    )
    monkeypatch.setattr(commands, "call", lambda command, *, retry: "n1\n")
    monkeypatch.setattr(sys, "prefix", prefix.format(**places))
    (tmp_path / "cluster.yaml").write_text(profile.format(**places))
    loaded, store = load_profile(str(tmp_path / "cluster.yaml")), Store(places["shared"] / "store")
    if not is_refused:
        require_shared(store, loaded)
        return
    with pytest.raises(UsageError, match=r"the Python that submits, .*venv, is on ext4, .* and jobs run on n1") as told:
        require_shared(store, loaded)
    assert told.value.hint is not None and "python, setup or container" in told.value.hint


def test_a_quota_that_is_used_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    require_room(store)

    def refuse(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UsageError, match="takes no more: Disk quota exceeded; nothing is queued"):
        require_room(store)
    assert not list(store.root.glob(".probe*"))


@pytest.mark.tmpfs
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(disk)], check=True)
    try:
        store = Store(disk / "store").open()
        assert file_system(store.root) == "tmpfs"
        with pytest.raises(UsageError, match="takes no more: No space left on device"):
            require_room(store)
        assert [path.name for path in store.root.glob(".*")] == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
