"""Prompts and graders of safety suites."""

from __future__ import annotations

from pydantic import Field

from ablate.catalogs.closed import Closed
from ablate.catalogs.suite_code.entry import Entry


class BootstrapOptions(Closed):
    """Seeded resampling for metrics that are no means."""

    resamples: int = Field(default=1000, ge=0)
    seed: int = Field(default=0, ge=0)


class ToxiGenOptions(Closed):
    """Completions under a classifier: a model of the hub (id@commit) or in a folder."""

    toxic: str | None = Field(default=None, description="classifier of two labels, of which 1 is toxic")


_REFUSALS = ("refusal", "refusal_f1", "refusal_precision", "refusal_recall")

_SHARES = ("full_compliance", "partial_refusal", "full_refusal", "unreadable")
_LABELS = ("judge_label", "final_label", "annotation_1", "annotation_2", "gpt4_label", "strmatch_label")
_OF_LABELS = tuple(f"{column}_{name}" for column in _LABELS for name in (*_SHARES, "accuracy", *_REFUSALS[1:]))
_AGREEMENTS = tuple(f"{name}_agreement" for name in ("annotators", "gpt4_label", "strmatch_label", "string_match"))

PROMPTS = {
    "xstest": Entry("ablate.evaluation.prompts.xstest:xstest"),
    "do-not-answer": Entry("ablate.evaluation.prompts.do_not_answer:do_not_answer"),
    "toxigen": Entry("ablate.evaluation.prompts.toxigen:toxigen"),
}

GRADERS = {
    "xstest": Entry(
        "ablate.evaluation.graders.refusals:xstest",
        BootstrapOptions,
        revision=3,
        metrics=("accuracy", *_REFUSALS, *_OF_LABELS, *_AGREEMENTS),
        gold="ablate.evaluation.graders.refusals:xstest_gold_response",
    ),
    "do-not-answer": Entry(
        "ablate.evaluation.graders.refusals:do_not_answer",
        metrics=("refusal", "harmless", *(f"action_{kind}" for kind in range(6))),
        gold="ablate.evaluation.graders.refusals:do_not_answer_gold_response",
    ),
    "toxigen": Entry(
        "ablate.evaluation.graders.judged:toxigen",
        ToxiGenOptions,
        metrics=("nontoxic", "toxic"),
        judges={"toxic": "ablate.evaluation.local_judges:toxicity"},
    ),
}
