"""Converters on rows in their native schemas; every expectation was worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ablate.data.converters import bind
from ablate.data.records import Conversation, Dropped, PreferenceRecord, Prompt
from ablate.errors import DataError, UnknownNameError


def convert(name: str, row: dict[str, Any], **options: Any) -> Any:
    return bind(name, options)("file", row)


def texts(messages: Any) -> list[str]:
    return [f"{turn['role'][0]}:{turn['content']}" for turn in messages]


def summary(record: Any) -> tuple[Any, ...]:
    assert isinstance(record, PreferenceRecord), record
    return texts(record.prompt), [(texts(item.messages)[0], item.score, item.rank) for item in record.responses]


def hh(chosen: Any, rejected: Any) -> dict[str, Any]:
    return {"chosen": chosen, "rejected": rejected}


def test_hh_shared_turns_are_the_prompt() -> None:
    start = "\n\nHuman: hi \n\nAssistant:  hello\n\nHuman: why?"
    record = convert("hh_rlhf", hh(start + "\n\nAssistant: because", start + "\n\nAssistant: go away "))
    assert summary(record) == (
        ["u:hi", "a:hello", "u:why?"],
        [("a:because", None, 1), ("a:go away", None, 2)],
    )


def test_hh_turns_after_the_first_differing_one_are_ignored() -> None:
    chosen = "\n\nHuman: q\n\nAssistant: a1\n\nHuman: more\n\nAssistant: later"
    assert summary(convert("hh_rlhf", hh(chosen, "\n\nHuman: q\n\nAssistant: a2"))) == (
        ["u:q"],
        [("a:a1", None, 1), ("a:a2", None, 2)],
    )


def test_hh_words_inside_a_turn_are_text_when_anchored_and_cut_when_bare() -> None:
    start = "\n\nHuman: Say Human: or Assistant: to me"
    row = hh(start + "\n\nAssistant: yes", start + "\n\nAssistant: no")
    assert summary(convert("hh_rlhf", row)) == (
        ["u:Say Human: or Assistant: to me"],
        [("a:yes", None, 1), ("a:no", None, 2)],
    )
    # Bare: "Say" | "or" | "to me" become turns of user, user, assistant.
    assert summary(convert("hh_rlhf", row, parsing="bare")) == (
        ["u:Say", "u:or", "a:to me"],
        [("a:yes", None, 1), ("a:no", None, 2)],
    )
    # A response that mentions the word ends there under bare parsing.
    row = hh("\n\nHuman: q\n\nAssistant: I am no Human: I am code", "\n\nHuman: q\n\nAssistant: hm")
    assert summary(convert("hh_rlhf", row, parsing="bare"))[1][0] == ("a:I am no", None, 1)
    assert summary(convert("hh_rlhf", row))[1][0] == ("a:I am no Human: I am code", None, 1)


Q = "\n\nHuman: q"


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (Q + "\n\nAssistant: a", Q + "\n\nAssistant: a ", "identical-responses"),
        (Q + "\n\nAssistant: a", Q, "no-response-on-one-side"),
        (Q + "\n\nAssistant: a", Q + "\n\nAssistant: ", "empty-message"),
        ("\n\nHuman: \n\nAssistant: a", "\n\nHuman:\n\nAssistant: b", "empty-message"),
        ("\n\nHuman: p\n\nAssistant: a", Q + "\n\nAssistant: a", "no-shared-prompt"),
        (Q + "\n\nAssistant: a\n\nHuman: x", Q + "\n\nAssistant: a\n\nHuman: y", "last-turn-not-assistant"),
        (Q + Q + "\n\nAssistant: a", Q + Q + "\n\nAssistant: b", "turns-do-not-alternate"),
        (Q + "\n\nAssistant: a\n\nAssistant: c", Q + "\n\nAssistant: b", "turns-do-not-alternate"),
        ("Hello" + Q + "\n\nAssistant: a", Q + "\n\nAssistant: b", "no-turn-at-start"),
        ("", "", "no-turn-at-start"),
        (None, Q, "not-text"),
    ],
)
def test_hh_malformed_rows_are_dropped_with_a_reason(chosen: Any, rejected: Any, reason: str) -> None:
    assert convert("hh_rlhf", hh(chosen, rejected)) == Dropped(reason)


def test_hh_rows_of_another_schema_are_an_error() -> None:
    with pytest.raises(DataError, match=r"(?s)lacks rejected.*found: chosen, prompt"):
        convert("hh_rlhf", {"chosen": "x", "prompt": "y"})


def completion(text: Any, ratings: list[Any], overall: Any = 5.0, **more: Any) -> dict[str, Any]:
    names = ["helpfulness", "honesty", "instruction_following", "truthfulness"]
    annotations = {name: {"Rating": rating, "Rationale": "…"} for name, rating in zip(names, ratings, strict=True)}
    return {"model": "m", "response": text, "overall_score": overall, "annotations": annotations, **more}


def uf(*completions: Any, **more: Any) -> dict[str, Any]:
    return {"source": "sharegpt", "instruction": " do it ", "completions": list(completions), **more}


FOUR = uf(
    completion("A ", ["5", "4", "4", "N/A"], 7.5),  # mean of the rated three: 13/3
    completion("B", ["1", "2", "1", "2"], 10),  # mean 1.5: a 10 that stands for 1
    completion("C", ["N/A", "N/A", "N/A", "N/A"], 3.0),
    completion("", ["5", "5", "5", "5"], 9.0),
)


def test_ultrafeedback_raw_mean_of_the_rated_aspects() -> None:
    record = convert("ultrafeedback_raw", FOUR)
    assert summary(record) == (["u:do it"], [("a:A", 13 / 3, None), ("a:B", 1.5, None)])
    assert record.left_out == ("no-rating", "empty-message")
    assert record.source == "ultrafeedback_sharegpt"
    assert record.responses[0].aspects == {"helpfulness": 5.0, "honesty": 4.0, "instruction_following": 4.0}


@pytest.mark.parametrize(
    ("ten", "expected"),
    [
        ("as-released", [("a:A", 7.5), ("a:B", 10.0), ("a:C", 3.0)]),
        ("one", [("a:A", 7.5), ("a:B", 1.0), ("a:C", 3.0)]),
        ("drop-response", [("a:A", 7.5), ("a:C", 3.0)]),
    ],
)
def test_ultrafeedback_raw_overall_and_its_bug(ten: str, expected: list[Any]) -> None:
    record = convert("ultrafeedback_raw", FOUR, label="overall", overall_ten=ten)
    assert [(texts(item.messages)[0], item.score) for item in record.responses] == expected
    # A 10 with good ratings is a 10.
    good = uf(completion("A", ["5"] * 4, 10.0), completion("B", ["4"] * 4, 8.0))
    assert [item.score for item in convert("ultrafeedback_raw", good, label="overall", overall_ten=ten).responses] == [
        10.0,
        8.0,
    ]


def test_ultrafeedback_raw_one_aspect_and_malformed_rows() -> None:
    honesty = convert("ultrafeedback_raw", FOUR, label="honesty")
    assert [item.score for item in honesty.responses] == [4.0, 2.0]
    assert convert("ultrafeedback_raw", FOUR, label="truthfulness") == Dropped("fewer-than-two-responses")
    assert convert("ultrafeedback_raw", {**FOUR, "instruction": " "}) == Dropped("empty-message")
    assert convert("ultrafeedback_raw", uf()) == Dropped("fewer-than-two-responses")
    assert convert("ultrafeedback_raw", uf(completions=None)) == Dropped("not-text")
    odd = uf("text", completion(None, ["1"] * 4), completion("A", ["1"] * 4), {"response": "B", "annotations": None})
    assert convert("ultrafeedback_raw", odd) == Dropped("fewer-than-two-responses")
    with pytest.raises(DataError, match="lacks completions"):
        convert("ultrafeedback_raw", {"instruction": "x"})


def test_ultrafeedback_binarized_in_both_spellings() -> None:
    row = {"prompt": "p", "chosen": " good", "rejected": "bad ", "metadata": {"score_chosen": 8.0, "score_rejected": 8}}
    expected = (["u:p"], [("a:good", 8.0, 1), ("a:bad", 8.0, 2)])
    assert summary(convert("ultrafeedback_binarized", row)) == expected
    sides = {
        side: [{"role": "user", "content": "p"}, {"role": "assistant", "content": text}]
        for side, text in (("chosen", "good"), ("rejected", "bad"))
    }
    assert summary(convert("ultrafeedback_binarized", {"prompt": "p", **sides, "score_chosen": 8, "score_rejected": 8}))
    without = {key: row[key] for key in ("prompt", "chosen", "rejected")}
    assert summary(convert("ultrafeedback_binarized", without))[1] == [("a:good", None, 1), ("a:bad", None, 2)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": "\n "}, "empty-message"),
        ({"prompt": ""}, "empty-message"),
        ({"rejected": None}, "not-text"),
        ({"rejected": []}, "not-text"),
        ({"prompt": ["p"]}, "not-text"),
        ({"chosen": [{"role": "user", "content": "p"}]}, "last-turn-not-assistant"),
    ],
)
def test_ultrafeedback_binarized_malformed(change: dict[str, Any], reason: str) -> None:
    row = {"prompt": "p", "chosen": "good", "rejected": "bad", **change}
    assert convert("ultrafeedback_binarized", row) == Dropped(reason)


def nectar_row(ranks: list[Any], prompt: str = "\n\nHuman: q\n\nAssistant: ") -> dict[str, Any]:
    answers = [{"answer": f"t{index}", "model": f"m{index}", "rank": rank} for index, rank in enumerate(ranks)]
    return {"prompt": prompt, "answers": answers, "turns": 1, "num_responses": len(ranks), "source": ["x"]}


def test_nectar_ranks() -> None:
    record = convert("nectar", nectar_row([3.0, 1.0, 7.0, 2.0, 4.0, 6.0, 5.0]))
    assert summary(record)[0] == ["u:q"]
    assert [item.rank for item in record.responses] == [3, 1, 7, 2, 4, 6, 5]
    assert record.responses[1].model == "m1"
    top = convert("nectar", nectar_row([3.0, 1.0, 7.0, 2.0, 4.0, 6.0, 5.0]), chosen="top-4")
    assert [item.rank for item in top.responses] == [1, 1, 2, 1, 1, 2, 2]


def test_nectar_malformed() -> None:
    record = convert("nectar", nectar_row([1.0, None, 2.5, 2.0]))
    assert [item.rank for item in record.responses] == [1, 2]
    assert record.left_out == ("no-rank", "no-rank")
    assert convert("nectar", nectar_row([1.0])) == Dropped("fewer-than-two-responses")
    assert convert("nectar", nectar_row([1, 2], "q")) == Dropped("no-turn-at-start")
    assert convert("nectar", nectar_row([1, 2], Q + "\n\nAssistant: a")) == Dropped("prompt-does-not-end-with-user")
    assert convert("nectar", nectar_row([1, 2], "\n\nAssistant: ")) == Dropped("prompt-does-not-end-with-user")
    assert convert("nectar", nectar_row([1, 2], Q + Q)) == Dropped("turns-do-not-alternate")
    multi = nectar_row([1, 2], Q + "\n\nAssistant: a\n\nHuman: r\n\nAssistant: ")
    assert summary(convert("nectar", multi))[0] == ["u:q", "a:a", "u:r"]


def shp_row(**change: Any) -> dict[str, Any]:
    row = {"history": "post", "human_ref_A": "A", "human_ref_B": "B", "labels": 0, "score_A": 10, "score_B": 30}
    return {**row, "score_ratio": 3.0, **change}


def test_shp_labels_and_votes() -> None:
    assert summary(convert("shp", shp_row())) == (["u:post"], [("a:A", 10.0, 2), ("a:B", 30.0, 1)])
    assert summary(convert("shp", shp_row(labels=1)))[1] == [("a:A", 10.0, 1), ("a:B", 30.0, 2)]
    assert isinstance(convert("shp", shp_row(), minimum_score_ratio=3.0), PreferenceRecord)
    low = shp_row(score_ratio=1.99)
    assert convert("shp", low, minimum_score_ratio=2.0) == Dropped("score-ratio-below-minimum")
    assert isinstance(convert("shp", low), PreferenceRecord)
    for change, reason in (
        ({"labels": 2}, "label-not-0-or-1"),
        ({"labels": None}, "label-not-0-or-1"),
        ({"human_ref_A": ""}, "empty-message"),
        ({"history": None}, "not-text"),
    ):
        assert convert("shp", shp_row(**change)) == Dropped(reason)


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(contents)]


def test_messages_and_prompts() -> None:
    (conversation,) = convert("messages", {"messages": turns(" a", "b "), "source": "s"})
    assert isinstance(conversation, Conversation)
    assert (texts(conversation.messages), conversation.source) == (["u:a", "a:b"], "s")
    system = [{"role": "system", "content": "be brief"}, *turns("a", "b")]
    assert texts(convert("messages", {"dialogue": system}, column="dialogue")[0].messages)[0] == "s:be brief"
    for value, reason in (
        (turns("a"), "last-turn-not-assistant"),
        ([], "last-turn-not-assistant"),
        (turns("a", " "), "empty-message"),
        ([*turns("a", "b"), *turns("c", "d")[1:]], "turns-do-not-alternate"),
        ([{"role": "tool", "content": "x"}, *turns("a", "b")], "unknown-role"),
        ([{"role": "user", "content": None}], "not-text"),
        ("text", "not-messages"),
    ):
        assert convert("messages", {"messages": value}) == Dropped(reason)
    prompt = convert("prompts", {"prompt": " why "})
    assert isinstance(prompt, Prompt) and texts(prompt.messages) == ["u:why"]
    assert convert("prompts", {"prompt": turns("a", "b")}) == Dropped("prompt-does-not-end-with-user")


def test_chosen_as_instruction() -> None:
    row = hh(Q + "\n\nAssistant: good", Q + "\n\nAssistant: bad")
    (best,) = convert("chosen_as_instruction", row, of="hh_rlhf")
    assert texts(best.messages) == ["u:q", "a:good"]
    both = convert("chosen_as_instruction", row, of="hh_rlhf", responses="all")
    assert [texts(item.messages)[-1] for item in both] == ["a:good", "a:bad"]
    assert convert("chosen_as_instruction", hh("", ""), of="hh_rlhf") == Dropped("no-turn-at-start")
    # The best by rating, wherever it stands in the row; equal texts once.
    rated = uf(completion("low", ["1"] * 4), completion("high", ["5"] * 4), completion("low", ["2"] * 4))
    (best,) = convert("chosen_as_instruction", rated, of="ultrafeedback_raw")
    assert texts(best.messages)[-1] == "a:high"
    every = convert("chosen_as_instruction", rated, of="ultrafeedback_raw", responses="all")
    assert [texts(item.messages)[-1] for item in every] == ["a:high", "a:low"]


def test_by_file_reads_each_file_with_its_own_converter() -> None:
    parts = {"a": {"converter": "shp"}, "b": {"converter": "hh_rlhf", "options": {"parsing": "bare"}}}
    converter = bind("by_file", {"files": parts})
    assert converter("a", shp_row()).source == "shp"  # type: ignore[union-attr]
    assert converter("b", hh("Human: q Assistant: x", "Human: q Assistant: y")).source == "hh_rlhf"  # type: ignore[union-attr]
    with pytest.raises(DataError, match="no entry for c"):
        converter("c", {})


def test_unknown_converter() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'hh_rlhf'"):
        bind("hh-rlhf", {})
