"""Recipes of published models: what each becomes, and that its pocket twin has the same shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.catalogs.datasets import datasets
from ablate.catalogs.suites import load_suites
from ablate.execution.study import find_specification
from ablate.plan.plan import Plan
from ablate.shipped import shipped_folder

MakePlan = Callable[..., Plan]
FOLDER = shipped_folder("experiments") / "recipes"
RECIPES = sorted(path for path in FOLDER.glob("*.yaml") if not path.stem.startswith("pocket"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a data root with an empty file for every set of the catalog and every suite."""
    root = tmp_path / "root"
    entries = (entry for entry in datasets().values() if entry.source.pocket is None)
    names = [name.replace("*", "0") for entry in entries for name in entry.source.names()]
    for name in (*names, *(file for suite in load_suites([shipped_folder("evals")]).values() for file in suite.files)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def trained(made: Plan) -> list[tuple[str, str]]:
    """Return the method of every cell, and that of the policy that it starts from."""
    found = []
    for item in made.subjects:
        if item.subject == "policy" and item.role == "cell":
            stage = made.stages[item.stage]
            before = made.stages[dict(stage.identity.inputs)["policy"].stage]
            name = before.identity.config.value.get("algorithm") or before.kind
            found.append((stage.identity.config.value["algorithm"], name))
    return found


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_and_its_pocket_twin_are_the_same_chain(plan: MakePlan, files: Path, path: Path) -> None:
    real, pocket = plan(path, root=files), plan(path.with_stem(f"pocket_{path.stem}"))
    assert [method for method, _ in trained(real)] == [method for method, _ in trained(pocket)]
    starts = [[before for _, before in trained(made)] for made in (real, pocket)]
    if path.stem in ("tulu2_dpo", "starling"):  # which start from models that are tuned already
        assert set(starts[0]) == {"model"}
    else:
        assert starts[0] == starts[1]
    assert {item.subject for item in real.subjects} >= {item.subject for item in pocket.subjects}


def test_llama_3_s_order_is_one_chain(plan: MakePlan) -> None:
    found = trained(plan(FOLDER / "pocket_llama3_order.yaml"))
    steps = ["sft", "rejection_sampling", "supervised", "ppo", "dpo"]
    assert found == [*zip(steps[1:], steps, strict=False), ("dpo", "sft")]


def test_a_recipe_is_found_by_its_name() -> None:
    assert find_specification("recipes/pocket_zephyr") == FOLDER / "pocket_zephyr.yaml"
    assert find_specification("recipes/llama3-order") == FOLDER / "llama3_order.yaml"
