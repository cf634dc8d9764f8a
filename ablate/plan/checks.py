"""What a cell asks for that can't work however long it trains: found before anything runs."""

from __future__ import annotations

from dataclasses import replace

from ablate.catalogs.datasets import DatasetEntry, with_sample
from ablate.catalogs.licences import UNRECORDED, not_allowed
from ablate.catalogs.models import ModelEntry, Scratch
from ablate.errors import Location, SpecError, suggestion
from ablate.experiment.grid import OWN_START, Cell, place_of
from ablate.experiment.loading import LoadedExperiment
from ablate.plan.facts import Facts
from ablate.plan.needs import APPLIED, PROVIDERS


def check_cell(loaded: LoadedExperiment, facts: Facts, cell: Cell) -> None:
    """Raise SpecError for lengths beyond a model's positions and for models that must share a tokenizer and don't.

    Models on the hub and in folders say neither here; their stages check.
    """
    if cell.method.own_code is not None:
        _check_needs(loaded, cell)
    for key in ("policy", "reward_model.init", "reference"):
        made = _scratch(facts, cell, key)
        if made is not None:
            _check_pretraining(loaded, cell, made)
    if "prompts" in cell.method.needs:
        _check_rollouts(loaded, cell, _scratch(facts, cell, "policy"))
    if "reward_model" in cell.method.needs:
        _check_tokenizers(loaded, facts, cell, "reward_model.init", "the reward model starts from")
    if cell.values.get("reference", OWN_START) != OWN_START:
        _check_tokenizers(loaded, facts, cell, "reference", "the reference is")


def _check_needs(loaded: LoadedExperiment, cell: Cell) -> None:
    """Raise SpecError where a researcher's own method needs what nobody provides, or lacks what that is made by."""
    method, place = cell.method, place_of(loaded, cell.block, "algorithm")
    for need in method.needs:
        if need not in PROVIDERS:
            hint = suggestion(need, PROVIDERS)
            raise SpecError(f"{method.title} needs {need!r}, which nothing provides", location=place, hint=hint)
        for name in APPLIED.get(need, ()):
            if name not in method.parameters.model_fields:
                raise SpecError(
                    f"{method.title} needs {need!r}, and its parameters have no {name!r}, by which that is made",
                    location=place,
                )


def check_embedded(loaded: LoadedExperiment, facts: Facts, entry: DatasetEntry, place: Location) -> None:
    """Raise DataError at ``place``, where a set is named, when ``data.embedded`` asks for a sample that it has not."""
    if loaded.experiment.data.embedded and entry.format == "preference":
        known = {name: named for name, named in facts.datasets.items() if isinstance(named, DatasetEntry)}
        with_sample(entry, known, place)


def check_licence(loaded: LoadedExperiment, entry: DatasetEntry, place: Location) -> None:
    """Raise SpecError at ``place``, where a set is named, when ``data.allow_licences`` does not allow its licences."""
    allowed = loaded.experiment.data.allow_licences
    refused = [] if allowed is None else not_allowed(entry.licence, allowed)
    if allowed is None or not refused:
        return
    note = f" ({entry.licence_note})" if entry.licence_note else ""
    hint = f"allowed: {', '.join(allowed)}"
    if UNRECORDED in refused:
        hint += f"; find out what its licence is, or allow {UNRECORDED} by that name"
    raise SpecError(
        f"the licence of {entry.name!r} is {', '.join(entry.licence)}{note}; data.allow_licences "
        f"({replace(loaded.origins.locate('data', 'allow_licences'), key=None)}) does not allow {', '.join(refused)}",
        location=place,
        hint=hint,
    )


def _scratch(facts: Facts, cell: Cell, key: str) -> Scratch | None:
    entry = facts.models.get(str(cell.values.get(key)))
    return entry.scratch if entry else None


def _check_pretraining(loaded: LoadedExperiment, cell: Cell, made: Scratch) -> None:
    written, positions = cell.values.get("pretrain.max_length"), made.architecture.max_positions
    if isinstance(written, int) and written > positions:
        raise SpecError(
            f"max_length {written} is more than the {positions} positions of the model",
            location=place_of(loaded, cell.block, "pretrain.max_length"),
            hint=f"allowed: 8 to {positions}",
        )


def _check_rollouts(loaded: LoadedExperiment, cell: Cell, policy: Scratch | None) -> None:
    """A rollout starts with a prompt of up to ``max_prompt_length`` tokens: what is longer is dropped, not cut."""
    name, names = cell.method.name, ("max_prompt_length", "max_response_length")
    fields = cell.method.parameters.model_fields
    prompt, response = (int(cell.values.get(f"{name}.{key}", fields[key].default)) for key in names)
    if policy is None or prompt + response <= policy.architecture.max_positions:
        return
    positions = policy.architecture.max_positions
    allowed = f"set {name}.max_prompt_length to at most {positions - response}, or lower {name}.max_response_length"
    raise SpecError(
        f"max_prompt_length {prompt} and max_response_length {response} need {prompt + response} positions; "
        f"{cell.values['policy']} has {positions}",
        location=place_of(loaded, cell.block, f"{name}.max_response_length"),
        hint=allowed if response < positions else f"lower both, {name}.max_response_length to below {positions}",
    )


def _check_tokenizers(loaded: LoadedExperiment, facts: Facts, cell: Cell, key: str, role: str) -> None:
    policy, other = _scratch(facts, cell, "policy"), _scratch(facts, cell, key)
    if policy is None or other is None or _tokenizer(policy) == _tokenizer(other):
        return
    alike = [name for name, entry in facts.models.items() if _shares_tokenizer(entry, policy)]
    raise SpecError(
        f"{role} {cell.values[key]}, whose tokenizer is not that of the policy, {cell.values['policy']}",
        location=place_of(loaded, cell.block, key),
        hint=f"allowed: {', '.join(sorted(alike))}",
    )


def _tokenizer(made: Scratch) -> tuple[object, str]:
    return made.tokenizer, made.corpus


def _shares_tokenizer(entry: ModelEntry, policy: Scratch) -> bool:
    return entry.scratch is not None and _tokenizer(entry.scratch) == _tokenizer(policy)
