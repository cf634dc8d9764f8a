"""Whole studies through the command line, from YAML to tables, with real training, scoring and evaluation.

The models are trained for a few steps only: what is asserted is that every number is there, that it belongs to the
right row, and what runs again after a change. Whether the methods learn is asserted in their own rooms.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow

POCKET = """\
extends: {shipped}/pocket_quick.yaml
name: tiny
pretrain: {{steps: 60}}
data: {{max_examples: 96}}
sft: {{max_examples: 160, epochs: 1}}
ppo: {{steps: 2, prompts_per_step: 16, mini_batch_size: 8, max_response_length: 24}}
grid:
  - {{dataset: [pocket-hh, pocket-ultrafeedback], algorithm: [dpo, ppo]}}
evaluate: {{policy: [short-reasoning, short-gold], reward_model: [pocket-pairs, short-best-of-4]}}
report: null
"""
SUITES = """\
suites:
  short-reasoning: &policy
    {title: Arithmetic, category: reasoning, subject: policy, engine: items, grader: pocket, primary: accuracy,
     data: {pocket: {what: items, n: 8}}, prompts: pocket, decoding: {max_new_tokens: 24},
     options: {skills: [arithmetic]}}
  short-gold: {<<: *policy, title: Gold, category: gold, options: {measure: gold}, primary: gold, unit: reward}
  short-best-of-4:
    {title: Best of 4, category: gold, subject: reward_model, engine: best-of-n, grader: pocket, primary: gold,
     unit: reward, data: {pocket: {what: items, n: 4}}, prompts: pocket, options: {measure: gold},
     select: {rule: best}, decoding: {temperature: 0.7, samples: 4, max_new_tokens: 24}}
"""
REAL = [
    "name=real-tiny", "pretrain.steps=8", "data.max_examples=48", "sft.max_examples=48", "ppo.steps=1",
    "ppo.prompts_per_step=8", "ppo.mini_batch_size=4", "ppo.max_response_length=16",
    "evaluate.policy=[mmlu-tiny, gsm8k-tiny, truthfulqa-mc-tiny, xstest-tiny, ifeval-tiny]",
]  # fmt: skip

Ablate = Callable[..., str]


@pytest.fixture
def ablate(tmp_path: Path) -> Ablate:
    """Run the command line in the test's folder and return what it printed; it must succeed."""
    shipped = Path(__file__).parents[1] / "experiments"
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "short.yaml").write_text(SUITES)
    (tmp_path / "tiny.yaml").write_text(POCKET.format(shipped=shipped))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "COLUMNS": "160"}

    def call(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ablate", *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


def to_run(ablate: Ablate, *words: str) -> dict[str, int]:
    """Return how many stages of each kind a plan would run."""
    plan = json.loads(ablate("plan", *words, "--json"))
    return {kind["kind"]: kind["to_run"] for kind in plan["kinds"] if kind["to_run"]}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_grid_of_dpo_and_ppo_goes_from_yaml_to_a_full_table_and_a_change_reruns_what_hangs_on_it(
    ablate: Ablate, tmp_path: Path
) -> None:
    first = ablate("run", "tiny.yaml")
    assert "failed" not in first and "next: ablate report tiny" in first
    assert "nothing to do" in ablate("run", "tiny.yaml")

    printed = ablate("report", "tiny")
    assert "All 16 evaluations are done." in printed  # (2 baselines + 4 cells) x 2 suites + 2 reward models x 2
    assert "—" not in printed  # no missing cell
    out = tmp_path / "out" / "tiny"
    for name in ("report.md", "report.html", "tables/main.tex", "tables/main.standalone.tex", "results.csv"):
        assert (out / name).stat().st_size > 100, name
    scores = [row for row in rows(out / "results.csv") if row["metric"] == "score"]
    policies = {
        (row["role"], row["axis.dataset"], row["axis.algorithm"]) for row in scores if row["suite"] == "short-gold"
    }
    assert policies == {
        ("baseline", "", ""),
        *(("cell", dataset, method) for dataset in ("pocket-hh", "pocket-ultrafeedback") for method in ("dpo", "ppo")),
    }
    assert all(row["value"] and int(float(row["n"])) in (8, 28, 56, 2100) for row in scores)

    assert to_run(ablate, "tiny.yaml", "dpo.beta=0.5") == {"train (dpo)": 2, "generate": 2, "evaluate": 4}
    # A seed more: a reward model, a DPO and a PPO for each dataset, and what measures them.
    more = to_run(ablate, "tiny.yaml", f"grid={grid([0, 1])}")
    assert more == {
        "reward_model": 2, "train (dpo)": 2, "train (ppo)": 2, "generate": 4, "score": 4, "select": 2, "evaluate": 12,
    }  # fmt: skip
    # Another reward model: neither DPO nor any reference pass runs again.
    assert "train (dpo)" not in to_run(ablate, "tiny.yaml", "reward_model.learning_rate=5e-4")


def grid(seeds: Sequence[int]) -> str:
    return f"[{{dataset: [pocket-hh, pocket-ultrafeedback], algorithm: [dpo, ppo], seed: {list(seeds)}}}]"


LOSSES = """\
extends: tiny.yaml
name: losses
simpo: &same {epochs: 1, learning_rate: 1.0e-4, max_length: 256}
kto: *same
bco: *same
aot: *same
discopop: *same
supervised: *same
grid: [{dataset: pocket-hh, algorithm: [dpo, simpo, kto, bco, aot, discopop, supervised]}]
evaluate: {policy: [short-gold], reward_model: []}
"""


def test_a_loss_of_every_family_goes_from_yaml_to_a_table(ablate: Ablate, tmp_path: Path) -> None:
    (tmp_path / "losses.yaml").write_text(LOSSES)
    assert to_run(ablate, "losses.yaml")["reference_logprobs"] == 2  # shared, and KTO's over mismatched completions
    ablate("run", "losses.yaml")
    assert "All 9 evaluations are done." in ablate("report", "losses")  # 2 baselines and 7 cells
    stages = tmp_path / "store" / "stages"
    curves = {}
    for folder in stages.glob("train-*"):
        algorithm = json.loads((folder / "stage.json").read_text())["config"]["algorithm"]
        curves[algorithm] = json.loads((folder / "output" / "history.jsonl").read_text().splitlines()[0])
    assert {name: round(curves[name]["loss"], 3) for name in ("dpo", "kto", "bco", "aot", "discopop")} == {
        "dpo": 0.693, "kto": 0.5, "bco": 0.693, "aot": 0.693, "discopop": 0.847,
    }  # fmt: skip
    assert curves["kto"]["kl"] == pytest.approx(0, abs=1e-3) == curves["bco"]["shift"]
    assert curves["simpo"]["rewards/chosen"] < 0


SETS = """\
extends: tiny.yaml
name: sets
pretrain: {steps: 300}
sft: {max_examples: 800, epochs: 2}
data: {max_examples: 96, match: smallest}
datasets:
  honest: {use: pocket-ultrafeedback, label: honesty, where: {prompt_words: {max: 40}}}
  judged: {use: pocket-ultrafeedback, label: &judge {by: {reward_model: {init: pocket-small, dataset: pocket-nectar}}}}
  own: {prompts: pocket-ultrafeedback, responses: {n: 6, temperature: 1.0, max_new_tokens: 60}, label: *judge}
  both: {mix: {pocket-ultrafeedback: 0.5, pocket-shp: 0.5}, title: Both}
grid: [{dataset: [pocket-ultrafeedback, honest, judged, own, both], algorithm: dpo}]
evaluate: {policy: [short-gold], reward_model: []}
"""


def test_labels_responses_and_mixtures_of_a_specification_go_to_a_table(ablate: Ablate, tmp_path: Path) -> None:
    (tmp_path / "sets.yaml").write_text(SETS)
    assert to_run(ablate, "sets.yaml")["label"] == 2
    ablate("run", "sets.yaml")
    plan = json.loads((tmp_path / "store/experiments/sets/plan.json").read_text())
    outputs = {name: tmp_path / "store/stages" / facts["stage"] / "output" for name, facts in plan["datasets"].items()}
    pairs = {
        name: [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
        for name, folder in outputs.items()
    }
    # Cut to the smallest of them, which is at most what max_examples leaves of a set.
    assert len({len(made) for made in pairs.values()}) == 1 and 10 <= len(pairs["own"]) <= 96
    assert {pair["source"] for pair in pairs["both"]} >= {"shp"} and len({pair["source"] for pair in pairs["both"]}) > 1
    for name in ("judged", "own"):
        assert all(pair["chosen_score"] > pair["rejected_score"] for pair in pairs[name])
    scores = {pair["chosen_score"] for pair in pairs["honest"]}
    assert scores <= {1.0, 2.0, 3.0, 4.0, 5.0}  # one aspect, where the mean of four has fractions
    printed = ablate("report", "sets", "--data")
    assert "All 7 evaluations are done." in printed and "Both" in printed and "made here" in printed


CHAINED = """\
extends: tiny.yaml
name: chained
data: {max_examples: 64}
rejection_sampling: {n: 4, max_response_length: 60, learning_rate: 1.0e-3, epochs: 1, batch_size: 8, max_length: 256}
supervised: {learning_rate: 1.0e-3, epochs: 1, batch_size: 8, max_length: 256}
sdpo: {learning_rate: 1.0e-4, epochs: 1, batch_size: 8, max_length: 256}
datasets:
  own:
    prompts: pocket-ultrafeedback
    responses: {n: 3, max_new_tokens: 60, gold: true, parts: 2}
    label: {by: {reward: nouns}}
    pairing: {policy: all-pairs, minimum_gap: 2.0}
grid:
  - {dataset: pocket-hh, algorithm: sdpo, rounds: [1, 2]}
  - {dataset: own, algorithm: dpo, rounds: 2}
  - {dataset: pocket-hh, algorithm: rejection_sampling}
  - dataset: pocket-hh
    algorithm: dpo
    policy:
      from:
        algorithm: ppo
        policy: {from: {algorithm: supervised, policy: {from: {algorithm: rejection_sampling}}}}
      title: after three steps
  - {algorithm: none, policy: {merge: [{from: {algorithm: sdpo, dataset: pocket-hh}}, pocket-small], title: Half}}
baselines: [sft]
evaluate: {policy: [short-gold], reward_model: []}
"""


def test_chains_rounds_and_a_merge_go_to_a_table(ablate: Ablate, tmp_path: Path) -> None:
    (tmp_path / "chained.yaml").write_text(CHAINED)
    planned = to_run(ablate, "chained.yaml")
    assert planned["train (rejection_sampling)"] == planned["merge"] == planned["split"] == 1
    assert (planned["train (sdpo)"], planned["respond"], planned["train (dpo)"]) == (2, 3, 3)
    ablate("run", "chained.yaml")
    printed = ablate("report", "chained")
    assert "All 7 evaluations are done." in printed and "—" not in printed
    assert all(title in printed for title in ("after three steps", "Half", "Rejection sampling", "sDPO"))
    reports = {path.parent.parent.name.split("-")[0]: json.loads(path.read_text()) for path in
               (tmp_path / "store/stages").glob("*/output/report.json")}  # fmt: skip
    parts = reports["split"]["parts"]
    assert sum(part["pairs"] for part in parts) == reports["split"]["in"]
    assert parts[0]["lowest_margin"] >= parts[1]["highest_margin"]
    assert reports["best"]["mean_score"]["kept"] > reports["best"]["mean_score"]["in"]
    assert "nothing to do" in ablate("run", "chained.yaml")


MANUAL = (Path(__file__).parents[1] / "docs/algorithms.md").read_text(encoding="utf-8")


def test_a_method_of_ones_own_and_policies_as_classifiers_go_to_a_table(ablate: Ablate, tmp_path: Path) -> None:
    """The manual's method beside DPO; a baseline has no implicit reward, which is a gap with a reason and not 0."""
    code = MANUAL.partition("This is all of `dpop.py`")[2].partition("```python\n")[2].partition("```")[0]
    (tmp_path / "dpop.py").write_text(code)
    shipped = Path(__file__).parents[1] / "experiments"
    text = POCKET.format(shipped=shipped).partition("grid:")[0] + (
        "dpop: {learning_rate: 1.0e-4, epochs: 1, max_length: 256}\n"
        "grid:\n"
        "  - {dataset: pocket-hh, algorithm: dpo}\n"
        "  - {dataset: pocket-hh, algorithm: './dpop.py:METHOD', dpop.penalty: [0.0, 5.0]}\n"
        "evaluate: {policy: [short-implicit], reward_model: []}\n"
        "report: null\n"
    )
    (tmp_path / "own.yaml").write_text(text)
    (tmp_path / "evals" / "implicit.yaml").write_text(
        "suites:\n  short-implicit: {title: Pairs, category: reward, subject: policy, engine: implicit, "
        "data: {pocket: {what: pairs, n: 3}}, prompts: pocket-pairs, grader: implicit, primary: accuracy}\n"
    )
    ablate("run", "own.yaml")
    ablate("report", "tiny")
    lines = (tmp_path / "out/tiny/report.md").read_text().splitlines()
    cells = [line.split("|") for line in lines if line.startswith("| Pocket HH")]
    assert [cell[2].strip() for cell in cells] == ["DPO", "DPO-Positive", "DPO-Positive"]
    assert all(0 <= float(cell[-2].strip(" *▲▼")) <= 100 for cell in cells)
    (baseline,) = [line for line in lines if line.startswith("| SFT")]
    assert "–" in baseline
    assert any("there is no reference, and no implicit reward" in line for line in lines)


@pytest.mark.data
def test_real_preference_rows_go_to_a_table_over_real_test_sets_and_every_row_is_accounted_for(
    ablate: Ablate, tmp_path: Path
) -> None:
    (tmp_path / "evals" / "real_tiny.yaml").write_text(real_suites())
    printed = ablate("run", "real_small", *REAL)
    assert "failed" not in printed
    report = ablate("report", "real-tiny")
    assert "All 32 evaluations are done." in report  # (2 baselines + 4 cells) x 5 suites + 2 reward models
    assert "—" not in report
    accounts = [
        json.loads(path.read_text()) for path in (tmp_path / "store" / "stages").glob("dataset-*/output/report.json")
    ]
    assert len(accounts) >= 3
    for account in accounts:
        assert account_is_whole(account), account


def account_is_whole(account: dict[str, Any]) -> bool:
    """Rows read are rows kept plus rows dropped for a reason, those of the other part of a split among them."""
    return bool(account["in"] == account["kept"] + sum(account["dropped"].values()) and account["kept"] > 0)


def real_suites() -> str:
    """Return the shipped small suites cut to a few examples and tokens, under names of their own."""
    shipped = yaml.safe_load((Path(__file__).parents[1] / "evals" / "real-small.yaml").read_text())
    cut = {}
    for name, suite in shipped["suites"].items():
        suite["limit"] = 1 if name.startswith("mmlu") else 4  # of each subject, or of all
        if "decoding" in suite:
            suite["decoding"]["max_new_tokens"] = 16
        cut[name.replace("-small", "-tiny")] = suite
    return yaml.safe_dump({"common": shipped["common"], "suites": cut})
