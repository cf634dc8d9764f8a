"""Plans of small specifications; nothing is run."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.experiment.loading import load_experiment
from ablate.plan.facts import gather_facts
from ablate.plan.plan import Plan, build_plan
from ablate.shipped import shipped_folder

MakePlan = Callable[..., Plan]


@pytest.fixture
def plan(tmp_path: Path) -> MakePlan:
    """Plan a specification given as text or as a file."""

    def plan_text(text: str | Path, *overrides: str, root: Path | None = None) -> Plan:
        file = text if isinstance(text, Path) else tmp_path / "study.yaml"
        if isinstance(text, str):
            file.write_text(textwrap.dedent(text), encoding="utf-8")
        loaded = load_experiment(file, overrides)
        facts = gather_facts(
            loaded,
            evals=[shipped_folder("evals")],
            digest_cache=tmp_path / "digests.json",
            data_root=str(root) if root else None,
        )
        return build_plan(loaded, facts)

    return plan_text
