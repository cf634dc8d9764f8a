"""What a plan reads: every dataset, what it is used for, where it comes from and under which licence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from ablate.algorithms.registry import METHODS
from ablate.plan.graph import children_of
from ablate.plan.sets import NamedSet, Pipeline
from ablate.plan.stage import Stage

ROLES = {
    "train": "preferences",
    "reference_logprobs": "preferences",
    "reward_model": "reward model",
    "sft": "SFT",
    "tokenizer": "pretraining",
    "pretrain": "pretraining",
}
"""What a set is used for, by the kind of the stage that trains on it."""
OF_PROMPTS = ("prompts", "selection")
"""Roles in which only the prompts of a set count: for rollouts, or to cut another set to them."""


def describe_data(stages: Mapping[str, Stage], sets: Mapping[str, Mapping[str, NamedSet]]) -> Iterator[dict[str, Any]]:
    """Yield, for every stage that makes sets and each of them, what tables say of it; uses of prompts alone are apart.

    ``sets``: id of a stage to the sets by the names that the experiment calls them. ``used_by`` names, for every role,
    the stages that use the set in it.
    """
    children = children_of(stage for stage in stages.values() if stage.kind != "evaluate")  # which reads no sets
    for stage_id, entries in sets.items():
        uses = list(_uses(stages, children, stage_id))
        roles = list(dict.fromkeys(role for role, _ in uses))
        whole = [role for role in roles if role not in OF_PROMPTS]
        for own in filter(None, (whole, *([role] for role in roles if role in OF_PROMPTS))):
            for name, entry in entries.items():
                yield {
                    "name": name,
                    "title": entry.shown_title,
                    "roles": own,
                    "used_by": {role: sorted({user for use, user in uses if use == role}) for role in own},
                    "stage": stage_id,
                    "label_kind": entry.label_kind,
                    "licence": list(entry.licence),
                    "licence_note": entry.licence_note,
                    "revision": _revision(entry, _files(stages, stage_id)),
                }


def _uses(stages: Mapping[str, Stage], children: Mapping[str, list[str]], stage_id: str) -> Iterator[tuple[str, str]]:
    """Yield the roles of a stage's rows and whose they are, followed through the stages that hand them on."""
    for child in (stages[other] for other in children.get(stage_id, ())):
        given_as = {role for role, ref in child.identity.inputs if ref.stage == stage_id}
        if "only_prompts" in given_as:
            yield "selection", child.id
        elif "prompt_texts" in given_as:
            yield "prompts", child.id
        elif child.kind in ROLES:
            yield _role(child), child.id
        elif _takes_prompts(child):
            yield "prompts", child.id
        else:
            yield from _uses(stages, children, child.id)


def _role(stage: Stage) -> str:
    """Return what a stage that trains uses its data for; a method that learns from answers uses them for SFT."""
    name = stage.identity.config.value.get("algorithm")
    return "SFT" if name in METHODS and "instruction" in METHODS[name].formats else ROLES[stage.kind]


def _takes_prompts(stage: Stage) -> bool:
    return stage.kind == "respond" or (stage.kind == "tokenise" and stage.identity.config.value["format"] == "prompts")


def _files(stages: Mapping[str, Stage], stage_id: str) -> Mapping[str, str]:
    """Return the files that a stage's rows were read from, name to sha256; a set cut to size has those of the whole."""
    identity = stages[stage_id].identity
    whole = dict(identity.inputs).get("data")
    if identity.kind == "match" and whole is not None:
        return _files(stages, whole.stage)
    files: Mapping[str, str] = identity.config.value.get("files") or {}
    return files


def _revision(named: NamedSet, files: Mapping[str, str]) -> str:
    """Return the commit of a hub's set, ``embedded``, or the first digits of a sha256 of files or of their digests.

    What several stages make is ``made here``.
    """
    if isinstance(named, Pipeline):
        return "made here"
    hub = named.source.hub
    if hub is not None and hub.revision is not None:
        return hub.revision
    if not files:
        return "embedded"
    digests = list(files.values())
    if len(digests) > 1:
        lines = "".join(f"{name}\0{digest}\n" for name, digest in sorted(files.items()))
        digests = [hashlib.sha256(lines.encode()).hexdigest()]
    return f"sha256 {digests[0][:12]}"
