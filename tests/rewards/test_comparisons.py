"""Models that compare two responses: both orders, rounds among k responses, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from ablate.context import EventLog, StageContext
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.errors import DataError
from ablate.models.loading import compares_responses, load_reward_model, load_tokenizer, new_policy, save_model
from ablate.models.reward_heads import AttributeHeads, mark_pairwise
from ablate.models.tokenizers import byte_tokenizer
from ablate.rewards import label
from ablate.rewards.pairs import Pair
from ablate.rewards.reward_model import AttributeModel, ComparisonModel, RewardModel, mean_log_odds
from ablate.rewards.round_robin import round_robin
from ablate.rewards.stage import score_pairs
from ablate.training.score_head import sequence_scores

PROMPTS = [({"role": "user", "content": text},) for text in ("a", "a longer question", "b")]
FIRSTS, SECONDS = ["yes", "a long answer", "x" * 400], ["no", "short", "y"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pairwise")
    tokenizer = byte_tokenizer("tulu")
    architecture = {"hidden_size": 32, "layers": 2, "heads": 2, "ffn_size": 64, "max_positions": 256}
    save_model(new_policy(architecture, tokenizer, seed=1), tokenizer, made / "policy")
    model = load_reward_model(made / "policy", head_seed=2)
    save_model(model, tokenizer, made / "scores")
    mark_pairwise(model.config)
    save_model(model, tokenizer, made / "compares")
    return made


@pytest.fixture(scope="module")
def judge(folder: Path) -> ComparisonModel:
    return ComparisonModel(load_reward_model(folder / "compares", pairwise=True), load_tokenizer(folder / "compares"))


def slow_probability(judge: ComparisonModel, prompt: Sequence, first: str, second: str) -> float:
    """Both conversations in one text, read in both orders, each alone; the probabilities' mean."""

    def odds(one: str, other: str) -> float:
        texts = [f"<|user|>\n{prompt[0]['content']}\n<|assistant|>\n{text}<|end|>" for text in (one, other)]
        ids = torch.tensor([judge.tokenizer.encode("".join(texts), add_special_tokens=False)])
        with torch.no_grad():
            return sequence_scores(judge.model, ids, torch.ones_like(ids)).item()

    forward, backward = 1 / (1 + math.exp(-odds(first, second))), 1 / (1 + math.exp(-odds(second, first)))
    return (forward + 1 - backward) / 2


def test_both_orders_are_read_and_their_probabilities_averaged(judge: ComparisonModel) -> None:
    found = judge.compare(PROMPTS, FIRSTS, SECONDS)
    for row in range(2):
        p = slow_probability(judge, PROMPTS[row], FIRSTS[row], SECONDS[row])
        assert found[row] == pytest.approx(math.log(p / (1 - p)), abs=1e-4)
    assert found[2] is None, "longer than the context"
    exchanged = judge.compare(PROMPTS, SECONDS, FIRSTS)
    assert [exchanged[0], exchanged[1]] == pytest.approx([-found[0], -found[1]], abs=1e-5)


def test_mean_log_odds_worked_by_hand_and_far_out() -> None:
    # 3/4 and 1/4 are 1/2; 3/4 and 1/2 are 5/8.
    assert mean_log_odds(math.log(3), -math.log(3)) == pytest.approx(0.0)
    assert mean_log_odds(math.log(3), 0.0) == pytest.approx(math.log(5 / 3))
    assert mean_log_odds(800.0, 800.0) == pytest.approx(800.0)
    assert mean_log_odds(800.0, -800.0) == pytest.approx(0.0)


def test_a_pair_is_scored_by_its_log_odds(judge: ComparisonModel) -> None:
    pairs = [
        Pair(str(row), "t", "s", PROMPTS[row], first, second)
        for row, (first, second) in enumerate(zip(FIRSTS, SECONDS, strict=True))
    ]
    odds = judge.compare(PROMPTS, FIRSTS, SECONDS)
    rows = score_pairs(judge, pairs)
    assert [(row["chosen"], row["rejected"]) for row in rows] == [(odds[0], 0.0), (odds[1], 0.0), (None, None)]


def test_the_two_kinds_of_models_are_not_taken_for_one_another(folder: Path) -> None:
    assert compares_responses(folder / "compares") and not compares_responses(folder / "scores")
    with pytest.raises(DataError, match="compares two responses and gives none a score"):
        load_reward_model(folder / "compares")
    with pytest.raises(DataError, match="scores one response"):
        load_reward_model(folder / "scores", pairwise=True)


class Taller:
    """Prefers the longer text, with log-odds equal to the difference; can't read a "?"."""

    def compare(self, prompts: Sequence, firsts: Sequence[str], seconds: Sequence[str]) -> list[float | None]:
        return [
            None if "?" in first + second else float(len(first) - len(second))
            for first, second in zip(firsts, seconds, strict=True)
        ]


def test_rounds_among_k_responses_worked_by_hand() -> None:
    def p(odds: float) -> float:
        return 1 / (1 + math.exp(-odds))

    found = round_robin(Taller(), PROMPTS[:2], [["aaa", "b", "cc"], ["a", "?", "cc"]])
    assert found[0] == pytest.approx([(p(2) + p(1)) / 2, (p(-2) + p(-1)) / 2, (p(-1) + p(1)) / 2])
    assert found[1] == [pytest.approx(p(-1)), None, pytest.approx(p(1))]
    assert round_robin(Taller(), PROMPTS[:1], [["a" * 2000, "b"]]) == [[1.0, 0.0]]


def records(path: Path, *turns: list[str]) -> Path:
    row = {
        "id": "r",
        "prompt": list(PROMPTS[0]),
        "responses": [
            {
                "messages": [
                    {"role": ("assistant", "user")[place % 2], "content": text} for place, text in enumerate(texts)
                ],
                "score": float(index),
                "rank": None,
            }
            for index, texts in enumerate(turns)
        ],
        "source": "hand",
    }
    write_json_lines(path, [row])
    return path


def labelled(tmp_path: Path, name: str, model: Path, rows: Path) -> list[float]:
    for part in ("output", "work"):
        (tmp_path / name / part).mkdir(parents=True)
    context = StageContext(
        "label", {"closed_form": None}, {"records": rows, "reward_model": model}, tmp_path / name / "output",
        tmp_path / name / "work", EventLog(tmp_path / name / "events.jsonl"),
    )  # fmt: skip
    label.run(context)
    (row,) = read_json_lines(tmp_path / name / "output" / "records.jsonl")
    return [response["score"] for response in row["responses"]]


def test_labels_of_a_judge_are_shares_of_wins(folder: Path, judge: ComparisonModel, tmp_path: Path) -> None:
    rows = records(tmp_path / "records.jsonl", ["yes"], ["no"], ["maybe"])
    expected = round_robin(judge, PROMPTS[:1], [["yes", "no", "maybe"]])[0]
    assert labelled(tmp_path, "one", folder / "compares", rows) == pytest.approx(expected, abs=1e-6)
    several = records(tmp_path / "turns.jsonl", ["yes", "why", "so"], ["no"])
    with pytest.raises(Exception, match="row r has a response of several turns"):
        labelled(tmp_path, "two", folder / "compares", several)


def test_attributes_are_rated_and_their_weighted_sum_is_the_score(folder: Path, tmp_path: Path) -> None:
    from ablate.models.reward_heads import fold_attributes

    model = load_reward_model(folder / "policy", head_seed=4, outputs=3)
    heads = fold_attributes(model, {"quality": 0.5, "humor": 0.0, "verbosity": -1.0})
    save_model(model, load_tokenizer(folder / "policy"), tmp_path / "rated")
    heads.save(tmp_path / "rated")
    ratings = AttributeModel.open(tmp_path / "rated", torch.device("cpu")).rate(PROMPTS, FIRSTS)
    scores = RewardModel(load_reward_model(tmp_path / "rated"), load_tokenizer(tmp_path / "rated")).score(
        PROMPTS, FIRSTS
    )
    assert ratings[2] is scores[2] is None
    for rated, score in zip(ratings[:2], scores[:2], strict=True):
        assert rated.keys() == {"quality", "humor", "verbosity"}
        assert 0.5 * rated["quality"] - rated["verbosity"] == pytest.approx(score, abs=1e-4)
    with pytest.raises(DataError, match="no model of attributes"):
        AttributeHeads.read(folder / "scores")
