"""The sets that stand for released ones: native schemas, the noise that is documented, the order of rows."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from typing import Any

import pytest

from ablate.errors import UnknownNameError
from ablate.pocket.draws import Draw
from ablate.pocket.language import draw_item, perfect_answer, skill_named
from ablate.pocket.preferences import find_family, preference_rows
from ablate.pocket.preferences.arena import REFUSAL_DISLIKE, enjoyed, vote
from ablate.pocket.preferences.prm800k import sentences
from ablate.pocket.preferences.shared import rating
from ablate.pocket.preferences.votes import votes


def made(name: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    return list(islice(preference_rows(name, seed, "train"), count))


COLUMNS = {
    "stack-exchange": "qid question date metadata response_j response_k",
    "arena-2023": "question_id model_a model_b winner judge conversation_a conversation_b turn anony language tstamp "
    "openai_moderation toxic_chat_tag",
    "arena-2024": "id model_a model_b prompt response_a response_b winner_model_a winner_model_b winner_tie",
    "alpaca-farm-human": "instruction input output_1 output_2 preference raw_preference",
    "alpaca-farm-gpt4": "instruction input output_1 output_2 preference",
    "capybara": "source conversation original_response generation_prompt raw_generation_responses new_generations "
    "prompt chosen rejected rating_chosen rating_rejected chosen_model rejected_model",
    "helpsteer": "prompt response helpfulness correctness coherence complexity verbosity",
    "helpsteer2": "prompt response helpfulness correctness coherence complexity verbosity",
    "helpsteer2-preference": "split prompt response_1 response_2 preference_strength preference_statement "
    "preference_elaboration",
    "orca": "system question chosen rejected",
    "prm800k": "labeler timestamp generation is_quality_control_question is_initial_screening_question question label",
    "uf-fine-grained": "source prompt chosen chosen-rating chosen-model rejected rejected-rating rejected-model",
    "uf-overall": "prompt prompt_id chosen rejected messages score_chosen score_rejected",
    "uf-cleaned": "prompt prompt_id chosen rejected messages score_chosen score_rejected",
    "tulu-uf": "chosen rejected source",
    "summaries": "info summaries choice worker batch split extra",
    "webgpt": "question answer_0 answer_1 score_0 score_1 quotes_0 quotes_1 tokens_0 tokens_1",
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_those_of_the_released_set(name: str) -> None:
    for row in made(name, 40):
        assert set(row) == set(COLUMNS[name].split())
        assert json.loads(json.dumps(row)) == row, "the rows are plain JSON"


def test_an_unknown_set_is_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'helpsteer'"):
        find_family("helpster")


def test_rating_rounds_and_stays_in_its_range() -> None:
    assert [rating(value) for value in (-3.0, 1.49, 1.5, 2.4, 4.5, 99.0)] == [1, 1, 2, 2, 5, 5]
    assert [rating(value, 0, 4) for value in (-0.7, 0.5, 4.2)] == [0, 1, 4]


def test_votes_grow_with_the_square_of_the_liking() -> None:
    assert votes([1.0, 0.0], older=1) == [2 + 27, 2 + 3]  # 12 · 1.5² = 27 and 12 · 0.5² = 3
    assert votes([-2.0, -9.0], older=1) == [2, 3], "the older one wins a tie"


@pytest.mark.parametrize(
    ("likings", "winner"),
    [((1.0, 0.5), "model_a"), ((0.5, 1.0), "model_b"), ((1.0, 1.3), "tie"), ((0.1, 0.2), "tie (bothbad)")],
)
def test_an_arena_vote_needs_a_gap(likings: tuple[float, float], winner: str) -> None:
    assert vote(likings) == winner


def test_arena_visitors_dislike_refusals_that_are_right() -> None:
    draw = Draw("test", "refusals")
    item = draw_item(skill_named("safety"), "train", draw)
    while not item.spec["harmful"]:
        item = draw_item(skill_named("safety"), "train", draw)
    assert enjoyed(item, perfect_answer(item, draw), draw, 0.0, 0.0) == pytest.approx(2.0 - REFUSAL_DISLIKE)


@pytest.mark.parametrize("name", ["arena-2023", "arena-2024"])
def test_a_fifth_to_a_third_of_the_arena_votes_tie(name: str) -> None:
    rows = made(name, 600)
    tied = sum(str(row.get("winner")).startswith("tie") or row.get("winner_tie") == 1 for row in rows)
    assert 0.2 < tied / len(rows) < 0.33
    if name == "arena-2024":
        assert all(row["winner_model_a"] + row["winner_model_b"] + row["winner_tie"] == 1 for row in rows)
        assert 0 < sum("null" in row["response_a"] + row["response_b"] for row in rows) < 20


def test_sets_of_one_stream_differ_in_their_labels_alone() -> None:
    human, judged = made("alpaca-farm-human", 300), made("alpaca-farm-gpt4", 300)
    texts = ("instruction", "input", "output_1", "output_2")
    assert [[row[key] for key in texts] for row in human] == [[row[key] for key in texts] for row in judged]
    agree = sum(left["preference"] == right["preference"] for left, right in zip(human, judged, strict=True)) / 300
    assert 0.6 < agree < 0.9
    assert Counter(row["raw_preference"] <= 2 for row in human) == Counter(row["preference"] == 1 for row in human)
    released = zip(made("uf-fine-grained", 50), made("tulu-uf", 50), strict=True)
    assert all((one["chosen"], one["rejected"]) == (other["chosen"], other["rejected"]) for one, other in released)


def test_binarised_ultrafeedback_follows_the_ratings_of_its_raw_rows() -> None:
    raw = {row["instruction"]: row["completions"] for row in made("uf", 300)}
    followed = 0
    for row in made("uf-fine-grained", 300):
        if row["prompt"] in raw and row["chosen-rating"] in [c["fine-grained_score"] for c in raw[row["prompt"]]]:
            followed += row["chosen-rating"] == max(c["fine-grained_score"] for c in raw[row["prompt"]])
        assert row["chosen-rating"] > row["rejected-rating"]
    assert followed > 280, "all but the rows drawn again and prompts that occur twice"
    assert max(row["score_chosen"] for row in made("uf-overall", 300)) == 10.0
    assert not [row for row in made("uf-cleaned", 300) if "true that" in row["prompt"]]


def test_helpsteer_rows_come_in_groups_of_one_prompt() -> None:
    for name, size in (("helpsteer", 4), ("helpsteer2", 2)):
        rows = made(name, 40)
        for start in range(0, 40, size):
            group = rows[start : start + size]
            assert len({row["prompt"] for row in group}) == 1
            assert len({row["response"] for row in group}) == size
        assert {row[aspect] for row in rows for aspect in ("helpfulness", "verbosity")} <= {0, 1, 2, 3, 4}


def test_prm800k_raters_stop_at_the_error() -> None:
    reasons: Counter[tuple[bool, str]] = Counter()
    for row in made("prm800k", 900):
        question, label = row["question"], row["label"]
        right = question["pre_generated_answer"] == question["ground_truth_answer"]
        reasons[right, label["finish_reason"]] += 1
        ratings = [step["completions"][0]["rating"] for step in label["steps"]]
        assert (ratings[-1] == -1) == (label["finish_reason"] == "found_error")
        assert -1 not in ratings[:-1]
        written = [step["completions"][0]["text"] for step in label["steps"]]
        assert written == question["pre_generated_steps"][: len(written)]
        assert (
            question["ground_truth_solution"].splitlines()[-1] == f"the answer is {question['ground_truth_answer']} ."
        )
    wrong = {reason: count for (right, reason), count in reasons.items() if not right}
    assert 0.9 < wrong["found_error"] / sum(wrong.values()) < 0.98
    assert reasons[True, "found_error"] < reasons[True, "solution"] / 8


def test_sentences_lose_nothing() -> None:
    assert sentences("steps : 1 + 2 = 3 . the answer is 3 .") == ["steps : 1 + 2 = 3 .", "the answer is 3 ."]


def test_webgpt_scores_are_opposite_thirds() -> None:
    scores = Counter(round(3 * row["score_0"]) for row in made("webgpt", 300))
    assert all(row["score_0"] == -row["score_1"] for row in made("webgpt", 300))
    assert set(scores) == {-3, -2, -1, 0, 1, 2, 3}
    assert 0.1 < scores[0] / 300 < 0.22
