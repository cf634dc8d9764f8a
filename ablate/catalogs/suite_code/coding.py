"""Prompts and graders of suites that ask for programs: pass@k under unit tests."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ablate.catalogs.closed import Closed
from ablate.catalogs.suite_code.entry import Entry

K = Literal[1, 2, 5, 10, 20, 25, 50, 64, 100, 200]
"""Values of k that pass@k is reported for."""


class HumanEvalPromptOptions(Closed):
    """HumanEval and HumanEval+ (Chen et al. 2021; Liu et al. 2023)."""

    plus: bool = Field(default=False, description="the tests of HumanEval+ beside the base tests")
    instructions: Literal["humanevalpack", "complete"] = Field(
        default="humanevalpack",
        description="user turn in chat mode: HumanEvalPack's instruction (a file of the suite), or the bare prompt",
    )


class MbppPlusPromptOptions(Closed):
    """MBPP+ (Austin et al. 2021; Liu et al. 2023)."""

    style: Literal["study", "evalplus"] = Field(
        default="study",
        description="study: task and signature, to complete; evalplus: task and first test, for a whole script",
    )
    held_out: int = Field(default=0, ge=0, description="first rows of the data, not asked; in the study 100")


class UnitTestsOptions(Closed):
    """Programs against unit tests, in a sandbox."""

    k: tuple[K, ...] = Field(default=(1,), min_length=1, description="pass@k for each of these; needs as many samples")
    seconds: float | None = Field(
        default=3.0,
        gt=0.0,
        description="for all tests of a program; null: EvalPlus' limits, for each case 1 s or, where that is more, "
        "four times the reference, and a minute for a group of tests",
    )
    extraction: Literal["completion", "response"] = Field(
        default="completion",
        description="completion: the response goes on where the prompt ends; response: the code in it is looked for",
    )


PROMPTS = {
    "humaneval": Entry("ablate.evaluation.prompts.coding:humaneval", HumanEvalPromptOptions),
    "mbpp-plus": Entry("ablate.evaluation.prompts.coding:mbpp_plus", MbppPlusPromptOptions),
}

GRADERS = {
    "unit-tests": Entry(
        "ablate.evaluation.graders.coding:unit_tests",
        UnitTestsOptions,
        metrics=tuple(f"pass@{k}" for k in K.__args__),  # type: ignore[attr-defined]
        repeated=True,
        gold="ablate.evaluation.graders.coding:gold_program",
    ),
}
