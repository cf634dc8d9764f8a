"""Tasks of lm-eval: their prompts, and its metrics over stored responses."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ablate.catalogs.closed import Closed
from ablate.catalogs.suite_code.entry import Entry


class LmEvalTask(Closed):
    """A task of lm-eval, fed from files under the data root instead of the hub."""

    include: str = Field(description="the task's YAML, relative to lm_eval/tasks, e.g. truthfulqa/truthfulqa_mc1.yaml")
    overrides: dict[str, Any] = Field(default_factory=dict, description="keys of that YAML to replace")


class LmEvalOptions(Closed):
    """The lm-eval tasks of a suite; all read the same rows."""

    rows: Literal["truthfulqa-mc", "ifeval-early", "as-is"] = Field(
        description="how the suite's file becomes the rows that the tasks expect"
    )
    tasks: tuple[LmEvalTask, ...] = Field(min_length=1)


class ReplayOptions(Closed):
    """Options of the replay grader."""

    sentences: Literal["punkt", "regex"] = Field(
        default="regex",
        description="IFEval's sentence and word splitter: NLTK's punkt data (must be installed) or the substitute",
    )


PROMPTS = {"lm-eval": Entry("ablate.evaluation.lmeval:rows", LmEvalOptions, package="lm-eval")}

GRADERS = {"lm-eval": Entry("ablate.evaluation.replay:grade", ReplayOptions, heavy=True, package="lm-eval")}
