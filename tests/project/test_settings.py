"""The settings of the tests themselves: what is absent is skipped, unless it is required; there is no network."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"

USES_DATA = """\
import pytest

def test_root(data_root):
    assert data_root.is_dir()

@pytest.mark.data
def test_marked():
    pass

def test_plain():
    pass
"""


def run_pytest(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with the project's conftest on a file with two tests that need data and one that does not."""
    shutil.copyfile(CONFTEST, folder / "conftest.py")
    (folder / "test_uses_data.py").write_text(USES_DATA, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    data: .\n    slurm: .\n", encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ABLATE_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=folder, env=kept | environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_tests_that_need_absent_data_are_skipped_with_the_reason(tmp_path: Path) -> None:
    answer = run_pytest(tmp_path, "-rs")
    assert answer.returncode == 0
    assert "1 passed, 2 skipped" in answer.stdout
    assert "ABLATE_DATA is not set" in answer.stdout


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_absent_data_fails_where_it_is_required(tmp_path: Path, workers: tuple[str, ...]) -> None:
    answer = run_pytest(tmp_path, *workers, ABLATE_REQUIRE="data", ABLATE_DATA=str(tmp_path / "absent"))
    assert answer.returncode != 0
    assert "ABLATE_REQUIRE asks for data" in answer.stdout + answer.stderr


def test_present_data_is_used(tmp_path: Path) -> None:
    answer = run_pytest(tmp_path, ABLATE_REQUIRE="data", ABLATE_DATA=str(tmp_path))
    assert "3 passed" in answer.stdout


def test_an_unknown_requirement_is_refused(tmp_path: Path) -> None:
    answer = run_pytest(tmp_path, ABLATE_REQUIRE="date")
    assert answer.returncode != 0
    names = [
        "alpaca_eval", "browser", "bubblewrap", "data", "deepspeed", "latex", "qlora", "serving", "slurm", "tmpfs",
    ]  # fmt: skip
    assert f"allowed: {names}" in answer.stdout + answer.stderr


def test_connections_leave_this_machine_refused() -> None:
    with socket.socket() as client, pytest.raises(OSError, match="tests have no network"):
        client.connect(("192.0.2.1", 80))
