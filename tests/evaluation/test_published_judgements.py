"""Stored judgements of published evaluations: their published numbers, from files of the data root."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.suites import Suite, load_suites
from ablate.data.json_lines import write_json_lines
from ablate.data.sources import DataFile
from ablate.errors import AblateError, DataError
from ablate.evaluation.formats.submission import ReadOptions
from ablate.evaluation.grade import Request, grade
from ablate.evaluation.items import Item, Response, user
from ablate.evaluation.judging import build_questions, fastchat_templates
from ablate.rewards.judge import filled
from ablate.rewards.verdicts import bracketed_rating
from ablate.shipped import shipped_folder

pytestmark = pytest.mark.data
ANNOTATIONS = {
    ("1", "tulu-2-dpo-7b"): "alpaca-eval-1",
    ("1", "alpaca-7b"): "alpaca-eval-1",
    ("2", "gpt-3.5-turbo-1106"): "alpaca-eval-2",
    ("2", "alpaca-7b"): "alpaca-eval-2",
}
REFITTED = {"gpt-3.5-turbo-1106": (18.250852658706272, 0.8034613828903198), "alpaca-7b": (6.644166637987521, 0.4722783)}


def suite(name: str) -> Suite:
    return load_suites([shipped_folder("evals")])[name]


def metric(report: dict[str, Any], name: str, task: str = "overall") -> dict[str, Any]:
    return next(row for row in report["metrics"] if (row["task"], row["metric"]) == (task, name))


def published(root: Path, version: str, model: str) -> dict[str, float | None]:
    with (root.parent / "published" / "alpaca_eval.csv").open(encoding="utf-8") as handle:
        (row,) = [row for row in csv.DictReader(handle) if (row["version"], row["model"]) == (version, model)]
    return {name: float(value) if value else None for name, value in row.items() if name not in ("version", "model")}


@pytest.mark.parametrize(("version", "model"), ANNOTATIONS, ids=lambda value: value)
def test_alpaca_evals_published_numbers(data_root: Path, version: str, model: str) -> None:
    file = data_root / "alpaca_eval" / f"annotations_ae{version}" / f"{model}.json.gz"
    report = grade(Request(suite(ANNOTATIONS[version, model]), file, root=data_root))
    wanted = published(data_root, version, model)
    won = metric(report, "win_rate")
    assert won["value"] * 100 == pytest.approx(wanted["win_rate"], abs=1e-9)
    assert won["stderr"] * 100 == pytest.approx(wanted["standard_error"], abs=1e-9)
    assert won["n"] == wanted["n_total"] == 805
    with gzip.open(file, "rt", encoding="utf-8") as handle:
        preferences = [row["preference"] for row in json.load(handle)]
    discrete = [0.5 if value in (0, 1.5) else float(value > 1.5) for value in preferences]
    assert metric(report, "discrete_win_rate")["value"] == pytest.approx(math.fsum(discrete) / 805, abs=1e-12)
    assert report["protocol"]["outputs"]["model"] == model
    if wanted["length_controlled_winrate"] is not None:
        own = metric(report, "published_length_controlled_win_rate")
        assert own["value"] * 100 == pytest.approx(wanted["length_controlled_winrate"], abs=1e-4)
        # alpaca_eval 0.6.6's own fit without the two baselines of altered length (length_controlled_noreg), same file
        fitted = metric(report, "length_controlled_win_rate")
        assert fitted["value"] * 100 == pytest.approx(REFITTED[model][0], abs=0.05)
        assert fitted["stderr"] * 100 == pytest.approx(REFITTED[model][1], abs=0.01)


@pytest.mark.slow
@pytest.mark.alpaca_eval
@pytest.mark.filterwarnings("ignore:pkg_resources is deprecated:UserWarning", "ignore::FutureWarning:sklearn")
@pytest.mark.parametrize("model", REFITTED)
def test_alpaca_evals_package_computes_the_same(
    model: str, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file of two baselines of altered length is on the hub; the fit without them reads difficulties alone."""
    from alpaca_eval.metrics import glm_winrate

    with (data_root / "alpaca_eval" / "instruction_difficulty_recovered.csv").open(encoding="utf-8") as handle:
        rows = "".join(f"m,{row['idx']},{row['instruction_difficulty']}\n" for row in csv.DictReader(handle))
    (tmp_path / "df_gamed.csv").write_text("model,index,instruction_difficulty\n" + rows, encoding="utf-8")
    monkeypatch.setattr(glm_winrate, "hf_hub_download", lambda **asked: tmp_path / asked["filename"])
    file = data_root / "alpaca_eval" / "annotations_ae2" / f"{model}.json.gz"
    with gzip.open(file, "rt", encoding="utf-8") as handle:
        annotations = json.load(handle)
    theirs = glm_winrate.get_length_controlled_winrate(annotations, "length_controlled_noreg", save_weights_dir=None)
    report = grade(Request(suite("alpaca-eval-2"), file, root=data_root))
    won, controlled = metric(report, "win_rate"), metric(report, "length_controlled_win_rate")
    assert won["value"] * 100 == pytest.approx(theirs["win_rate"], abs=1e-9)
    assert won["stderr"] * 100 == pytest.approx(theirs["standard_error"], abs=1e-9)
    assert metric(report, "discrete_win_rate")["value"] * 100 == pytest.approx(theirs["discrete_win_rate"], abs=1e-9)
    assert controlled["value"] * 100 == pytest.approx(theirs["length_controlled_winrate"], abs=0.05)
    assert controlled["stderr"] * 100 == pytest.approx(theirs["lc_standard_error"], abs=0.01)


def test_a_missing_preference_is_counted_and_left_out(data_root: Path, tmp_path: Path) -> None:
    with gzip.open(data_root / "alpaca_eval" / "annotations_ae1" / "alpaca-7b.json.gz", "rt") as handle:
        rows = json.load(handle)
    rows[0]["preference"], rows[1]["preference"], rows[2]["preference"] = None, 0, 1.5
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(rows))
    report = grade(Request(suite("alpaca-eval-1"), file, root=data_root))
    left = [0.5 if row["preference"] in (0, 1.5) else row["preference"] - 1 for row in rows[1:]]
    assert metric(report, "win_rate")["value"] == pytest.approx(math.fsum(left) / 804) and report["health"]["n"] == 804
    assert report["health"]["unparsable"] == 1 and metric(report, "parsed")["value"] == pytest.approx(804 / 805)
    for wrong, message in ((3, "a preference is 3; allowed: 1 to 2"), ("2", "a preference is '2'")):
        rows[5]["preference"] = wrong
        file.write_text(json.dumps(rows))
        with pytest.raises(DataError, match=message):
            grade(Request(suite("alpaca-eval-1"), file, root=data_root))
    rows[5]["preference"], rows[6]["output_2"] = 2, None
    file.write_text(json.dumps(rows))
    with pytest.raises(DataError, match="row 7 has no text in 'output_2'"):
        grade(Request(suite("alpaca-eval-1"), file, root=data_root))


def test_outputs_without_verdicts_are_sent_to_a_judge(data_root: Path, tmp_path: Path) -> None:
    with gzip.open(data_root / "alpaca_eval" / "annotations_ae1" / "alpaca-7b.json.gz", "rt") as handle:
        rows = [{"instruction": row["instruction"], "output": row["output_2"]} for row in json.load(handle)]
    write_json_lines(tmp_path / "outputs.jsonl", rows)
    with pytest.raises(AblateError, match="reads what a judge said, and there is nothing") as caught:
        grade(Request(suite("alpaca-eval-1"), tmp_path / "outputs.jsonl", root=data_root))
    assert "ablate judge" in str(caught.value)


@pytest.fixture(scope="module")
def judgements(data_root: Path) -> list[dict[str, Any]]:
    with gzip.open(data_root / "mt_bench" / "judgements_gpt4_mixtral.jsonl.gz", "rt", encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def test_every_stored_rating_is_read(judgements: list[dict[str, Any]]) -> None:
    assert len(judgements) == 320
    assert [bracketed_rating(row["judgment"]) for row in judgements] == [row["score"] for row in judgements]


def test_mt_bench_by_turn_category_and_model(data_root: Path, judgements: list[dict[str, Any]]) -> None:
    file = data_root / "mt_bench" / "judgements_gpt4_mixtral.jsonl.gz"
    report = grade(Request(suite("mt-bench"), file, root=data_root))
    with (data_root / "mt_bench" / "question.jsonl").open(encoding="utf-8") as handle:
        category = {row["question_id"]: row["category"] for row in map(json.loads, handle)}

    def mean(wanted: Callable[[dict[str, Any]], bool]) -> float:
        scores = [row["score"] for row in judgements if wanted(row)]
        return math.fsum(scores) / len(scores)

    for model in ("gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1"):
        own = metric(report, "rating", model)
        assert own["value"] == pytest.approx(mean(lambda row, model=model: row["model"] == model)) and own["n"] == 80
        for turn in (1, 2):
            value = metric(report, f"rating_turn_{turn}", model)["value"]
            assert value == pytest.approx(
                mean(lambda row, model=model, turn=turn: row["model"] == model and row["turn"] == turn)
            )
        maths = metric(report, "rating", f"{model}/math")["value"]
        assert maths == pytest.approx(
            mean(lambda row, model=model: row["model"] == model and category[row["question_id"]] == "math")
        )
    alone = grade(Request(suite("mt-bench"), file, root=data_root, options=ReadOptions(model="gpt-4-1106-preview")))
    assert alone["score"] == pytest.approx(mean(lambda row: row["model"] == "gpt-4-1106-preview"))
    assert metric(alone, "rating", "coding")["n"] == 10
    with pytest.raises(DataError, match="has nothing of 'mixtral'"):
        grade(Request(suite("mt-bench"), file, root=data_root, options=ReadOptions(model="mixtral")))


def test_questions_to_the_judge_are_fastchats_to_the_letter(data_root: Path, judgements: list[dict[str, Any]]) -> None:
    """Answers are cut out of the stored questions, and the questions made of them anew."""
    templates = fastchat_templates(DataFile("judge_prompts.jsonl", data_root / "mt_bench" / "judge_prompts.jsonl"))
    with (data_root / "mt_bench" / "question.jsonl").open(encoding="utf-8") as handle:
        questions = {row["question_id"]: row for row in map(json.loads, handle)}
    with (data_root / "mt_bench" / "reference_answer_gpt-4.jsonl").open(encoding="utf-8") as handle:
        references = {row["question_id"]: row["choices"][0]["turns"] for row in map(json.loads, handle)}
    stored = {(row["question_id"], row["model"], row["turn"]): row for row in judgements}
    compared = 0
    for (number, model, turn), row in stored.items():
        if turn != 2:
            continue
        first, second = questions[number]["turns"]
        said = row["user_prompt"].split("<|The Start of Assistant A's Conversation with User|>")[1]
        before, _, after = said.partition(f"\n\n### User:\n{second}\n\n### Assistant A:\n")
        answers = [
            before.split(f"### User:\n{first}\n\n### Assistant A:\n")[1],
            after.removesuffix("\n\n<|The End of Assistant A's Conversation with User|>"),
        ]
        data = {"reference": references[number]} if number in references else {}
        item = Item("x", "t", user(first), data=data, followups=(second,))
        responses = [Response("x", "t", 0, "", text, "eos", 0, turn=place) for place, text in enumerate(answers)]
        made = build_questions([item], responses, "single", templates)
        texts = [filled(question.template.user, question.fields) for question in made if question.template]
        assert texts == [stored[number, model, 1]["user_prompt"], row["user_prompt"]]
        compared += 1
    assert compared == 160


def test_people_on_vicuna_against_chatgpt(data_root: Path, tmp_path: Path) -> None:
    file = data_root / "preference" / "faireval" / "review_gpt35_vicuna-13b_human.txt"
    report = grade(Request(suite("faireval"), file, root=data_root, by_order=True))
    words = file.read_text(encoding="utf-8").split()
    assert report["score"] == pytest.approx((words.count("VICUNA13B") + words.count("TIE") / 2) / 80)
    assert report["health"]["judge"] == "people"
    (tmp_path / "review.txt").write_text("VICUNA13B\nBARD\n")
    with pytest.raises(DataError, match=r"review.txt, line 2: 'BARD' is no verdict"):
        grade(Request(suite("faireval"), tmp_path / "review.txt", root=data_root, by_order=True))


def test_pairs_judged_in_both_orders(data_root: Path, tmp_path: Path) -> None:
    """FastChat's file of pairs: a win takes both games, an error in one of them is none."""
    games = [
        ("model_1", "model_1"),
        ("model_1", "model_2"),
        ("tie", "tie"),
        ("model_2", "model_2"),
        ("model_1", "error"),
    ]
    rows = [
        {"question_id": 81 + n, "model_1": "mine", "model_2": "base", "g1_winner": one, "g2_winner": other, "turn": 1}
        for n, (one, other) in enumerate(games)
    ]
    write_json_lines(tmp_path / "pairs.jsonl", rows)
    request = Request(suite("mt-bench-pairwise"), tmp_path / "pairs.jsonl", root=data_root, partial=True)
    report = grade(request)
    assert report["score"] == (1 + 0.5 + 0.5 + 0) / 4 and report["health"]["unparsable"] == 1
    other = Request(**{**vars(request), "options": ReadOptions(model="base")})
    assert grade(other)["score"] == 0.5
