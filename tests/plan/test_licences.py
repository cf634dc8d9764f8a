"""``data.allow_licences``: which sets an experiment may read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ablate.catalogs.licences import not_allowed
from ablate.errors import SpecError
from ablate.plan.plan import Plan

MakePlan = Callable[..., Plan]

SPEC = """\
name: study
policy: pocket-small
sft: {dataset: pocket-instructions}
data:
  allow_licences: [apache-2.0]
grid:
  - {dataset: pocket-hh, algorithm: dpo}
  - dataset: pocket-hh
    algorithm: ppo
    ppo: {max_prompt_length: 128, max_response_length: 64}
    prompts: pocket-shp
    reward_model: {init: pocket-small, dataset: pocket-nectar}
"""


@pytest.mark.parametrize(
    ("licences", "allowed", "refused"),
    [
        (["MIT"], ["mit"], []),
        (["CC-BY-4.0", "CC-BY-NC-4.0"], ["CC-BY-4.0"], ["CC-BY-NC-4.0"]),
        (["CC-BY-4.0", "CC-BY-NC-4.0"], ["CC-BY-[0-9]*", "MIT"], ["CC-BY-NC-4.0"]),
        (["CC-BY-4.0", "CC-BY-NC-4.0"], ["cc-*"], []),
        (["unrecorded"], ["*", "unrecord*"], ["unrecorded"]),
        (["unrecorded"], ["MIT", "unrecorded"], []),
    ],
)
def test_every_licence_of_a_set_must_be_allowed(licences: list[str], allowed: list[str], refused: list[str]) -> None:
    assert not_allowed(licences, allowed) == refused


def test_an_experiment_of_allowed_sets_plans_the_same_stages(plan: MakePlan) -> None:
    assert set(plan(SPEC).stages) == set(plan(SPEC, "data.allow_licences=null").stages)


# What names the set, its line in SPEC, and a set that is not under Apache-2.0.
@pytest.mark.parametrize(
    ("written", "line", "name", "licence"),
    [
        ("sft: {dataset: pocket-instructions}", 3, "dolly", "CC-BY-SA-3.0"),
        ("  - {dataset: pocket-hh, algorithm: dpo}", 7, "hh-rlhf", "MIT"),
        ("    prompts: pocket-shp", 11, "wildchat-prompts", "unrecorded (see the set's card)"),
        ("dataset: pocket-nectar}", 12, "nectar", "Apache-2.0, LicenseRef-non-commercial (Apache-2.0 by its tag"),
    ],
)
def test_a_set_that_is_not_allowed_is_named_with_its_place(
    plan: MakePlan, written: str, line: int, name: str, licence: str
) -> None:
    old = written.rpartition("pocket-")[2].partition("}")[0].partition(",")[0]
    assert written in SPEC
    with pytest.raises(SpecError) as caught:
        plan(SPEC.replace(written, written.replace(f"pocket-{old}", name)))
    message = str(caught.value)
    assert f"study.yaml:{line}: " in message and f"the licence of {name!r} is {licence}" in message, message
    assert "study.yaml:5) does not allow" in message and "\n  allowed: apache-2.0" in message
    assert caught.value.exit_code == 2


def test_the_corpus_of_a_model_counts_and_an_override_is_named(plan: MakePlan) -> None:
    with pytest.raises(SpecError, match=r"(?s)study\.yaml:2: policy: the licence of 'pocket-corpus'.*override 'data"):
        plan(SPEC, "data.allow_licences=[MIT]", "sft.dataset=pocket-instructions")


def test_an_unrecorded_licence_is_allowed_by_name_alone(plan: MakePlan) -> None:
    with pytest.raises(SpecError, match="allow unrecorded by that name"):
        plan(SPEC, "data.allow_licences=['*']", "sft.dataset=ultrachat")


def test_variants_have_the_licence_of_their_set(plan: MakePlan) -> None:
    variant = "datasets:\n  mine: {use: hh-rlhf}\n"
    with pytest.raises(SpecError, match="the licence of 'mine' is MIT"):
        plan(SPEC.replace("{dataset: pocket-hh, ", "{dataset: mine, ") + variant)


@pytest.mark.parametrize("value", ["[]", "3", "[1]"])
def test_what_is_no_list_of_names_is_refused(plan: MakePlan, value: str) -> None:
    with pytest.raises(SpecError, match=r"override .data\.allow_licences="):
        plan(SPEC, f"data.allow_licences={value}")


@pytest.mark.parametrize(
    "made",
    [
        "{mix: [pocket-hh, hh-rlhf]}",
        "{use: pocket-hh, label: {by: {reward_model: {init: pocket-small, dataset: hh-rlhf}}}}",
        "{prompts: pocket-hh, responses: {from: {dataset: hh-rlhf}}, label: {by: {reward: nouns}}}",
        "{prompts: pocket-hh, responses: {from: {algorithm: ppo, dataset: pocket-hh, reward_model.dataset: hh-rlhf}}, "
        "label: {by: {reward: nouns}}}",
    ],
)
def test_what_a_set_is_made_of_counts(plan: MakePlan, made: str) -> None:
    """Its parts, what a labeller learns from, what the policy of its responses and its reward model learn from."""
    with pytest.raises(SpecError, match="the licence of 'hh-rlhf' is MIT"):
        plan(SPEC.replace("{dataset: pocket-hh, ", "{dataset: mine, ") + f"datasets:\n  mine: {made}\n")
