"""Fine-tuning on chosen completions: TRL's loss type sft, every micro-batch, and the stage resumed."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from ablate.algorithms.sft_chosen import ChosenParameters
from ablate.models.loading import load_policy, load_tokenizer
from ablate.training.checkpoints import Cadence
from ablate.training.chosen import ChosenCollator, run
from ablate.training.collate import PairTokens
from ablate.training.history import History
from ablate.training.offline import OfflineTrainer
from ablate.training.sft import NextTokenObjective
from ablate.training.trainer import TrainingRun

CONFIG = {"seed": 3, "parameters": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3}}


@pytest.mark.filterwarnings("ignore")
def test_loss_and_gradients_equal_those_of_trl(policy_folder, write_pairs, tmp_path):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    data, rows, ours = write_pairs(12), list(range(12)), load_policy(policy_folder)
    loss_N, _ = NextTokenObjective()(ours, ChosenCollator(PairTokens.read(data), pad_id=0)(rows))
    loss_N.mean().backward()
    turns = {"prompt": [{"role": "user", "content": "w1"}], "chosen": [{"role": "assistant", "content": "w2"}]}
    turns["rejected"] = [{"role": "assistant", "content": "w3"}]
    args = {"use_cpu": True, "bf16": False, "report_to": "none", "gradient_checkpointing": False}
    theirs = DPOTrainer(
        model=load_policy(policy_folder),
        ref_model=load_policy(policy_folder),
        args=DPOConfig(output_dir=str(tmp_path / "trl"), loss_type="sft", **args),
        processing_class=load_tokenizer(policy_folder),
        train_dataset=Dataset.from_list([turns] * 4),
    )
    expected = theirs.compute_loss(
        theirs.model, DataCollatorForPreference(pad_token_id=0)(pq.read_table(data).to_pylist())
    )
    expected.backward()
    assert loss_N.mean().item() == pytest.approx(expected.item(), abs=1e-5)
    for one, other in zip(ours.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_accumulating_8_times_1_equals_1_times_8(policy_folder, write_pairs, tmp_path):
    """The mean is over the tokens of the batch, however they are spread over micro-batches."""
    pairs, models = PairTokens.read(write_pairs(13)), []
    parameters = ChosenParameters.model_validate(CONFIG["parameters"])
    for micro_batch in (1, 8):
        plan = TrainingRun(3, tmp_path / str(micro_batch), History(), Cadence(), micro_batch=micro_batch)
        collator = ChosenCollator(pairs, pad_id=0)
        model = load_policy(policy_folder)
        OfflineTrainer(model, NextTokenObjective(), pairs, collator, parameters, plan).fit()
        models.append(model)
    for one, other in zip(*(model.state_dict().values() for model in models), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6)  # four steps of up to 1e-3


def test_resuming_after_an_interruption_gives_the_same_weights_bitwise(
    policy_folder, write_pairs, make_context, monkeypatch
):
    inputs = {"policy": policy_folder, "data": write_pairs(13)}
    whole, first = (make_context(name, CONFIG, inputs) for name in ("whole", "first"))
    run(whole, cadence=Cadence())
    save = OfflineTrainer._save_checkpoint

    def interrupt(self, model, trial):
        save(self, model, trial)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(OfflineTrainer, "_save_checkpoint", interrupt)
        run(first, cadence=Cadence(steps=3))
    again = make_context("again", CONFIG, inputs, previous_work=[first.work])
    run(again, cadence=Cadence())
    one, other = (load_file(context.output / "model" / "model.safetensors") for context in (whole, again))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_an_adapter_leaves_all_but_its_layers_as_they_were(policy_folder, write_pairs, make_context):
    config = {"seed": 3, "parameters": {**CONFIG["parameters"], "lora_rank": 2}}
    context = make_context("adapter", config, {"policy": policy_folder, "data": write_pairs(13)})
    run(context)
    before, after = load_policy(policy_folder).state_dict(), load_file(context.output / "model" / "model.safetensors")
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed and all("proj" in name for name in changed)
