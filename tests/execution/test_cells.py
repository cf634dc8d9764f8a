"""The links of an experiment's rows: readable names, to checkpoints and results, none that is out of date."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.execution.record import record_plan
from ablate.execution.study import make_plan
from ablate.store import Store

SPEC = """\
name: rows
policy: pocket-small
sft: {dataset: pocket-instructions}
ppo: {max_prompt_length: 128, max_response_length: 64}
grid:
  - {dataset: pocket-hh, algorithm: [dpo, ppo], seed: [0, 1]}
baselines: [sft]
evaluate: {policy: [pocket-gold], reward_model: [pocket-pairs]}
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.yaml").write_text(SPEC)
    return tmp_path / "rows.yaml"


def test_a_row_has_a_folder_with_its_checkpoint_and_results(store: Store, spec: Path) -> None:
    plan = make_plan(str(spec), [], store)
    cells = record_plan(store, plan).cells
    rows = {entry.name: {link.name for link in entry.iterdir()} for entry in cells.iterdir()}
    assert set(rows) == {
        *(f"dataset=pocket-hh,algorithm={method},seed={seed}" for method in ("dpo", "ppo") for seed in (0, 1)),
        *(f"reward_model,reward_model.init=pocket-small,reward_model.dataset=pocket-hh,seed={seed}" for seed in (0, 1)),
        "sft",
    }
    for subject in plan.subjects:
        store.stage(subject.stage).artifact("model").mkdir(parents=True, exist_ok=True)
    for name, links in rows.items():
        assert links == {"checkpoint", "pocket-pairs" if name.startswith("reward_model") else "pocket-gold"}
        assert (cells / name / "checkpoint").is_dir(), "it leads where the stage's model will be"
    targets = {(cells / name / "checkpoint").resolve() for name in rows}
    assert targets == {store.stage(subject.stage).artifact("model").resolve() for subject in plan.subjects}


def test_links_follow_the_plan_and_nothing_else_is_touched(store: Store, spec: Path) -> None:
    cells = record_plan(store, make_plan(str(spec), [], store)).cells
    mine = cells / "dataset=pocket-hh,algorithm=ppo,seed=1" / "notes.txt"
    mine.write_text("mine")
    (cells / "policy: an older store").symlink_to("../../../stages/train-0")
    cells = record_plan(
        store, make_plan(str(spec), ["grid.0.algorithm=dpo", "grid.0.seed=[0, 1]", "dpo.beta=0.3"], store)
    ).cells
    links = {entry.name: sorted(link.name for link in entry.iterdir()) for entry in cells.iterdir()}
    assert links.pop(mine.parent.name) == ["notes.txt"]
    assert all(found == ["checkpoint", "pocket-gold"] for found in links.values())
    assert set(links) == {"sft", *(f"dataset=pocket-hh,algorithm=dpo,seed={seed}" for seed in (0, 1))}
