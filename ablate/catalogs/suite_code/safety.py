"""Prompts and graders of safety suites."""

from __future__ import annotations

from pydantic import Field

from ablate.catalogs.closed import Closed
from ablate.catalogs.suite_code.entry import Entry


class BootstrapOptions(Closed):
    """Seeded resampling for metrics that are no means."""

    resamples: int = Field(default=1000, ge=0)
    seed: int = Field(default=0, ge=0)


_REFUSALS = ("refusal", "refusal_f1", "refusal_precision", "refusal_recall")

PROMPTS = {"xstest": Entry("ablate.evaluation.prompts.xstest:xstest")}

GRADERS = {
    "xstest": Entry("ablate.evaluation.graders.refusals:xstest", BootstrapOptions, metrics=("accuracy", *_REFUSALS)),
}
