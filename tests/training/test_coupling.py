"""KTO, BCO and AOT on a model: TRL, slow sums over single sequences, micro-batches, exact resume, mismatches."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from ablate.algorithms.registry import METHODS
from ablate.errors import DataError, StageError
from ablate.models.loading import load_policy, load_tokenizer
from ablate.training import logprobs, offline
from ablate.training.batches import batch_order
from ablate.training.checkpoints import Cadence
from ablate.training.collate import PairTokens
from ablate.training.coupling import COUPLINGS, CoupledObjective, RunningShift
from ablate.training.history import History
from ablate.training.mismatch import mismatched, partners
from ablate.training.offline import OfflineTrainer
from ablate.training.preference import make_collator, make_objective, run, train_preference
from ablate.training.trainer import TrainingRun

COUPLED = ["kto", "bco", "aot", "aot_unpaired"]
PARAMETERS: dict[str, Any] = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "beta": 0.2}


@pytest.fixture
def inputs(policy_folder, write_pairs, make_context) -> dict[str, Path]:
    """Inputs of a KTO stage: 13 pairs, so that the last of two batches of 8 has 5."""
    given = {"policy": policy_folder, "data": write_pairs(13)}
    return given | reference_passes(make_context, policy_folder, given["data"])


def reference_passes(make_context: Any, model: Path, data: Path) -> dict[str, Path]:
    """The log-probabilities of ``model`` on the pairs and on their mismatches."""
    found = {}
    for name, config in (("reference_logprobs", {}), ("mismatched_logprobs", {"completions": "mismatched"})):
        context = make_context(f"{name}-{model.name}", {"dtype": "float32", **config}, {"model": model, "data": data})
        logprobs.run(context)
        found[name] = context.output / "logprobs.parquet"
    return found


def needed(algorithm: str, inputs: dict[str, Path]) -> dict[str, Path]:
    """The inputs that the planner gives the method."""
    names = {"policy", "data", *METHODS[algorithm].needs}
    return {name: path for name, path in inputs.items() if name in names}


def perturbed(folder: Path, scale: float = 0.05):
    model = load_policy(folder)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model


def trainer_of(
    inputs: dict[str, Path], work: Path, algorithm: str, *, model: Any = None, micro_batch: int = 8, **changes: Any
):
    parameters = METHODS[algorithm].parameters.model_validate({**PARAMETERS, **changes})
    pairs = PairTokens.read(inputs["data"])
    return OfflineTrainer(
        model or load_policy(inputs["policy"]),
        make_objective(algorithm, parameters),
        pairs,
        make_collator(pairs, needed(algorithm, inputs), 0),
        parameters,
        TrainingRun(seed=3, work=work, history=History(), cadence=Cadence(), micro_batch=micro_batch),
    )


def loss_of(trainer: OfflineTrainer, model: Any, rows: list[int]) -> torch.Tensor:
    """The mean loss of one effective batch in one micro-batch, with gradients in ``model``."""
    batch = trainer.data_collator(rows)
    with torch.no_grad():
        trainer.objective.couple(model, [batch], trainer._gather)
    loss_B, _ = trainer.objective(model, batch)
    loss_B.mean().backward()
    return loss_B.mean()


def assert_same_gradients(ours: Any, theirs: Any) -> None:
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


TRL = {"use_cpu": True, "bf16": False, "report_to": "none", "gradient_checkpointing": False, "beta": PARAMETERS["beta"]}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("moved", ["policy", "reference"])
def test_kto_equals_trl(inputs, make_context, tmp_path, moved):
    """A policy that a random step made worse has no KL above 0; seen from there, the old one has."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

    other = tmp_path / "other"
    perturbed(inputs["policy"], 0.3).save_pretrained(other)
    policy, reference = (other, inputs["policy"]) if moved == "policy" else (inputs["policy"], other)
    inputs |= reference_passes(make_context, reference, inputs["data"])
    weights = {"desirable_weight": 1.3, "undesirable_weight": 0.8}
    trainer = trainer_of(inputs, tmp_path / "ours", "kto", **weights)
    ours, rows = load_policy(policy), list(range(12))
    loss = loss_of(trainer, ours, rows)

    pairs = PairTokens.read(inputs["data"])
    others = mismatched(pairs)
    examples = [
        {
            "prompt_ids": pairs.prompts[row].tolist(),
            "completion_ids": getattr(pairs, side)[row].tolist(),
            "KL_completion_ids": getattr(others, side)[row].tolist(),
            "label": side == "chosen",
        }
        for side in ("chosen", "rejected")
        for row in rows
    ]
    turns = {"prompt": [{"role": "user", "content": "w1"}], "completion": [{"role": "assistant", "content": "w2"}]}
    theirs = KTOTrainer(
        model=load_policy(policy),
        ref_model=load_policy(reference),
        args=KTOConfig(output_dir=str(tmp_path / "trl"), per_device_train_batch_size=4, **TRL, **weights),
        processing_class=load_tokenizer(inputs["policy"]),
        train_dataset=Dataset.from_list([{**turns, "label": index % 2 == 0} for index in range(4)]),
    )
    theirs.model.train()
    expected = theirs._compute_loss(theirs.model, DataCollatorForUnpairedPreference(pad_token_id=0)(examples), False)
    expected.backward()
    assert (theirs._metrics["train"]["kl"][-1] > 0.05) == (moved == "reference")
    assert abs(expected.item() - 1.05 / 2) > 0.01
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert_same_gradients(ours, theirs.model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("algorithm", ["aot", "aot_unpaired"])
def test_aot_equals_trl(inputs, tmp_path, algorithm):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    trainer = trainer_of(inputs, tmp_path / "ours", algorithm, label_smoothing=0.1)
    ours, rows = perturbed(inputs["policy"], 0.3), list(range(12))
    loss = loss_of(trainer, ours, rows)
    turns = {"prompt": [{"role": "user", "content": "w1"}], "chosen": [{"role": "assistant", "content": "w2"}]}
    turns["rejected"] = [{"role": "assistant", "content": "w3"}]
    theirs = DPOTrainer(
        model=perturbed(inputs["policy"], 0.3),
        ref_model=load_policy(inputs["policy"]),
        args=DPOConfig(output_dir=str(tmp_path / "trl"), loss_type=algorithm, label_smoothing=0.1, **TRL),
        processing_class=load_tokenizer(inputs["policy"]),
        train_dataset=Dataset.from_list([turns] * 4),
    )
    tokens = pq.read_table(inputs["data"]).to_pylist()
    batch = DataCollatorForPreference(pad_token_id=0)([tokens[row] for row in rows])
    expected = theirs.compute_loss(theirs.model, batch)
    expected.backward()
    assert abs(expected.item() - math.log(2)) > 0.05
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert_same_gradients(ours, theirs.model)


def single_logprob(model: Any, prompt: Any, completion: Any) -> torch.Tensor:
    ids = torch.tensor([[*prompt, *completion]])
    logp = torch.log_softmax(model(input_ids=ids).logits[0], -1)
    return sum(logp[len(prompt) - 1 + place, token] for place, token in enumerate(completion.tolist()))


def test_bco_equals_a_loop_over_single_sequences_in_two_steps(inputs, tmp_path):
    """The shift of the second batch is the mean reward over both: 8 pairs and 5, each completion counted once."""
    trainer = trainer_of(inputs, tmp_path / "ours", "bco")
    model, reference = perturbed(inputs["policy"], 0.3), load_policy(inputs["policy"])
    pairs, beta = PairTokens.read(inputs["data"]), PARAMETERS["beta"]
    rewards: list[float] = []
    for rows in ([*range(8)], [*range(8, 13)]):
        found = loss_of(trainer, model, rows).item()
        sequences = [(pairs.prompts[row], side[row]) for side in (pairs.chosen, pairs.rejected) for row in rows]
        ratios = [single_logprob(model, *one) - single_logprob(reference, *one) for one in sequences]
        logits = [beta * ratio.item() for ratio in ratios]
        rewards += logits
        shift = sum(rewards) / len(rewards)
        signs = [1] * len(rows) + [-1] * len(rows)
        losses = [math.log1p(math.exp(-sign * (logit - shift))) for sign, logit in zip(signs, logits, strict=True)]
        assert found == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert trainer.objective.coupling.state["completions"] == 26


@pytest.mark.parametrize("algorithm", COUPLED)
def test_accumulating_8_times_1_equals_1_times_8(inputs, make_context, tmp_path, algorithm, monkeypatch):
    """Losses and gradients of a batch of 8 and of the last one of 5; the reference is another model than the start."""
    monkeypatch.setattr(CoupledObjective, "check_start", lambda *arguments: None)
    other = tmp_path / "other"
    perturbed(inputs["policy"], 0.3).save_pretrained(other)
    inputs |= reference_passes(make_context, other, inputs["data"])
    gradients: dict[int, list[torch.Tensor]] = {1: [], 8: []}
    records = []
    for micro_batch, found in gradients.items():
        # the learning rate is far below float32's spacing: both batches see the same weights
        changes = {"micro_batch": micro_batch, "epochs": 1, "learning_rate": 1e-30, "max_grad_norm": 1e9}
        trainer = trainer_of(inputs, tmp_path / str(micro_batch), algorithm, **changes)
        clip = trainer._clip_grad_norm

        def keep(model, clip=clip, found=found):
            found += [parameter.grad.clone() for parameter in model.parameters()]
            return clip(model)

        monkeypatch.setattr(trainer, "_clip_grad_norm", keep)
        trainer.fit()
        records.append(trainer.run.history.records)
    rows = batch_order(PairTokens.read(inputs["data"]).lengths_N, 8, seed=3, epoch=0)
    assert [len(batch) for batch in rows] == [8, 5]
    for one, other_gradient in zip(gradients[1], gradients[8], strict=True):
        torch.testing.assert_close(one, other_gradient, rtol=1e-4, atol=1e-6)
    assert max(gradient.abs().max() for gradient in gradients[8]) > 1e-2
    for one, another in zip(*records, strict=True):
        assert one["loss"] == pytest.approx(another["loss"], abs=1e-6)
    if algorithm in ("kto", "bco"):
        assert records[0][-1]["kl" if algorithm == "kto" else "shift"] > 0.05, "the batch has something in common"


@pytest.mark.parametrize("algorithm", COUPLED)
def test_processes_find_together_what_one_finds(inputs, algorithm):
    """Two processes with a micro-batch each of 5 and 3 pairs, their exchange played here."""
    pairs, model = PairTokens.read(inputs["data"]), perturbed(inputs["policy"], 0.3)
    collator = make_collator(pairs, needed(algorithm, inputs), 0)
    parts = [collator([4, 0, 9, 2, 7]), collator([1, 8, 3])]

    def alone(values_M):
        return values_M, slice(None)

    with torch.no_grad():
        expected = COUPLINGS[algorithm](0.2).columns(model, parts, alone)
        sent: list[list[torch.Tensor]] = [[], []]
        for part, given in zip(parts, sent, strict=True):

            def keep(values_M, given=given):
                given.append(values_M)
                return alone(values_M)

            COUPLINGS[algorithm](0.2).columns(model, [part], keep)
        for index, part in enumerate(parts):
            calls = iter(zip(*sent, strict=True))

            def gather(values_M, calls=calls, index=index):
                of_first, of_second = next(calls)
                own = slice(len(of_first), None) if index else slice(0, len(of_first))
                return torch.cat([of_first, of_second]), own

            [found] = COUPLINGS[algorithm](0.2).columns(model, [part], gather)
            for name, column_B in found.items():
                torch.testing.assert_close(column_B, expected[index][name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("algorithm", COUPLED)
def test_a_last_batch_that_leaves_a_process_without_a_pair_is_refused(inputs, tmp_path, monkeypatch, algorithm):
    """13 pairs leave 5 in the last batch of 8: five processes get one each, a sixth would have none to compare."""
    trainer = trainer_of(inputs, tmp_path, algorithm)
    for processes in (1, 2, 5):
        monkeypatch.setattr(offline, "world", lambda processes=processes: processes)
        trainer.require_a_share_for_all()
    monkeypatch.setattr(offline, "world", lambda: 6)
    with pytest.raises(StageError, match="the last batch has 5 examples, too few for 6 processes"):
        trainer.require_a_share_for_all()
    trainer_of(inputs, tmp_path, "dpo", beta=0.1).require_a_share_for_all()


@pytest.mark.parametrize("algorithm", ["kto", "bco"])
def test_resuming_after_an_interruption_gives_the_same_weights_bitwise(inputs, make_context, monkeypatch, algorithm):
    config = {"algorithm": algorithm, "seed": 3, "parameters": {**PARAMETERS, "epochs": 3}}
    given = needed(algorithm, inputs)
    whole = make_context("whole", config, given)
    train_preference(whole, Cadence())
    save = OfflineTrainer._save_checkpoint

    def interrupt(self, model, trial):
        save(self, model, trial)
        raise KeyboardInterrupt

    first = make_context("first", config, given)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(OfflineTrainer, "_save_checkpoint", interrupt)
        train_preference(first, Cadence(steps=3))
    again = make_context("again", config, given, previous_work=[first.work])
    train_preference(again, Cadence())
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (whole.output, again.output))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert (whole.output / "history.jsonl").read_text() == (again.output / "history.jsonl").read_text()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_stopped_step_leaves_no_trace_in_the_running_mean(inputs, make_context, monkeypatch, bad):
    """BCO's delta has taken in the batch, or what a broken policy said of it, by the time that the step is given up."""
    config = {"algorithm": "bco", "seed": 3, "parameters": {**PARAMETERS, "epochs": 3}}
    given = needed("bco", inputs)
    whole = make_context("whole", config, given)
    train_preference(whole, Cadence())
    stopped, steps = make_context("stopped", config, given), iter(range(1, 100))
    columns, clip = RunningShift.columns, OfflineTrainer._clip_grad_norm

    def broken(self, *batch):
        if next(steps) == 4 and math.isnan(bad):
            self.state["sum"] *= bad
        return columns(self, *batch)

    def clipped(self, model):
        if self.state.global_step == 3 and math.isinf(bad):
            self.require_finite("gradient norm", bad, self._batch_rows)
        return clip(self, model)

    with monkeypatch.context() as patch:
        patch.setattr(RunningShift, "columns", broken)
        patch.setattr(OfflineTrainer, "_clip_grad_norm", clipped)
        with pytest.raises(StageError, match=r"is (nan|inf) at step 4.*the state before it is saved in .*checkpoint-3"):
            train_preference(stopped, Cadence(steps=3))
    state = json.loads((stopped.work / "checkpoint-3" / "coupling.json").read_text())
    assert state["completions"] == 2 * (8 + 5 + 8)
    again = make_context("again", config, given, previous_work=[stopped.work])
    train_preference(again, Cadence())
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (whole.output, again.output))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert (whole.output / "history.jsonl").read_text() == (again.output / "history.jsonl").read_text()


@pytest.mark.parametrize(("algorithm", "start"), [("kto", 0.5), ("bco", math.log(2)), ("aot", math.log(2))])
def test_a_stage_starts_at_the_known_loss_and_learns(inputs, make_context, algorithm, start):
    config = {"algorithm": algorithm, "seed": 3, "parameters": {**PARAMETERS, "epochs": 12}}
    context = make_context(algorithm, config, needed(algorithm, inputs))
    assert run(context)["rewards/accuracy"] > 0.8
    first, *_, last = map(json.loads, (context.output / "history.jsonl").read_text().splitlines())
    assert first["loss"] == pytest.approx(start, abs=1e-4)
    assert last["loss"] < first["loss"]
    if algorithm == "kto":
        assert first["kl"] == pytest.approx(0, abs=1e-4)
        assert last["kl"] >= 0
    if algorithm == "bco":
        assert first["shift"] == pytest.approx(0, abs=1e-4)
        assert last["shift"] != 0


def pairs_of(prompts: list[list[int]]) -> PairTokens:
    table = {
        "id": [str(index) for index in range(len(prompts))],
        "prompt_ids": prompts,
        "chosen_ids": [[100 + index] * (1 + index % 5) for index in range(len(prompts))],
        "rejected_ids": [[200 + index] for index in range(len(prompts))],
    }
    return PairTokens.read(_written(pa.table(table)))


def _written(table: pa.Table) -> pa.BufferReader:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return pa.BufferReader(sink.getvalue())


def test_a_mismatch_is_of_another_prompt_and_never_longer_than_the_longest_pair():
    """Also where pairs of one prompt are many: 30 of 40 have the same."""
    pairs = pairs_of([[1, 2, 3]] * 30 + [[index] * (index - 9) for index in range(10, 20)])
    others, rows = mismatched(pairs), partners(pairs)
    assert others.ids == pairs.ids
    assert others.lengths_N.max() <= pairs.lengths_N.max()
    for index, row in enumerate(rows):
        assert pairs.prompts[row].tolist() != pairs.prompts[index].tolist()
        assert np.array_equal(others.prompts[index], pairs.prompts[index])
        for side in ("chosen", "rejected"):
            whole, cut = getattr(pairs, side)[row], getattr(others, side)[index]
            assert 1 <= len(cut) <= len(whole) and set(cut.tolist()) == set(whole.tolist())
    assert np.array_equal(rows, partners(pairs))


def test_distinct_prompts_are_dealt_out_once_each():
    assert sorted(partners(pairs_of([[index] for index in range(50)])).tolist()) == list(range(50))


def test_one_prompt_has_no_mismatch():
    with pytest.raises(DataError, match="all 3 pairs have one prompt"):
        mismatched(pairs_of([[1, 2]] * 3))
