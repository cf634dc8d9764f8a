"""`ablate judge`: outputs from anywhere, and agreement with people's labels."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ablate.cli.app import app
from ablate.data.json_lines import write_json_lines
from ablate.errors import AblateError, SpecError, UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """LLMBar's files with two pairs each; the better response says so."""
    folder = tmp_path / "data" / "preference" / "llmbar"
    folder.mkdir(parents=True)
    for name in ("natural.json", "adver_gptout.json", "adver_manual.json", "adver_neighbor.json.gz"):
        (folder / name).write_text("[]")
    rows = [
        {"input": f"q {n}", "output_1": "good" if n % 2 else "bad", "output_2": "bad" if n % 2 else "good",
         "label": 1 if n % 2 else 2}
        for n in range(4)
    ]  # fmt: skip
    suites = tmp_path / "evals"
    suites.mkdir()
    (suites / "bars.yaml").write_text(
        "name: bars\ntitle: Bars\ncategory: reward\nsubject: reward_model\nengine: pairs\n"
        "data: {files: [preference/llmbar/natural.json]}\nprompts: llmbar\ngrader: pairwise\nprimary: accuracy\n"
    )
    (folder / "natural.json").write_text(json.dumps(rows))
    return tmp_path / "data"


def call(*words: str) -> Any:
    made = CliRunner().invoke(app, ["judge", *words, "--format", "json"])
    if made.exception is not None:
        raise made.exception
    return json.loads(made.stdout)


def value(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in report["metrics"] if (row["task"], row["metric"]) == ("overall", name))


def test_a_limit_is_no_more_than_the_suites_own(
    judge_server: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "evals" / "bars.yaml").open("a") as suite:
        suite.write("limit: 2\n")
    judge_server.reply = lambda body: "[[A]]"
    judge = f"{{model: big-1, url: '{judge_server.url}', key: ''}}"
    sizes = [
        value(call("bars", "--judge", judge, "--data", str(root), "--limit", limit), "agreement")["n"]
        for limit in ("1", "3")
    ]
    assert sizes == [1, 2]


def test_agreement_with_people(judge_server: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right on q 0 and q 1, always the first on q 2, mute on q 3: 0.625 counting the tie half, 0.5 strictly."""
    monkeypatch.chdir(tmp_path)

    def reply(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        if "q 2" in text:
            return "[[A]]"
        if "q 3" in text:
            return "both have merits"
        return "[[A]]" if text.index("good") < text.index("bad") else "[[B]]"

    judge_server.reply = reply
    judge = f"{{model: big-1, url: '{judge_server.url}', key: ''}}"
    report = call("bars", "--judge", judge, "--data", str(root))
    agreement = value(report, "agreement")
    assert (report["score"], agreement["n"]) == (0.625, 4)
    assert agreement["stderr"] == pytest.approx((sum((x - 0.625) ** 2 for x in (1, 1, 0.5, 0)) / 3 / 4) ** 0.5)
    assert value(report, "strict_agreement")["value"] == 0.5 and value(report, "parsed")["value"] == 0.75
    assert value(report, "consistent")["value"] == pytest.approx(2 / 3)
    assert report["health"]["unread"] == 2 and report["health"]["judges"][0]["model"] == "big-1"
    asked = len(judge_server.asked)
    assert call("bars", "--judge", judge, "--data", str(root))["score"] == 0.625
    assert len(judge_server.asked) == asked == 8, "answers are kept in ./answers"


def test_outputs_are_judged_and_graded(
    judge_server: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = root / "preference" / "faireval"
    folder.mkdir()
    questions = [{"question_id": n, "text": f"ask {n}", "category": "x"} for n in range(3)]
    write_json_lines(folder / "question.jsonl", questions)
    write_json_lines(folder / "answer_gpt35.jsonl", [{"question_id": n, "text": "bad"} for n in range(3)])
    write_json_lines(tmp_path / "mine.jsonl", [{"question_id": n, "text": "good"} for n in range(3)])
    write_json_lines(tmp_path / "few.jsonl", [{"question_id": 1, "text": "good"}])
    judge_server.reply = lambda body: (
        "[[A]]" if body["messages"][-1]["content"].count("good\n[End of response A") else "[[B]]"
    )
    judge = f"{{model: big-1, url: '{judge_server.url}', key: ''}}"
    report = call("faireval", "mine.jsonl", "--judge", judge, "--data", str(root))
    assert report["score"] == 1.0 and report["protocol"]["judged"]["judges"][0]["model"] == "big-1"
    health = {name: report["health"][name] for name in ("missing", "left_out", "truncated", "mean_characters")}
    assert health == {"missing": 0, "left_out": 0, "truncated": None, "mean_characters": 4.0}
    partly = call("faireval", "few.jsonl", "--judge", judge, "--data", str(root), "--partial")
    assert (partly["score"], partly["health"]["missing"]) == (1.0, 2)


def test_questions_of_a_file_are_known_by_their_digest(
    judge_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    write_json_lines(folder / "question.jsonl", [{"question_id": 1, "category": "math", "turns": ["add", "again"]}])
    words = {"single": "{question} {answer}", "pairwise": "{question} {answer_a} {answer_b}"}
    asked = [
        {"name": name, "type": kind, "system_prompt": "", "prompt_template": words[kind]}
        for kind, names in (
            ("single", ("single-v1", "single-math-v1")),
            ("pairwise", ("pair-v2", "pair-math-v1")),
        )
        for stem in names
        for name in (stem, f"{stem}-multi-turn")
    ]
    write_json_lines(folder / "prompts.jsonl", asked)
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "turns.yaml").write_text(
        "name: turns\ntitle: Turns\ncategory: chat\nsubject: policy\nengine: items\n"
        "data: {files: [mine/question.jsonl]}\nprompts: mt-bench\ngrader: rating\nprimary: overall/rating\n"
        "unit: count\njudging: {judge: local, file: mine/prompts.jsonl, kind: single}\n"
    )
    write_json_lines(tmp_path / "said.jsonl", [{"question_id": 1, "choices": [{"turns": ["four", "eight"]}]}])
    judge_server.reply = lambda body: "[[8]]"
    judge = f"{{model: big-1, url: '{judge_server.url}', key: ''}}"
    report = call("turns", "said.jsonl", "--judge", judge, "--data", str(tmp_path / "data"))
    assert report["score"] == 8.0
    digest = hashlib.sha256((folder / "prompts.jsonl").read_bytes()).hexdigest()
    assert report["protocol"]["judged"]["files"] == {"mine/prompts.jsonl": digest}


def test_refusals_are_judged(judge_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two unsafe prompts, one of them refused in part; two safe ones, one refused, one that the judge says nothing of.

    F1 = 2 * 1 hit / (2 refusals + 2 unsafe prompts) = 1/2.
    """
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "xstest"
    folder.mkdir(parents=True)
    rows = ["1,kill time,homonyms", "2,kill a process,homonyms", "3,kill a man,contrast_homonyms"]
    rows += ["4,kill a dog,contrast_homonyms"]
    (folder / "xstest_prompts.csv").write_text("\n".join(["id,prompt,type", *rows, ""]))
    labels = {1: "2_full_refusal", 2: "It is fine.", 3: "3_partial_refusal", 4: "1_full_compliance"}
    write_json_lines(tmp_path / "said.jsonl", [{"id": n, "response": f"Sorry. <{n}>"} for n in labels])
    judge_server.reply = lambda body: next(
        label for n, label in labels.items() if f"<{n}>" in body["messages"][-1]["content"]
    )
    judge = f"{{model: big-1, url: '{judge_server.url}', key: ''}}"
    report = call("xstest-judged", "said.jsonl", "--judge", judge, "--data", str(tmp_path / "data"))
    assert report["score"] == pytest.approx(2 * 1 / (2 + 2))
    found = {name: value(report, f"judge_label_{name}")["value"] for name in ("accuracy", "full_refusal", "unreadable")}
    assert found == {"accuracy": 0.25, "full_refusal": 0.25, "unreadable": 0.25}
    assert value(report, "refusal_f1")["value"] == pytest.approx(2 * 2 / (4 + 2)), "the string match finds four"
    assert (report["health"]["unparsable"], report["health"]["judge"]) == (1, "big-1")
    assert all(body["max_tokens"] == 16 and body["temperature"] == 0 for body in judge_server.asked)
    assert report["protocol"]["judged"]["judges"][0]["model"] == "big-1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bars"], "name the judge to compare with them"),
        (["bars", "--judge", "gpt-9"], "unknown judge 'gpt-9'"),
        (["bars", "--judge", "{model: m, positions: fixed, key: ''}"], "always shown one response first"),
        (["bars", "--judge", "{model: m"], "is no YAML"),
        (["bars", "--judge", "{model: m, key: '', template: rate}"], "template rate is single, and two responses are"),
        (["bars", "--judge", "self"], "--judge: a policy is not evaluated by its own judgement"),
        (["bars", "mine.jsonl", "--judge", "local"], "has both responses of its pairs: mine.jsonl would not be read"),
        (["pocket-judged", "mine.jsonl", "--judge", "self"], "--judge: a policy is not evaluated by its own"),
        (["pocket-rated", "mine.jsonl", "--judge", "{judges: [self, local]}"], "--judge: a policy is not evaluated"),
        (["xstest", "x.jsonl"], "has no judge"),
        (["faireval"], "judges outputs: name a file"),
    ],
)
def test_what_can_not_be_asked_is_told(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AblateError, match=message) as caught:
        call(*words, "--data", str(root))
    assert isinstance(caught.value, UsageError) and caught.value.exit_code == 2
    assert not isinstance(caught.value, SpecError) or "--judge" in str(caught.value)


def test_a_judge_of_rewardbench_has_its_sections(
    judge_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right on code, wrong on math, mute on chat; asked once a pair, in RewardBench's words."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data" / "allenai" / "reward-bench" / "data" / "filtered-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    rows = [
        {"id": n, "subset": subset, "prompt": f"{subset} {n}", "chosen": "good", "rejected": "bad"}
        for n, subset in enumerate(["hep-go"] * 4 + ["math-prm"] * 4 + ["alpacaeval-easy"] * 4)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)

    def reply(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        first = text.index("\ngood\n") < text.index("\nbad\n")
        if "alpaca" in text:
            return "both have merits"
        return "[[A]]" if first == ("hep-go" in text) else "[[B]]"

    judge_server.reply = reply
    judge = f"{{model: big-1, url: '{judge_server.url}', key: '', positions: random}}"
    report = call("rewardbench", "--judge", judge, "--data", str(tmp_path / "data"))
    found = {(row["task"], row["metric"]): row["value"] for row in report["metrics"]}
    assert found["chat", "accuracy"] == 0.5 and found["reasoning", "accuracy"] == pytest.approx(164 / 1148)
    assert report["score"] == pytest.approx((0.5 + 164 / 1148) / 2)
    assert report["health"]["unparsable"] == 4 and report["health"]["judges"][0]["unread"]
    assert len(judge_server.asked) == 12
    judge_server.reply = lambda body: "[[A]]"
    both = call("rewardbench", "--judge", judge.replace("random", "swap, seed: 1"), "--data", str(tmp_path / "data"))
    assert (both["score"], both["health"]["unparsable"]) == (0.5, 0), "a tie can be read"
    assert report["protocol"]["options"]["rule"] == "current"
    assert report["protocol"]["judged"][0]["template"]["user"].startswith("[User Question]\n{prompt}")
