"""Every experiment that ablate ships loads and plans."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.errors import DataError
from ablate.plan.plan import Plan
from ablate.shipped import shipped_folder

SHIPPED = sorted(shipped_folder("experiments").rglob("*.yaml"))
REAL = [path for path in SHIPPED if path.stem.startswith("real")]


@pytest.mark.parametrize("path", [path for path in SHIPPED if path not in REAL], ids=lambda path: path.stem)
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


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_without_its_files_it_says_what_to_do(plan: Callable[..., Plan], path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data root is set\n  set ABLATE_DATA"):
        plan(path)
    with pytest.raises(DataError, match=r"which is not there\n  put it there, or set ABLATE_DATA"):
        plan(path, root=tmp_path)


def test_reports_of_shipped_experiments_exist(plan: Callable[..., Plan]) -> None:
    for path in set(SHIPPED) - set(REAL):
        report = plan(path).loaded.experiment.report
        assert report is None or (shipped_folder("reports") / os.path.relpath(report, "reports")).is_file(), report
