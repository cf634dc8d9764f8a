"""An attempt records the commit of the clone that its code is from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ablate.execution import environment


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with one commit, where the package is taken to lie."""
    package = tmp_path / "clone/ablate"
    package.mkdir(parents=True)
    (package / "x.py").write_text("x = 1\n")
    git(tmp_path / "clone", "init", "-q")
    git(tmp_path / "clone", "add", "-A")
    git(tmp_path / "clone", "commit", "-q", "-m", "first")
    git(tmp_path / "clone", "tag", "v1")
    monkeypatch.setattr(environment, "_PACKAGE", package)
    environment.code_commit.cache_clear()
    return tmp_path / "clone"


def test_the_commit_is_that_of_the_clone_and_says_when_it_was_changed(clone: Path) -> None:
    commit = git(clone, "rev-parse", "HEAD")
    assert environment.code_commit() == commit
    (clone / "ablate/x.py").write_text("x = 2\n")
    environment.code_commit.cache_clear()
    assert environment.code_commit() == f"{commit}-dirty"
    environment.code_commit.cache_clear()


def test_a_package_that_is_installed_has_none(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the folders above searched, the commit of a researcher's own project would be taken for ablate's."""
    monkeypatch.setattr(environment, "_PACKAGE", clone / "venv/site-packages/ablate")
    assert environment.code_commit() is None
    environment.code_commit.cache_clear()


def test_what_ran_is_described_with_commit_and_job(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    described = environment.describe_environment(1, ())
    assert described["slurm_job"] == "4711" and described["commit"] == git(clone, "rev-parse", "HEAD")
    assert "hf_secret" not in str(described)
    environment.code_commit.cache_clear()
