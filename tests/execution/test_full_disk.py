"""A disk that is full: stage or command fails with the reason, nothing half-made is published, a rerun works."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ablate.context import Resources, StageContext, write_json
from ablate.execution.record import record_plan
from ablate.execution.runner import run_stage
from ablate.execution.study import make_plan
from ablate.plan.graph import Graph
from ablate.store import Store

pytestmark = pytest.mark.tmpfs
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
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], check=True)
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


def fill(disk: Path) -> Path:
    """Write until nothing more fits; returns the file that takes the room."""
    path = disk / "filling"
    with path.open("wb", buffering=0) as handle, pytest.raises(OSError, match="No space left"):
        while True:
            handle.write(b"x" * 4096)
    return path


def ablate(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ablate", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_plan_that_does_not_fit_the_disk_is_an_error_that_names_the_file(small_disk: Path, tmp_path: Path) -> None:
    store = Store(small_disk / "store").open()
    before = files_of(store.root)
    filling = fill(small_disk)
    answer = ablate("run", "pocket_quick", "--store", str(store.root), cwd=tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"error: {store.root}/")
    assert answer.stderr.endswith("json: No space left on device\n"), "one line, no traceback"
    assert files_of(store.root) == before
    filling.unlink()
    assert ablate("plan", "pocket_quick", "--store", str(store.root), cwd=tmp_path).returncode == 0


def test_a_report_that_does_not_fit_the_disk_is_an_error_that_names_the_file(small_disk: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store").open()
    record_plan(store, make_plan("pocket_quick", [], store))
    fill(small_disk)
    for words in (("report", "pocket-quick"), ("results", "pocket-quick")):
        target = small_disk / words[0]
        answer = ablate(*words, "--store", str(store.root), "--out", str(target), cwd=tmp_path)
        assert answer.returncode == 1
        assert answer.stderr.startswith(f"error: {target}")
        assert answer.stderr.endswith(": No space left on device\n")
        assert files_of(small_disk) == [small_disk / "filling"]
