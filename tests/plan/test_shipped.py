"""Every experiment that ablate ships loads and plans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.errors import DataError
from ablate.execution.record import check_report, find_report
from ablate.plan.plan import Plan
from ablate.results.layout import load_layout
from ablate.shipped import shipped_folder

SHIPPED = sorted(shipped_folder("experiments").rglob("*.yaml"))
REAL = [path for path in SHIPPED if path.stem.startswith("real")]
RECIPES = [path for path in SHIPPED if path.parent.name == "recipes" and not path.stem.startswith("pocket")]
# Those that read a mirror of the hub: test_embedded.py and test_recipes.py write its files.
MIRRORED = [*RECIPES, *(path for path in SHIPPED if path.stem == "table1_dpo_datasets")]


@pytest.mark.parametrize(
    "path", [path for path in SHIPPED if path not in (*REAL, *MIRRORED)], ids=lambda path: path.stem
)
def test_it_plans_without_data_files(plan: Callable[..., Plan], path: Path) -> None:
    made = plan(path)
    assert made.name == path.stem.replace("_", "-")
    assert made.stages
    assert all(item.evaluations for item in made.subjects if item.subject == "policy")


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_it_plans_on_real_files(plan: Callable[..., Plan], path: Path, data_root: Path) -> None:
    made = plan(path, root=data_root)
    assert made.name == path.stem.replace("_", "-")
    outside = [stage for stage in made.stages.values() if stage.execution.locations]
    assert outside
    assert all(stage.execution.locations == {"root": str(data_root)} for stage in outside)


@pytest.mark.parametrize("path", [*REAL, *MIRRORED], ids=lambda path: path.stem)
def test_without_its_files_it_says_what_to_do(plan: Callable[..., Plan], path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.yaml:\d+: .*no data root is set\n  set ABLATE_DATA"):
        plan(path)
    with pytest.raises(DataError, match=r"which is not there\n  put it there, or set ABLATE_DATA"):
        plan(path, root=tmp_path)


def fits_its_report(made: Plan) -> bool:
    report = find_report(made.loaded)
    if report is not None:
        assert report.parent == shipped_folder("reports")
        check_report(made, report, load_layout)
    return report is not None


def test_reports_of_shipped_experiments_fit_their_plans(plan: Callable[..., Plan]) -> None:
    assert sum(fits_its_report(plan(path)) for path in set(SHIPPED) - {*REAL, *MIRRORED}) >= 3


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_reports_of_real_experiments_fit_their_plans(plan: Callable[..., Plan], path: Path, data_root: Path) -> None:
    fits_its_report(plan(path, root=data_root))
