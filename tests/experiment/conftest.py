"""Small specifications, written as text so that lines can be checked."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.experiment.grid import Grid, expand, validate_sections
from ablate.experiment.loading import LoadedExperiment, load_experiment


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of the test's folder and return its path."""

    def write_file(text: str, name: str = "study.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def load(write: Callable[..., Path]) -> Callable[..., LoadedExperiment]:
    """Load a specification from its text."""

    def load_text(text: str, *overrides: str) -> LoadedExperiment:
        return load_experiment(write(text), overrides)

    return load_text


@pytest.fixture
def grid(load: Callable[..., LoadedExperiment]) -> Callable[..., Grid]:
    """Expand and validate a specification; name and policy are given."""

    def expand_text(text: str, *overrides: str) -> Grid:
        loaded = load("name: t\npolicy: pocket-small\n" + textwrap.dedent(text), *overrides)
        found = expand(loaded)
        validate_sections(loaded, found)
        return found

    return expand_text
