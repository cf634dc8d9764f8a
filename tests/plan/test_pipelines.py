"""Sets that several stages make: what their plans are, what they share, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from ablate.errors import DataError, SpecError, UnknownNameError, UsageError
from ablate.plan.plan import Plan
from ablate.plan.stage import Stage

MakePlan = Callable[..., Plan]
LABELS = {"by": {"reward_model": {"init": "pocket-small", "dataset": "pocket-hh"}}}


def text(datasets: dict[str, Any], **changes: Any) -> str:
    spec = {
        "name": "study",
        "policy": "pocket-small",
        "sft": {"dataset": "pocket-instructions"},
        "datasets": datasets,
        "grid": [{"dataset": list(datasets) or ["pocket-hh"], "algorithm": ["dpo"]}],
        "evaluate": {"policy": ["pocket-gold"]},
    }
    return yaml.safe_dump({**spec, **changes}, sort_keys=False)


def stage_of(plan: Plan, name: str) -> Stage:
    return plan.stages[str(plan.datasets[name]["stage"])]


def parents(plan: Plan, stage: Stage) -> dict[str, Stage]:
    return {role: plan.stages[ref.stage] for role, ref in stage.identity.inputs}


def of_kind(plan: Plan, kind: str) -> list[Stage]:
    return [stage for stage in plan.stages.values() if stage.kind == kind]


def test_an_aspect_and_filters_are_part_of_one_stage(plan: MakePlan) -> None:
    variant = {"use": "pocket-ultrafeedback", "label": "honesty", "where": {"source": "*_chat"}}
    made = plan(text({"uf-honesty": {**variant, "pairing": "best-vs-worst"}}))
    stage = stage_of(made, "uf-honesty")
    assert stage.kind == "dataset"
    config = stage.identity.config.value
    assert config["label"] == ["honesty"] and config["where"] == {"source": ["*_chat"]}
    assert config["pairing"]["policy"] == "best-vs-worst"
    assert dict(stage.identity.parts) == {"ultrafeedback_raw": 1, "where": 1, "label": 1}


def test_another_labeller_scores_all_responses_of_the_source(plan: MakePlan) -> None:
    where = {"refusals": "drop", "score_gap": {"min": 0.5}}
    made = plan(text({"relabelled": {"use": "pocket-nectar", "label": LABELS, "where": where}}, seed=7))
    last = stage_of(made, "relabelled")
    label = parents(made, last)["source"]
    assert (last.kind, label.kind) == ("dataset", "label")
    assert last.identity.config.value["where"] == {"score_gap": {"min": 0.5}}
    records, judge = parents(made, label)["records"], parents(made, label)["reward_model"]
    assert records.identity.config.value["format"] == "records"
    assert records.identity.config.value["where"] == {"refusals": "drop"}
    assert judge.identity.config.value["seed"] == 0  # its own, not the cells'
    assert len(of_kind(made, "reward_model")) == 1


def test_responses_come_from_the_policy_that_cells_start_from(plan: MakePlan) -> None:
    variant = {"prompts": "pocket-ultrafeedback", "responses": {"n": 3, "max_new_tokens": 64}, "label": LABELS}
    made = plan(
        text({"on-policy": variant}, grid=[{"dataset": ["pocket-ultrafeedback", "on-policy"]}], algorithm="dpo")
    )
    (respond,), (sft,) = of_kind(made, "respond"), of_kind(made, "sft")
    own = parents(made, respond)
    assert own["policy"] is sft
    # The prompts are those of the off-policy cell's pairs: one stage.
    assert own["prompts"] is stage_of(made, "pocket-ultrafeedback")
    assert respond.identity.config.value == {
        "chat": True,
        "max_new_tokens": 64,
        "n": 3,
        "seed": 0,
        "temperature": 0.7,
        "top_p": 1.0,
    }
    assert parents(made, of_kind(made, "label")[0])["records"] is respond


def test_responses_of_another_cell(plan: MakePlan) -> None:
    source = {"algorithm": "ppo", "dataset": "pocket-hh"}
    variant = {"prompts": "pocket-shp", "responses": {"from": source, "max_new_tokens": 64}, "label": LABELS}
    lengths = {"max_prompt_length": 128, "max_response_length": 64}
    grid = [{"dataset": "second-round", "algorithm": "dpo"}, {"dataset": "pocket-hh", "algorithm": "ppo"}]
    made = plan(text({"second-round": variant}, grid=grid, ppo=lengths))
    (respond,) = of_kind(made, "respond")
    policies = [subject.stage for subject in made.subjects if subject.axes.get("algorithm") == "ppo"]
    assert parents(made, respond)["policy"].id == policies[0]


def test_lengths_of_another_cell_are_checked(plan: MakePlan) -> None:
    variant = {"prompts": "pocket-shp", "responses": {"from": {"algorithm": "ppo", "dataset": "pocket-hh"}}}
    with pytest.raises(SpecError, match="need 2048 positions; pocket-small has 256"):
        plan(text({"x": {**variant, "label": {"by": {"reward": "nouns"}}}}))


def test_a_key_that_the_cell_writes_stays_in_another_cell(plan: MakePlan) -> None:
    """A reward model written out is no less written when its name is the policy's; one written nowhere follows it."""
    source = {"policy": "pocket-medium", "dataset": "pocket-hh"}
    variant = {"prompts": "pocket-shp", "responses": {"from": source}, "label": {"by": {"reward": "nouns"}}}
    lengths = {"max_prompt_length": 128, "max_response_length": 64}
    block = {"dataset": "x", "prompts": "pocket-hh", "reward_model.dataset": "pocket-hh", "algorithm": "ppo"}
    for written, init in (({"reward_model.init": "pocket-small"}, "small"), ({}, "medium")):
        made = plan(text({"x": variant}, grid=[{**block, **written}], ppo=lengths))
        (respond,) = of_kind(made, "respond")
        judge = parents(made, parents(made, respond)["policy"])["reward_model"]
        assert judge.execution.label == f"reward model pocket-{init} on pocket-hh (seed 0)"


def test_the_same_responses_serve_every_seed(plan: MakePlan) -> None:
    variant = {"prompts": "pocket-shp", "responses": {"max_new_tokens": 64}, "label": LABELS}
    made = plan(text({"on-policy": variant}, grid=[{"dataset": "on-policy", "algorithm": "dpo", "seed": [0, 1, 2]}]))
    assert len(of_kind(made, "respond")) == len(of_kind(made, "label")) == 1
    assert len(of_kind(made, "train")) == 3


def test_a_cap_holds_at_the_first_step(plan: MakePlan) -> None:
    variant = {"prompts": "pocket-shp", "responses": {"max_new_tokens": 64}, "label": LABELS}
    made = plan(text({"on-policy": variant}, data={"max_examples": 100}))
    prompts = parents(made, of_kind(made, "respond")[0])["prompts"]
    assert prompts.identity.config.value["max_examples"] == 100
    assert stage_of(made, "on-policy").identity.config.value["max_examples"] is None


def test_a_mixture_is_drawn_from_whole_sets(plan: MakePlan) -> None:
    mixes = {
        "counted": {"mix": {"pocket-hh": 500, "pocket-shp": 1000}},
        "halves": {"mix": {"pocket-hh": 0.5, "pocket-shp": 0.5}},
        "tempered": {"mix": ["pocket-hh", "pocket-shp"], "temperature": 2.0, "caps": {"pocket-hh": 900}},
    }
    made = plan(text(mixes, data={"max_examples": 1800, "seed": 3}))
    configs = {name: stage_of(made, name).identity.config.value for name in mixes}
    shared = {"format": "preference", "max_examples": 1800, "seed": 3}
    assert configs["counted"] == {**shared, "caps": [None, None], "counts": [500, 1000]}
    assert configs["halves"] == {**shared, "caps": [None, None], "fractions": [0.5, 0.5]}
    assert configs["tempered"] == {**shared, "caps": [900, None], "temperature": 2.0}
    parts = parents(made, stage_of(made, "halves")).items()
    sets = {role: stage.identity.config.value["max_examples"] for role, stage in parts}
    assert sets == {"part-0": None, "part-1": None}
    assert made.datasets["halves"]["label_kind"] == "construction"


def test_a_renamed_mixture_is_the_same_stage(plan: MakePlan) -> None:
    mix = {"mix": {"pocket-hh": 0.5, "pocket-shp": 0.5}}
    one, other = plan(text({"one": mix})), plan(text({"other": {**mix, "title": "Another"}}))
    assert stage_of(one, "one").id == stage_of(other, "other").id


def test_match_cuts_every_set_of_the_grid_to_the_smallest(plan: MakePlan) -> None:
    grid = [{"dataset": ["pocket-hh", "few"], "algorithm": ["dpo", "ppo"]}]
    few = {"few": {"use": "pocket-shp", "where": {"prompt_words": {"max": 12}}}}
    lengths = {"max_prompt_length": 128, "max_response_length": 64}
    made = plan(text(few, grid=grid, data={"match": "smallest"}, ppo=lengths))
    matched = of_kind(made, "match")
    assert len(matched) == 2 and {stage_of(made, name) for name in ("pocket-hh", "few")} == set(matched)
    reports = [sorted(ref.stage for role, ref in stage.identity.inputs if role != "data") for stage in matched]
    assert reports[0] == reports[1] and len(reports[0]) == 2
    # Reward models and prompts of the PPO cells come from the matched sets as well.
    learned = [item for item in of_kind(made, "tokenise") if item.identity.config.value["format"] != "conversations"]
    pairs = [parents(made, item)["data"] for item in learned]
    assert {stage.kind for stage in pairs} == {"match"}


def test_stages_are_called_by_what_they_make(plan: MakePlan) -> None:
    made = plan(
        text({"few": {"use": "pocket-shp", "label": "score"}, "judged": {"use": "pocket-shp", "label": LABELS}})
    )
    labels = {stage.execution.label for stage in made.stages.values()}
    assert {"rows of pocket-shp", "few", "responses of judged", "labels of judged", "judged"} <= labels
    assert not labels & {"rows of few", "rows of judged"}, "the rows are the catalog's, which both use"


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"x": {"use": "pocket-hh", "mix": {"pocket-hh": 1, "pocket-shp": 1}}}, "exactly one of use, prompts, mix"),
        ({"x": {}}, "exactly one of use, prompts, mix"),
        ({"x": {"use": "pocket-hh", "caps": {"pocket-hh": 3}}}, "'caps' says nothing about 'use'"),
        ({"x": {"mix": {"pocket-hh": 0.5, "pocket-shp": 0.4}}}, "add up to 1 (found 0.9)"),
        ({"x": {"mix": {"pocket-hh": 5, "pocket-shp": -1}}}, "more than 0 (found pocket-shp: -1)"),
        ({"x": {"mix": {"pocket-hh": 0.5, "pocket-shp": 600}}}, "or in fractions of 1 (found pocket-hh: 0.5, pocket"),
        ({"x": {"mix": ["pocket-hh"]}}, "two or more different sets (found pocket-hh)"),
        ({"x": {"mix": ["pocket-hh", "pocket-hh"]}}, "two or more different sets (found 'pocket-hh' twice)"),
        ({"x": {"use": "x"}}, "datasets.x.use: 'x' is this set itself"),
        ({"x": {"use": "y"}, "y": {"use": "pocket-hh"}}, "datasets.x.use: 'y' is written below 'x'"),
        ({"x": {"mix": ["pocket-hh", "pocket-instructions"]}}, "hold one kind of data"),
        ({"x": {"mix": ["pocket-hh", "pocket-shp"], "caps": {"pocket-shq": 5}}}, "caps names 'pocket-shq'"),
        ({"x": {"mix": {"pocket-hh": 0.5, "pocket-shp": 0.5}, "temperature": 2}}, "a temperature mixes a list"),
        (
            {"x": {"mix": {"pocket-hh": 5, "pocket-shp": 9}, "caps": {"pocket-shp": 8}}},
            "9 of 'pocket-shp', whose cap is 8",
        ),
        ({"x": {"mix": {"pocket-hh": 600, "pocket-shp": 500}}}, "add up to 1100, more than data.max_examples 1000"),
        ({"x": {"use": "pocket-hh", "where": {"score_gap": 3}}}, "a mapping is needed; its keys: min, max (found 3)"),
        (
            {"x": {"use": "pocket-hh", "label": {"by": "nouns"}}},
            "its keys: reward_model, reward, judge (found 'nouns')",
        ),
        ({"x": {"prompts": "pocket-hh", "responses": {"n": 2}}}, "written together"),
        ({"x": {"prompts": "pocket-hh", "responses": {"n": 2}, "label": "honesty"}}, "written together"),
        ({"x": {"prompts": "pocket-hh", "pairing": "random"}}, "nothing to pair"),
        ({"x": {"use": "pocket-hh", "where": {}}}, "no filter"),
        ({"x": {"use": "pocket-hh", "where": {"prompt_words": {"min": 9, "max": 3}}}}, "min 9 is more than max 3"),
        ({"x": {"use": "pocket-hh", "where": {"matches": "("}}}, "not a regular expression"),
        ({"x": {"use": "pocket-hh", "label": {"by": {}}}}, "exactly one of reward_model, reward, judge"),
        (
            {"x": {"use": "pocket-hh", "label": {"by": {"reward": "noun"}}}},
            "unknown reward 'noun'\n  did you mean 'nouns'",
        ),
        ({"x": {"use": "pocket-hh", "label": {"by": {"reward": "reward_model"}}}}, "unknown reward 'reward_model'"),
        (
            {"x": {"use": "pocket-hh", "label": {"by": {"reward": "exact-answer"}}}},
            "x.label.by.reward: the reward exact-answer reads the answer to each prompt, which the prompts of",
        ),
        (
            {
                "x": {"use": "pocket-hh", "label": {"by": {"reward": "pocket-gold"}}},
                "y": {"mix": ["x", "pocket-shp"]},
            },
            "x.label.by.reward: the reward pocket-gold reads the item of each prompt",
        ),
        ({"x": {"use": "pocket-instructions", "label": LABELS}}, "nothing to label"),
    ],
)
def test_what_makes_no_sense_is_refused(plan: MakePlan, datasets: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(text(datasets, data={"max_examples": 1000}))
    assert message in str(caught.value)
    assert "datasets.x" in str(caught.value)


def test_misspelt_names_are_found(plan: MakePlan) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'pocket-shp'"):
        plan(text({"x": {"mix": ["pocket-hh", "pocket-shq"]}}))
    labels = {"by": {"reward_model": {"init": "pocket-smal", "dataset": "pocket-hh"}}}
    with pytest.raises(UnknownNameError, match="did you mean 'pocket-small'"):
        plan(text({"x": {"use": "pocket-hh", "label": labels}}))
    wrong = {"use": "pocket-hh", "where": {"langage": "en"}}
    with pytest.raises(SpecError, match="language"):
        plan(text({"x": wrong}))


@pytest.mark.parametrize(
    ("written", "key", "message"),
    [
        ("responses: {from: pocket-smal}", "responses.from", "unknown model 'pocket-smal'"),
        ("responses: {from: {\n  algorithm: dpoo}}", "responses.from.algorithm", "unknown algorithm 'dpoo'"),
        ("responses: {from: {\n  algoritm: dpo}}", "responses.from.algoritm", "unknown axis 'algoritm'"),
        ("responses: {from: {\n  dataset: pocket-h}}", "responses.from.dataset", "unknown dataset 'pocket-h'"),
        ("responses: {from: {\n  dpo.beta: -1}}", "responses.from.dpo.beta", "greater than 0"),
        ("responses: {from: {\n  ppo.steps: 1}}", "responses.from.ppo.steps", "DPO does not read 'ppo.steps'"),
        (
            "label: {by: {reward_model: {\n  init: pocket-smal, dataset: pocket-hh}}}",
            "label.by.reward_model.init",
            "model",
        ),
        (
            "label: {by: {reward_model: {init: pocket-small,\n  dataset: pocket-instructions}}}",
            "label.by.reward_model.dataset",
            "'pocket-instructions' holds instruction data; reward_model.dataset needs a set of preference data",
        ),
        (
            "label: {by: {reward_model: {init: pocket-small, dataset: pocket-hh, parameters: {\n  epoch: 2}}}}",
            "label.by.reward_model.parameters.epoch",
            "unknown key 'epoch'",
        ),
    ],
)
def test_what_takes_part_is_refused_where_it_is_written(plan: MakePlan, written: str, key: str, message: str) -> None:
    other = "label: {by: {reward: nouns}}" if written.startswith("responses") else "responses: {n: 2}"
    lines = ["name: study", "policy: pocket-small", "sft: {dataset: pocket-instructions}", "datasets:"]
    spec = "\n".join([*lines, f" x: {{prompts: pocket-hh, {other}, {written}}}"])
    with pytest.raises(UsageError) as caught:
        plan(spec + "\ngrid: [{dataset: x, algorithm: dpo}]\n")
    assert f"study.yaml:{5 + written.count(chr(10))}: datasets.x.{key}: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("written", "key", "near"),
    [
        ({"init": "pocket-smal", "dataset": "pocket-hh"}, "init", "pocket-small"),
        ({"init": "pocket-small", "dataset": "pocket-sph"}, "dataset", "pocket-shp"),
        ({"init": "pocket-small", "dataset": "pocket-hh", "parameters": {"epoch": 2}}, "parameters.epoch", "epochs"),
    ],
)
def test_what_is_wrong_with_a_labeller_is_said_at_its_key(
    plan: MakePlan, written: dict[str, Any], key: str, near: str
) -> None:
    with pytest.raises(UsageError) as caught:
        plan(text({"x": {"use": "pocket-hh", "label": {"by": {"reward_model": written}}}}))
    assert f": datasets.x.label.by.reward_model.{key}: unknown " in str(caught.value)
    assert f"did you mean '{near}'?" in str(caught.value)


def test_a_misspelt_writer_is_offered_the_words_for_a_cells_own_models(plan: MakePlan) -> None:
    variant = {"prompts": "pocket-hh", "responses": {"from": "polcy"}, "label": LABELS}
    with pytest.raises(
        UnknownNameError, match=r"datasets\.x\.responses\.from: .*\n  did you mean 'policy'\? allowed: base"
    ):
        plan(text({"x": variant}))


def test_a_missing_file_of_a_part_is_said_where_the_set_is_named_with_match(plan: MakePlan) -> None:
    """With match, planning the first cell already asks for the files of the second one's parts."""
    mix = {"both": {"mix": ["pocket-hh", "shp-ratio"]}, "shp-ratio": {"use": "shp-2"}}
    grid = [{"dataset": ["pocket-hh", "both"], "algorithm": "dpo"}]
    with pytest.raises(
        DataError, match=r"\.yaml:\d+: dataset: dataset 'shp-ratio' needs the file .*\n  ablate data fetch shp-2,"
    ):
        plan(text(dict(reversed(mix.items())), grid=grid, data={"match": "smallest"}))


def test_a_set_that_takes_itself_to_make_is_refused(plan: MakePlan) -> None:
    labels = {"by": {"reward_model": {"init": "pocket-small", "dataset": "x"}}}
    with pytest.raises(SpecError, match="takes the set itself: x → x"):
        plan(text({"x": {"use": "pocket-hh", "label": labels}}))
    own = {"prompts": "pocket-hh", "responses": {"from": {"algorithm": "dpo"}}, "label": LABELS}
    with pytest.raises(SpecError, match="takes the set itself: y → y"):
        plan(text({"y": own}))


def test_sft_can_use_a_mixture_but_no_set_that_takes_a_model(plan: MakePlan) -> None:
    mixture = {"twice": {"mix": {"pocket-instructions": 300, "again": 200}}}
    again = {"again": {"use": "pocket-instructions", "split": {"part": "train", "heldout_share": 0.5}}}
    made = plan(
        text({**again, **mixture}, grid=[{"dataset": "pocket-hh", "algorithm": "dpo"}], sft={"dataset": "twice"})
    )
    (tokens,) = [item for item in of_kind(made, "tokenise") if item.identity.config.value["format"] == "conversations"]
    assert parents(made, tokens)["data"].kind == "mixture"
    asked = {"asked": {"prompts": "pocket-hh", "responses": {"n": 2}, "label": LABELS}}
    with pytest.raises(SpecError, match="holds preference data; sft"):
        plan(text(asked, sft={"dataset": "asked"}))


def test_a_labeller_is_trained_on_unmatched_data(plan: MakePlan) -> None:
    """Else the sizes that match compares would depend on the labels, which depend on the sizes."""
    relabelled = {"use": "pocket-shp", "label": LABELS}
    grid = [{"dataset": ["pocket-hh", "relabelled"], "algorithm": "dpo"}]
    made = plan(text({"relabelled": relabelled}, grid=grid, data={"match": "smallest"}))
    (judge,) = of_kind(made, "reward_model")
    assert parents(made, parents(made, judge)["data"])["data"].kind == "dataset"


def test_the_prompts_of_a_set_with_an_embedded_sample(plan: MakePlan) -> None:
    spec = text(
        {"asked": {"prompts": "ultrafeedback-raw"}},
        grid=[{"dataset": "pocket-hh", "algorithm": "ppo"}],
        prompts="asked",
        ppo={"max_prompt_length": 128, "max_response_length": 64},
        data={"embedded": True},
    )
    (prompts,) = (about for about in plan(spec).data if about["name"] == "asked")
    assert (prompts["roles"], prompts["title"]) == (["prompts"], "asked (embedded sample)")


def test_another_labeller_sees_the_rows_that_the_filters_of_its_source_keep(plan: MakePlan) -> None:
    few = {"use": "pocket-ultrafeedback", "where": {"source": "*_chat"}}
    relabelled = {"use": "few", "label": {"by": {"reward": "nouns"}}}
    made = plan(text({"few": few, "x": relabelled, "y": {**relabelled, "where": {"score_gap": {"min": 1.0}}}}))
    rows = [parents(made, label)["records"].identity.config.value for label in of_kind(made, "label")]
    assert [config["where"] for config in rows] == [{"source": ["*_chat"]}]
