"""Prompts and graders of questions whose answer is known: a number, a letter."""

from __future__ import annotations

from pydantic import Field

from ablate.catalogs.closed import Closed
from ablate.catalogs.suite_code.entry import Entry


class Gsm8kPromptOptions(Closed):
    """Few-shot chain of thought as in the study (Wei et al. 2022, table 20)."""

    shots: int = Field(default=8, ge=0, le=8)


class MmluPromptOptions(Closed):
    """Multiple choice as in the study: 0-shot by default, the first ``shots`` rows of the dev file else."""

    shots: int = Field(default=0, ge=0, le=5)
    answer_prefix: str = Field(default="The answer is:", description="put after the assistant mark in chat mode")


class BbhPromptOptions(Closed):
    """Few-shot chain of thought with the authors' exemplars (Suzgun et al. 2022)."""

    shots: int = Field(default=3, ge=0, le=3)


class TruthfulQaOptions(Closed):
    """Answers under two judges: models of the catalog, of the hub (id@commit) or in a folder."""

    truth: str | None = Field(default=None, description="judge of whether an answer is true")
    info: str | None = Field(default=None, description="judge of whether an answer is informative")


PROMPTS = {
    "gsm8k": Entry("ablate.evaluation.prompts.gsm8k:gsm8k", Gsm8kPromptOptions, package="lm-eval"),
    "mmlu": Entry("ablate.evaluation.prompts.mmlu:mmlu", MmluPromptOptions),
    "bbh": Entry("ablate.evaluation.prompts.bbh:bbh", BbhPromptOptions),
    "truthfulqa": Entry("ablate.evaluation.prompts.truthfulqa:truthfulqa"),
}

GRADERS = {
    "gsm8k": Entry(
        "ablate.evaluation.graders.answers:gsm8k",
        revision=3,
        metrics=("exact_match", "numeric_match", "flexible_extract", "strict_match", "flag_agreement"),
        gold="ablate.evaluation.graders.answers:gsm8k_gold_response",
    ),
    "bbh": Entry(
        "ablate.evaluation.graders.answers:bbh",
        metrics=("exact_match", "sensitive_match", "task_mean", "task_mean_23"),
        gold="ablate.evaluation.graders.answers:bbh_gold_response",
    ),
    "choices": Entry(
        "ablate.evaluation.graders.choices:choices",
        metrics=("accuracy",),
        gold="ablate.evaluation.graders.choices:gold_letter",
    ),
    "truthfulqa": Entry(
        "ablate.evaluation.graders.judged:truthfulqa",
        TruthfulQaOptions,
        revision=2,
        metrics=("truth_info", "truth", "info"),
        gold="ablate.evaluation.graders.judged:truthfulqa_gold_response",
        judges={"truth": "ablate.evaluation.local_judges:truth", "info": "ablate.evaluation.local_judges:info"},
    ),
}
