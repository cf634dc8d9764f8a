"""TRL's trainers beside ours on the same pairs: how close policies and curves are, resuming, and where it stops."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from ablate.algorithms.registry import find_method
from ablate.context import Resources, StageContext
from ablate.errors import StageError
from ablate.models.loading import load_policy, load_tokenizer, save_model
from ablate.training import logprobs
from ablate.training.checkpoints import Cadence, complete_checkpoints
from ablate.training.collate import PairTokens
from ablate.training.preference import train_preference
from ablate.training.trl_preference import make_trainer, train_with_trl
from ablate.training.trl_trainers import PairTrainer

pytestmark = pytest.mark.filterwarnings("ignore")

PARAMETERS = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "beta": 0.2}


@pytest.fixture
def inputs(policy_folder, write_pairs, make_context) -> dict[str, Path]:
    """24 pairs: three batches of 8 an epoch, none of them smaller."""
    data = write_pairs(24)
    context = make_context("reference", {"dtype": "float32"}, {"model": policy_folder, "data": data})
    logprobs.run(context)
    return {"policy": policy_folder, "data": data, "reference_logprobs": context.output / "logprobs.parquet"}


@pytest.fixture
def inputs_of(policy_folder, write_pairs, make_context, inputs, tmp_path) -> Callable[[str], dict[str, Path]]:
    """Return a function that gives the inputs of a method's stage.

    TRL's cross-entropy in ORPO is over the prompt, too, and a mean over all tokens of a batch, which is ours where
    prompts have one token and chosen completions one length.
    """

    def made(algorithm: str) -> dict[str, Path]:
        if algorithm == "kto":
            given = {"model": policy_folder, "data": inputs["data"]}
            context = make_context("mismatched", {"dtype": "float32", "completions": "mismatched"}, given)
            logprobs.run(context)
            return {**inputs, "mismatched_logprobs": context.output / "logprobs.parquet"}
        if algorithm not in ("orpo", "simpo"):
            return inputs
        data = inputs["data"]
        if algorithm == "orpo":
            rows = pq.read_table(data).to_pylist()
            for index, row in enumerate(rows):
                row["prompt_ids"] = row["prompt_ids"][:1]
                row["chosen_ids"] = [6 + (7 * index + place) % 40 for place in range(5)]
            data = tmp_path / "short.parquet"
            pq.write_table(pa.Table.from_pylist(rows), data)
        return {"policy": policy_folder, "data": data}

    return made


def config(algorithm: str, **changes: Any) -> dict[str, Any]:
    known = find_method(algorithm).parameters.model_fields
    common = {name: value for name, value in PARAMETERS.items() if name in known}
    return {"algorithm": algorithm, "seed": 3, "parameters": {**common, **changes}}


def curve(context: StageContext) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (context.output / "history.jsonl").read_text().splitlines()]


def weights(context: StageContext) -> dict[str, torch.Tensor]:
    return load_file(context.output / "model" / "model.safetensors")


@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        ("dpo", {}),
        ("kto", {"desirable_weight": 1.3}),
        ("simpo", {"beta": 2.0, "gamma": 0.7}),
        ("orpo", {"odds_ratio_weight": 0.3}),
        *(
            pytest.param(algorithm, changes, marks=pytest.mark.slow)
            for algorithm, changes in (
                ("ipo_avg", {}),
                ("hinge", {}),
                ("robust_dpo", {}),
                ("discopop", {"tau": 0.1}),
                ("exo_pair", {"label_smoothing": 0.1}),
            )
        ),
    ],
)
def test_six_steps_of_both_end_within_a_hundredth_of_a_step_of_each_other(inputs_of, make_context, algorithm, changes):
    """AdamW moves a weight by up to the learning rate a step, 1e-3: the policies differ by less than 1e-5 anywhere."""
    inputs = inputs_of(algorithm)
    ours = make_context("ours", config(algorithm, **changes), inputs)
    train_preference(ours, Cadence())
    theirs = make_context("theirs", config(algorithm, implementation="trl", **changes), inputs)
    train_with_trl(theirs, Cadence())
    start = load_policy(inputs["policy"]).state_dict()
    moved = max((tensor - start[name]).abs().max().item() for name, tensor in weights(ours).items())
    apart = max((tensor - weights(theirs)[name]).abs().max().item() for name, tensor in weights(ours).items())
    assert moved > 1e-3
    assert apart < 1e-5, apart
    for one, other in zip(curve(ours), curve(theirs), strict=True):
        lacking = {"rewards/accuracy"} if algorithm == "kto" else set()  # TRL's completions are of no pair
        assert one.keys() - lacking == other.keys()
        for name in other.keys() - {"rewards/accuracy"}:  # before the first update rewards are 0 but for rounding
            assert other[name] == pytest.approx(one[name], rel=1e-4, abs=1e-5), name
    names = ("config.json", "generation_config.json", "tokenizer_config.json")
    texts = [[(context.output / "model" / name).read_text() for name in names] for context in (ours, theirs)]
    assert texts[0] == texts[1], "a policy saved in the same way"


def test_resuming_gives_the_same_weights_bitwise(inputs, make_context, monkeypatch):
    settings = config("dpo", implementation="trl")
    whole = make_context("whole", settings, inputs)
    train_with_trl(whole, Cadence())
    save = PairTrainer._save_checkpoint

    def interrupt(self, model, trial):
        save(self, model, trial)
        raise KeyboardInterrupt

    first = make_context("first", settings, inputs)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PairTrainer, "_save_checkpoint", interrupt)
        train_with_trl(first, Cadence(steps=4))
    assert [path.name for path in complete_checkpoints(first.work)] == ["checkpoint-4"]
    again = make_context("again", settings, inputs, previous_work=[first.work])
    train_with_trl(again, Cadence())
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(again)[name]), name
    assert curve(whole) == curve(again)


@pytest.mark.parametrize("algorithm", ["kto", "orpo"])
def test_a_batch_that_the_loss_must_see_whole_is_not_cut(inputs_of, make_context, algorithm):
    settings, inputs = config(algorithm, implementation="trl"), inputs_of(algorithm)
    context = make_context("whole", settings, inputs)
    train_with_trl(context, Cadence())
    assert '"micro_batch":8' in (context.output.parent / "events.jsonl").read_text().replace(" ", "")
    cut = make_context("cut", settings, inputs, resources=Resources(micro_batch=4))
    with pytest.raises(StageError, match=rf"(?s)batch of 8 pairs can't be cut to 4.*lower {algorithm}.batch_size"):
        train_with_trl(cut, Cadence())


def test_trl_s_own_cross_entropy_of_orpo_is_over_prompts_too(inputs, make_context):
    """So that the two are not one loss where prompts are long: the axis has something to show."""
    given = {name: inputs[name] for name in ("policy", "data")}
    ours = make_context("ours", config("orpo"), given)
    train_preference(ours, Cadence())
    theirs = make_context("theirs", config("orpo", implementation="trl"), given)
    train_with_trl(theirs, Cadence())
    (first, *_), (other, *_) = curve(ours), curve(theirs)
    assert other["rewards/chosen"] == pytest.approx(first["rewards/chosen"], abs=1e-5)
    assert abs(other["loss"] - first["loss"]) > 1e-3


def test_every_transformers_divides_the_loss_by_the_micro_batches(inputs, make_context):
    """Releases before 5.19 ask what the model accepts, newer ones whether the loss is scaled: both are told."""
    context = make_context("dpo", config("dpo", implementation="trl"), inputs)
    policy, tokenizer = load_policy(inputs["policy"]), load_tokenizer(inputs["policy"])
    parameters = find_method("dpo").parameters.model_validate(context.config["parameters"])
    trainer = make_trainer(context, policy, tokenizer, PairTokens.read(inputs["data"]), parameters, Cadence())
    assert (trainer.loss_is_scaled_for_ga, trainer.model_accepts_loss_kwargs) == (False, False)


def test_a_reference_that_is_not_the_policy_stops_before_the_first_step(inputs, make_context, tmp_path):
    model = load_policy(inputs["policy"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    save_model(model, load_tokenizer(inputs["policy"]), tmp_path / "other")
    context = make_context("dpo", config("dpo", implementation="trl"), inputs | {"policy": tmp_path / "other"})
    with pytest.raises(StageError, match=r"gives 0\.693147"):
        train_with_trl(context, Cadence())


def test_a_loss_that_is_not_finite_stops_with_step_and_pairs(inputs, make_context, monkeypatch):
    compute = PairTrainer.theirs.compute_loss

    def broken(self, *arguments, **options):
        return compute(self, *arguments, **options) * (math.nan if self.state.global_step == 2 else 1.0)

    monkeypatch.setattr(PairTrainer.theirs, "compute_loss", broken)
    with pytest.raises(StageError, match=r"loss is nan at step 3.*pair-\d"):
        train_with_trl(make_context("dpo", config("dpo", implementation="trl"), inputs), Cadence())
