"""Learning curves: which rows have one, what stands on the x axis, what a figure declares wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablate.errors import SpecError, UsageError
from ablate.results.figures.curves import Curves, read_curves
from ablate.results.figures.lines import draw_curves
from ablate.results.figures.style import write
from ablate.results.layout import CurveLayout, TableLayout, load_layout
from ablate.results.long import collect
from ablate.results.report import render_report
from ablate.store import Store

TABLE = TableLayout.model_validate({
    "name": "main", "rows": ["dataset", "algorithm"], "columns": ["categories"], "baselines": ["sft"],
})  # fmt: skip


def history(store: Store, stage: str, scores: Sequence[float | None], *, labels: int = 0, samples: int = 8) -> None:
    lines = [
        json.dumps({"step": step, "score": score, "samples": step * samples, "labels": step * labels})
        for step, score in enumerate(scores, 1)
    ]
    store.stage(stage).artifact("history.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture
def curves(study: Any) -> Callable[..., Curves]:
    """Read the curves of the study: PPO's rise by one a step from its seed; DPO's histories count no samples."""
    store = study.write()
    for dataset in ("hh", "uf"):
        for seed in range(3):
            history(store, f"train-{dataset}_ppo_{seed}", [seed, seed + 1.0, seed + 2.0], labels=2)
            offline = store.stage(f"train-{dataset}_dpo_{seed}").artifact("history.jsonl")
            offline.write_text(json.dumps({"step": 10, "loss": 0.6}) + "\n")
            done = store.stage(f"reward_model-{dataset}-{seed}").done_json
            counted = {"prompts": 40, "responses": 140 + seed, "labels": 100 + seed}  # rankings
            counted = {"pairs": 100 + seed} if dataset == "uf" else counted  # of an older release
            done.write_text(json.dumps({"stage": "x", "seconds": 1.0, "summary": counted}))

    def read(**layout: Any) -> Curves:
        return read_curves(collect(store, "study"), CurveLayout(name="curve", table="main", **layout), TABLE)

    return read


def test_a_curve_is_the_mean_over_runs_with_their_spread(curves: Callable[..., Curves]) -> None:
    found = curves()
    assert [curve.label for curve in found.curves] == ["HH_50% PPO", "UltraFeedback & co PPO"]
    assert found.curves[0].x == (1.0, 2.0, 3.0)
    assert found.curves[0].mean == (1.0, 2.0, 3.0)
    assert found.curves[0].sd == (1.0, 1.0, 1.0)
    assert found.curves[0].end is None
    assert found.levels == ()


def test_samples_and_labels_on_the_x_axis(curves: Callable[..., Curves]) -> None:
    assert curves(x="samples").curves[0].x == (8.0, 16.0, 24.0)
    for curve in curves(x="labels").curves:
        assert curve.x == (103.0, 105.0, 107.0)  # after those of the reward models: 101 on average


def test_what_has_no_curve_is_a_level(curves: Callable[..., Curves]) -> None:
    found = curves(suite="facts")
    assert [(level.label, level.is_baseline) for level in found.levels] == [
        ("SFT", True),
        ("HH_50% DPO", False),
        ("UltraFeedback & co DPO", False),
    ]
    assert [level.value for level in found.levels] == pytest.approx([0.40, 0.41, 0.61])
    assert [curve.end for curve in found.curves] == pytest.approx([0.51, 0.71])


def test_runs_of_other_lengths_share_what_all_have(curves: Callable[..., Curves], study: Any) -> None:
    history(study.store, "train-hh_ppo_1", [1.0, 2.0, None])
    assert curves().curves[0].x == (1.0, 2.0)
    study.store.stage("train-hh_ppo_2").done_json.unlink()  # still running: its curve is not there yet
    assert curves().curves[0].mean == (0.5, 1.5)
    for seed in (0, 1):
        study.store.stage(f"train-hh_ppo_{seed}").done_json.unlink()
    assert [curve.label for curve in curves().curves] == ["UltraFeedback & co PPO"]


def test_a_mean_over_fewer_runs_says_so(curves: Callable[..., Curves], study: Any) -> None:
    assert curves(suite="facts").remarks == ()
    study.store.stage("train-hh_ppo_1").done_json.unlink()
    history(study.store, "train-hh_ppo_2", [None, None])
    found = curves(suite="facts")
    assert found.curves[0].mean == (0.0, 1.0, 2.0) and found.curves[0].sd is None
    assert found.remarks == ("HH_50% PPO: mean over 1 of 3 runs (seed=1: not run; seed=2: no 'score' in its curve).",)


def test_a_row_whose_histories_lack_the_value_is_a_level_that_says_so(
    curves: Callable[..., Curves], study: Any
) -> None:
    for seed in range(3):
        history(study.store, f"train-hh_ppo_{seed}", [None, None])
    found = curves(suite="facts")
    assert [curve.label for curve in found.curves] == ["UltraFeedback & co PPO"]
    levels = {level.label: level.value for level in found.levels}
    assert levels["HH_50% PPO"] == pytest.approx(0.51)
    assert found.remarks == ("HH_50% PPO: no 'score' in its training curves.",)
    study.evaluation("evaluate-facts-train-hh_dpo_2", [None], score=None, health={"reason": "unparsable"})
    assert curves(suite="facts").remarks[0] == "HH_50% DPO: mean over 2 of 3 runs (seed=2: unparsable)."


def test_a_value_that_no_curve_has_is_an_error(curves: Callable[..., Curves]) -> None:
    with pytest.raises(UsageError, match="no training curve has 'scores'\n  did you mean 'score'"):
        curves(y="scores")


def test_a_figure_is_drawn_and_equal_for_equal_numbers(curves: Callable[..., Curves], tmp_path: Path) -> None:
    layout = CurveLayout(name="curve", table="main", suite="facts", title="Cost $5")
    drawings = [draw_curves(layout, curves(suite="facts")) for _ in range(2)]
    first, second = (
        write(drawing.figure, "curve", tmp_path / name)
        for name, drawing in zip(("a", "b"), drawings, strict=True)
        if drawing is not None
    )
    assert [file.name for file in first] == ["curve.pdf", "curve.png"]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    assert draw_curves(layout, Curves((), ())) is None


REPORT: dict[str, Any] = {
    "tables": [{"name": "main", "rows": ["dataset", "algorithm"], "columns": ["categories"]}],
    "figures": [{"kind": "curves", "name": "curve", "table": "main", "suite": "facts"}],
}


def test_a_report_has_its_curves(curves: Callable[..., Curves], study: Any, tmp_path: Path) -> None:
    curves()
    file = tmp_path / "report.yaml"
    file.write_text(yaml.safe_dump(REPORT))
    report = render_report(study.store, "study", file, tmp_path / "out")
    assert tmp_path / "out" / "figures" / "curve.png" in report.files
    assert "(figures/curve.png)" in (tmp_path / "out" / "report.md").read_text()
    study.store.stage("train-hh_ppo_1").done_json.unlink()
    render_report(study.store, "study", file, tmp_path / "out")
    for name in ("report.md", "report.html"):
        assert "HH_50% PPO: mean over 2 of 3 runs (seed=1: not run)" in (tmp_path / "out" / name).read_text().replace(
            "\\", ""
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": "mian"}, r"report.yaml:\d+: figures.0.table: unknown table 'mian'\n  did you mean 'main'"),
        ({"suite": "fact"}, r"report.yaml:\d+: figures.0.suite: unknown suite 'fact'\n  did you mean 'facts'"),
        ({"x": "epochs"}, r"report.yaml:\d+: figures.0.x: 'epochs' is not allowed\n  allowed: labels, samples, steps"),
        ({"why": "score"}, r"report.yaml:\d+: figures.0.why"),
    ],
)
def test_wrong_names_are_located(changes: dict[str, Any], message: str, study: Any, tmp_path: Path) -> None:
    file = tmp_path / "report.yaml"
    file.write_text(yaml.safe_dump({**REPORT, "figures": [{**REPORT["figures"][0], **changes}]}))
    with pytest.raises(SpecError, match=message):
        load_layout(file, study.plan)


def test_every_figure_has_a_name_of_its_own(study: Any, tmp_path: Path) -> None:
    file = tmp_path / "report.yaml"
    bars = {"name": "curve", "table": "main", "columns": ["chat"]}
    file.write_text(yaml.safe_dump({**REPORT, "figures": [*REPORT["figures"], bars]}))
    with pytest.raises(SpecError, match=r"figures.1.name: 'curve' is used twice"):
        load_layout(file, study.plan)
