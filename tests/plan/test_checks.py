"""What can't work however long it trains is an error of the plan, at the line that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.catalogs.datasets import datasets
from ablate.errors import DataError, UsageError
from ablate.plan.plan import Plan

MakePlan = Callable[..., Plan]

SPEC = """\
name: study
policy: pocket-small
sft: {dataset: pocket-instructions}
ppo:
  max_prompt_length: 128
  max_response_length: 64
grid:
  - {dataset: pocket-hh, algorithm: dpo}
  - {dataset: pocket-hh, algorithm: ppo}
evaluate:
  policy: [pocket-gold]
"""
REAL_CORPUS = datasets()["real-small-corpus"].source.files or ()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with something under the names of byte-bpe-tiny's corpus."""
    for name in REAL_CORPUS:
        file = tmp_path / "root" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"rows")
    return tmp_path / "root"


def said(plan: MakePlan, old: str, new: str, *overrides: str, root: Path | None = None) -> str:
    assert old in SPEC
    with pytest.raises(UsageError) as caught:
        plan(SPEC.replace(old, new), *overrides, root=root)
    return str(caught.value)


def test_rollouts_fit_the_positions_of_a_model_made_here(plan: MakePlan) -> None:
    assert plan(SPEC.replace("max_response_length: 64", "max_response_length: 128")).stages
    message = said(plan, "max_response_length: 64", "max_response_length: 129")
    assert "study.yaml:6: ppo.max_response_length: " in message
    assert "max_prompt_length 128 and max_response_length 129 need 257 positions; pocket-small has 256" in message
    assert "set ppo.max_prompt_length to at most 127" in message
    assert "lower both, ppo.max_response_length to below 256" in said(plan, "  max_response_length: 64\n", "")
    axis = said(plan, "algorithm: ppo}", "algorithm: ppo, ppo.max_response_length: [64, 200]}")
    assert "study.yaml:9: ppo.max_response_length: " in axis
    block = said(plan, "ppo:\n  max_prompt_length: 128\n  max_response_length: 64\n", "")
    assert "study.yaml:6: ppo.max_response_length: " in block, "written nowhere: the block that uses the defaults"
    override = said(plan, SPEC, SPEC, "ppo.max_response_length=200")
    assert override.startswith("override 'ppo.max_response_length=200': ppo.max_response_length: ")


def test_lengths_that_only_cut_or_drop_rows_may_be_larger_than_the_model(plan: MakePlan) -> None:
    lengths = ("dpo.max_length=4096", "sft.max_length=8192", "reward_model.max_length=4096")
    assert set(plan(SPEC, *lengths).stages) == set(plan(SPEC).stages)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("name: study", "pretrain: {max_length: 257}\nname: study", 1),
        ("algorithm: dpo}", "algorithm: dpo, pretrain.max_length: [64, 257]}", 8),
        ("algorithm: dpo}", "algorithm: dpo, pretrain: {max_length: 257}}", 8),
    ],
)
def test_base_training_fits_the_model(plan: MakePlan, old: str, new: str, line: int) -> None:
    message = said(plan, old, new)
    assert f"study.yaml:{line}: pretrain.max_length: max_length 257 is more than the 256 positions" in message
    assert plan(SPEC, "pretrain.max_length=256").stages


def test_a_reward_model_has_the_policy_s_tokenizer(plan: MakePlan, root: Path) -> None:
    message = said(plan, "algorithm: ppo}", "algorithm: ppo, reward_model: byte-bpe-tiny}", root=root)
    assert "study.yaml:9: reward_model.init: the reward model starts from byte-bpe-tiny, whose tokenizer" in message
    assert "allowed: pocket-medium, pocket-small" in message
    assert plan(SPEC, "reward_model.init=pocket-medium").stages


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("pocket-instructions}", "real-small-instructions}", "study.yaml:3: sft.dataset: dataset 'real-"),
        ("pocket-hh, algorithm: ppo", "hh-rlhf-harmless, algorithm: ppo", "study.yaml:9: dataset: dataset 'hh-"),
        ("algorithm: ppo}", "algorithm: ppo, prompts: ultrafeedback-small}", "study.yaml:9: prompts: dataset 'ultra"),
        (
            "algorithm: ppo}",
            "algorithm: ppo, reward_model.dataset: hh-rlhf-harmless}",
            ":9: reward_model.dataset: ",
        ),
        ("policy: pocket-small", "policy: byte-bpe-tiny", "study.yaml:2: policy: dataset 'real-small-corpus' needs"),
        ("[pocket-gold]", "\n    - pocket-gold\n    - gsm8k", "study.yaml:13: evaluate.policy.1: suite 'gsm8k' needs"),
    ],
)
def test_a_missing_file_is_said_where_what_needs_it_is_named(
    plan: MakePlan, tmp_path: Path, old: str, new: str, place: str
) -> None:
    assert old in SPEC
    (tmp_path / "file").touch()
    roots = {None: "no data root is set", tmp_path: "which is not there", tmp_path / "file": "which is no folder"}
    for root, problem in roots.items():
        with pytest.raises(DataError, match=problem) as caught:
            plan(SPEC.replace(old, new), root=root)
        assert place in str(caught.value)
        assert "ABLATE_DATA" in str(caught.value)


def test_an_axis_of_sft_sets_is_checked_where_it_is_written(plan: MakePlan) -> None:
    written = "algorithm: ppo, sft.dataset: [pocket-instructions, pocket-hh]}"
    message = said(plan, "algorithm: ppo}", written)
    assert "study.yaml:9: sft.dataset: 'pocket-hh' holds preference data; sft.dataset needs a set of instr" in message
    with pytest.raises(
        UsageError, match=r"study\.yaml:3: sft\.dataset: unknown dataset .*\n  did you mean 'pocket-ins"
    ):
        plan(SPEC.replace("pocket-instructions", "pocket-instruction"))


def test_a_variant_s_options_are_named_where_they_are_written(plan: MakePlan) -> None:
    variant = "datasets:\n  mine:\n    use: pocket-hh\n    converter_options:\n      parsing: bar\nname: study"
    message = said(plan, "name: study", variant)
    assert (
        "study.yaml:5: datasets.mine.converter_options.parsing: 'bar' is not allowed\n  did you mean 'bare'?" in message
    )
    message = said(plan, "name: study", variant.replace("parsing", "parsin"))
    assert "study.yaml:5: datasets.mine.converter_options.parsin: unknown key 'parsin'\n  did you mean 'par" in message
