"""A disk that is full: the stage fails with the reason, nothing half-made is published, and a rerun works."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ablate.context import Resources, StageContext, write_json
from ablate.execution.runner import run_stage
from ablate.plan.graph import Graph
from ablate.store import Store

SIZE = 2_000_000


def write_much(context: StageContext) -> dict[str, int]:
    """Work of a test stage: three megabytes in small pieces."""
    with (context.output / "much.bin").open("wb") as handle:
        for _ in range(300):
            handle.write(b"x" * 10_000)
    return {"bytes": 3_000_000}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root and the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_fails_the_stage_and_leaves_the_store_sound(small_disk: Path) -> None:
    store = Store(small_disk / "store").open()
    stage = Graph().add("pocket", {}, label="much", entry=f"{__name__}:write_much")
    folder = store.stage(stage.id)
    folder.folder.mkdir(parents=True)
    write_json(folder.stage_json, stage.as_json())
    outcome = run_stage(folder.folder, Resources())
    assert outcome.status == "failed"
    assert "No space left on device" in outcome.message
    assert not folder.output.exists()
    assert not folder.is_done()
    assert folder.read_stage()["label"] == "much"
    assert list(folder.folder.rglob("much.bin")) == []  # the space it took is given back

    subprocess.run(["mount", "-o", "remount,size=20000000", str(small_disk)], check=True)
    assert run_stage(folder.folder, Resources()).status == "done"
    assert (folder.output / "much.bin").stat().st_size == 3_000_000
