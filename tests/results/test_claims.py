"""Claims: their language, what they select, and verdicts on stores whose truth is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablate.errors import SpecError
from ablate.execution.record import Readers
from ablate.execution.study import make_plan
from ablate.results.claims.contrast import ContrastReader, independent_points
from ablate.results.claims.plan_ahead import build_power
from ablate.results.claims.verdicts import Finding, judge_claims
from ablate.results.layout import Layout, load_layout
from ablate.results.layout.claims import ClaimLayout, read_claims
from ablate.results.layout.grammar import Claim, ClaimError, Quantity, parse_claim, parse_sum
from ablate.results.long import collect
from ablate.results.report import build_report, render_report, terminal
from ablate.results.statistics.effect_size import difference_interval
from ablate.results.statistics.paired import PairedSuite, paired_test, pool_seeds
from ablate.store import Store


def test_the_language_of_claims() -> None:
    found = parse_claim("average[algorithm=ppo] - average[algorithm=dpo] > 0.5")
    ppo, dpo = (Quantity("average", (("algorithm", name),)) for name in ("ppo", "dpo"))
    assert found == Claim(((1.0, ppo), (-1.0, dpo)), 1, 0.5)
    assert parse_claim("average[algorithm=ppo] > average[algorithm=dpo] + .5") == found
    assert parse_claim("average[ algorithm = 'ppo' ] - 1 * average[algorithm=dpo] >= 5e-1") == found
    below = parse_claim("2 * pocket-gold - 3 < instruction-following[dataset=a/b, dpo.beta=0.1]")
    assert below.sign == -1 and below.bound == 3.0
    assert below.terms == (
        (2.0, Quantity("pocket-gold")),
        (-1.0, Quantity("instruction-following", (("dataset", "a/b"), ("dpo.beta", "0.1")))),
    )
    size = parse_claim("abs(average(safety, coding)[dataset=x] - average[baseline=sft]) < 2")
    assert size.is_size and size.bound == 2.0 and size.terms[0][1].column == "average(safety,coding)"
    assert parse_claim("suite/task/metric[a=null] > -1").bound == -1.0
    assert parse_sum("-a[x=1] + b").terms == ((-1.0, Quantity("a", (("x", "1"),))), (1.0, Quantity("b")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("average[algorithm=ppo]", "a relation: <, <=, > or >= is needed at the end"),
        ("average[algorithm=ppo) > 1", r"key=value, then a comma or \] is needed before 'algorithm=ppo\) > 1'"),
        ("average[a=1, a=2] > 1", "'a' is selected twice"),
        ("1 > 2", "at least one column"),
        ("a > b > c", "the end is needed before '> c'"),
        ("a + > 1", "a column or a number is needed before '> 1'"),
        ("a * b > 1", r"a relation.*before '\* b > 1'"),
        ("abs(a - b) > 1", r"a size is below a number above 0"),
        ("abs(a - b) < -1", r"a size is below a number above 0"),
        ("__import__('os').system('true') > 1", "a column or a number is needed before"),
        ("a[x=1].__class__ > 1", r"a relation.*before '\.__class__ > 1'"),
        ("", "a column or a number is needed at the end"),
    ],
)
def test_what_is_no_claim_is_told(text: str, message: str) -> None:
    with pytest.raises(ClaimError, match=message):
        parse_claim(text)


def test_nothing_else_than_a_claim_error_comes_of_any_text() -> None:
    rng = np.random.default_rng(0)
    pieces = [
        "average",
        "[",
        "]",
        "a=1",
        "-",
        " - ",
        "+",
        "*",
        "0.5",
        "<",
        ">=",
        "abs(",
        ")",
        " ",
        "'",
        "é",
        "\n",
        "1e",
    ]
    for _ in range(3000):
        text = "".join(rng.choice(pieces, size=int(rng.integers(1, 12))))
        try:
            parse_claim(text)
        except ClaimError:
            continue


class World:
    """A store with DPO, PPO and an SFT baseline on sets ``a`` and ``b``, whose scores are drawn around known levels."""

    def __init__(self, maker: Any, seed: int, *, seeds: int = 3, examples: int = 400, spread: float = 0.01) -> None:
        self.maker, self.rng = maker, np.random.default_rng(seed)
        self.seeds, self.spread = seeds, spread
        self.easy_E = self.rng.normal(size=examples)
        maker.suite("facts", "factuality")
        empty = {"dataset": None, "algorithm": None, "seed": None}
        maker.subject("sft", empty, {"facts": self.values(0.4)}, role="baseline")

    def values(self, level: float) -> list[float]:
        shifted = level + self.spread * self.rng.normal()
        return list(shifted + 0.1 * self.easy_E + 0.05 * self.rng.normal(size=self.easy_E.size))

    def cells(self, algorithm: str, dataset: str, level: float, **axes: Any) -> None:
        for seed in range(self.seeds):
            own = {"dataset": dataset, "algorithm": algorithm, **axes, "seed": seed}
            label = " ".join(f"{key}={value}" for key, value in own.items())
            self.maker.subject(label, own, {"facts": self.values(level)})

    def findings(self, *claims: dict[str, Any]) -> list[Finding]:
        layout = Layout.model_validate({"claims": list(claims)})
        return judge_claims(collect(self.maker.write(), "study"), layout.claims)


def test_verdicts_on_known_differences(maker: Any) -> None:
    world = World(maker, 1)
    for dataset in ("a", "b"):
        world.cells("dpo", dataset, 0.50)
        world.cells("ppo", dataset, 0.60)
    ahead, behind, even, same, small = world.findings(
        {"ahead": "factuality[algorithm=ppo] - factuality[algorithm=dpo] > 5", "over": "dataset"},
        {"behind": "factuality[algorithm=ppo] < factuality[algorithm=dpo]", "over": "dataset"},
        {"even": "factuality[algorithm=ppo] - factuality[algorithm=dpo] > 10", "over": "dataset"},
        {"same": "abs(factuality[algorithm=dpo,dataset=a] - factuality[algorithm=dpo,dataset=b]) < 8"},
        {"small": "abs(factuality[algorithm=ppo] - factuality[algorithm=dpo]) < 5", "over": "dataset"},
    )
    assert [item.verdict for item in (ahead, behind, even, same, small)] == [
        "supported", "not supported", "undecided", "supported", "not supported",
    ]  # fmt: skip
    for item in (ahead, behind, even, small):
        assert item.interval is not None and item.interval.low < 10 < item.interval.high
        assert item.contrast.points == 2
    assert ahead.p is not None and ahead.p < 0.05 and even.p is not None and even.p > 0.05
    assert ahead.interval is not None and ahead.interval.estimate == pytest.approx(10, abs=2)
    assert "seeds" in even.needs and not ahead.needs


def test_an_estimate_is_the_difference_of_the_tables(maker: Any) -> None:
    world = World(maker, 2)
    for dataset, level in (("a", 0.5), ("b", 0.7)):
        world.cells("dpo", dataset, level)
        world.cells("ppo", dataset, level + 0.1)
    averaged, one, other, over_sft = world.findings(
        {"c": "factuality[algorithm=ppo] > factuality[algorithm=dpo]", "over": "dataset"},
        {"d": "factuality[algorithm=ppo] > factuality[algorithm=dpo]", "each": "dataset"},
        {"e": "factuality[algorithm=dpo] > factuality[baseline=sft]", "over": "dataset"},
    )  # fmt: skip
    assert [item.contrast.where for item in (averaged, one, other)] == [{}, {"dataset": "a"}, {"dataset": "b"}]
    results = collect(maker.store, "study")
    means = {
        key: np.mean([
            100 * results.evaluations[item.evaluations["facts"]].score
            for item in results.subjects if (item.axes["algorithm"], item.axes["dataset"]) == key
        ])
        for key in (("dpo", "a"), ("dpo", "b"), ("ppo", "a"), ("ppo", "b"), (None, None))
    }  # fmt: skip
    assert one.interval is not None and averaged.interval is not None and over_sft.interval is not None
    assert one.interval.estimate == pytest.approx(means["ppo", "a"] - means["dpo", "a"])
    assert averaged.interval.estimate == pytest.approx(
        np.mean([means["ppo", name] - means["dpo", name] for name in "ab"])
    )
    assert over_sft.interval.estimate == pytest.approx((means["dpo", "a"] + means["dpo", "b"]) / 2 - means[None, None])


def test_each_pools_the_variance_between_seeds_as_a_table_does(maker: Any) -> None:
    world = World(maker, 3, examples=40)
    for dataset in ("a", "b"):
        world.cells("dpo", dataset, 0.5)
        world.cells("ppo", dataset, 0.6)
    reader = ContrastReader(collect(maker.write(), "study"))
    found = reader.read(parse_sum("factuality[algorithm=ppo] - factuality[algorithm=dpo]"), each=["dataset"])
    tests = []
    results = collect(maker.store, "study")
    for dataset in ("a", "b"):
        sides = {
            name: np.array([
                [v.as_py() for v in _read(results, item)] for item in results.subjects
                if (item.axes["algorithm"], item.axes["dataset"]) == (name, dataset)
            ])
            for name in ("ppo", "dpo")
        }  # fmt: skip
        suite = PairedSuite(sides["ppo"] - sides["dpo"], np.full(40, 1 / 40), np.arange(40))
        tests.append(paired_test({"s": suite}, {"s": 100.0}))
    for ours, theirs in zip(found, pool_seeds(tests, [("claim", "c")] * 2), strict=True):
        assert ours.test is not None
        assert (ours.test.estimate, ours.test.stderr, ours.test.df) == pytest.approx(
            (theirs.estimate, theirs.stderr, theirs.df)
        )


def _read(results: Any, subject: Any) -> Any:
    import pyarrow.parquet as pq

    path = results.store.stage(subject.evaluations["facts"]).artifact("examples.parquet")
    return pq.read_table(path).column("value")


def test_claims_are_wrong_no_oftener_than_their_level(maker: Any, tmp_path: Path) -> None:
    """PPO is no better than DPO: a claim that it is may be supported in one of forty, and rejected in one of forty."""
    wrong = 0
    for trial in range(80):
        world = World(type(maker)(tmp_path / str(trial)), trial, examples=60, spread=0.03)
        for dataset in ("a", "b"):
            world.cells("dpo", dataset, 0.5)
            world.cells("ppo", dataset, 0.5)
        (found,) = world.findings({"c": "factuality[algorithm=ppo] > factuality[algorithm=dpo]", "over": "dataset"})
        wrong += found.verdict != "undecided"
    assert wrong <= 10  # four expected of 80 at 5 %; more than ten come once in 300


def test_an_axis_that_one_side_does_not_read(maker: Any) -> None:
    """A DPO cell has no reward model: it is held against PPO with every size, and their mean."""
    world = World(maker, 4)
    world.cells("dpo", "a", 0.5)
    for init, level in (("small", 0.6), ("large", 0.8)):
        world.cells("ppo", "a", level, **{"reward_model.init": init})
    mean, small, large = world.findings(
        {"m": "factuality[algorithm=ppo] > factuality[algorithm=dpo]", "over": "reward_model.init"},
        {"e": "factuality[algorithm=ppo] > factuality[algorithm=dpo]", "each": "reward_model.init"},
    )
    estimates = [item.interval.estimate for item in (mean, small, large) if item.interval]
    assert estimates == pytest.approx([20, 10, 30], abs=3)
    assert estimates[0] == pytest.approx((estimates[1] + estimates[2]) / 2)


def test_points_with_runs_in_common_are_one_estimate_of_the_variance(maker: Any) -> None:
    assert independent_points([{"a"}, {"b"}, {"c", "a"}, {"d"}, {"b", "d"}]) == [[0, 2], [1, 3, 4]]
    world = World(maker, 7, spread=0.05)
    for dataset in ("a", "b"):
        world.cells("dpo", dataset, 0.5)
        for init in ("small", "large"):
            world.cells("ppo", dataset, 0.5, **{"reward_model.init": init})
    reader = ContrastReader(collect(maker.write(), "study"))
    (found,) = reader.read(
        parse_sum("factuality[algorithm=ppo] - factuality[algorithm=dpo]"), over=["dataset", "reward_model.init"]
    )
    # four points, but the two sizes of a set are held against the same runs of DPO: two estimates of two df each
    assert found.parts is not None and found.parts.alike == 2 and found.points == 4


def test_one_seed_is_tested_over_examples_and_says_so(maker: Any) -> None:
    world = World(maker, 5, seeds=1, spread=0.0)
    world.cells("dpo", "a", 0.500)
    world.cells("ppo", "a", 0.502)
    (found,) = world.findings({"c": "factuality[algorithm=ppo] > factuality[algorithm=dpo]"})
    assert found.verdict == "undecided" and found.contrast.test is not None
    assert found.p == pytest.approx(found.contrast.test.p)  # the exact test
    assert "times the examples" in found.needs and "seeds are not varied" in found.needs


def test_a_missing_number_leaves_a_claim_undecided(study: Any) -> None:
    cell = next(item for item in study.plan["subjects"] if item["label"] == "hh ppo 1")
    cell["evaluations"]["facts"] = "evaluate-nowhere"
    layout = {"claims": [{"c": "average[algorithm=ppo] > average[algorithm=dpo]", "each": "dataset"}]}
    report = build_report(study.write(), "study", Layout.model_validate(layout))
    table = report.tables[0]
    hh, uf = table.rows
    assert hh.cells[1].text == "undecided" and hh.cells[2].value is None
    assert dict(table.notes)[hh.cells[1].notes[0]] == "hh ppo 1: facts: not run"
    assert uf.cells[2].value == pytest.approx(10.0)


def test_claims_in_every_format(study: Any, tmp_path: Path) -> None:
    layout = {
        "claims": [
            {"ppo_wins": "average[algorithm=ppo] > average[algorithm=dpo] + 5", "over": "dataset", "title": "PPO & all"}
        ]
    }
    report = render_report(study.write(), "study", Layout.model_validate(layout), tmp_path / "out")
    assert "PPO & all" in str([row.cells[0].text for row in report.tables[0].rows])
    assert "supported" in (tmp_path / "out/report.md").read_text()
    assert "PPO &amp; all" in (tmp_path / "out/report.html").read_text()
    assert r"PPO \& all" in (tmp_path / "out/tables/claims.tex").read_text()
    row = (tmp_path / "out/tables/claims.csv").read_text().splitlines()[1].split(",")
    assert row[:3] == ["cell", "PPO & all", "supported"] and float(row[3]) == pytest.approx(10.0)
    assert (
        "average[algorithm=ppo] &gt; average[algorithm=dpo] + 5, mean over dataset"
        in (tmp_path / "out/report.html").read_text()
    )
    assert terminal(report) is not None


BASE = "tables: [{name: t, rows: [dataset, algorithm], columns: [average]}]\nclaims:\n"


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("  - c: averag[algorithm=ppo] > 1", r"layout\.yaml:3: claims\.0\.c: unknown column 'averag'\n  did you"),
        ("  - c: average[algoritm=ppo] > 1", r":3: claims\.0\.c: unknown axis 'algoritm'\n  did you mean 'algorithm'"),
        ("  - c: average[algorithm=pp] > 1", r":3: claims\.0\.c: unknown value of algorithm 'pp'\n  did you mean '"),
        ("  - c: average[baseline=sftt] > 1", r"unknown baseline 'sftt'\n  did you mean 'sft'"),
        ("  - c: average[algorithm=ppo] > 1\n    over: datset", r"unknown axis 'datset'\n  did you mean 'dataset'"),
        ("  - c: average[algorithm=ppo] > 1\n    ovr: dataset", r"unknown key 'ovr'\n  did you mean 'over'"),
        ("  - c: average[algorithm=ppo] > 1", r"axis 'dataset' varies \(hh, uf\)\n  select one, .*dataset=hh.*"),
        ("  - c: average[algorithm=ppo", r":3: claims\.0: average\[algorithm=ppo: key=value, then"),
        ("  - {c: average[algorithm=ppo] > 1}", r":3: not valid YAML.*\n  in .* a text with .* needs quotes"),
        ("  - c: facts/acuracy[algorithm=ppo] > 1\n    over: dataset", r"unknown metric of suite facts 'acuracy'"),
        ("  - over: dataset", "a claim is written NAME: SENTENCE"),
        ("  - c: 3", "valid string"),
        ("  - c: average > 1\n    over: [dataset, algorithm]\n  - c: average > 2\n    over: [dataset, algorithm]",
         r":5: claims\.1\.c: 'c' is used twice"),
        ("  - c: average[dataset=hh, algorithm=dpo] > 1\n    over: dataset", "no value of 'dataset' is there"),
    ],
)  # fmt: skip
def test_wrong_claims_name_their_line(study: Any, tmp_path: Path, claim: str, message: str) -> None:
    study.suite("facts", "factuality", metrics=["accuracy"])
    path = tmp_path / "layout.yaml"
    path.write_text(BASE + claim + "\n")
    with pytest.raises(SpecError, match=message):
        load_layout(path, study.plan)


def test_a_claim_holds_for_reward_models_too(study: Any) -> None:
    layout = Layout.model_validate({"claims": [
        {"uf": "pairs[reward_model.dataset=uf] - pairs[reward_model.dataset=hh] > 10"},
    ]})  # fmt: skip
    (found,) = judge_claims(collect(study.write(), "study"), layout.claims)
    assert found.contrast.value == pytest.approx(20.0)


def test_different_units_are_not_added(study: Any) -> None:
    claims = (ClaimLayout.model_validate({"c": "average[algorithm=ppo] > gold[algorithm=dpo]", "over": "dataset"}),)
    with pytest.raises(Exception, match="different units: proportion, reward"):
        judge_claims(collect(study.write(), "study"), claims)


def test_power_of_a_store_is_what_its_variances_say(maker: Any) -> None:
    world = World(maker, 6, spread=0.02)
    for dataset in ("a", "b"):
        world.cells("dpo", dataset, 0.5)
        world.cells("ppo", dataset, 0.5)
    results = collect(maker.write(), "study")
    sentence = "factuality[algorithm=ppo] - factuality[algorithm=dpo]"
    table = build_power(results, sentence, 2.0, each=("dataset",))
    (contrast, _) = ContrastReader(results).read(parse_sum(sentence), each=["dataset"])
    assert contrast.test is not None
    values = {column.key: cell.value for column, cell in zip(table.columns, table.rows[0].cells, strict=True)}
    assert values["stderr"] == pytest.approx(contrast.test.stderr)
    needed = values["seeds_needed"]
    assert needed is not None and 3 < needed < 60
    larger = build_power(results, sentence, 30.0, each=("dataset",)).rows[0]
    assert larger.cells[table.column_index("power")].value == pytest.approx(1.0, abs=0.01)
    assert math.isfinite(difference_interval(contrast.test).low)


def test_claims_of_a_specification_are_checked_when_it_is_planned(tmp_path: Path) -> None:
    readers = Readers(load_layout, read_claims)
    text = "extends: pocket_quick.yaml\nname: claimed\nreport: null\nclaims:\n  - ppo_wins: average[algorithm={}] > 1\n"
    path = tmp_path / "claimed.yaml"
    path.write_text(text.format("ppo") + "    over: [dataset, reward_model.init]\n")
    plan = make_plan(str(path), [], Store(tmp_path / "store"), readers).as_json()
    assert plan["claims"] == [{"ppo_wins": "average[algorithm=ppo] > 1", "over": ["dataset", "reward_model.init"]}]
    path.write_text(text.format("pppo"))
    with pytest.raises(SpecError, match=r"claimed\.yaml:5: claims\.0\.ppo_wins: unknown value of algorithm 'pppo'"):
        make_plan(str(path), [], Store(tmp_path / "store"), readers)


def test_claims_of_a_specification_are_in_every_report(study: Any) -> None:
    study.plan["claims"] = [{"wins": "average[algorithm=ppo] > average[algorithm=dpo]", "over": "dataset"}]
    table = build_report(study.write(), "study").tables[-1]
    assert table.name == "claims" and len(table.rows) == 1
    both = Layout.model_validate(
        {"tables": [{"name": "claims", "rows": ["dataset", "algorithm"], "columns": ["average"]}]}
    )
    with pytest.raises(SpecError, match="the name of the table of claims"):
        build_report(study.store, "study", both)
