"""RewardBench from the hub's own columns to grades: rows, prompts, stages, and files graded without a model."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablate.catalogs.rewardbench import SECTIONS, SECTIONS_2
from ablate.catalogs.suites import Suite, load_suites
from ablate.context import read_json
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.data.sources import DataFile, read_rows
from ablate.data.suite_files import Source
from ablate.errors import DataError, SpecError, UsageError
from ablate.evaluation import evaluate, generate
from ablate.evaluation.grade import Request, grade
from ablate.evaluation.prompts.rewardbench import judged
from ablate.rewards import implicit
from ablate.rewards import stage as score
from ablate.rewards.pairs import LLMBAR
from ablate.rewards.rewardbench import candidates, pairs
from ablate.shipped import shipped_folder

Run = Callable[..., Path]
CORE = "allenai/reward-bench/data/filtered-00000-of-00001.parquet"
VERSION_2 = "allenai/reward-bench-2/data/test-00000-of-00001.parquet"
PRIOR = "allenai/preference-test-sets/data"


def suite(name: str) -> Suite:
    return load_suites([shipped_folder("evals")])[name]


def table(root: Path, name: str, rows: list[dict[str, Any]]) -> Source:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return Source((DataFile(name, path),))


def row(subset: str, number: int, **changes: Any) -> dict[str, Any]:
    made = {
        "prompt": f"question {number}",
        "chosen": "yes, of course",
        "rejected": "no",
        "subset": subset,
        "id": number,
    }
    return {**made, "chosen_model": "a", "rejected_model": "b", **changes}


def prompt_2(subset: str, name: str, correct: int = 1, incorrect: int = 3) -> dict[str, Any]:
    return {
        "id": name, "prompt": f"question {name}", "chosen": [f"right {n}" for n in range(correct)],
        "rejected": [f"wrong answer {n}" for n in range(incorrect)], "num_correct": correct, "num_incorrect": incorrect,
        "total_completions": correct + incorrect, "models": ["a"], "subset": subset, "additional_metadata": None,
    }  # fmt: skip


def digests(root: Path, made: Suite) -> dict[str, str]:
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in made.paths(root).items()}


def small_core(root: Path, each: int = 2) -> None:
    subsets = [name for section, weights in SECTIONS.items() if section != "prior-sets" for name in weights]
    rows = [row(name, place * each + n) for place, name in enumerate(subsets) for n in range(each)]
    table(root, CORE, rows)


def test_rows_become_pairs_and_ids_that_two_rows_have_are_told_apart(tmp_path: Path) -> None:
    made = pairs(table(tmp_path, CORE, [row("hep-go", 3), row("hep-js", 3), row("math-prm", 4)]), {})
    assert [pair.id for pair in made] == ["hep-go/3", "hep-js/3", "math-prm/4"]
    assert [pair.source for pair in made] == ["hep-go/3", "hep-js/3", "4"]
    assert made[0].prompt == ({"role": "user", "content": "question 3"},)
    twice = pairs(table(tmp_path, CORE, [row("hep-go", 3), row("hep-go", 3)]), {})
    assert [(pair.id, pair.source) for pair in twice] == [("hep-go/3", "hep-go/3"), ("hep-go/3-2", "hep-go/3-2")]


def test_prior_sets_are_named_by_their_files_and_hold_conversations(tmp_path: Path) -> None:
    turns = [{"role": role, "content": text} for role, text in (("human", "a"), ("x", "b"), ("user", "c"))]
    made = pairs(table(tmp_path, f"{PRIOR}/shp-00000-of-00001.parquet", [row("ignored", 1, prompt=turns)]), {})
    assert made[0].subset == "shp"
    assert [(turn["role"], turn["content"]) for turn in made[0].prompt] == [
        ("user", "a"), ("assistant", "b"), ("user", "c"),
    ]  # fmt: skip
    with pytest.raises(DataError, match="row 1: a prompt is text, or turns that begin and end with the user's"):
        pairs(table(tmp_path, f"{PRIOR}/shp-00000-of-00001.parquet", [row("x", 1, prompt=turns[:2])]), {})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [row("hep-python", 1), row("hep-pyton", 2)],
            r"row 2: unknown subset 'hep-pyton'\n  did you mean 'hep-python'",
        ),
        ([{"prompt": "a", "chosen": "b"}], "row 1: no column 'rejected'"),
        ([row("hep-go", 1, chosen=None)], "row 1: chosen is a NoneType, not text"),
    ],
)
def test_bad_rows_of_pairs_are_named(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        pairs(table(tmp_path, CORE, rows), {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_correct": 2}, "row 1: num_correct is 2, and the row has 1"),
        ({"chosen": []}, "row 1: chosen is not a list of texts"),
        ({"subset": "Chat"}, "row 1: unknown subset 'Chat'"),
    ],
)
def test_bad_rows_of_version_2_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    write_json_lines(path, [{**prompt_2("Math", "1"), **changes}])
    with pytest.raises(DataError, match=message):
        candidates(Source((DataFile("rows.jsonl", path),)), {})


def test_files_of_the_hub_that_are_not_there_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the file allenai/reward-bench/data/.*\n  ablate data fetch allenai/r"):
        suite("rewardbench").paths(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"hub": [{"id": "a/b", "files": ["*.parquet"]}]}}, "parquet must be a whole name in the repository"),
        ({"data": {"hub": [{"id": "a/b", "files": ["x"]}], "pocket": {"n": 1}}}, "either pocket, or files or hub"),
        ({"grader": "rewardbench-2"}, "grader rewardbench-2 reads several responses"),
        ({"prompts": "rewardbench-2"}, "grader pairwise reads pairs"),
        ({"grader": "rewardbench-implicit"}, "engine implicit and a grader of implicit rewards belong together"),
        ({"options": {"rule": "lunch"}, "grader": "rewardbench"}, "did you mean 'launch'"),
        ({"reading": {"max_lenght": 5}}, "did you mean 'max_length'"),
    ],
)
def test_suites_that_do_not_fit_together_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    own = {
        "name": "mine", "title": "Mine", "category": "reward", "subject": "reward_model", "engine": "pairs",
        "data": {"files": ["a.json"]}, "prompts": "llmbar", "grader": "pairwise", "primary": "accuracy",
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(json.dumps({**own, **changes}), encoding="utf-8")
    with pytest.raises(SpecError, match=message):
        load_suites([tmp_path])


def test_the_rule_and_the_reading_are_part_of_the_protocol(tmp_path: Path) -> None:
    made = suite("rewardbench")
    files = dict.fromkeys(made.files, "0" * 64)
    launch = made.with_options({"rule": "launch"})
    assert launch.grading_config() != made.grading_config()
    assert launch.protocol_digest(files) != made.protocol_digest(files)
    assert launch.score_config(files) == made.score_config(files), "scores are drawn once for both rules"
    assert made.score_config(files)["reading"] == {"max_length": 2048, "too_long": "cut-start"}
    with pytest.raises(UsageError, match=r"no option 'rul'\n  did you mean 'rule'"):
        made.with_options({"rul": "launch"})
    implicit_suite, alone = suite("rewardbench-implicit"), suite("rewardbench-likelihood")
    assert implicit_suite.likelihoods_config(files) == alone.likelihoods_config(files), "one pass serves both"


def test_a_judge_sees_both_responses_in_a_drawn_order(tmp_path: Path) -> None:
    source = table(tmp_path, CORE, [row("hep-go", n, chosen=f"right {n}", rejected=f"wrong {n}") for n in range(200)])
    items = judged(source, {"seed": 0})
    better = Counter(item.data["better"] for item in items)
    assert 70 < better["A"] < 130
    for item in items:
        system, asked = item.prompt
        first, second = ("right", "wrong") if item.data["better"] == "A" else ("wrong", "right")
        number = item.source
        assert system["role"] == "system" and system["content"].endswith('"[[B]]" if assistant B is better.')
        assert "\n" not in system["content"] and "[[C]]" not in system["content"]
        assert asked["content"] == (
            f"[User Question]\nquestion {number}\n\n[The Start of Assistant A's Answer]\n{first} {number}\n"
            f"[The End of Assistant A's Answer]\n\n[The Start of Assistant B's Answer]\n{second} {number}\n"
            "[The End of Assistant B's Answer]"
        )
    assert [item.data["better"] for item in judged(source, {"seed": 1})] != [item.data["better"] for item in items]


def test_a_judge_is_asked_and_read(run_stage: Run, byte_policy: Path, tmp_path: Path) -> None:
    """All the way: a policy that writes no verdict has half of every pair."""
    made = suite("rewardbench-judge")
    small_core(tmp_path, each=1)
    config = {**made.generation_config(digests(tmp_path, made)), "limit": 1, "sample_seed": 0}
    config["decoding"] = {**config["decoding"], "max_new_tokens": 4}
    asked = run_stage("judge", generate.run, config, {"policy": byte_policy}, tmp_path)
    report = read_json(run_stage("graded", evaluate.run, made.grading_config(), {"responses": asked}) / "metrics.json")
    assert report["score"] == 0.5 and report["health"]["unparsable"] == 23


def read(folder: Path, name: str) -> list[Any]:
    path = next(path for path in (folder / name, folder / f"{name}.gz") if path.is_file())
    return [found for _, found in read_rows(DataFile(name, path))]


def hep_and_llmbar(data_root: Path) -> list[dict[str, Any]]:
    """Rows in the released schema: HumanEvalPack's solutions against their buggy twins, and LLMBar's five subsets."""
    rows: list[dict[str, Any]] = []
    for language in ("cpp", "go", "java", "js", "python", "rust"):
        for task in read(data_root / "reward_bench" / "hep", f"humanevalpack_{language}.jsonl"):
            right, wrong = (task["declaration"] + task[f"{kind}_solution"] for kind in ("canonical", "buggy"))
            rows.append(row(f"hep-{language}", len(rows), prompt=task["instruction"], chosen=right, rejected=wrong))
    for stem, subset in ((stem, name) for stem, name in LLMBAR.items() if name in SECTIONS["chat-hard"]):
        for task in read(data_root / "preference" / "llmbar", f"{stem}.json"):
            better, worse = (task["output_1"], task["output_2"])[:: 1 if task["label"] == 1 else -1]
            rows.append(row(subset, len(rows), prompt=task["input"], chosen=better, rejected=worse))
    return rows


def test_real_pairs_have_the_published_counts_and_trivial_rules_their_accuracy(data_root: Path, tmp_path: Path) -> None:
    table(tmp_path, CORE, hep_and_llmbar(data_root))
    made = pairs(Source((DataFile(CORE, tmp_path / CORE),)), {})
    counts = Counter(pair.subset for pair in made)
    expected = {**SECTIONS["reasoning"], **SECTIONS["chat-hard"]}
    assert counts == {name: n for name, n in expected.items() if name not in ("math-prm", "mt-bench-hard")}
    assert len({pair.id for pair in made}) == len({pair.source for pair in made}) == 6 * 164 + 419
    scores = [
        {"id": pair.source, "score_chosen": len(pair.chosen), "score_rejected": len(pair.rejected)} for pair in made
    ]
    write_json_lines(tmp_path / "lengths.jsonl", scores)
    report = grade(Request(suite("rewardbench"), tmp_path / "lengths.jsonl", root=tmp_path))
    found = {(one["task"], one["metric"]): one["value"] for one in report["metrics"]}
    assert found["overall", "accuracy"] == found["overall", "longest"] == report["score"]
    assert found["llmbar-adver-neighbor", "longest"] < 0.25 < 0.4 < found["llmbar-natural", "longest"]
    assert report["protocol"]["options"]["rule"] == "current" and report["health"]["missing"] == 0


def test_a_reward_model_from_rows_to_scores_and_back(run_stage: Run, byte_reward: Path, tmp_path: Path) -> None:
    """The stages, and the same numbers when the scores they wrote are graded as anybody's file."""
    made = suite("rewardbench")
    small_core(tmp_path)
    config = made.score_config(digests(tmp_path, made))
    scored = run_stage("score", score.run, config, {"reward_model": byte_reward}, tmp_path)
    graded = run_stage("graded", evaluate.run, made.grading_config(), {"scores": scored / "scores.jsonl"})
    report = read_json(graded / "metrics.json")
    assert report["protocol"]["made"]["reading"]["max_length"] == 2048
    again = grade(Request(made, scored / "scores.jsonl", root=tmp_path))
    keep = ("score", "metrics")
    assert {name: again[name] for name in keep} == {name: report[name] for name in keep}
    # Without the data the rows still name their subsets; what trivial rules reach is not known then.
    with pytest.raises(DataError, match=r"lacks 2939 of 2985 prompts, in 23 subsets; the first is alpacaeval-easy"):
        grade(Request(made, scored / "scores.jsonl", root=tmp_path / "nowhere"))
    alone = grade(Request(made, scored / "scores.jsonl", root=tmp_path / "nowhere", partial=True))
    assert alone["score"] == report["score"]
    assert alone["protocol"]["outputs"]["joined"] == "subset"


def test_version_2_from_rows_to_scores_and_back(run_stage: Run, byte_reward: Path, tmp_path: Path) -> None:
    made = suite("rewardbench-2")
    rows = [prompt_2(name, f"{name} {n}") for name in SECTIONS_2[:5] for n in range(2)]
    rows += [prompt_2("Ties", "ref:0", 1, 4), prompt_2("Ties", "tied:0", 3, 4)]
    table(tmp_path, VERSION_2, rows)
    config = made.score_config(digests(tmp_path, made))
    scored = run_stage("score", score.run, config, {"reward_model": byte_reward}, tmp_path)
    first = read_json_lines(scored / "scores.jsonl")[-1]
    assert (len(first["chosen"]), len(first["rejected"]), first["source"]) == (3, 4, "tied:0")
    graded = run_stage("graded", evaluate.run, made.grading_config(), {"scores": scored / "scores.jsonl"})
    report = read_json(graded / "metrics.json")
    assert report["score"] is not None
    flat = [
        {"id": one["source"], "subset": one["subset"], "scores": one["chosen"] + one["rejected"]}
        | {"num_correct": len(one["chosen"])}
        for one in read_json_lines(scored / "scores.jsonl")
    ]
    for form, root in (("joined", tmp_path), ("alone", None)):
        write_json_lines(tmp_path / f"{form}.jsonl", flat)
        found = grade(Request(made, tmp_path / f"{form}.jsonl", root=root, partial=root is None))
        assert found["score"] == pytest.approx(report["score"])


def test_a_policy_s_implicit_reward_is_cut_and_counted(run_stage: Run, byte_policy: Path, tmp_path: Path) -> None:
    """Of a pair that does not fit, both responses see the same end of the prompt."""
    made = suite("rewardbench-likelihood")
    long = {"prompt": "x" * 600}
    table(tmp_path, CORE, [row("hep-go", 1), row("hep-go", 2, **long), row("hep-go", 3, **long, chosen="y" * 600)])
    config = made.likelihoods_config(digests(tmp_path, made))
    found = run_stage("likelihoods", implicit.run, config, {"policy": byte_policy}, tmp_path)
    rows = read_json_lines(found / "likelihoods.jsonl")
    assert rows[1]["rejected"] == rows[2]["rejected"]
    assert [one.get("truncated", 0) for one in rows] == [0, 2, 2]
    assert rows[2]["chosen"]["tokens"] == 512 - 128 and rows[1]["chosen"]["tokens"] == len("yes, of course") + 1
    report = read_json(
        run_stage("graded", evaluate.run, made.grading_config(), {"likelihoods": found}) / "metrics.json"
    )
    assert (report["health"]["truncated"], report["health"]["too_long"]) == (4, 0)
