"""The judge stage and its graders, against a scripted server: pairs, ratings, panels, failures half-way, two turns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.judges import Judge, find_template, locations_of
from ablate.catalogs.suite_parts import Judging
from ablate.context import EventLog, StageContext, read_json, write_json
from ablate.data.json_lines import read_json_lines
from ablate.errors import DataError, StageError
from ablate.evaluation import evaluate, generate, judging
from ablate.evaluation.items import Item, Response, read_responses, user, write_items, write_responses
from ablate.evaluation.length_control import LengthControl, fit, group_folds, penalised, published


def responded(folder: Path, items: list[Item], responses: list[Response]) -> Path:
    folder.mkdir(parents=True)
    write_items(folder, items)
    write_responses(folder, responses)
    write_json(folder / "protocol.json", {"made": {"decoding": {}}, "items": "0"})
    return folder


def items_and_responses(folder: Path, count: int = 4, samples: int = 1, **facts: Any) -> Path:
    items = [
        Item(f"e{n}", "even" if n % 2 == 0 else "odd", user(f"question {n}"), data={"baseline": ["bad"], **facts})
        for n in range(count)
    ]
    responses = [
        Response(item.id, item.task, sample, "", f"good {n}", "eos", 2)
        for sample in range(samples)
        for n, item in enumerate(items)
    ]
    return responded(folder / "responses", items, responses)


@pytest.fixture
def judge(judge_server: Any, tmp_path: Path) -> Callable[..., Path]:
    """Run a judge stage, whose answers are kept in one folder."""

    def run(
        responses: Path, name: str = "judge", judges: int = 1, root: Path | None = None, **judging_keys: Any
    ) -> Path:
        keys: dict[str, Any] = {"template": "compare", **judging_keys}
        own = [
            {"model": f"big-{n}", "url": judge_server.url, "key": "", "timeout": 5.0, **keys.pop("judge", {})}
            for n in range(1, judges + 1)
        ]
        made = Judging.model_validate({"judge": {"judges": own, "vote": keys.pop("vote", "mean")}, **keys})
        digests = {}
        if made.file:
            import hashlib

            assert root is not None
            digests = {made.file: hashlib.sha256((root / made.file).read_bytes()).hexdigest()}
        folder = tmp_path / name
        for part in ("output", "work"):
            (folder / part).mkdir(parents=True)
        locations = {**locations_of(made.asked), "answers": str(tmp_path / "answers")}
        locations |= {} if root is None else {"root": str(root)}
        events = EventLog(folder / "events.jsonl")
        context = StageContext(
            "judge",
            made.config(digests),
            {"responses": responses},
            folder / "output",
            folder / "work",
            events,
            locations,
        )
        judging.run(context)
        return folder / "output"

    return run


def graded(run_stage: Any, name: str, responses: Path, verdicts: Path, grader: str, **options: Any) -> dict[str, Any]:
    from ablate.catalogs.suite_code import GRADERS, complete_options

    own = complete_options(grader, options, GRADERS)
    primary = {"rating": "rating", "arena-hard": "score"}.get(grader, "win_rate")
    config = {"grader": grader, "options": own, "primary": primary}
    output = run_stage(name, evaluate.run, config, {"responses": responses, "verdicts": verdicts})
    report: dict[str, Any] = read_json(output / "metrics.json")
    return report


def metric(report: dict[str, Any], name: str, task: str = "overall") -> dict[str, Any]:
    return next(row for row in report["metrics"] if (row["task"], row["metric"]) == (task, name))


def shown(body: dict[str, Any]) -> tuple[str, str]:
    text = body["messages"][-1]["content"]
    one, other = (text.split(f"[Response {name}]\n")[1].split("\n[End")[0] for name in "AB")
    return one, other


def test_a_win_rate_by_hand(judge_server: Any, judge: Any, run_stage: Any, tmp_path: Path) -> None:
    """The first of four wins in both orders, the second loses, the third is a matter of order, the fourth unclear."""

    def reply(body: dict[str, Any]) -> str:
        good_first = "good" in shown(body)[0]
        number = next(word for pair in shown(body) if "good" in pair for word in pair.split() if word.isdigit())
        return {
            "0": "[[A]]" if good_first else "[[B]]",
            "1": "[[B]]" if good_first else "[[A]]",
            "2": "[[A]]",
            "3": "I can't say." if good_first else "[[B]]",
        }[number]

    judge_server.reply = reply
    responses = items_and_responses(tmp_path)
    verdicts = judge(responses)
    rows = read_json_lines(verdicts / "verdicts.jsonl")
    assert [row["value"] for row in rows] == [1.0, 0.0, 0.5, None]
    assert [row["problem"] for row in rows] == [None, None, None, "unparsable"]
    report = graded(run_stage, "e", responses, verdicts, "win-rate")
    assert metric(report, "win_rate")["value"] == (1 + 0 + 0.5 + 0.5) / 4 == report["score"]
    spread = math.sqrt(sum((value - 0.5) ** 2 for value in (1, 0, 0.5, 0.5)) / 3 / 4)
    assert metric(report, "win_rate")["stderr"] == pytest.approx(spread)
    assert metric(report, "win_rate", "odd")["value"] == 0.25
    assert metric(report, "parsed")["value"] == 0.75 and metric(report, "consistent")["value"] == pytest.approx(2 / 3)
    assert metric(report, "ties")["value"] == pytest.approx(1 / 3)
    # of e0 and e1 the one shown first wins once in two, of e2 always, of e3 never where it could be read
    assert metric(report, "first_wins")["value"] == pytest.approx((0.5 + 0.5 + 1 + 0) / 4)
    health = report["health"]
    assert (health["unparsable"], health["judge"], health["judge_answers"]) == (1, "big-1", 8)
    assert health["judge_served"] == "big-1-0613" and health["judged_from"] == health["judged_to"]
    omitted = graded(run_stage, "o", responses, verdicts, "win-rate", unparsable="omit")
    assert (metric(omitted, "win_rate")["value"], metric(omitted, "win_rate")["n"]) == (0.5, 3)
    assert omitted["health"]["unparsable"] == 1, "left out of the mean, never of the count"
    assert report["protocol"]["judged"]["judges"][0]["positions"] == "swap"


def test_an_interrupted_judge_stage_asks_the_rest_alone(judge_server: Any, judge: Any, tmp_path: Path) -> None:
    judge_server.reply = lambda body: "[[A]]"
    responses = items_and_responses(tmp_path, 10)
    judge_server.down_after = 7
    with pytest.raises(StageError, match="answers so far are kept"):
        judge(responses, "first", judge={"timeout": 0.5})
    judge_server.down_after = None
    judge(responses, "second")
    assert len(judge_server.asked) == 20


def test_a_panel_votes_and_says_how_it_agrees(judge_server: Any, judge: Any, run_stage: Any, tmp_path: Path) -> None:
    """Of three judges two always favour the good response, the third the bad one."""

    def reply(body: dict[str, Any]) -> str:
        likes_good = body["model"] != "big-3"
        return "[[A]]" if ("good" in shown(body)[0]) == likes_good else "[[B]]"

    judge_server.reply = reply
    responses = items_and_responses(tmp_path)
    for vote, expected in (("mean", 2 / 3), ("majority", 1.0)):
        report = graded(run_stage, vote, responses, judge(responses, f"judge-{vote}", 3, vote=vote), "win-rate")
        assert report["score"] == pytest.approx(expected)
        assert metric(report, "agreement")["value"] == pytest.approx(1 / 3)
    assert len(judge_server.asked) == 24, "the second vote is over the same answers"


def test_arena_hard_counts_great_differences_thrice(
    judge_server: Any, judge: Any, run_stage: Any, tmp_path: Path
) -> None:
    """One great win and one slight loss in the two orders: 3 of 4 games; a tie and a great win: 3.5 of 4."""

    def reply(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        good_first = text.index("good") < text.index("bad")
        if "question 0" in text:
            return "[[A>>B]]" if good_first else "[[A>B]]"
        return "[[A=B]]" if good_first else "[[B>>A]]"

    judge_server.reply = reply
    responses = items_and_responses(tmp_path, 2)
    report = graded(run_stage, "e", responses, judge(responses, template="arena-hard"), "arena-hard")
    assert report["score"] == pytest.approx((3 + 0 + 0.5 + 3) / (4 + 4))
    assert metric(report, "score")["n"] == 2 and metric(report, "score")["stderr"] > 0
    sampled = items_and_responses(tmp_path / "sampled", 2, samples=2)
    again = graded(run_stage, "e2", sampled, judge(sampled, "again", template="arena-hard"), "arena-hard")
    assert metric(again, "score") == {**metric(report, "score"), "n": 4}, "samples of a prompt are one draw"


def fastchat_questions(root: Path) -> Path:
    rows = []
    for kind in ("single", "pairwise"):
        for turns, end in ((1, ""), (2, "-multi-turn")):
            for reference in (False, True):
                name = {"single": "single", "pairwise": "pair"}[kind]
                version = "v2" if kind == "pairwise" and not reference else "v1"
                question = "{question}" if turns == 1 else "{question_1} / {question_2}"
                sides = ("_a", "_b") if kind == "pairwise" else ("",)
                last = "" if turns == 1 else "_2"
                text = f"{question} | " + " | ".join(f"{{answer{side}{last}}}" for side in sides)
                text += (" | ref {ref_answer_1}" + (" {ref_answer_2}" if turns == 2 else "")) if reference else ""
                rows.append(
                    {
                        "name": f"{name}{'-math' if reference else ''}-{version}{end}",
                        "type": kind,
                        "system_prompt": f"{kind} {turns}",
                        "prompt_template": text,
                    }
                )
    (root / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root


def two_turns(folder: Path) -> Path:
    items = [
        Item("a", "writing", user("q1"), followups=("q2",), data={"baseline": ["b1", "b2"]}),
        Item("m", "math", user("m1"), followups=("m2",), data={"baseline": ["c1", "c2"], "reference": ["r1", "r2"]}),
    ]
    responses = [
        Response(name, task, 0, "", f"{name}-answer{turn}", "eos", 3, turn=turn)
        for name, task in (("a", "writing"), ("m", "math"))
        for turn in (0, 1)
    ]
    return responded(folder / "responses", items, responses)


def test_two_turns_are_asked_about_in_fastchats_words(
    judge_server: Any, judge: Any, run_stage: Any, tmp_path: Path
) -> None:
    root = fastchat_questions(tmp_path)
    ratings = iter(["Rating: [[8]]", "Rating: [[6]]", "no rating", "Rating: [[3]]"])
    judge_server.reply = lambda body: next(ratings)
    responses = two_turns(tmp_path)
    # one at a time, so that the scripted ratings fall in the order of the questions
    verdicts = judge(responses, root=root, template=None, file="questions.jsonl", kind="single")
    asked = {body["messages"][1]["content"]: body["messages"][0]["content"] for body in judge_server.asked}
    assert asked == {
        "q1 | a-answer0": "single 1",
        "q1 / q2 | a-answer1": "single 2",
        "m1 | m-answer0 | ref r1": "single 1",
        "m1 / m2 | m-answer1 | ref r1 r2": "single 2",
    }
    values = {(row["id"], row["turn"]): row["value"] for row in read_json_lines(verdicts / "verdicts.jsonl")}
    known = sorted(value for value in values.values() if value is not None)
    assert known == [3.0, 6.0, 8.0]
    report = graded(run_stage, "e", responses, verdicts, "rating")
    assert report["score"] == pytest.approx(17 / 3) and metric(report, "parsed")["value"] == 0.75
    assert report["health"]["unparsable"] == 1


def test_pairs_of_two_turns_are_shown_in_both_orders(judge_server: Any, judge: Any, tmp_path: Path) -> None:
    judge_server.reply = lambda body: "[[A]]"
    judge(two_turns(tmp_path), root=fastchat_questions(tmp_path), template=None, file="questions.jsonl")
    asked = {body["messages"][1]["content"] for body in judge_server.asked}
    assert {"q1 | b1 | a-answer0", "q1 | a-answer0 | b1"} <= asked
    assert {"q1 / q2 | b2 | a-answer1", "m1 / m2 | m-answer1 | c2 | ref r1 r2"} <= asked and len(asked) == 8


def test_what_can_not_be_judged_is_told(judge: Any, judge_server: Any, tmp_path: Path) -> None:
    lone = [Item("x", "t", user("q"), source="x-1")]
    responses = responded(tmp_path / "lone", lone, [Response("x", "t", 0, "", "r", "eos", 1)])
    with pytest.raises(DataError, match="example x-1 has no answer of a baseline to turn 1"):
        judge(responses)
    (tmp_path / "questions.jsonl").write_text('{"name": "single-v1", "type": "single"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="row 1 has no system_prompt"):
        judge(responses, "two", root=tmp_path, template=None, file="questions.jsonl", kind="single")
    assert not judge_server.keys


def test_later_turns_see_the_answers_before_them(byte_policy: Path, run_stage: Any, tmp_path: Path) -> None:
    """Greedy responses to a second turn are those to one prompt that holds the whole conversation."""
    (tmp_path / "q.jsonl").write_text(
        "".join(
            json.dumps({"question_id": n, "category": category, "turns": [f"say {n}", f"again {n}"]}) + "\n"
            for n, category in enumerate(("writing", "math"))
        )
    )
    options = {"temperatures": {"writing": 0.7}, "baseline": None}

    def responses_of(name: str, **changes: Any) -> dict[tuple[str, int], Response]:
        config = {
            "files": {"question.jsonl": ""},
            "prompts": {"name": "mt-bench", "options": options},
            "limit": None,
            "engine": "items",
            "chat": True,
            "decoding": {"temperature": 0.0, "top_p": 1.0, "samples": 1, "max_new_tokens": 12, "stop": [], "seed": 0},
            **changes,
        }
        import hashlib

        (tmp_path / "question.jsonl").write_bytes((tmp_path / "q.jsonl").read_bytes())
        config["files"] = {"question.jsonl": hashlib.sha256((tmp_path / "q.jsonl").read_bytes()).hexdigest()}
        output = run_stage(name, generate.run, config, {"policy": byte_policy}, tmp_path)
        return {(row.task, row.turn): row for row in read_responses(output)}

    found = responses_of("g")
    first, second = found["math", 0], found["math", 1]
    assert second.prompt.startswith(first.prompt + first.response) and "again 1" in second.prompt
    assert found["writing", 0].turn == 0 and len(found) == 4
    assert responses_of("h")["writing", 1] == found["writing", 1], "sampling is seeded"
    plain = responses_of("p", chat=False)["math", 1]
    assert plain.prompt == f"say 1\n\n{responses_of('p2', chat=False)['math', 0].response}\n\nagain 1"


def test_length_control_of_hand_made_preferences() -> None:
    """Preferences that hang on length alone are even at equal length; with a better model they are not."""
    lengths = [100 * (n % 21 - 10) for n in range(420)]
    by_length = [1 / (1 + math.exp(2 * math.tanh(value / 600))) for value in lengths]
    even = fit(by_length, lengths, [0.0] * 420)
    assert even is not None and even.win_rate == pytest.approx(0.5, abs=0.01)
    better = fit([min(1.0, 0.3 + 0.7 * value) for value in by_length], lengths, [0.0] * 420)
    assert better is not None and better.win_rate > 0.6
    assert fit([0.5] * 10, [0] * 10, [0.0] * 10) is None, "all lengths alike"
    assert fit([None] * 20, lengths[:20], [0.0] * 20) is None


def test_the_penalised_fit_is_a_minimum() -> None:
    import numpy as np

    stream = np.random.default_rng(0)
    features, targets = stream.normal(size=(80, 3)), stream.random(80)

    def objective(weights: Any, strength: float) -> float:
        scores = features @ weights
        losses = -(targets * np.log(1 / (1 + np.exp(-scores))) + (1 - targets) * np.log(1 - 1 / (1 + np.exp(-scores))))
        return float(np.abs(weights).sum() + strength * losses.sum())

    for strength in (0.01, 0.2, 5.0):
        weights = penalised(features, targets, strength)
        reached = objective(weights, strength)
        for _ in range(200):
            assert objective(weights + stream.normal(scale=0.02, size=3), strength) >= reached - 1e-9
    assert not penalised(features, targets, 0.001).any(), "a strong penalty leaves no weight"
    assert sorted(np.bincount(group_folds(13, 5)).tolist()) == [2, 2, 3, 3, 3]


def test_published_weights_are_looked_up_by_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.csv"
    path.write_text(",np.tanh(std_delta_len),instruction_difficulty,not_gamed_baseline.astype(float)\nm,-1.0,0.0,0.0\n")
    assert published(path, "m", [1.0, 2.0]) == LengthControl((-1.0, 0.0, 0.0), 0.5, 0.0, 2)
    assert published(path, "n", [1.0]) is None
    path.write_text("model,weight\nm,1\n")
    with pytest.raises(DataError, match="these are no published weights"):
        published(path, "m", [1.0])


def test_a_judge_has_the_suites_settings_before_its_own() -> None:
    judge = Judge(name="j", model="j", temperature=0.5, positions="fixed", template=find_template("compare"))
    made = Judging.model_validate({"judge": judge, "template": "alpaca-eval-2", "positions": "random", "max_tokens": 1})
    (asked,) = made.asked
    assert (asked.positions, asked.max_tokens, asked.temperature) == ("random", 1, 0.5)
    assert asked.template == find_template("alpaca-eval-2")
