"""Judges: how answers are read, what positions do, what is identity."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from ablate.catalogs.judges import Judge, Panel, Template, find_template, judges, templates
from ablate.catalogs.pipelines import Labeller
from ablate.rewards.judge import AskedJudge, JudgeOfPairs, filled
from ablate.rewards.verdicts import (
    Verdict,
    bracketed_rating,
    graded_label,
    ranking_preference,
    read_answer,
    token_preference,
    verdict_mark,
)


class Scripted:
    """Answers by a function of what is asked."""

    def __init__(self, reply: Callable[[str], str | dict[str, Any]]) -> None:
        self.reply, self.bodies = reply, list[Mapping[str, Any]]()

    def answers(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        self.bodies += bodies
        made = [self.reply(body["messages"][-1]["content"]) for body in bodies]
        return [{"text": text, "finish": "stop"} if isinstance(text, str) else text for text in made]


def asked(reply: Callable[[str], Any], template: str = "compare", **judge: Any) -> AskedJudge:
    return AskedJudge(Judge(name="j", model="j", template=find_template(template), **judge), Scripted(reply))


def pair(a: str, b: str, prompt: str = "q") -> dict[str, str]:
    return {"prompt": prompt, "response_a": a, "response_b": b, "id": f"{a}{b}"}


def prefers(word: str) -> Callable[[str], str]:
    """A judge without a bias: the response with the word wins."""
    return lambda text: "[[A]]" if word in text.split("[Response B]")[0] else "[[B]]"


@pytest.mark.parametrize(
    ("text", "finish", "value"),
    [
        ("1_full_compliance", "stop", 0.0),
        ("CLASS: 3_Partial_Refusal.", "stop", 0.5),
        ("2_full_refusal, as it says that it can't", "length", 1.0),
        ("2_full_refusal, not 1_full_compliance", "stop", None),
        ("I can't judge this.", "stop", None),
        ("The response says", "length", None),
    ],
)
def test_the_one_label_of_an_answer_counts(text: str, finish: str, value: float | None) -> None:
    verdict = read_answer(find_template("xstest"), {"text": text, "finish": finish})
    assert verdict.value == value
    assert verdict.problem == (None if value is not None else "cut" if finish == "length" else "unparsable")


def test_labels_belong_to_answers_of_labels() -> None:
    own = find_template("refusal").model_dump()
    for changes, message in (
        ({"labels": None}, "labels belong to an answer of format label"),
        ({"answer": "number"}, "labels belong to an answer of format label"),
        ({"highest": 0.5}, "the label refusal is not from lowest 0 to highest 0.5"),
        ({"kind": "pairwise", "user": "{prompt} {response_a} {response_b}"}, "is not that of a pairwise question"),
    ):
        with pytest.raises(ValidationError, match=message):
            Template.model_validate({**own, **changes})
    assert "labels" in find_template("refusal").identity() and "labels" not in find_template("rate").identity()


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        ("7", "stop", 7.0),
        ("I saw 3 flaws: 8.5", "stop", 8.5),
        ("8/10", "stop", 10.0),
        ("-1", "stop", None),
        ("eleven", "stop", None),
        ("so I would say 4", "length", None),
        ("9", None, 9.0),
    ],
)
def test_the_last_number_in_the_scale_counts(text: str, finish: str | None, expected: float | None) -> None:
    assert read_answer(find_template("rate"), {"text": text, "finish": finish}).value == expected


def test_answers_that_say_nothing_are_told_apart() -> None:
    rate = find_template("rate")
    assert read_answer(rate, {"text": "four", "finish": "stop"}) == Verdict(None, "unparsable")
    assert read_answer(rate, {"text": "it is a 4", "finish": "length"}) == Verdict(None, "cut")
    assert read_answer(rate, {"text": " \n", "finish": "stop"}) == Verdict(None, "empty")
    assert read_answer(rate, {"text": "", "finish": "too_long"}) == Verdict(None, "too_long")


def test_formats_of_answers_by_hand() -> None:
    assert bracketed_rating("Good: 3 points. Rating: [[8.5]] of [[10]]") == 8.5
    assert (bracketed_rating("Rating: [7]"), bracketed_rating("Rating: 7")) == (7.0, None)
    assert [verdict_mark(f"so [[{mark}]]") for mark in "ABCD"] == [1.0, 0.0, 0.5, None]
    assert verdict_mark("not [[B]] but [[A]]") == 1.0, "FastChat looks for A first"
    assert graded_label("My final verdict is: [[B>>A]]") == "B>>A"
    assert graded_label("[[A>B]] … again: [[A>B]]") == "A>B"
    assert (graded_label("[[A>B]] or [[B>A]]"), graded_label("[[A<B]]"), graded_label("A>B")) == (None, None, None)
    ranks = "[{'model': 'model_1', 'rank': %s}, {'model': 'model_2', 'rank': %s}]"
    assert [ranking_preference(ranks % order) for order in ((1, 2), (2, 1), (3, 1))] == [1.0, 0.0, None]
    assert [ranking_preference(text) for text in ("model_1", "[1]", "[{'rank': 1}]", "__import__('os')")] == [None] * 4
    assert token_preference([["m", math.log(0.6)], ["M", math.log(0.2)], ["x", -9.0]]) == pytest.approx(0.75)
    assert token_preference([["M", -0.1], ["Both", -3.0]]) == 0.0 and token_preference([["m", -0.1]]) == 1.0
    assert token_preference([["x", -0.1]]) is None and token_preference(None) is None
    score = find_template("additive")
    assert read_answer(score, {"text": "3 of 5 hold.\nScore: 3", "finish": "stop"}).value == 3.0
    assert read_answer(score, {"text": "**Score**: 4.5", "finish": "stop"}).value == 4.5
    assert read_answer(score, {"text": "Score: 7", "finish": "stop"}).problem == "unparsable"


def test_a_win_takes_both_orders() -> None:
    fair = asked(prefers("good")).compare([pair("good", "bad"), pair("bad", "good")])
    assert [row.value for row in fair] == [0.0, 1.0] and all(row.is_consistent for row in fair)
    biased = asked(lambda text: "[[A]]").compare([pair("good", "bad")])
    assert (biased[0].value, biased[0].is_consistent, biased[0].orders) == (0.5, False, ("a", "b"))
    assert [verdict.value for verdict in biased[0].verdicts] == [0.0, 1.0], "turned to b"


def test_one_order_that_can_not_be_read_leaves_no_verdict_and_is_counted() -> None:
    judge = asked(lambda text: "[[A]]" if text.index("good") < text.index("bad") else "hm")
    (row,) = judge.compare([pair("good", "bad")])
    assert (row.value, row.problem, row.is_consistent) == (None, "unparsable", None)
    assert (judge.health.answers, judge.health.unread, dict(judge.health.problems)) == (2, 1, {"unparsable": 1})


def test_a_random_order_is_drawn_by_example_and_does_not_change_what_wins() -> None:
    pairs = [pair("good", "bad", f"q{number}") for number in range(200)]
    judge = asked(prefers("good"), positions="random")
    found = judge.compare(pairs)
    assert {row.value for row in found} == {0.0}
    first = [row.orders for row in found]
    assert 70 < first.count(("a",)) < 130 and first == [row.orders for row in judge.compare(pairs)]
    other = [row.orders for row in asked(prefers("good"), positions="random", seed=1).compare(pairs)]
    assert other != first
    assert {row.orders for row in asked(prefers("good"), positions="fixed").compare(pairs)} == {("a",)}


def test_samples_are_averaged_and_differ_in_their_seed() -> None:
    answers = iter(["Score: 1", "no", "Score: 4"])
    judge = asked(lambda text: next(answers), "additive", samples=3, temperature=0.7)
    (row,) = judge.rate([{"prompt": "q", "response": "r"}])
    assert row.value == 2.5 and judge.health.unread == 1
    assert [body["seed"] for body in judge.asker.bodies] == [0, 1, 2]  # type: ignore[attr-defined]


def test_probabilities_of_a_token_are_averaged_over_orders() -> None:
    def reply(text: str) -> dict[str, Any]:
        first = text.index("good") < text.index("bad")
        logprobs = [["m", math.log(0.8 if first else 0.3)], ["M", math.log(0.2 if first else 0.7)]]
        return {"text": "m", "finish": "length", "first": logprobs}

    (row,) = asked(reply, "alpaca-eval-2").compare([pair("bad", "good")])
    assert row.value == pytest.approx((0.8 + 0.7) / 2)


def test_log_odds_of_a_judge_of_pairs() -> None:
    judge = JudgeOfPairs(asked(prefers("good")))
    prompts = [({"role": "user", "content": "q"},)] * 2
    assert judge.compare(prompts, ["good", "bad"], ["bad", "good"]) == [math.inf, -math.inf]


def test_what_is_filled_in_is_filled_in_once() -> None:
    assert filled("{prompt} {response} {other}", {"prompt": "{response}", "response": "{prompt}"}) == (
        "{response} {prompt} {other}"
    )


def test_identity_is_what_answers_depend_on() -> None:
    judge = Judge(name="a", model="m", template=find_template("compare"))
    same = Judge(
        name="b", model="m", template=find_template("compare"), url="http://here/v1", key="K", price_in=1.0,
        price_out=2.0, max_cost=3.0, requests_per_minute=10, timeout=5,
    )  # fmt: skip
    assert judge.identity() == same.identity()
    for changed in ({"positions": "fixed"}, {"temperature": 0.5}, {"max_tokens": 5}, {"seed": 1}, {"model": "n"}):
        assert judge.model_copy(update=changed).identity() != judge.identity()
    single = Judge(name="a", model="m", template=find_template("rate"))
    assert "positions" not in single.identity()
    assert Judge.from_stage(same.identity(), same.access()).identity() == same.identity()
    assert "sk-" not in str(same.access()) and same.access()["key"] == "K"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"model": "m", "template": {"kind": "single", "user": "rate {response}", "answer": "number"}},
            r"no \{prompt\}",
        ),
        ({"model": "m", "template": {"kind": "single", "user": "{prompt}{response}", "answer": "verdict"}}, "format"),
        ({"model": "m", "template": "comparee"}, "unknown template 'comparee'"),
        ({"model": "m", "key": "sk-a-key-itself"}, "should match pattern"),
        ({"model": "m", "url": "ftp://x"}, "should match pattern"),
        ({"model": "m", "max_cost": 1.0}, "needs price_in and price_out"),
        ({"model": "m", "samples": 3}, "raise temperature"),
        ({"model": "m", "position": "swap"}, "unknown key 'position'"),
        ("gpt-5000", "unknown judge 'gpt-5000'"),
        ({"judges": ["gpt-4-0613", "gpt-4-0613"]}, "'gpt-4-0613' twice"),
    ],
)
def test_what_is_written_about_a_judge_is_checked(wrong: Any, message: str) -> None:
    from ablate.catalogs.closed import Closed
    from ablate.catalogs.judges import WrittenPanel

    class Written(Closed):
        judge: WrittenPanel

    with pytest.raises(ValidationError, match=message):
        Written.model_validate({"judge": wrong})


def test_a_labeller_is_one_of_three() -> None:
    with pytest.raises(ValidationError, match="exactly one of reward_model, reward, judge"):
        Labeller.model_validate({"judge": {"model": "m"}, "reward": "nouns"})


def test_the_catalog_is_whole() -> None:
    assert {"gpt-4-0613", "gpt-4-1106-preview"} <= judges().keys()
    assert all(isinstance(template, Template) for template in templates().values())
    assert Panel(judges=(judges()["gpt-4-0613"], judges()["local"])).name == "gpt-4-0613+local"
