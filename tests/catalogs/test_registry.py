"""The registry of methods: what the modules of a package declare, each name once."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from ablate.algorithms.registry import METHODS, declared_methods

MODULE = """
from ablate.algorithms.none import METHOD as OTHER
from dataclasses import replace

METHOD = replace(OTHER, name="{name}", title="{title}")
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """A package of modules, name to text."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, **modules: str) -> ModuleType:
        (tmp_path / name).mkdir()
        for module, text in {"__init__": "", **modules}.items():
            (tmp_path / name / f"{module}.py").write_text(text)
        return importlib.import_module(name)

    return make


def test_methods_are_found_where_they_are_declared(package: Callable[..., ModuleType]) -> None:
    second = MODULE.format(name="b", title="B").replace("METHOD = ", "METHODS = (OTHER, ") + ")"
    made = package("found_methods", two=second, one=MODULE.format(name="a", title="A"), helper="LIMIT = 3")
    assert [(name, method.title) for name, method in declared_methods(made).items()] == [
        ("none", "no training"),
        ("a", "A"),
        ("b", "B"),
    ]


def test_two_methods_of_one_name_are_an_error(package: Callable[..., ModuleType]) -> None:
    modules = {title.lower(): MODULE.format(name="same", title=title) for title in ("One", "Two")}
    with pytest.raises(ValueError, match="two methods are named 'same': One and Two"):
        declared_methods(package("same_methods", **modules))


def test_ablate_s_own_are_known_by_their_names() -> None:
    assert {"dpo", "ipo_avg", "aot_unpaired", "apo_down", "none"} <= set(METHODS)
    assert all(method.name == name for name, method in METHODS.items())
