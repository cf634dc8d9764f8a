"""Prompts and graders of suites whose responses a judge compares or rates."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ablate.catalogs.closed import Closed
from ablate.catalogs.suite_code.entry import Entry


class AlpacaEvalPromptOptions(Closed):
    """AlpacaEval's instructions with a baseline's responses to them."""

    difficulty: str | None = Field(
        default=None, description="part of the name of the file with each instruction's difficulty, by row number"
    )


class MtBenchPromptOptions(Closed):
    """MT-Bench's two-turn questions, sampled at the temperature of their category as FastChat does."""

    temperatures: dict[str, float] = Field(
        default={
            "writing": 0.7,
            "roleplay": 0.7,
            "extraction": 0.0,
            "math": 0.0,
            "coding": 0.0,
            "reasoning": 0.0,
            "stem": 0.1,
            "humanities": 0.1,
        },
        description="temperature of each category; one that is not named is sampled at the suite's",
    )
    baseline: str | None = Field(
        default=None, description="part of the name of the file with a baseline's answers, in FastChat's form"
    )


class ArenaHardPromptOptions(Closed):
    """Arena-Hard's prompts with a baseline's answers to them."""

    baseline: str = Field(default="model_answer", description="part of the name of the file with a baseline's answers")


class Vicuna80PromptOptions(Closed):
    """Vicuna's questions with a baseline's answers to them."""

    baseline: str = Field(default="answer", description="part of the name of the file with a baseline's answers")


class JudgedOptions(Closed):
    """How verdicts become a win rate."""

    unparsable: Literal["tie", "omit"] = Field(
        default="tie", description="what a verdict that can't be read counts as; it is counted in health either way"
    )


class AlpacaEvalOptions(JudgedOptions):
    """AlpacaEval's win rates; what can't be read is left out of them, as its package does."""

    unparsable: Literal["tie", "omit"] = Field(
        default="omit", description=JudgedOptions.model_fields["unparsable"].description
    )
    length_control: bool = Field(default=False, description="whether the length-controlled win rate is given, too")
    weights: str | None = Field(
        default=None, description="part of the name of the file with published weights, for outputs of models it has"
    )


class ArenaHardOptions(JudgedOptions):
    """Arena-Hard's score."""

    unparsable: Literal["tie", "omit"] = Field(
        default="omit", description=JudgedOptions.model_fields["unparsable"].description
    )
    weight: int = Field(default=3, ge=1, description="games that a verdict of great difference counts as")
    resamples: int = Field(default=100, ge=0, description="of the bootstrap over prompts")
    seed: int = Field(default=42, ge=0, description="of the bootstrap")


_MARKS = ("sample", "turn", "judge")
_OF_PAIRS = ("win_rate", "parsed", "ties", "consistent", "first_wins", "agreement")

PROMPTS = {
    "alpaca-eval": Entry("ablate.evaluation.prompts.judged:alpaca_eval", AlpacaEvalPromptOptions),
    "mt-bench": Entry("ablate.evaluation.prompts.judged:mt_bench", MtBenchPromptOptions),
    "arena-hard": Entry("ablate.evaluation.prompts.judged:arena_hard", ArenaHardPromptOptions),
    "vicuna-80": Entry("ablate.evaluation.prompts.judged:vicuna_80", Vicuna80PromptOptions),
    "pocket-judged": Entry("ablate.evaluation.prompts.judged:pocket"),
}

GRADERS = {
    "win-rate": Entry("ablate.evaluation.graders.verdicts:win_rate", JudgedOptions, metrics=_OF_PAIRS, marks=_MARKS),
    "alpaca-eval": Entry(
        "ablate.evaluation.graders.verdicts:alpaca_eval",
        AlpacaEvalOptions,
        metrics=(
            *_OF_PAIRS,
            "discrete_win_rate",
            "length_controlled_win_rate",
            "published_length_controlled_win_rate",
        ),
        marks=_MARKS,
    ),
    "arena-hard": Entry(
        "ablate.evaluation.graders.verdicts:arena_hard",
        ArenaHardOptions,
        revision=3,
        metrics=(*_OF_PAIRS, "score"),
        marks=_MARKS,
    ),
    "rating": Entry(
        "ablate.evaluation.graders.verdicts:rating",
        metrics=("rating", "rating_turn_1", "rating_turn_2", "parsed", "disagreement"),
        marks=(*_MARKS, "model"),
    ),
}
