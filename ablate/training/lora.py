"""Low-rank adapters: which weights a stage trains, the frozen model under them, and what is published.

Adapters are injected into a model in place (peft), so that every forward pass of ours stays as it is. The frozen model
is the same object with its adapter off: a reference, or a reward model beside its value network, costs no second copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from ablate.catalogs.parameters import ALL_LINEAR, OptimiserParameters
from ablate.context import StageContext
from ablate.errors import StageError, suggestion
from ablate.models.loading import load_policy, save_model
from ablate.models.quantisation import dense, is_quantised
from ablate.training.distributed import is_main
from ablate.training.seeding import derive_seed

ADAPTER = "default"
HEAD = "score"
"""The scalar head of a reward model or value network: a fresh layer, which is trained whole beside an adapter."""


def with_adapter(model: PreTrainedModel, parameters: OptimiserParameters, seed: int) -> PreTrainedModel:
    """Return ``model``, trained as a whole, or frozen under a new adapter where the parameters give a rank.

    A new adapter changes no output: its second factor is 0, its first is drawn from ``seed``. Raises StageError where
    a layer named by ``lora_targets`` is not one of the model's linear layers.
    """
    if parameters.lora_rank is None:
        return model
    head = getattr(model, HEAD, None)
    config = LoraConfig(
        r=parameters.lora_rank,
        lora_alpha=parameters.lora_alpha,
        target_modules=_targets(model, parameters.lora_targets),
        modules_to_save=None if head is None else [HEAD],
        task_type="CAUSAL_LM" if head is None else "SEQ_CLS",
    )
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "adapter"))
        inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    if is_quantised(model):  # whose adapter peft makes in the type that four bits are multiplied in
        for value in trained_weights(model).values():
            value.data = value.data.float()
    model._hf_peft_config_loaded = is_quantised(model)  # else the Trainer refuses weights that can't be trained
    if head is not None:  # which peft leaves to its own wrapper of models
        wrapper = ModulesToSaveWrapper(head, ADAPTER)  # type: ignore[no-untyped-call]
        wrapper.modules_to_save.requires_grad_(True)
        setattr(model, HEAD, wrapper)
    return model


def tuned_policy(context: StageContext, parameters: OptimiserParameters, *, role: str = "policy") -> PreTrainedModel:
    """Load the policy that a stage trains from its input ``role``, under an adapter where the parameters say so."""
    policy = load_policy(context.inputs[role], quantisation=parameters.quantisation)
    return with_adapter(policy, parameters, int(context.config["seed"]))


def has_adapter(model: nn.Module) -> bool:
    """Return whether the model is frozen under an adapter."""
    return hasattr(model, "peft_config")


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Make the model the frozen one that its adapter was put on, head included, for the duration of the block."""
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer | ModulesToSaveWrapper)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


class FrozenBase(nn.Module):
    """The model under an adapter as a model of its own, without parameters of its own: moving it moves nothing."""

    def __init__(self, adapted: nn.Module) -> None:
        super().__init__()
        self._adapted = (adapted,)  # in a tuple, so that it does not become a part of this module

    @property
    def adapted(self) -> nn.Module:
        """The model with its adapter."""
        return self._adapted[0]

    def forward(self, **inputs: Any) -> Any:
        """Return what the frozen model makes of the inputs."""
        with adapter_off(self._adapted[0]):
            return self._adapted[0](**inputs)


def with_adapter_off(model: nn.Module, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return ``function``, during whose calls the adapter of ``model`` is off."""

    def call(*arguments: Any, **named: Any) -> Tensor:
        with adapter_off(model):
            return function(*arguments, **named)

    return call


def trained_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that gradient steps change."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


@torch.no_grad()
def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of the model as an ordinary one, an adapter's update added, one tensor at a time."""
    updated = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    for name, value in model.named_parameters():
        layer: Any = updated.get(name.removesuffix(".base_layer.weight"))
        if layer is not None and name.endswith(".base_layer.weight"):
            yield name.replace(".base_layer.", "."), value + layer.get_delta_weight(ADAPTER)
        elif ".lora_" not in name and ".original_module." not in name:
            plain = name.replace(".base_layer.", ".").replace(f".modules_to_save.{ADAPTER}.", ".")
            yield plain, value.detach()


def publish(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write an ordinary model folder; an adapter is merged into it, and lies in peft's form in ``adapter/`` beside it.

    The model has no adapter any more afterwards. Of several processes the main one does it: it alone has all weights.
    """
    if is_main():
        settle(model, folder.parent)
        save_model(model, tokenizer, folder)


def settle(model: PreTrainedModel, output: Path) -> None:
    """Make the model an ordinary one: an adapter is written to ``output/adapter/`` and merged."""
    if has_adapter(model):
        _save_adapter(model, output / "adapter")
        _merge(model)


def save_trained(model: nn.Module, path: Path) -> None:
    """Write the trained weights of a partly frozen model to a safetensors file."""
    save_file({name: value.detach().contiguous() for name, value in trained_weights(model).items()}, path)


@torch.no_grad()
def load_trained(model: nn.Module, path: Path) -> None:
    """Restore what ``save_trained`` wrote; raises StageError when it was another adapter's."""
    weights, own = load_file(path), trained_weights(model)
    if weights.keys() != own.keys():
        raise StageError(f"{path} is of another adapter; remove this checkpoint")
    for name, value in own.items():
        value.copy_(weights[name])


def _targets(model: PreTrainedModel, written: str) -> list[str] | str:
    if written == ALL_LINEAR:
        return ALL_LINEAR
    names = [name.strip() for name in written.split(",")]
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    known = sorted({name.rpartition(".")[2] for name in linear})
    for name in names:
        if not any(layer == name or layer.endswith(f".{name}") for layer in linear):
            raise StageError(
                f"lora_targets: {type(model).__name__} has no linear layer {name!r}", hint=suggestion(name, known)
            )
    return names


def _save_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Write what ``PeftModel.from_pretrained(base, folder)`` reads."""
    weights = {
        "base_model.model." + name.replace(f".{ADAPTER}.", ".").replace(".modules_to_save.", "."): value
        for name, value in trained_weights(model).items()
    }
    folder.mkdir(parents=True)
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in weights.items()},
        folder / "adapter_model.safetensors",
    )
    config: Any = model.peft_config[ADAPTER]
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    config.base_model_name_or_path = None
    config.save_pretrained(str(folder))


@torch.no_grad()
def _merge(model: PreTrainedModel) -> None:
    """Put every layer back into its place and add its update; weights of four bits become those they stand for."""
    kinds = LoraLayer | ModulesToSaveWrapper
    layers: list[tuple[str, Any]] = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds)]
    updates: dict[str, Tensor] = {}
    for name, layer in layers:
        parent, _, place = name.rpartition(".")
        if isinstance(layer, ModulesToSaveWrapper):
            own = layer.modules_to_save[ADAPTER]
        else:
            updates[name] = layer.get_delta_weight(ADAPTER)
            own = layer.get_base_layer()
        setattr(model.get_submodule(parent), place, own)
    del model.peft_config
    model._hf_peft_config_loaded = False
    if is_quantised(model):
        dense(model)
    for name, update in updates.items():
        weight = model.get_parameter(f"{name}.weight")
        weight.add_(update.to(weight.device))
    model.requires_grad_(True)
