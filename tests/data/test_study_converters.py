"""Converters of the study's sets and others with preferences, on rows in native schemas, worked by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ablate.catalogs.datasets import Pairing
from ablate.data.converters import bind, grouping
from ablate.data.pairing import pairs
from ablate.data.records import Dropped, PreferenceRecord
from ablate.errors import DataError


def convert(name: str, row: dict[str, Any], **options: Any) -> Any:
    return bind(name, options)("file", row)


def texts(messages: Any) -> list[str]:
    return [f"{turn['role'][0]}:{turn['content']}" for turn in messages]


def summary(record: Any) -> tuple[Any, ...]:
    assert isinstance(record, PreferenceRecord), record
    assert all(len(item.messages) == 1 for item in record.responses)
    return texts(record.prompt), [(texts(item.messages)[0], item.score, item.rank) for item in record.responses]


def talk(*contents: Any, **roles: str) -> list[dict[str, Any]]:
    """Turns of user and assistant; ``roles`` renames the keys."""
    role, content = roles.get("role", "role"), roles.get("content", "content")
    names = (roles.get("user", "user"), roles.get("assistant", "assistant"))
    return [{role: names[index % 2], content: text} for index, text in enumerate(contents)]


def tulu(chosen: Any, rejected: Any) -> dict[str, Any]:
    return {"chosen": chosen, "rejected": rejected, "source": "nectar"}


def test_tulu_25_shared_turns_are_the_prompt() -> None:
    record = convert("tulu_2_5", tulu(talk("q ", "a", "r", "good"), talk("q", "a", " r", " bad")))
    assert summary(record) == (["u:q", "a:a", "u:r"], [("a:good", None, 1), ("a:bad", None, 2)])
    assert record.source == "nectar"


@pytest.mark.parametrize(
    ("diverging", "expected"),
    [
        ("first-turn", (["u:q"], [("a:a1", None, 1), ("a:b1", None, 2)])),
        ("same-history", Dropped("histories-differ")),
        ("drop", Dropped("several-turns")),
    ],
)
def test_tulu_25_histories_that_differ(diverging: str, expected: Any) -> None:
    found = convert("tulu_2_5", tulu(talk("q", "a1", "r", "a2"), talk("q", "b1", "r", "b2")), diverging=diverging)
    assert (found if isinstance(found, Dropped) else summary(found)) == expected
    one = convert("tulu_2_5", tulu(talk("q", "a"), talk("q", "b")), diverging=diverging)
    assert summary(one) == (["u:q"], [("a:a", None, 1), ("a:b", None, 2)])
    agreed = convert("tulu_2_5", tulu(talk("q", "a", "r", "c"), talk("q", "a", "r", "d")), diverging=diverging)
    assert agreed == Dropped("several-turns") if diverging == "drop" else summary(agreed)[0] == ["u:q", "a:a", "u:r"]


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (talk("q", "a"), talk("q", "a "), "identical-responses"),
        (talk("q", " "), talk("q", "b"), "empty-message"),
        (talk("q", "a", "r"), talk("q", "b"), "last-turn-not-assistant"),
        ([], talk("q", "b"), "last-turn-not-assistant"),
        (talk("q", "a"), talk("p", "b"), "prompts-differ"),
        (talk("q", "a", "r", "b"), talk("q", "a", "s", "c"), "prompts-differ"),
        (talk("q", "a", "r", "b"), talk("q", "a"), "no-response-on-one-side"),
        (talk("q", "a"), "text", "not-messages"),
        (talk("q", None), talk("q", "b"), "not-text"),
        ([{"role": "tool", "content": "x"}, *talk("q", "a")], talk("q", "b"), "unknown-role"),
    ],
)
def test_tulu_25_malformed(chosen: Any, rejected: Any, reason: str) -> None:
    assert convert("tulu_2_5", tulu(chosen, rejected)) == Dropped(reason)


def test_capybara_keeps_ratings_and_models() -> None:
    row = {**tulu(talk("q", "a", "r", "c"), talk("q", "a", "r", "d")), "source": "Airoboros"}
    row |= {"rating_chosen": 5, "rating_rejected": 3, "chosen_model": "original", "rejected_model": "hermes"}
    record = convert("capybara", row)
    assert summary(record) == (["u:q", "a:a", "u:r"], [("a:c", 5.0, 1), ("a:d", 3.0, 2)])
    assert [item.model for item in record.responses] == ["original", "hermes"]
    assert summary(convert("capybara", {**row, "rating_chosen": None}))[1] == [("a:c", None, 1), ("a:d", None, 2)]
    assert convert("capybara", {**row, "chosen": talk("q", "a", "r", "")}) == Dropped("empty-message")
    assert convert("capybara", {**row, "rejected": None}) == Dropped("not-messages")


def test_stack_exchange() -> None:
    row = {"qid": 1, "question": " how? ", "response_j": "so", "response_k": "not so", "date": "", "metadata": []}
    expected = (["u:how?"], [("a:so", None, 1), ("a:not so", None, 2)])
    assert summary(convert("stack_exchange_paired", row)) == expected
    assert convert("stack_exchange_paired", {**row, "response_k": " "}) == Dropped("empty-message")
    assert convert("stack_exchange_paired", {**row, "question": None}) == Dropped("not-text")
    with pytest.raises(DataError, match="lacks response_k"):
        convert("stack_exchange_paired", {"question": "q", "response_j": "a"})


def test_orca_keeps_the_system_prompt_or_drops_it() -> None:
    row = {"system": "Be kind.", "question": "why?", "chosen": "because", "rejected": "no"}
    assert summary(convert("orca_dpo_pairs", row))[0] == ["s:Be kind.", "u:why?"]
    assert summary(convert("orca_dpo_pairs", row, system="drop")) == (
        ["u:why?"],
        [("a:because", None, 1), ("a:no", None, 2)],
    )
    assert summary(convert("orca_dpo_pairs", {**row, "system": ""}))[0] == ["u:why?"]
    assert convert("orca_dpo_pairs", {**row, "question": " "}) == Dropped("empty-message")
    assert convert("orca_dpo_pairs", {**row, "rejected": 3}) == Dropped("not-text")
    assert convert("orca_dpo_pairs", {**row, "system": 3}) == Dropped("not-text")


def test_alpaca_farm_in_both_configurations() -> None:
    row = {"instruction": "Translate.", "input": "ja", "output_1": "yes", "output_2": "no", "preference": 2}
    expected = (["u:Translate.\n\nja"], [("a:yes", None, 2), ("a:no", None, 1)])
    assert summary(convert("alpaca_farm", row)) == expected
    assert summary(convert("alpaca_farm", {**row, "raw_preference": 1, "input": "", "preference": 1})) == (
        ["u:Translate."],
        [("a:yes", None, 1), ("a:no", None, 2)],
    )
    assert convert("alpaca_farm", {**row, "preference": 0}) == Dropped("label-not-1-or-2")
    assert convert("alpaca_farm", {**row, "output_1": ""}) == Dropped("empty-message")
    assert convert("alpaca_farm", {**row, "instruction": None}) == Dropped("not-text")


def arena_2023(winner: Any, a: Any, b: Any) -> dict[str, Any]:
    sides = {"conversation_a": a, "conversation_b": b}
    return {"model_a": "m", "model_b": "n", "winner": winner, "language": "German", "turn": 1, **sides}


def test_arena_2023() -> None:
    record = convert("chatbot_arena_2023", arena_2023("model_b", talk("q", "a"), talk("q", "b")))
    assert summary(record) == (["u:q"], [("a:a", None, 2), ("a:b", None, 1)])
    assert ([item.model for item in record.responses], record.language) == (["m", "n"], "German")
    tie = arena_2023("tie (bothbad)", talk("q", "a"), talk("q", "b"))
    assert convert("chatbot_arena_2023", tie) == Dropped("tied")
    assert summary(convert("chatbot_arena_2023", tie, ties="keep"))[1] == [("a:a", None, 1), ("a:b", None, 1)]
    assert convert("chatbot_arena_2023", {**tie, "winner": None}) == Dropped("no-vote")
    assert convert("chatbot_arena_2023", arena_2023("model_a", talk("q", ""), talk("q", "b"))) == Dropped(
        "empty-message"
    )
    assert convert("chatbot_arena_2023", arena_2023("model_a", talk("q"), talk("q", "b"))) == Dropped(
        "last-turn-not-assistant"
    )


def test_arena_of_several_turns() -> None:
    row = arena_2023("model_a", talk("q", "a", "r", "c"), talk("q", "b", "r", "d"))
    assert summary(convert("chatbot_arena_2023", row)) == (["u:q"], [("a:a", None, 1), ("a:b", None, 2)])
    assert convert("chatbot_arena_2023", row, turns="same-history") == Dropped("histories-differ")
    assert convert("chatbot_arena_2023", row, turns="drop") == Dropped("several-turns")
    agreed = arena_2023("model_a", talk("q", "a", "r", "c"), talk("q", "a", "r", "d"))
    assert summary(convert("chatbot_arena_2023", agreed, turns="same-history")) == (
        ["u:q", "a:a", "u:r"],
        [("a:c", None, 1), ("a:d", None, 2)],
    )
    # Equal first answers are no preference when the first exchange is all that is read.
    assert convert("chatbot_arena_2023", agreed) == Dropped("identical-responses")


def arena_2024(prompt: Any, a: Any, b: Any, votes: tuple[Any, Any, Any] = ("1", "0", "0")) -> dict[str, Any]:
    cells = {"prompt": json.dumps(prompt), "response_a": json.dumps(a), "response_b": json.dumps(b)}
    names = ("winner_model_a", "winner_model_b", "winner_tie")
    return {"id": "1", "model_a": "m", "model_b": "n", **cells, **dict(zip(names, votes, strict=True))}


def test_arena_2024() -> None:
    row = arena_2024(["q", "r"], ["a", "c"], ["b", "d"])
    assert summary(convert("chatbot_arena_2024", row)) == (["u:q"], [("a:a", None, 1), ("a:b", None, 2)])
    agreed = arena_2024(["q", "r"], ["a", "c"], ["a", "d"], (0, 1, 0))
    assert summary(convert("chatbot_arena_2024", agreed, turns="same-history")) == (
        ["u:q", "a:a", "u:r"],
        [("a:c", None, 2), ("a:d", None, 1)],
    )
    for wrong, reason in (
        (arena_2024(["q"], ["a"], ["b"], (0, 0, 1)), "tied"),
        (arena_2024(["q"], ["a"], ["b"], (1, 1, 0)), "no-vote"),
        (arena_2024(["q"], ["a"], ["b"], ("", "", "")), "no-vote"),
        (arena_2024(["q"], [None], ["b"]), "empty-message"),
        (arena_2024(["q"], ["a"], []), "turns-do-not-alternate"),
        (arena_2024("q", ["a"], ["b"]), "not-text"),
        ({**row, "response_a": "[not JSON"}, "not-text"),
    ):
        assert convert("chatbot_arena_2024", wrong) == Dropped(reason)


def steer(response: Any, *ratings: Any, prompt: Any = "p") -> dict[str, Any]:
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return {"prompt": prompt, "response": response, **dict(zip(names, ratings, strict=True))}


GROUP = {"rows": [steer("A", 4, 4, 4, 2, 0), steer("B ", 1, 1, 4, 2, 4), steer("C", 2, 2, 4, 2, 1)]}


def test_helpsteer_right_way_round_and_as_released() -> None:
    # Means of the first four: 14/4, 8/4, 10/4.
    record = convert("helpsteer", GROUP)
    assert summary(record) == (["u:p"], [("a:A", 3.5, None), ("a:B", 2.0, None), ("a:C", 2.5, None)])
    assert record.responses[0].aspects["verbosity"] == 0.0
    (pair,) = pairs(record, Pairing(policy="best-vs-worst"))  # type: ignore[misc]
    assert (texts(pair.chosen.messages), texts(pair.rejected.messages), pair.margin) == (["a:A"], ["a:B"], 1.5)
    released = convert("helpsteer", GROUP, order="released")
    assert [item.rank for item in released.responses] == [3, 1, 2]
    (pair,) = pairs(released, Pairing(policy="best-vs-worst"))  # type: ignore[misc]
    assert (texts(pair.chosen.messages), pair.margin) == (["a:B"], -1.5)


def test_helpsteer_malformed_rows_are_left_out_of_their_group() -> None:
    odd = {"rows": [*GROUP["rows"][:2], steer("", 4, 4, 4, 4, 4), steer("D", 4, None, 4, 4, 4)]}
    record = convert("helpsteer", odd)
    assert (len(record.responses), record.left_out) == (2, ("empty-message", "no-rating"))
    assert convert("helpsteer", {"rows": GROUP["rows"][:1]}) == Dropped("fewer-than-two-responses")
    assert convert("helpsteer", steer("A", 4, 4, 4, 4, 4, prompt=None)) == Dropped("not-text")
    assert convert("helpsteer", {"rows": [steer("A", 4, 4, 4, 4, 4, prompt=" ")] * 2}) == Dropped("empty-message")
    key_of = grouping("helpsteer", {})
    assert key_of is not None
    assert [key_of("f", row) for row in (GROUP["rows"][0], steer("x", *[0] * 5, prompt=3))] == ["p", None]
    with pytest.raises(DataError, match="lacks prompt"):
        key_of("f", {"response": "x"})


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        # helpfulness, correctness, coherence, complexity, verbosity: 4 3 2 1 0 against 0 1 2 3 4
        ("mean", [2.0, 2.0]),
        ("mean-without-verbosity", [2.5, 1.5]),
        ("nvidia-70b", [2.6 + 2.4 + 0.9 + 0.55, 0.8 + 0.9 + 1.65 - 1.6]),
        ("nvidia-340b", [1.2 + 2.22 + 0.92 + 0.47, 0.74 + 0.92 + 1.41 - 1.32]),
    ],
)
def test_helpsteer2_scores(score: str, expected: list[float]) -> None:
    record = convert("helpsteer2", {"rows": [steer("A", 4, 3, 2, 1, 0), steer("B", 0, 1, 2, 3, 4)]}, score=score)
    assert [item.score for item in record.responses] == pytest.approx(expected)
    made = pairs(record, Pairing(policy="best-vs-worst"))
    assert made == Dropped("tied") if score == "mean" else not isinstance(made, Dropped)


def test_helpsteer2_preference_strengths() -> None:
    row = {"split": "train", "prompt": "p", "response_1": "A", "response_2": "B", "preference_strength": -2}
    assert summary(convert("helpsteer2_preference", row)) == (["u:p"], [("a:A", 2.0, None), ("a:B", 0.0, None)])
    weak = {**row, "preference_strength": 1}
    assert summary(convert("helpsteer2_preference", weak))[1] == [("a:A", 0.0, None), ("a:B", 1.0, None)]
    assert convert("helpsteer2_preference", weak, minimum_strength=2) == Dropped("preference-below-minimum")
    assert convert("helpsteer2_preference", {**row, "preference_strength": 0}) == Dropped("tied")
    assert convert("helpsteer2_preference", {**row, "preference_strength": 7}) == Dropped("no-preference")
    assert convert("helpsteer2_preference", {**row, "prompt": None}) == Dropped("not-text")


def prm(reason: str, steps: Any = ("one", "two"), **question: Any) -> dict[str, Any]:
    given = {"problem": "1 + 1?", "ground_truth_solution": "It is 2.", "pre_generated_steps": list(steps or ())}
    return {"question": {**given, **question}, "label": {"steps": [], "finish_reason": reason}}


def test_prm800k_phase_2() -> None:
    rows = [prm("solution"), prm("found_error", ["It", "is 3."]), prm("give_up"), prm("found_error", ["4"])]
    record = convert("prm800k", {"rows": rows})
    expected = [("a:It is 2.", None, 1), ("a:It\nis 3.", None, 2), ("a:4", None, 2)]
    assert summary(record) == (["u:1 + 1?"], expected)
    assert record.left_out == ("finished-solution", "finished-give-up")
    assert convert("prm800k", {"rows": rows[:1]}) == Dropped("finished-solution")
    assert convert("prm800k", {"rows": [rows[0], rows[2]]}) == Dropped("no-solution-with-an-error")
    assert convert("prm800k", {"rows": [prm("found_error", ground_truth_solution=" ")]}) == Dropped(
        "no-reference-solution"
    )
    assert convert("prm800k", {"rows": [prm("found_error", None)]}) == Dropped("empty-message")
    assert convert("prm800k", {"question": None, "label": {}}) == Dropped("not-text")
    key_of = grouping("prm800k", {})
    assert key_of is not None and key_of("f", rows[0]) == "1 + 1?"


def step(*options: str, chosen: int | None = 0, human: str | None = None) -> dict[str, Any]:
    completions = [{"text": text, "rating": 1, "flagged": None} for text in options]
    by_hand = {"text": human, "rating": None, "flagged": None} if human else None
    return {"completions": completions, "human_completion": by_hand, "chosen_completion": chosen}


def test_prm800k_phase_1_replaces_one_step() -> None:
    row = prm("solution")
    row["label"]["steps"] = [step("a"), step("x", "b", "y", chosen=1), step("c")]
    record = convert("prm800k", row, phase="phase1")
    # Only the second step has alternatives: each of them in its place is a worse solution.
    expected = [("a:a\nb\nc", None, 1), ("a:a\nx\nc", None, 2), ("a:a\ny\nc", None, 2)]
    assert summary(record) == (["u:1 + 1?"], expected)
    row["label"]["steps"] = [step("a"), step("x", chosen=None, human="h")]
    assert [text for text, *_ in summary(convert("prm800k", row, phase="phase1"))[1]] == ["a:a\nh", "a:a\nx"]
    row["label"]["steps"] = [step("a"), step("b")]
    assert convert("prm800k", row, phase="phase1") == Dropped("no-step-with-alternatives")
    row["label"]["steps"] = [step("a", chosen=None)]
    assert convert("prm800k", row, phase="phase1") == Dropped("not-text")
    assert convert("prm800k", prm("found_error"), phase="phase1") == Dropped("finished-found-error")
    key_of = grouping("prm800k", {"phase": "phase1"})
    assert key_of is not None and key_of("f", row) is None


def tldr(choice: Any = 1, **info: Any) -> dict[str, Any]:
    given = {"id": "1", "post": " long ", "title": "T", "subreddit": "tifu", "article": None, **info}
    summaries = [{"text": "short", "policy": "sup", "note": ""}, {"text": "shorter", "policy": "ref", "note": ""}]
    return {"info": given, "summaries": summaries, "choice": choice, "extra": {"confidence": 5}}


def test_summarize_from_feedback() -> None:
    record = convert("summarize_from_feedback", tldr())
    assert summary(record) == (
        ["u:SUBREDDIT: r/tifu\nTITLE: T\nPOST: long\nTL;DR:"],
        [("a:short", None, 2), ("a:shorter", None, 1)],
    )
    assert [item.model for item in record.responses] == ["sup", "ref"]
    news = tldr(0, post=None, subreddit=None, article="news")
    assert summary(convert("summarize_from_feedback", news))[0] == ["u:TITLE: T\nARTICLE: news\nTL;DR:"]
    assert convert("summarize_from_feedback", tldr(post=None)) == Dropped("not-text")
    assert convert("summarize_from_feedback", tldr(2)) == Dropped("label-not-0-or-1")
    assert convert("summarize_from_feedback", {**tldr(), "summaries": []}) == Dropped("not-two-responses")
    assert isinstance(convert("summarize_from_feedback", tldr(), minimum_confidence=5), PreferenceRecord)
    low = convert("summarize_from_feedback", tldr(), minimum_confidence=6)
    assert low == convert("summarize_from_feedback", {**tldr(), "extra": {}}, minimum_confidence=6)
    assert low == Dropped("confidence-below-minimum")


def test_webgpt() -> None:
    row = {"question": {"dataset": "eli5", "id": "1", "full_text": "why? "}, "answer_0": "So [1, 2].", "score_0": -0.5}
    row |= {"answer_1": "Not [1] so.", "score_1": 0.5}
    assert summary(convert("webgpt_comparisons", row)) == (
        ["u:why?"],
        [("a:So [1, 2].", -0.5, None), ("a:Not [1] so.", 0.5, None)],
    )
    stripped = convert("webgpt_comparisons", row, citations="strip")
    assert [text for text, *_ in summary(stripped)[1]] == ["a:So.", "a:Not so."]
    tie = convert("webgpt_comparisons", {**row, "score_0": 0.0, "score_1": 0.0})
    assert pairs(tie, Pairing()) == Dropped("tied")
    assert convert("webgpt_comparisons", {**row, "score_0": None}) == Dropped("no-score")
    assert convert("webgpt_comparisons", {**row, "question": {}}) == Dropped("not-text")
    only = {**row, "answer_0": "[1]"}
    assert convert("webgpt_comparisons", only, citations="strip") == Dropped("empty-message")


def test_hhh_in_both_forms() -> None:
    row = {"input": "q\n\nAssistant: a\n\nHuman: r", "targets": {"choices": ["bad", "good"], "labels": [0, 1]}}
    expected = (["u:q", "a:a", "u:r"], [("a:bad", None, 2), ("a:good", None, 1)])
    assert summary(convert("hhh_alignment", row)) == expected
    assert summary(convert("hhh_alignment", {**row, "input": "Human: q\n\nAssistant:"}))[0] == ["u:q"]
    for targets, reason in (
        ({"choices": ["a"], "labels": [1]}, "fewer-than-two-responses"),
        ({"choices": ["a", "b"], "labels": [1, 1]}, "label-not-0-or-1"),
        ({"choices": ["a", " "], "labels": [1, 0]}, "empty-message"),
        ({"choices": ["a", None], "labels": [1, 0]}, "not-text"),
        (None, "not-text"),
    ):
        assert convert("hhh_alignment", {**row, "targets": targets}) == Dropped(reason)
    assert convert("hhh_alignment", {**row, "input": "q\n\nAssistant: a"}) == Dropped("prompt-does-not-end-with-user")

    def wrapped(question: str, response: str) -> str:
        return (
            f"###Task Description:\n…\n\n###The instruction to evaluate:\n{question}"
            f"\n\n###Response to evaluate:\n{response}\n\n###Score Rubrics:\n[…]\n\n###Feedback: "
        )

    row = {"source": "honest", "chosen_instruction": wrapped("q", "yes"), "rejected_instruction": wrapped("q", "no")}
    record = convert("hhh_alignment", row, form="prometheus")
    assert summary(record) == (["u:q"], [("a:yes", None, 1), ("a:no", None, 2)])
    assert record.source == "hhh_honest"
    other = {**row, "rejected_instruction": wrapped("p", "no")}
    assert convert("hhh_alignment", other, form="prometheus") == Dropped("prompts-differ")
    assert convert("hhh_alignment", {**row, "chosen_instruction": "x"}, form="prometheus") == Dropped("not-text")


def qa(*preference: Any, **change: Any) -> dict[str, Any]:
    predictions = {f"prediction {index}": f"P{index}" for index in range(1, 5)}
    passages = [["Title", "One.", "Two."], ["Other\n\nText"]]
    return {"question": "why?", "passages": passages, "preference": list(preference), **predictions, **change}


def test_fine_grained_rlhf() -> None:
    # Compared: 12 13 14 23 24 34. P2 beats all, P1 and P3 tie, P4 loses to all.
    record = convert("fine_grained_rlhf", qa(2, 0, 1, 1, 1, 1))
    assert summary(record) == (
        ["u:Title\nOne. Two.\n\nOther\n\nText\n\nwhy?"],
        [("a:P1", 0.0, None), ("a:P2", 3.0, None), ("a:P3", 0.0, None), ("a:P4", -3.0, None)],
    )
    assert summary(convert("fine_grained_rlhf", qa(2, 0, 1, 1, 1, 1), passages="omit"))[0] == ["u:why?"]
    made = pairs(record, Pairing(policy="all-pairs"))
    assert not isinstance(made, Dropped) and len(made) == 5  # the tie gives none
    # P1 = P2, P2 = P4, yet P4 beats P1.
    odd = qa(0, 1, 2, 1, 0, 2)
    assert convert("fine_grained_rlhf", odd) == Dropped("comparisons-contradict")
    scores = [item.score for item in convert("fine_grained_rlhf", odd, intransitive="net-wins").responses]
    assert scores == [0.0, 1.0, -3.0, 2.0]
    for change, reason in (
        ({"preference": [1, 1, 1]}, "no-preference"),
        ({"preference": [1, 1, 1, 1, 1, 3]}, "no-preference"),
        ({"prediction 2": " "}, "empty-message"),
        ({"question": None}, "not-text"),
        ({"passages": ["text"]}, "not-text"),
    ):
        assert convert("fine_grained_rlhf", {**qa(1, 1, 1, 1, 1, 1), **change}) == Dropped(reason)


def test_llama_factory() -> None:
    names = {"role": "from", "content": "value", "user": "human", "assistant": "gpt"}
    sides = {"chosen": {"from": "gpt", "value": "good"}, "rejected": {"from": "gpt", "value": "bad"}}
    row = {"conversations": [{"from": "system", "value": "Be brief."}, *talk("q", "a", "r", **names)], **sides}
    expected = (["s:Be brief.", "u:q", "a:a", "u:r"], [("a:good", None, 1), ("a:bad", None, 2)])
    assert summary(convert("llama_factory", row)) == expected
    for change, reason in (
        ({"conversations": talk("q", "a", **names)}, "prompt-does-not-end-with-user"),
        ({"conversations": [*talk("q", **names), *talk("r", **names)]}, "turns-do-not-alternate"),
        ({"conversations": "q"}, "not-messages"),
        ({"chosen": {"from": "human", "value": "x"}}, "last-turn-not-assistant"),
        ({"rejected": {"from": "gpt", "value": " "}}, "empty-message"),
        ({"rejected": None}, "not-messages"),
    ):
        assert convert("llama_factory", {**row, **change}) == Dropped(reason)


def test_columns_of_ones_own() -> None:
    row = {"ask": "q", "about": "x", "sys": "s", "a": "A", "b": "B", "best": "2", "va": 1, "vb": "3", "lang": "en"}
    options = {"prompt": "ask", "input": "about", "system": "sys", "first": "a", "second": "b", "label": "best"}
    options |= {"first_score": "va", "second_score": "vb", "language": "lang"}
    record = convert("columns", row, **options)
    assert summary(record) == (["s:s", "u:q\n\nx"], [("a:A", 1.0, 2), ("a:B", 3.0, 1)])
    assert (record.language, record.source) == ("en", "columns")
    named = {**options, "first_preferred": "left", "second_preferred": "right"}
    assert summary(convert("columns", {**row, "best": "left"}, **named))[1][0] == ("a:A", 1.0, 1)
    assert convert("columns", {**row, "best": "tie"}, **named) == Dropped("no-preference")
    assert convert("columns", {**row, "a": " "}, **options) == Dropped("empty-message")
    assert convert("columns", {**row, "about": 3}, **options) == Dropped("not-text")
    with pytest.raises(DataError, match="lacks best"):
        convert("columns", {key: value for key, value in row.items() if key != "best"}, **options)
    # The defaults: prompt, chosen, rejected; texts or messages.
    plain = {"prompt": talk("q", "a", "r"), "chosen": talk("q", "a", "r", "good"), "rejected": "bad"}
    expected = (["u:q", "a:a", "u:r"], [("a:good", None, 1), ("a:bad", None, 2)])
    assert summary(convert("columns", plain)) == expected
    assert convert("columns", {**plain, "prompt": talk("q", "a")}) == Dropped("prompt-does-not-end-with-user")
    assert convert("columns", {**plain, "chosen": talk("q")}) == Dropped("last-turn-not-assistant")


def test_ultrafeedback_of_argilla_has_ratings_and_models() -> None:
    row = {"source": "flan_v2", "prompt": "p", "chosen": talk("p", "good"), "rejected": talk("p", "bad")}
    row |= {"chosen-rating": 4.75, "chosen-model": "m", "rejected-rating": 2.0, "rejected-model": "n"}
    record = convert("ultrafeedback_binarized", row)
    assert summary(record) == (["u:p"], [("a:good", 4.75, 1), ("a:bad", 2.0, 2)])
    assert [item.model for item in record.responses] == ["m", "n"]


def test_grouping_of_wrapped_converters() -> None:
    wrapped = grouping("chosen_as_instruction", {"of": "helpsteer2"})
    assert wrapped is not None and wrapped("f", steer("x", *[0] * 5)) == "p"
    parts = {"a": {"converter": "prm800k"}, "b": {"converter": "shp"}}
    by_file = grouping("by_file", {"files": parts})
    assert by_file is not None
    assert (by_file("a", prm("solution")), by_file("b", {})) == ("1 + 1?", None)
    assert grouping("by_file", {"files": {"b": {"converter": "shp"}}}) is None
    assert grouping("chosen_as_instruction", {"of": "shp"}) is None
    (best,) = convert("chosen_as_instruction", GROUP, of="helpsteer")
    assert texts(best.messages) == ["u:p", "a:A"]
