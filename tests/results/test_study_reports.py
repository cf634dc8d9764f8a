"""The study's tables as ablate ships them, each over a store of light stages with known numbers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.rewardbench import SECTIONS
from ablate.catalogs.suites import load_suites
from ablate.results.layout import load_layout
from ablate.results.report import Report, render_report
from ablate.results.tables.table import Table, cell_text
from ablate.shipped import shipped_folder

CATEGORIES = ("factuality", "reasoning", "coding", "truthfulness", "safety", "instruction-following")
SETS = ("tulu-2.5-nectar-60k", "tulu-2.5-hh-rlhf-60k")
BASE = {"dataset": None, "algorithm": None, "seed": None}


def texts(table: Table, *, kinds: tuple[str, ...] = ("baseline", "cell", "delta")) -> list[list[str]]:
    return [
        [cell_text(table, row, index).plain() for index in range(len(row.cells))]
        for row in table.rows
        if row.kind in kinds
    ]


def headings(table: Table) -> list[str | None]:
    return [row.cells[0].text for row in table.rows if row.kind == "heading"]


def render(maker: Any, name: str, out: Path) -> Report:
    """The report NAME on the store as made so far, in every format; its LaTeX compiles where TeX is."""
    path = shipped_folder("reports") / f"{name}.yaml"
    store = maker.write()
    load_layout(path, maker.plan)
    report = render_report(store, "study", path, out)
    written = {file.relative_to(out).as_posix() for file in report.files}
    assert {"report.md", "report.html", *(f"tables/{table.name}.csv" for table in report.tables)} <= written
    return report


def policies(maker: Any) -> None:
    for category in CATEGORIES:
        maker.suite(f"of-{category}", category)


def scores(right: int, answers: Any) -> dict[str, list[float]]:
    return dict.fromkeys((f"of-{category}" for category in CATEGORIES), answers(right, 100))


def rewardbench(maker: Any, name: str = "rewardbench", subject: str = "reward_model") -> None:
    maker.suite(name, "reward", subject=subject, primary="overall/accuracy", metrics=["accuracy", "longest"])


def judged_pairs(maker: Any, entry: Mapping[str, Any], suite: str, values: Mapping[str, float]) -> None:
    """An evaluation on RewardBench: accuracies by task, with the longest response always right."""
    metrics = [
        {"task": task, "metric": metric, "value": value if metric == "accuracy" else 1.0, "n": 10, "unit": "proportion"}
        for task, value in values.items()
        for metric in ("accuracy", "longest")
    ]
    output = maker.stage(entry["evaluations"][suite])
    result = {"score": values["overall"], "metrics": metrics, "health": {"n": 10}, "protocol": {}}
    (output / "metrics.json").write_text(json.dumps(result))


def reward_model(maker: Any, init: str, values: Mapping[str, float], dataset: str | None = "mix") -> None:
    axes = {"reward_model.init": init} | ({} if dataset is None else {"reward_model.dataset": dataset, "seed": 0})
    entry = maker.subject(f"rm {init} {dataset}", axes, {"rewardbench": None}, subject="reward_model")
    judged_pairs(maker, entry, "rewardbench", values)


def sections(overall: float, **others: float) -> dict[str, float]:
    return {"overall": overall, **dict.fromkeys(SECTIONS, overall), **others}


def test_table_1(maker: Any, answers: Any, tmp_path: Path) -> None:
    policies(maker)
    maker.plan["datasets"] = {
        "tulu-2.5-nectar": {"title": "Nectar", "label_kind": "ai", "licence": "Apache-2.0"},
        "tulu-2.5-shp-2": {"title": "SHP-2", "label_kind": "human", "licence": "unrecorded"},
    }
    maker.subject("sft", BASE, scores(40, answers), role="baseline")
    for dataset, right in (("tulu-2.5-nectar", 60), ("tulu-2.5-shp-2", 30)):
        axes = {"dataset": dataset, "algorithm": "dpo", "seed": 0}
        maker.subject(dataset, axes, scores(right, answers), inputs={"dataset": f"dataset-{dataset}"})
    table, printed = render(maker, "table1_dpo_datasets", tmp_path / "out").tables
    assert headings(table) == ["Web", "Synthetic"]
    assert texts(table) == [
        ["Tülu 2 (SFT)", "", "", "", *["40.0"] * 7, "12.0"],
        ["SHP-2", "human", "unrecorded", "–", *["30.0 ▼"] * 7, "12.0"],
        ["Nectar", "AI", "Apache-2.0", "–", *["60.0 ▲"] * 7, "12.0"],
    ]
    nectar = next(row for row in table.rows if row.cells[0].text == "Nectar")
    assert {cell.rank for cell in nectar.cells[4:11]} == {"best"}
    assert printed.title.startswith("Performance of Tülu 2 13B models")


def test_table_2(maker: Any, answers: Any, tmp_path: Path) -> None:
    policies(maker)
    maker.subject("sft", BASE, scores(40, answers), role="baseline")
    for dataset, dpo, ppo in zip(SETS, (50, 45), (56, 40), strict=True):
        for algorithm, right in (("dpo", dpo), ("ppo", ppo)):
            axes = {"dataset": dataset, "algorithm": algorithm, "seed": 0}
            maker.subject(f"{dataset} {algorithm}", axes, scores(right, answers))
    table, printed = render(maker, "table2_ppo_vs_dpo", tmp_path / "out").tables
    rows = [(row[0], row[1], row[-1].split()[0]) for row in texts(table)]
    assert rows == [
        ("Tülu 2 (SFT)", "", "40.0"), ("Nectar", "DPO", "50.0"), ("Nectar", "PPO", "56.0"), ("Nectar", "Δ", "+6.0"),
        ("HH-RLHF", "DPO", "45.0"), ("HH-RLHF", "PPO", "40.0"), ("HH-RLHF", "Δ", "−5.0"),
    ]  # fmt: skip
    assert any("claimed 1.2, the printed numbers give 0.68" in remark for remark in printed.remarks)


def test_table_3(maker: Any, answers: Any, tmp_path: Path) -> None:
    rewardbench(maker)
    shipped = load_suites([shipped_folder("evals")])
    for name in ("best-of-16-gsm8k", "best-of-16-bbh"):
        maker.suite(name, shipped[name].category, subject="reward_model")
    for init, right, score in (("tulu-2-13b", 50, 0.798), ("tulu-2-70b", 60, 0.739)):
        axes = {"reward_model.init": init, "reward_model.dataset": "mix", "seed": 0}
        scores = {"best-of-16-gsm8k": answers(right, 100), "best-of-16-bbh": answers(right + 10, 100)}
        picked = scores | {"rewardbench": None}
        entry = maker.subject(f"rm {init}", axes, picked, subject="reward_model")
        judged_pairs(maker, entry, "rewardbench", {"overall": score})
    table, printed = render(maker, "table3_reward_models", tmp_path / "out").tables
    assert [row[-2:] for row in texts(table, kinds=("cell",))] == [["55.0", "79.8"], ["65.0", "73.9"]]
    ranks = [[cell.rank for cell in row.cells[-2:]] for row in table.rows if row.kind == "cell"]
    assert ranks == [[None, "best"], ["best", None]]
    assert printed.column_index("rewardbench_score") == 2


def test_best_of_n_suites_grade_as_the_suites_whose_responses_they_pick() -> None:
    shipped = load_suites([shipped_folder("evals")])
    picking = {name: suite for name, suite in shipped.items() if suite.category == "best-of-n"}
    of = {"gsm8k": "gsm8k-unpacking-2024", "bbh": "bbh-unpacking-2024", "humaneval": "humaneval", "xstest": "xstest",
          "facts": "pocket-factuality", "arithmetic": "pocket-reasoning", "safety": "pocket-safety",
          "constraints": "pocket-if"}  # fmt: skip
    assert {name.rpartition("-")[2] for name in picking} == set(of)
    for name, suite in picking.items():
        graded = shipped[of[name.rpartition("-")[2]]]
        assert suite.grading_config() == graded.grading_config() and suite.prompts == graded.prompts
        assert (suite.limit, suite.engine, suite.decoding.samples) == (graded.limit, "best-of-n", 16)
        assert suite.decoding.stop == graded.decoding.stop and suite.data.files == graded.data.files


def scaling(maker: Any, answers: Any) -> None:
    policies(maker)
    rewardbench(maker)
    maker.subject("sft", BASE, scores(40, answers), role="baseline")
    for init, right in (("tulu-2-13b", 50), ("tulu-2-70b", 52)):
        reward_model(maker, init, sections(right / 100 + 0.2))
        for prompts in ("ultrafeedback", "ultrafeedback-code-math"):
            axes = {
                "dataset": "uf", "algorithm": "ppo", "reward_model.init": init, "reward_model.dataset": "mix",
                "prompts": prompts, "seed": 0,
            }  # fmt: skip
            if prompts == "ultrafeedback" or maker.plan.get("mixtures"):
                maker.subject(f"ppo {init} {prompts}", axes, scores(right, answers))
    maker.subject("dpo", {"dataset": "uf", "algorithm": "dpo", "seed": 0}, scores(45, answers))


def test_scaling_of_reward_models(maker: Any, answers: Any, tmp_path: Path) -> None:
    scaling(maker, answers)
    models, table = render(maker, "rm_scaling", tmp_path / "out").tables
    assert texts(models, kinds=("cell",)) == [["mix", "tulu-2-13b", "1", "70.0"], ["mix", "tulu-2-70b", "1", "72.0"]]
    assert [row[:4] for row in texts(table, kinds=("cell",))] == [
        ["PPO", "mix", "tulu-2-13b", "1"], ["PPO", "mix", "tulu-2-70b", "1"]
    ]  # fmt: skip
    assert [row[-1].split()[0] for row in texts(table, kinds=("cell",))] == ["50.0", "52.0"]


def test_prompt_mixtures(maker: Any, answers: Any, tmp_path: Path) -> None:
    maker.plan["mixtures"] = True
    scaling(maker, answers)
    (table,) = render(maker, "prompt_mixtures", tmp_path / "out").tables
    assert [row[:4] for row in texts(table, kinds=("cell",))] == [
        ["PPO", prompts, init, "1"]
        for prompts in ("ultrafeedback", "ultrafeedback-code-math")
        for init in ("tulu-2-13b", "tulu-2-70b")
    ]
    assert [column.key for column in table.columns[-7:]] == [*(f"of-{name}" for name in CATEGORIES), "average"]


def test_the_leaderboard(maker: Any, tmp_path: Path) -> None:
    rewardbench(maker)
    for init, overall in (("small", 0.61), ("large", 0.815), ("medium", 0.7)):
        reward_model(maker, init, sections(overall, chat=0.9), None if init == "large" else "mix")
    table, printed = render(maker, "rewardbench_leaderboard", tmp_path / "out").tables
    assert texts(table) == [
        ["Longest response", "", *["100.0"] * 5],
        ["large", "", "81.5", "90.0", "81.5", "81.5", "81.5"],
        ["medium", "mix", "70.0", "90.0", "70.0", "70.0", "70.0"],
        ["small", "mix", "61.0", "90.0", "61.0", "61.0", "61.0"],
    ]
    assert any("openbmb/UltraRM-13b, Avg (printed 71.3" in remark for remark in printed.remarks)


def test_the_leaderboard_of_released_models_alone(maker: Any, tmp_path: Path) -> None:
    rewardbench(maker)
    reward_model(maker, "someone/released", sections(0.8), None)
    table = render(maker, "rewardbench_leaderboard", tmp_path / "out").tables[0]
    assert texts(table, kinds=("cell",))[0][:3] == ["someone/released", "", "80.0"]


def test_safety_patterns(maker: Any, tmp_path: Path) -> None:
    rewardbench(maker)
    for init, refuse, respond in (
        ("open", 0.1, 0.95),
        ("shy", 0.99, 0.2),
        ("good", 0.9, 0.8),
        ("better", 0.95, 0.9),
        ("odd", 0.1, 0.1),
    ):
        subsets = dict.fromkeys(SECTIONS["safety"], refuse) | {"xstest-should-respond": respond}
        reward_model(maker, init, {"overall": 0.7, "safety": (refuse + respond) / 2, **subsets})
    (table,) = render(maker, "safety_patterns", tmp_path / "out").tables
    assert headings(table) == ["Handles safety well", "Refuses everything", "Responds to everything", "Other"]
    assert [row[0] for row in texts(table, kinds=("cell",))] == ["better", "good", "shy", "open", "odd"]


def test_reference_free_deltas(maker: Any, tmp_path: Path) -> None:
    suites = ("rewardbench-implicit", "rewardbench-likelihood")
    for name in suites:
        rewardbench(maker, name, "policy")
    entry = maker.subject(
        "dpo",
        {"dataset": "uf", "algorithm": "dpo", "seed": 0},
        dict.fromkeys(suites),
    )
    judged_pairs(maker, entry, "rewardbench-implicit", sections(0.72, reasoning=0.8))
    judged_pairs(maker, entry, "rewardbench-likelihood", sections(0.65, reasoning=0.62))
    (table,) = render(maker, "reference_free", tmp_path / "out").tables
    assert texts(table, kinds=("cell",)) == [["uf", "DPO", "72.0", "65.0", "−7.0", "−7.0", "−7.0", "−7.0", "−18.0"]]


@pytest.mark.latex
def test_their_latex_compiles(maker: Any, answers: Any, tmp_path: Path) -> None:
    scaling(maker, answers)
    out = tmp_path / "out"
    render(maker, "rm_scaling", out)
    for file in sorted((out / "tables").glob("*.standalone.tex")):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", file.name]
        done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]
