"""Files graded as RewardBench without its data or a model: accuracies, scores and verdicts, good and bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.rewardbench import SECTIONS, SECTIONS_2
from ablate.catalogs.suites import Suite, load_suites
from ablate.data.json_lines import write_json_lines
from ablate.errors import DataError
from ablate.evaluation.grade import Request, grade
from ablate.shipped import shipped_folder


def suite(name: str) -> Suite:
    return load_suites([shipped_folder("evals")])[name]


def write(path: Path, content: Any) -> Path:
    """Write a file of the kind that its name says: JSON, JSON lines, or CSV from rows."""
    if path.suffix == ".json":
        path.write_text(json.dumps(content), encoding="utf-8")
    elif path.suffix == ".jsonl":
        write_json_lines(path, content)
    else:
        names = list(content[0])
        lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in content)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def core_accuracies(level: float = 0.5) -> dict[str, float]:
    names = [name for section, weights in SECTIONS.items() if section != "prior-sets" for name in weights]
    return {name: level + 0.01 * place for place, name in enumerate(names)}


def graded(name: str, path: Path, **options: Any) -> dict[str, Any]:
    rule = options.pop("rule", None)
    made = suite(name) if rule is None else suite(name).with_options({"rule": rule})
    return grade(Request(made, path, **options))


def test_accuracies_by_subset_are_graded_in_every_form(tmp_path: Path) -> None:
    """The results repository's object, a mapping, a table, and percentages: one and the same score."""
    accuracies = core_accuracies()
    about = {"model": "org/name", "model_type": "Seq. Classifier", "chat_template": "tokenizer", "mtbench_human": 0.9}
    rows = [{"subset": name, "accuracy": value} for name, value in accuracies.items()]
    files = {
        "eval-set.json": {**about, **accuracies},
        "percent.json": {name: 100 * value for name, value in accuracies.items()},
        "table.csv": rows,
        "spoken.csv": [
            {"subset": str(row["subset"]).replace("-", " ").title(), "score": 100 * float(row["accuracy"]), "n": 7}
            for row in rows
        ],
    }
    reports = {name: graded("rewardbench", write(tmp_path / name, content)) for name, content in files.items()}
    sections = [
        sum(n * accuracies[name] for name, n in SECTIONS[s].items()) / sum(SECTIONS[s].values())
        for s in list(SECTIONS)[:4]
    ]
    for name, report in reports.items():
        assert report["score"] == pytest.approx(sum(sections) / 4), name
        chat = next(row for row in report["metrics"] if (row["task"], row["metric"]) == ("chat", "accuracy"))
        assert chat["value"] == pytest.approx(sections[0])
        assert chat["n"] == (35 if name == "spoken.csv" else 358)
    assert reports["eval-set.json"]["protocol"]["outputs"]["model"] == "org/name"
    assert reports["percent.json"]["protocol"]["outputs"]["accuracies"] == "percent"
    launch = graded("rewardbench", tmp_path / "eval-set.json", rule="launch")
    assert launch["score"] is None and launch["protocol"]["options"]["rule"] == "launch"
    assert "missing: prior-sets" in launch["health"]["reason"]
    prior = dict.fromkeys(SECTIONS["prior-sets"], 0.4)
    both = write(tmp_path / "both.json", {**accuracies, **prior})
    assert graded("rewardbench", both, rule="launch")["score"] == pytest.approx((sum(sections) + 0.4) / 5)
    assert graded("rewardbench", both)["score"] == pytest.approx((sum(sections) + 0.2) / 4.5)


SPELLINGS = [
    ("chosen", "rejected"),
    ("chosen_score", "rejected_score"),
    ("score_chosen", "score_rejected"),
    ("scores_chosen", "scores_rejected"),
    ("reward_chosen", "reward_rejected"),
    ("rewards_chosen", "rewards_rejected"),
    ("chosen_reward", "rejected_reward"),
]


@pytest.mark.parametrize(("chosen", "rejected"), SPELLINGS)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_two_scores_a_pair_in_common_spellings(tmp_path: Path, chosen: str, rejected: str, suffix: str) -> None:
    """Won, tied (lost), lost, won."""
    scores = [(1.5, 1.0), (0.5, 0.5), (-2.0, -1.0), (-1.0, -2.0)]
    rows = [{"id": n, "subset": "hep-go", chosen: one, rejected: other} for n, (one, other) in enumerate(scores)]
    report = graded("rewardbench", write(tmp_path / f"scores{suffix}", rows), partial=True)
    assert report["score"] == 0.5 and report["health"]["ties"] == 1


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_response_that_is_a_numeral_is_not_its_score(tmp_path: Path, suffix: str) -> None:
    """The columns ``chosen`` and ``rejected`` hold the responses, as in LLMBar, where some are "2", "23" and "96"."""
    texts = [("2", "23", 1.5, 0.5), ("96", "It is 96.", 0.5, 1.5), ("so 23", "2", 1.5, 0.5), ("23", "2", 0.5, 1.5)]
    rows = [
        {"id": n, "subset": "hep-go", "chosen": one, "rejected": other, "chosen_score": high, "rejected_score": low}
        for n, (one, other, high, low) in enumerate(texts)
    ]
    report = graded("rewardbench", write(tmp_path / f"scores{suffix}", rows), partial=True)
    assert report["score"] == 0.5 and report["health"]["mean_margin"] == 0.0
    won = [{name: row[name] for name in ("id", "subset", "chosen", "rejected")} | {"won": 1} for row in rows[1:3]]
    report = graded("rewardbench", write(tmp_path / f"won{suffix}", won), partial=True)
    assert report["score"] == 1.0, "a numeral beside a text is a response"


@pytest.mark.parametrize("name", ["rewardbench", "rewardbench-2"])
def test_a_column_of_accuracies_beside_scores_is_left_alone(tmp_path: Path, name: str) -> None:
    """Somebody's own mark of each pair, and a file of pairs it remains."""
    subset = "hep-go" if name == "rewardbench" else "Math"
    rows = [
        {"id": n, "subset": subset, "chosen_score": score, "rejected_score": 1.0, "accuracy": 1.0}
        for n, score in enumerate((2.0, 0.0, 2.0, 0.0))
    ]
    report = graded(name, write(tmp_path / "scores.jsonl", rows), partial=True)
    found = {row["task"]: row["value"] for row in report["metrics"] if row["metric"] == "accuracy"}
    assert found[subset] == 0.5 and report["health"]["examples"] == 4


def test_verdicts_and_columns_of_one_object_are_read(tmp_path: Path) -> None:
    rows = [{"subset": "hep-go", "results": value} for value in (1, 0, 0.5, 1)]
    report = graded("rewardbench", write(tmp_path / "won.jsonl", rows), partial=True)
    assert report["score"] == pytest.approx(2.5 / 4) and report["health"]["unparsable"] == 1
    named = {"subset": ["hep-go"] * 2, "id": [3, 4], "model": "m", "results": [1, 0]}
    columns = {**named, "scores_chosen": [[0.5], [0.25]], "scores_rejected": [[0.1], [0.25]]}
    report = graded("rewardbench", write(tmp_path / "eval-set-scores.json", columns), partial=True)
    assert report["score"] == 0.5 and report["protocol"]["outputs"]["model"] == "m"
    custom = {**named, "scores_chosen": [None, None], "scores_rejected": [None, None]}
    assert graded("rewardbench", write(tmp_path / "custom.json", custom), partial=True)["score"] == 0.5


def test_version_2_by_verdicts_and_by_subsets(tmp_path: Path) -> None:
    rows = [{"id": n, "subset": "Math", "results": value} for n, value in enumerate((1, 0.25, 0))]
    report = graded("rewardbench-2", write(tmp_path / "won.jsonl", rows), partial=True)
    metrics = {(row["task"], row["metric"]): row["value"] for row in report["metrics"]}
    assert metrics["Math", "accuracy"] == pytest.approx(1.25 / 3) and report["score"] is None
    whole = {"model": "m", **{name: 0.1 * place for place, name in enumerate(SECTIONS_2)}}
    report = graded("rewardbench-2", write(tmp_path / "eval-set.json", whole))
    assert report["score"] == pytest.approx(0.25)
    ties = [{"id": "ref:0", "subset": "Ties", "results": 1}]
    with pytest.raises(DataError, match="prompt ref:0 of Ties has a verdict and no scores"):
        graded("rewardbench-2", write(tmp_path / "ties.jsonl", ties), partial=True)


def test_a_perfect_report_of_version_2_is_one_of_proportions(tmp_path: Path) -> None:
    """Ties can reach 1.01, which makes no percentage of it; the same report in percentages is the same."""
    rows = [{"id": "a", "subset": name, "scores": [1.0, 0.0], "num_correct": 1} for name in SECTIONS_2[:5]]
    rows += [{"id": "ref:0", "subset": "Ties", "scores": [1.0, 0.0], "num_correct": 1}]
    rows += [{"id": "tied:0", "subset": "Ties", "scores": [1.0, 1.0, 0.0], "num_correct": 2}]
    gold = graded("rewardbench-2", write(tmp_path / "gold.jsonl", rows), partial=True)
    reached = {row["task"]: row["value"] for row in gold["metrics"] if row["task"] in SECTIONS_2}
    assert reached["Ties"] == pytest.approx(1.01)
    for factor, unit in ((1, "proportions"), (100, "percent")):
        written = {name: factor * value for name, value in reached.items()}
        report = graded("rewardbench-2", write(tmp_path / "report.json", written))
        assert report["protocol"]["outputs"]["accuracies"] == unit
        assert report["score"] == pytest.approx(gold["score"]) == pytest.approx(6.01 / 6)
    low = graded("rewardbench-2", write(tmp_path / "low.json", dict.fromkeys(SECTIONS_2, 1.005)))
    assert low["score"] == pytest.approx(0.01005), "no other subset is above 1"


BAD = {
    "unknown.json": (
        {**core_accuracies(), "hep-pythn": 0.5},
        r"'hep-pythn' is no subset.*\n  did you mean 'hep-python'",
    ),
    "twice.csv": (
        [{"subset": "hep-go", "accuracy": 0.5}, {"subset": "HEP Go", "accuracy": 0.5}],
        "two accuracies of hep-go",
    ),
    "large.csv": ([{"subset": "hep-go", "accuracy": 101}], "hep-go is '101', which is no accuracy"),
    "word.csv": ([{"subset": "hep-go", "accuracy": "good"}], "hep-go is 'good', which is no accuracy"),
    "missing.csv": ([{"subset": "hep-go", "accuracy": 0.5}], "lacks 2821 of 2985 prompts, in 22 subsets"),
    "some-prior.json": (
        {**core_accuracies(), "shp": 0.5},
        "lacks 15413 of 20139 prompts, in 3 subsets; the first is anth",
    ),
    "lengths.json": ({"subset": ["hep-go"], "results": [1, 0]}, "columns have different lengths: subset 1, results 2"),
    "nan.csv": ([{"subset": "hep-go", "chosen": "nan", "rejected": 1}], "row 1: chosen is 'nan', not a finite number"),
    "one-side.jsonl": ([{"subset": "hep-go", "score_chosen": 1}], "row 1 has no score of the rejected response"),
    "contradiction.jsonl": (
        [{"subset": "hep-go", "score_chosen": 1, "score_rejected": 2, "results": 1}],
        "row 1: its verdict is 1, and its scores 1 and 2",
    ),
    "verdict.jsonl": ([{"subset": "hep-go", "results": 2}], "row 1: results is 2; a verdict is between 0"),
    "version-2.json": (dict.fromkeys(SECTIONS_2, 0.5), "'Factuality' is no subset of RewardBench"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_files_are_told_apart(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    with pytest.raises(DataError, match=message):
        graded("rewardbench", write(tmp_path / name, content), partial=name.endswith(".jsonl"))


def test_bad_files_of_version_2(tmp_path: Path) -> None:
    scores = [{"id": "a", "subset": "Math", "scores": [1.0, 2.0], "num_correct": 2}]
    with pytest.raises(DataError, match="row 1: 2 scores, of which 2 are of right responses"):
        graded("rewardbench-2", write(tmp_path / "count.jsonl", scores), partial=True)
    ties = [
        {"id": "ref:0", "subset": "Ties", "scores": [1.0, 0.0]},
        {"id": "tied:0", "subset": "Ties", "scores": [1, 1, 0]},
    ]
    with pytest.raises(DataError, match=r"row 1: 2 scores, of which \? are of right responses\n.*num_correct"):
        graded("rewardbench-2", write(tmp_path / "ties.jsonl", ties), partial=True)
    math = [{"id": "a", "subset": "Math", "scores": [1.0, 0.5], "num_correct": None}]
    report = graded("rewardbench-2", write(tmp_path / "math.jsonl", math), partial=True)
    assert {row["task"]: row["value"] for row in report["metrics"]}["Math"] == 1.0
    few = dict.fromkeys(SECTIONS_2[:5], 0.5)
    with pytest.raises(DataError, match="lacks 102 of 1865 prompts, in 1 subsets; the first is Ties"):
        graded("rewardbench-2", write(tmp_path / "few.json", few))
    assert graded("rewardbench-2", tmp_path / "few.json", partial=True)["score"] is None
