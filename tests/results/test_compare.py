"""`ablate compare`: what differs between two experiments or two models, with named tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy import stats
from typer.testing import CliRunner

from ablate.cli.app import app
from ablate.errors import UsageError
from ablate.results.comparison.compare import Compared, Comparison, as_json, changed_answers, compare
from ablate.results.comparison.table import config_table, numbers_table
from ablate.store import Store


def number(found: Comparison, column: str, row: str = "") -> Compared:
    return next(item for item in found.numbers if item.measured.column.key == column and item.row == row)


def configured(maker: Any) -> Store:
    """Give two of the study's models stages with configurations: PPO's has a reward model, DPO's has none."""
    store: Store = maker.write()

    def write(stage: str, kind: str, config: dict[str, Any], inputs: dict[str, str]) -> None:
        wired = {role: {"stage": other, "artifact": ""} for role, other in inputs.items()}
        about = {"id": stage, "kind": kind, "revision": 1, "config": config, "inputs": wired}
        store.stage(stage).output.mkdir(parents=True, exist_ok=True)
        store.stage(stage).stage_json.write_text(json.dumps(about))

    write("sft-1", "sft", {"parameters": {"epochs": 2}}, {})
    write("rm-1", "reward_model", {"seed": 0}, {"policy": "sft-1"})
    write("train-hh_dpo_0", "train", {"parameters": {"beta": 0.1, "epochs": 1}, "seed": 0}, {"policy": "sft-1"})
    write(
        "train-hh_ppo_0", "train", {"parameters": {"epochs": 1, "kl": 0.05}, "seed": 0},
        {"policy": "sft-1", "reward_model": "rm-1"},
    )  # fmt: skip
    return store


def test_two_models_by_hand(study: Any) -> None:
    store = configured(study)
    ours, theirs = "study:dataset=hh,algorithm=ppo,seed=0", "study:dataset=hh,algorithm=dpo,seed=0"
    found = compare(store, ours, theirs, "mcnemar")
    assert [(item.key, item.first, item.second) for item in found.config] == [
        ("algorithm", "ppo", "dpo"),
        ("parameters.kl", 0.05, "absent"),
        ("parameters.beta", "absent", 0.1),
        ("reward_model", "rm-1", "absent"),
    ]
    facts = number(found, "factuality")
    assert (facts.first, facts.second, facts.pairs) == ((50.0, None), (40.0, None), 1)
    assert facts.difference is not None and facts.difference.estimate == pytest.approx(10.0)
    # ten answers gained, none lost: 2 / 2^10, then Holm over factuality, reasoning and gold
    assert facts.p == pytest.approx(3 * 2 / 2**10)
    assert facts.size is not None and facts.size.estimate == float("inf")
    text = json.dumps(as_json(found, "mcnemar"), allow_nan=False)  # JSON has no infinity
    assert '"effect_size": {"estimate": null' in text
    average = number(found, "average")
    assert average.p is None and "McNemar" in average.reason
    paired = number(compare(store, ours, theirs), "factuality")
    assert paired.p is not None and paired.size is not None
    assert paired.size.estimate == pytest.approx(0.1 / stats.tstd([1.0] * 10 + [0.0] * 90))


def test_several_seeds_are_paired(study: Any) -> None:
    found = compare(study.write(), "study:dataset=hh,algorithm=ppo", "study:dataset=hh,algorithm=dpo")
    facts = number(found, "factuality")
    assert facts.pairs == 3 and facts.first == (pytest.approx(51.0), pytest.approx(1.0))
    assert facts.difference is not None and facts.difference.estimate == pytest.approx(10.0)
    drawn = number(
        compare(study.store, "study:dataset=hh,algorithm=ppo", "study:dataset=hh,algorithm=dpo", "bootstrap"),
        "factuality",
    )
    assert drawn.difference is not None and drawn.difference.low < 10 < drawn.difference.high
    over = number(compare(study.store, "study:dataset=hh,algorithm=dpo", "study:baseline=sft"), "average")
    assert over.pairs == 3 and over.difference is not None and over.difference.estimate == pytest.approx(1.0)


def second_experiment(study: Any) -> Store:
    """Another experiment of the store: DPO on hh again, better by seven answers, and a set that the first lacks."""
    store: Store = study.write()
    other = type(study)(store.root, "again")
    other.plan["suites"] = {**study.plan["suites"], "extra": study.plan["suites"]["facts"] | {"title": "extra"}}
    suites = ("facts", "math", "chat", "rules", "gold")
    for dataset in ("hh", "new"):
        for seed in range(3):
            axes = {"dataset": dataset, "algorithm": "dpo", "seed": seed}
            values = [1.0 if index < 47 + seed else 0.0 for index in range(100)]
            other.subject(
                f"{dataset} {seed}", axes, dict.fromkeys(suites, values), stage=f"train-again-{dataset}-{seed}"
            )
    other.write()
    for name, beta in (("study", 0.1), ("again", 0.3)):
        spec = {"name": name, "dpo": {"beta": beta, "epochs": 1}, "grid": [{"seed": [0, 1, 2]}]}
        store.experiment(name).spec.write_text(yaml.safe_dump(spec))
    return store


def test_two_experiments(study: Any) -> None:
    found = compare(second_experiment(study), "again", "study")
    assert [(item.key, item.first, item.second) for item in found.config] == [("dpo.beta", 0.3, 0.1)]
    same = number(found, "factuality", "dataset=hh")
    assert same.difference is not None and same.difference.estimate == pytest.approx(7.0) and same.pairs == 3
    text = " ".join(found.remarks)
    assert "Suites of one of the two only, left out: extra." in text
    assert "Only in again: dataset=new." in text and "Only in study" in text
    assert {item.row for item in found.numbers} == {"dataset=hh"}
    table = numbers_table(found, "paired")
    assert [row.cells[0].text for row in table.rows if row.kind == "heading"] == ["dataset=hh"]


def test_baselines_that_share_an_axis_with_cells_are_rows_of_their_own(maker: Any, answers: Any) -> None:
    maker.suite("facts", "factuality")
    for policy, right in (("small", 30), ("large", 50)):
        for name, facts in (("base", answers(right, 100)), ("sft", answers(right + 5, 100))):
            maker.subject(name, {"policy": policy}, {"facts": facts}, role="baseline", stage=f"{name}-{policy}")
        maker.subject(policy, {"policy": policy, "algorithm": "dpo"}, {"facts": answers(right + 9, 100)})
    found = compare(maker.write(), "study", "study")
    rows = {item.row: item.first[0] for item in found.numbers if item.measured.column.key == "factuality"}
    assert rows == pytest.approx({
        "base policy=small": 30.0, "sft policy=small": 35.0, "policy=small": 39.0,
        "base policy=large": 50.0, "sft policy=large": 55.0, "policy=large": 59.0,
    })  # fmt: skip


def test_an_experiment_beside_itself(study: Any) -> None:
    found = compare(study.write(), "study", "study")
    assert not found.config and config_table(found).remarks == ("Their configurations are the same.",)
    assert found.numbers and all(item.p is None and item.reason == "the same model" for item in found.numbers)


def test_baselines_have_rows_of_their_own_also_where_their_model_is_an_axis(study: Any) -> None:
    for entry in study.plan["subjects"]:
        if entry["subject"] == "policy":
            entry["axes"]["policy"] = "small"
    rows = {item.row for item in compare(study.write(), "study", "study").numbers}
    assert {"base", "sft", "algorithm=dpo dataset=hh"} <= {" ".join(sorted(row.split())) for row in rows}


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("stduy", "study", "unknown experiment of this store 'stduy'\n  did you mean 'study'"),
        ("study:algoritm=ppo", "study:baseline=sft", "unknown axis 'algoritm'\n  did you mean 'algorithm'"),
        ("study:algorithm=pp", "study:baseline=sft", "unknown value of algorithm 'pp'"),
        ("study:baseline=sfd", "study:baseline=sft", "unknown value of baseline 'sfd'\n  did you mean 'sft'"),
        ("study:algorithm", "study", "'algorithm' is not axis=value"),
        ("study:algorithm=ppo", "study:baseline=sft", "selects models with dataset hh, uf\n  add one of them"),
        ("study:dataset=hh", "study", "models with models\n  name the models of study, too"),
        ("study:seed=0", "study:baseline=sft", "selects policies and reward models"),
        ("study:algorithm=ppo,reward_model.init=tiny", "study:baseline=sft", "no model of study has all of"),
    ],
)
def test_what_is_not_there_is_told(study: Any, first: str, second: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compare(study.write(), first, second)


def test_changed_answers_are_of_one_run_of_right_and_wrong(study: Any) -> None:
    import numpy as np

    from ablate.results.statistics.paired import PairedSuite

    difference_SE, even = np.array([[1.0, -1.0, 1.0, 0.0]]), np.full(4, 0.25)
    assert changed_answers(PairedSuite(difference_SE, even, np.arange(4))) == (2, 1)
    for other in (
        PairedSuite(np.vstack([difference_SE] * 2), even, np.arange(4)),
        PairedSuite(difference_SE / 2, even, np.arange(4)),
        PairedSuite(difference_SE, even, np.array([0, 0, 1, 2])),
        PairedSuite(difference_SE, np.array([0.1, 0.2, 0.3, 0.4]), np.arange(4)),
    ):
        assert changed_answers(other) is None


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_commands(study: Any, tmp_path: Path) -> None:
    store = ("--store", str(second_experiment(study).root))
    found = json.loads(run("compare", "again", "study", "--format", "json", *store).stdout)
    assert found["config"] == [{"key": "dpo.beta", "first": 0.3, "second": 0.1}]
    row = next(item for item in found["results"] if item["column"] == "factuality")
    assert row["difference"]["estimate"] == pytest.approx(7.0)
    comparison = compare(study.store, "again", "study")
    assert json.loads(json.dumps(as_json(comparison, "paired"))) == found
    shown = run("compare", "study:dataset=hh,algorithm=ppo", "study:dataset=hh,algorithm=dpo", *store).stdout
    assert "Factuality" in shown and "algorithm" in shown
    effects = json.loads(run("effects", "study", "--format", "json", *store).stdout)
    assert [item["term"] for item in effects[0]["rows"]] == [
        "seed", "dataset", "algorithm", "dataset × algorithm", "residual (between runs)",
    ]  # fmt: skip
    sentence = "average[algorithm=ppo] - average[algorithm=dpo]"
    power = run("power", "study", sentence, "--each", "dataset", "--difference", "2", *store).stdout
    assert "dataset=hh" in power and "Power at 2" in power
