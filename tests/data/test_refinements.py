"""Filters, labels from aspects, and this package's own record form, on rows worked by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ablate.catalogs.pipelines import Where
from ablate.data.converters import bind
from ablate.data.converters.native import as_row
from ablate.data.filters import RowFilter
from ablate.data.labels import AspectLabel
from ablate.data.records import (
    Conversation,
    Converted,
    Dropped,
    PreferenceRecord,
    Prompt,
    Response,
    message,
)
from ablate.data.refusals import lectures, refuses
from ablate.errors import DataError


def response(text: str, **values: Any) -> Response:
    return Response((message("assistant", text),), **values)


RECORD = PreferenceRecord(
    (
        message("system", "be brief"),
        message("user", "Write a poem"),
        message("assistant", "no"),
        message("user", "do it"),
    ),
    (
        response("one two three", score=4.0, model="gpt-4", aspects={"honesty": 5.0, "helpfulness": 1.0}),
        response("I'm sorry, but as an AI language model", score=1.0, model="llama-7b", aspects={"honesty": 2.0}),
        response("one", score=3.0, model="llama-13b", aspects={"honesty": 3.0, "helpfulness": 5.0}),
    ),
    source="ultrafeedback_sharegpt",
    row_id="r1",
    language="English",
)


def kept(converted: Any, **filters: Any) -> Converted:
    return RowFilter(Where.model_validate(filters))(converted)


def test_a_filter_by_names_that_no_row_has_lists_those_there_are() -> None:
    for key, wrong, near in (
        ("source", "ultrafeedback_sharegtp", "ultrafeedback_sharegpt"),
        ("language", ["english"], "English"),
        ("model", "gpt4", "gpt-4"),
    ):
        keep = RowFilter(Where.model_validate({key: wrong}))
        assert isinstance(keep(RECORD), Dropped)
        with pytest.raises(DataError, match=f"where: no row of this set has the {key} '.*\n  did you mean '{near}'"):
            keep.require_found()
    keep = RowFilter(Where.model_validate({"language": "English", "source": "ultra*"}))
    keep(replace(RECORD, language=None))
    with pytest.raises(DataError, match="its rows name no language"):
        keep.require_found()


def test_a_filter_by_names_that_were_there_is_no_mistake() -> None:
    keep = RowFilter(Where.model_validate({"source": "ultra*", "prompt_words": {"min": 99}}))
    assert keep(RECORD) == Dropped("where-prompt_words")
    keep.require_found()


def test_filters_of_a_row_by_its_source_language_and_prompt() -> None:
    assert kept(RECORD, source="ultrafeedback_*") is RECORD
    assert kept(RECORD, source=["x", "*_sharegpt"]) is RECORD
    assert kept(RECORD, source="sharegpt") == Dropped("where-source")
    assert kept(RECORD, language="English") is RECORD
    assert kept(replace(RECORD, language=None), language="English") == Dropped("where-language")
    assert kept(RECORD, prompt_turns={"max": 1}) == Dropped("where-prompt_turns")
    assert kept(RECORD, prompt_turns={"min": 2, "max": 2}) is RECORD
    # be brief, Write a poem, no, do it: 2 + 3 + 1 + 2 words
    assert kept(RECORD, prompt_words={"max": 8}) is RECORD
    assert kept(RECORD, prompt_words={"max": 7}) == Dropped("where-prompt_words")
    assert kept(RECORD, matches=r"\bpoem\b") is RECORD
    assert kept(RECORD, matches="brief") == Dropped("where-matches")  # the system turn is not asked by the user
    assert kept(RECORD, lacks="(?i)POEM") == Dropped("where-lacks")


def test_filters_of_responses_leave_them_out_and_count_them() -> None:
    found = kept(RECORD, refusals="drop")
    assert isinstance(found, PreferenceRecord)
    assert [item.model for item in found.responses] == ["gpt-4", "llama-13b"]
    assert found.left_out == ("where-refusals",)
    found = kept(RECORD, model="llama-*")
    assert isinstance(found, PreferenceRecord) and len(found.responses) == 2 and found.left_out == ("where-model",)
    assert kept(RECORD, model="gpt-4") == Dropped("where-model")
    assert kept(RECORD, response_words={"min": 2, "max": 3}) == Dropped("where-response_words")
    assert kept(RECORD, score_gap={"min": 3}) is RECORD
    assert kept(RECORD, score_gap={"min": 3.5}) == Dropped("where-score_gap")
    # without the refusal the gap is 4 - 3
    assert kept(RECORD, refusals="drop", score_gap={"min": 2}) == Dropped("where-score_gap")
    unscored = replace(RECORD, responses=(response("a", rank=1), response("b", rank=2)))
    assert kept(unscored, score_gap={"min": 0}) == Dropped("where-score_gap")


def test_filters_of_conversations_and_prompts() -> None:
    turns = (message("user", "hi there"), message("assistant", "I cannot assist with that"))
    refused = Conversation(turns, "sharegpt", "c1")
    fine = Conversation((message("user", "hi"), message("assistant", "hello")), "sharegpt", "c2")
    assert kept((refused, fine), refusals="drop") == (fine,)
    assert kept((refused,), refusals="drop") == Dropped("where-refusals")
    assert kept((refused, fine), prompt_words={"min": 2}) == (refused,)
    prompt = Prompt((message("user", "hi"),), "sharegpt", "p1")
    assert kept(prompt, source="sharegpt", response_words={"min": 100}) is prompt
    assert kept(prompt, prompt_words={"min": 2}) == Dropped("where-prompt_words")


def test_refusals_and_lectures_are_found_whatever_the_case_and_the_apostrophe() -> None:
    assert refuses("I’m Sorry, but no") and not lectures("I’m Sorry, but no")
    assert lectures("Tea helps. It’s IMPORTANT to note that …") and not refuses(
        "Tea helps. It’s IMPORTANT to note that …"
    )
    for harmless in ("I'm sorry to hear that. Try tea.", "Note that it is late."):
        assert not refuses(harmless) and not lectures(harmless)


def test_a_label_is_the_mean_of_its_aspects() -> None:
    label = AspectLabel(["honesty"])
    found = label(RECORD)
    assert isinstance(found, PreferenceRecord)
    assert [item.score for item in found.responses] == [5.0, 2.0, 3.0]
    both = AspectLabel(["honesty", "helpfulness"])(RECORD)
    assert isinstance(both, PreferenceRecord)
    assert [item.score for item in both.responses] == [3.0, 4.0] and both.left_out == ("label-missing",)
    ranked = replace(RECORD, responses=tuple(replace(item, rank=i) for i, item in enumerate(RECORD.responses, 1)))
    own = AspectLabel(["score"])(ranked)
    assert isinstance(own, PreferenceRecord)
    assert [(item.score, item.rank) for item in own.responses] == [(4.0, None), (1.0, None), (3.0, None)]


def test_a_misspelt_aspect_is_named_with_the_nearest() -> None:
    label = AspectLabel(["honsty"])
    assert label(RECORD) == Dropped("label-missing")
    with pytest.raises(DataError, match="no response of this set has the aspect 'honsty'") as caught:
        label.require_found()
    assert "did you mean 'honesty'?" in str(caught.value)
    found = AspectLabel(["honesty"])
    found(RECORD)
    found.require_found()


def test_a_record_survives_its_own_form() -> None:
    read = bind("records", {})("records.jsonl", as_row(RECORD))
    assert read == RECORD


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"responses": [{"messages": [{"role": "assistant", "content": "a"}]}]}, "fewer-than-two-responses"),
        ({"responses": "no"}, "not-responses"),
        ({"responses": [{"messages": [{"role": "user", "content": "a"}]}] * 2}, "last-turn-not-assistant"),
        ({"prompt": []}, "no-prompt"),
        ({"responses": [{"messages": [{"role": "assistant", "content": " "}]}] * 2}, "empty-message"),
        ({"responses": [{}] * 2}, "not-messages"),
        ({"responses": [{**as_row(RECORD)["responses"][0], "aspects": [4, 5]}] * 2}, "not-aspects"),
        ({"prompt": [{"role": "nobody", "content": "a"}]}, "unknown-role"),
    ],
)
def test_malformed_records_are_dropped(change: dict[str, Any], reason: str) -> None:
    assert bind("records", {})("f", {**as_row(RECORD), **change}) == Dropped(reason)


def test_a_row_of_another_schema_is_an_error() -> None:
    with pytest.raises(DataError, match="lacks responses"):
        bind("records", {})("f", {"prompt": []})
