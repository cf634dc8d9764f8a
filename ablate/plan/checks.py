"""What a cell asks for that can't work however long it trains: found before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ablate.algorithms.base import Method
from ablate.algorithms.registry import METHODS
from ablate.algorithms.reward_model import TOKENS_OF_LOSS, RewardModelParameters, attribute_weights
from ablate.algorithms.steerlm import attributes_of
from ablate.catalogs.datasets import DatasetEntry, with_sample
from ablate.catalogs.judges import JudgeName
from ablate.catalogs.licences import UNRECORDED, not_allowed
from ablate.catalogs.models import ModelEntry, Scratch
from ablate.catalogs.rewards import REWARD_MODEL, REWARDS, RewardEntry, find_reward
from ablate.errors import Location, SpecError, suggestion
from ablate.experiment.chains import Chain, Merged, Trained, chains_in, root_of
from ablate.experiment.grid import OWN_START, Cell, Grid, own_rounds, place_of
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.sections import SECTIONS
from ablate.plan.facts import Facts
from ablate.plan.needs import NEEDS, Need
from ablate.plan.sets import NamedSet, Pipeline, checks_of, entries_of, without_scores

Locate = Callable[[str], Location]
"""Where a cell's value of a key was written."""


def check_cell(facts: Facts, cell: Cell, find: Locate) -> None:
    """Raise SpecError for lengths beyond a model's positions, and for models that can't do what they are needed for.

    Those are models that must share a tokenizer and don't, and a reward model that gives single responses no score.

    So for a set that the method can't learn from, for more rounds than it has and for models of a merge that differ.
    Models on the hub and in folders say neither length nor tokenizer here; their stages check. ``find`` says where keys
    of the cell are written.
    """
    if cell.method.own_code is not None:
        check_needs(cell.method, find("algorithm"))
    _check_learning(facts, cell, find)
    for chain in chains_in(cell.policy):
        if isinstance(chain, Merged):
            _check_merge(facts, chain)
    for key in ("policy", "reward_model.init", "reference"):
        made = _scratch(facts, cell, key)
        if made is not None:
            _check_pretraining(cell, made, find)
    if "prompts" in cell.method.axes:
        for entry in entries_of(facts.dataset(str(cell.values["prompts"]))):
            check_disjoint(facts, entry, find("prompts"))
    if "prompts" in cell.method.needs:
        _check_rollouts(cell, _scratch(facts, cell, "policy"), find)
    if cell.method.judge is not None and "prompts" in cell.values:
        _check_verifier(facts, cell, find)
        _check_annotator(cell, find)
        _check_win_rate(facts, cell, find)
    if "conditioned_answers" in cell.method.needs:
        _check_attributes(cell, find)
    if "prompts" in cell.method.needs:
        _check_condition(cell, find)
    if cell.has_reward_model:
        loss, learnt = cell.values.get("reward_model.loss"), str(cell.values["reward_model.dataset"])
        check_margins(facts, loss, learnt, find("reward_model.loss"))
    if cell.has_reward_model and cell.method.entry:
        _check_loss(cell, find)
        _check_tokenizers(facts, cell, find, "reward_model.init", "the reward model starts from")
    if cell.values.get("reference", OWN_START) != OWN_START:
        _check_tokenizers(facts, cell, find, "reference", "the reference is")


def _check_learning(facts: Facts, cell: Cell, locate: Locate) -> None:
    method = cell.method
    if "dataset" in method.reads and not cell.scored_without_model:
        named = facts.dataset(str(cell.values["dataset"]), locate("dataset"))
        if named.format not in method.formats:
            wanted = f"dataset needs a set of {' or '.join(method.formats)} data"
            hint = f"{method.title} can't learn from any other"
            raise SpecError(
                f"{named.name!r} holds {named.format} data; {wanted}", location=locate("dataset"), hint=hint
            )
    if method.rounds is not None:
        most = own_rounds(method, cell.values)
        if cell.rounds > most:
            raise SpecError(
                f"{method.title} has {most} rounds, {method.name}.{method.rounds}; {cell.rounds} are asked for",
                location=locate("rounds"),
            )


def _check_merge(facts: Facts, merge: Merged) -> None:
    roots = [facts.models.get(root_of(policy)) for policy in merge.policies]
    made = [entry.scratch for entry in roots if entry is not None and entry.scratch is not None]
    for index, other in enumerate(made[1:], start=1):
        shape, tokenizer = other.architecture == made[0].architecture, _tokenizer(other) == _tokenizer(made[0])
        if not (shape and tokenizer):
            what = "tokenizer" if shape else "shape"
            first, second = root_of(merge.policies[0]), root_of(merge.policies[index])
            raise SpecError(
                f"the models of a merge have one {what}; that of {second} is not that of {first}",
                location=merge.origins.locate("merge", index),
            )


def check_adapters(loaded: LoadedExperiment, grid: Grid) -> None:
    """Raise SpecError for a key of an adapter in a section where no cell has one: it would say nothing."""
    for key in (*grid.fixed, *grid.axes):
        section, _, name = key.partition(".")
        readers = [cell for cell in grid.cells if key in cell.values]
        if not name.startswith("lora_") or not readers:
            continue
        default = SECTIONS[section].model_fields[name].default
        said = [cell for cell in readers if cell.values[key] != default]
        if said and all(cell.values.get(f"{section}.lora_rank") is None for cell in readers):
            raise SpecError(
                f"{key} describes an adapter, and no cell has one",
                location=place_of(loaded, readers[0].block, key),
                hint=f"set {section}.lora_rank, or leave {name} out",
            )


def _check_loss(cell: Cell, locate: Locate) -> None:
    """Raise SpecError where a method scores responses with a model that compares two and scores none."""
    annotates = cell.method.leaves_pairs and cell.values.get("annotator") == REWARD_MODEL
    if cell.values.get("reward_model.loss") == "pairwise" and not annotates:
        raise SpecError(
            f"a reward model with loss pairwise compares two responses, and {cell.method.title} needs a score of each",
            location=locate("reward_model.loss"),
            hint=f"allowed for it: {', '.join(loss for loss in TOKENS_OF_LOSS if loss != 'pairwise')}; pairwise serves "
            "algorithm reward_modelling, suites of pairs, labels, and online pairs as annotator",
        )


def check_margins(facts: Facts, loss: Any, dataset: str, place: Location) -> None:
    """Raise SpecError at ``place`` where a reward model with loss margin would learn from pairs without score gaps."""
    ranked = list(without_scores(facts.dataset(dataset))) if loss == "margin" else []
    if ranked:
        entries = (entry for entry in facts.datasets.values() if entry.format == "preference")
        scored = [entry.name for entry in entries if not any(without_scores(entry))]
        raise SpecError(
            f"loss margin reads the score gap of every pair, and {ranked[0]!r} says which response is better, not by "
            "how much",
            location=place,
            hint=f"allowed as the reward model's dataset: {', '.join(scored)}; or label the set anew",
        )


def _check_attributes(cell: Cell, locate: Locate) -> None:
    """Raise SpecError where what rates responses is not trained to: it has no heads, or one that nothing has taught."""
    values, method = cell.values, cell.method
    loss = values.get("reward_model.loss", RewardModelParameters.model_fields["loss"].default)
    if loss != "attributes":
        raise SpecError(
            f"{method.title} writes ratings of attributes into prompts, and a reward model with loss {loss} gives none",
            location=locate("reward_model.loss"),
            hint="set reward_model.loss: attributes",
        )
    condition = values.get(f"{method.name}.condition", method.parameters.model_fields["condition"].default)
    written = values.get("reward_model.attributes", RewardModelParameters.model_fields["attributes"].default)
    weights = {name for name, weight in attribute_weights(str(written)).items() if weight}
    lacking = [name for name in attributes_of(str(condition)) if name not in weights]
    if lacking:
        raise SpecError(
            f"the condition has {', '.join(lacking)}, without a weight in reward_model.attributes: such a head may "
            "never have seen a rating",
            location=locate(f"{method.name}.condition"),
            hint=f"attributes with a weight: {', '.join(sorted(weights))}",
        )


def _check_condition(cell: Cell, locate: Locate) -> None:
    """Raise SpecError where a model that knows no conditions would read the tokens of a policy that has them."""
    steered = [chain for chain in chains_in(cell.policy) if isinstance(chain, Trained) and _is_steered(chain)]
    other = cell.values.get("reference", OWN_START) != OWN_START
    if steered and (cell.has_reward_model or other):
        what = "reward model" if cell.has_reward_model else "reference"
        raise SpecError(
            f"the policy {steered[0].shown} has a condition in every prompt, which the {what} of {cell.method.title} "
            "would read as a part of the conversation",
            location=locate("policy"),
            hint="let a formula or a verifier score the responses, or start from another policy",
        )


def _is_steered(chain: Trained) -> bool:
    method = METHODS.get(str(chain.written.get("algorithm")))
    return method is not None and method.conditions_prompts


def check_needs(method: Method, place: Location) -> None:
    """Raise SpecError where a researcher's own method needs what nobody provides, or lacks what that is made by."""
    for number, name in enumerate(method.needs):
        if name not in NEEDS:
            hint = suggestion(name, NEEDS)
            raise SpecError(f"{method.title} needs {name!r}, which nothing provides", location=place, hint=hint)
        lack = _lack(method, NEEDS[name], method.needs[:number])
        if lack is not None:
            raise SpecError(f"{method.title} needs {name!r}, and {lack[0]}", location=place, hint=lack[1])


def _lack(method: Method, need: Need, before: tuple[str, ...]) -> tuple[str, str | None] | None:
    """Return what a method lacks for one of its needs, with what to do; None: nothing. ``before``: those before it."""
    missing = [name for name in need.parameters if name not in method.parameters.model_fields]
    if missing:
        return f"its parameters have no {missing[0]!r}, by which that is made", None
    unread = [axis for axis in need.axes if axis not in method.axes]
    if unread:
        return f"it does not read {unread[0]!r}", f"add {unread[0]!r} to its reads"
    if need.judge is not None and (method.judge or "") != need.judge:
        return f"its judge is {method.judge}", f"write judge={need.judge or None!r}"
    if need.rounds is not None and method.rounds != need.rounds:
        return f"its rounds are {method.rounds}", f"write rounds={need.rounds!r}"
    if need.of is not None and need.of not in before:
        return f"{need.of!r} does not stand before it in its needs", None
    later = [name for name in need.after if name in method.needs and name not in before]
    if later:
        return f"{later[0]!r} does not stand before it in its needs", None
    others = [name for name in before if need.is_data and NEEDS[name].is_data]
    if others:
        return f"{others[0]!r} as well: both are its data", None
    return None


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
    value = cell.values.get(key)
    entry = facts.models.get(root_of(value) if isinstance(value, Chain) else str(value))
    return entry.scratch if entry else None


def _check_pretraining(cell: Cell, made: Scratch, locate: Locate) -> None:
    written, positions = cell.values.get("pretrain.max_length"), made.architecture.max_positions
    if isinstance(written, int) and written > positions:
        raise SpecError(
            f"max_length {written} is more than the {positions} positions of the model",
            location=locate("pretrain.max_length"),
            hint=f"allowed: 8 to {positions}",
        )


def _check_rollouts(cell: Cell, policy: Scratch | None, locate: Locate) -> None:
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
        location=locate(f"{name}.max_response_length"),
        hint=allowed if response < positions else f"lower both, {name}.max_response_length to below {positions}",
    )


def _check_verifier(facts: Facts, cell: Cell, locate: Locate) -> None:
    """A verifier reads facts of each prompt, which the prompts' set must carry."""
    judge = str(cell.method.judge)
    named = facts.dataset(str(cell.values["prompts"]))
    name = cell.values[judge]
    assert isinstance(name, str)
    _check_facts(facts, find_reward(name), f"the {judge}", [named], locate("prompts"))


def check_label(facts: Facts, named: NamedSet) -> None:
    """Raise SpecError where a set is labelled by a verifier, and the prompts of its rows carry nothing to verify."""
    label = named.variant.label if isinstance(named, Pipeline) else None
    if isinstance(named, Pipeline) and label is not None and label.by is not None and label.by.reward is not None:
        place = named.origins.locate("label", "by", "reward")
        _check_facts(facts, find_reward(label.by.reward), "the reward", named.parts, place)
    for part in named.parts if isinstance(named, Pipeline) else ():
        check_label(facts, part)


def _check_facts(facts: Facts, reward: RewardEntry, what: str, sets: Iterable[NamedSet], place: Location) -> None:
    verifier = reward.verifier
    if verifier is None:
        return
    carried = (item for named in sets for item in checks_of(named).items())
    lacking = [part for part, checks in carried if checks != verifier.checks]
    if not lacking:
        return
    entries = (found for found in facts.datasets.values() if isinstance(found, DatasetEntry))
    known = [entry.name for entry in entries if entry.checks == verifier.checks]
    raise SpecError(
        f"{what} {reward.name} reads {_FACTS[verifier.checks]}, which the prompts of {lacking[0]!r} do not carry",
        location=place,
        hint=f"allowed as prompts: {', '.join(known) or 'none of the catalog'}; or a set of your own, with "
        f"converter: verifiable_prompts, converter_options: {{checks: {verifier.checks}}}",
    )


def _check_annotator(cell: Cell, locate: Locate) -> None:
    """A reward model as annotator: its labels were spent on its own training, and it has none for a copy of itself."""
    method = cell.method
    if method.judge != "annotator" or cell.values["annotator"] != REWARD_MODEL:
        return
    formulas = ", ".join(name for name, entry in REWARDS.items() if entry.entry)
    if cell.values.get(budget := f"{method.name}.label_budget") is not None:
        raise SpecError(
            "label_budget counts what the annotator is asked, and a reward model costs no label here: its own were "
            "spent on its training",
            location=locate(budget),
            hint=f"leave {budget} out ({method.name}.steps says how long it trains), or name another annotator: "
            f"{formulas}",
        )
    if method.reward_model_if is None:
        return
    name, start = method.reward_model_if
    if cell.values.get(f"{method.name}.{name}", method.parameters.model_fields[name].default) == start:
        raise SpecError(
            f"the annotator and the {name} of {method.title} are the same reward model: its gold labels are those it "
            "gives itself",
            location=locate(f"{method.name}.{name}"),
            hint=f"set {method.name}.{name}: sft, or name another annotator: {formulas}",
        )


def _check_win_rate(facts: Facts, cell: Cell, locate: Locate) -> None:
    """Raise SpecError where nothing would say who wins: a judge is not asked beside what is learnt from."""
    key, judge = f"{cell.method.name}.win_rate_every", cell.values[str(cell.method.judge)]
    compares = judge == REWARD_MODEL and cell.values.get("reward_model.loss") == "pairwise"
    if cell.values.get(key) is None or not (isinstance(judge, JudgeName) or compares):
        return
    if set(checks_of(facts.dataset(str(cell.values["prompts"]))).values()) != {"pocket"}:
        who = "a model that compares the responses to a prompt" if compares else f"a judge ({judge})"
        raise SpecError(
            f"{who} is asked about those that are learnt from, not for a win rate",
            location=locate(key),
            hint=f"leave {key} out; the gold reward would say it where prompts are items of the pocket world",
        )


_FACTS = {
    "pocket": "the item of each prompt",
    "answer": "the answer to each prompt",
    "ifeval": "the instructions of each prompt that can be checked",
    "tests": "the unit tests of each prompt",
}


def check_disjoint(facts: Facts, entry: DatasetEntry, place: Location) -> None:
    """Raise SpecError at ``place``, where prompts to train on are named, when a suite tests on them."""
    pocket = entry.source.pocket
    read = [f"the {pocket.split} split of the pocket world"] if pocket else sorted(entry.source.names())
    shared = next((name for name in read if name in facts.tested), None)
    if shared is not None:
        raise SpecError(
            f"the prompts of {entry.name!r} are those of {shared}, on which the suite {facts.tested[shared]!r} tests",
            location=place,
            hint="train on prompts of a training split: a policy that saw the test can't be measured by it",
        )


def _check_tokenizers(facts: Facts, cell: Cell, locate: Locate, key: str, role: str) -> None:
    policy, other = _scratch(facts, cell, "policy"), _scratch(facts, cell, key)
    if policy is None or other is None or _tokenizer(policy) == _tokenizer(other):
        return
    alike = [name for name, entry in facts.models.items() if _shares_tokenizer(entry, policy)]
    raise SpecError(
        f"{role} {cell.values[key]}, whose tokenizer is not that of the policy, {cell.values['policy']}",
        location=locate(key),
        hint=f"allowed: {', '.join(sorted(alike))}",
    )


def _tokenizer(made: Scratch) -> tuple[object, str]:
    return made.tokenizer, made.corpus


def _shares_tokenizer(entry: ModelEntry, policy: Scratch) -> bool:
    return entry.scratch is not None and _tokenizer(entry.scratch) == _tokenizer(policy)
