"""Policies that other cells make: what ``policy: {from: …}`` and ``policy: {merge: […]}`` say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from ablate.algorithms.registry import METHODS, find_method
from ablate.catalogs.closed import Closed, validated
from ablate.catalogs.origins import Origins
from ablate.errors import Location, SpecError
from ablate.experiment.sections import Scalar

ROUNDING = 1e-6  # of weights that are written as decimals


class WrittenPolicy(Closed):
    """A policy that is made in the experiment: the one another cell trains, or several put together."""

    source: Mapping[str, Any] | None = Field(
        None,
        alias="from",
        description="Keys of the cell whose policy it is. Unnamed ones are those of the cell that uses it; "
        "unnamed, policy is the file's and rounds is the method's own.",
    )
    merge: tuple[Any, ...] | None = Field(
        None, description="Policies whose weights are averaged: names of models, {from: …}, {merge: […]}."
    )
    weights: tuple[float, ...] | None = Field(
        None, description="Weight of each in the average; they add up to 1, one below 0 extrapolates. Default: equal."
    )
    title: str | None = Field(None, min_length=1, description="How tables call it; default: what it is made by.")

    @model_validator(mode="after")
    def _one(self) -> WrittenPolicy:
        if (self.source is None) == (self.merge is None):
            raise ValueError("exactly one of from, merge is needed")
        if self.merge is not None and len(self.merge) < 2:
            raise ValueError(f"a merge is of two or more policies (found {len(self.merge)})")
        if self.weights is None:
            return self
        if self.merge is None or len(self.weights) != len(self.merge):
            expected = f"{len(self.merge)} policies" if self.merge else "no merge"
            raise ValueError(f"there are {len(self.weights)} weights for {expected}")
        if abs(sum(self.weights) - 1) > ROUNDING:
            raise ValueError(f"weights of a merge add up to 1 (found {sum(self.weights):g})")
        return self


class Chain(str):
    """A policy that is made in the experiment.

    As a string it is the name that cells, records and equality know it by: what it is made from, keys sorted, however
    it was written. Tables call it what is ``shown``; ``root`` is the model under it, ``origins`` say where its keys are
    written.
    """

    shown: str
    root: str
    origins: Origins

    @classmethod
    def _named(cls, name: str, shown: str, root: str, origins: Origins) -> Self:
        made = cls(name)
        made.shown, made.root, made.origins = shown, root, origins
        return made


class Trained(Chain):
    """The policy of another cell: ``written`` are the keys that its cell is asked for, ``policy`` always among them."""

    written: Mapping[str, Scalar]
    start: str

    @classmethod
    def by(cls, keys: Mapping[str, Scalar], start: str, title: str | None, origins: Origins) -> Self:
        """Return the policy of the cell with these keys, which starts from the policy ``start``."""
        made = cls._named(_name(keys), title or _title(keys, start), root_of(start), origins)
        made.written, made.start = {**keys, "policy": start}, start
        return made


class Merged(Chain):
    """The average of several policies' weights."""

    policies: tuple[str, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, policies: tuple[str, ...], weights: tuple[float, ...], title: str | None, origins: Origins) -> Self:
        """Return the average of ``policies``."""
        parts = " ".join(f"{_spelt(weight)}*{policy}" for policy, weight in zip(policies, weights, strict=True))
        own = f"merge of {' and '.join(title_of(policy) for policy in policies)}"
        made = cls._named(f"merge({parts})", title or own, root_of(policies[0]), origins)
        made.policies, made.weights = policies, weights
        return made


def read_policy(
    value: Any, origins: Origins, default: Scalar, flatten: Callable[[str, Any, Location], dict[str, Scalar]]
) -> Any:
    """Return a policy as cells hold it: a mapping written at ``origins`` becomes a chain, all else is left as it is.

    ``default`` is the policy that ``from`` starts from unless it says; ``flatten`` turns a written key into dotted
    ones.
    """
    if not isinstance(value, Mapping):
        return value
    written = validated(WrittenPolicy, value, origins.locate)
    if written.source is not None:
        return _trained(written, origins.inside("from"), default, flatten)
    assert written.merge is not None
    policies = []
    for index, item in enumerate(written.merge):
        policy = read_policy(item, origins.inside("merge", index), default, flatten)
        if not isinstance(policy, str) or not policy:
            message = f"a merge is of names of models, {{from: …}} and {{merge: […]}} (found {policy!r})"
            raise SpecError(message, location=origins.locate("merge", index))
        policies.append(policy)
    weights = written.weights or (1 / len(policies),) * len(policies)
    return Merged.of(tuple(policies), weights, written.title, origins)


def _trained(
    written: WrittenPolicy,
    origins: Origins,
    default: Scalar,
    flatten: Callable[[str, Any, Location], dict[str, Scalar]],
) -> Trained:
    assert written.source is not None
    keys: dict[str, Scalar] = {}
    for key, item in written.source.items():
        value = read_policy(item, origins.inside(key), default, flatten) if key == "policy" else item
        keys.update(flatten(key, value, origins.locate(key)))
    if not keys:
        raise SpecError("from names no key of a cell", location=origins.locate(), hint="example: {algorithm: dpo}")
    start = keys.get("policy", default)
    if not isinstance(start, str):
        raise SpecError(
            "it is not said which policy this starts from, and the file has no policy of its own to take",
            location=origins.locate(),
            hint="add policy: beside the other keys of from",
        )
    if "algorithm" in keys:
        find_method(str(keys["algorithm"]), location=origins.locate("algorithm"))
    return Trained.by(keys, start, written.title, origins)


def root_of(policy: str) -> str:
    """Return the name of the model that a policy starts from in the end; of a merge, its first policy's."""
    return policy.root if isinstance(policy, Chain) else policy


def title_of(policy: str) -> str:
    """Return how tables call a policy."""
    return policy.shown if isinstance(policy, Chain) else policy


def chains_in(policy: str) -> list[Chain]:
    """Return a policy's chains: itself and those inside it, innermost first; none for the name of a model."""
    if not isinstance(policy, Chain):
        return []
    inside = policy.policies if isinstance(policy, Merged) else (policy.start,) if isinstance(policy, Trained) else ()
    return [*(found for part in inside for found in chains_in(part)), policy]


def is_read_by_chain(policy: str, key: str, method: str, reads: Callable[[str, str], bool]) -> bool:
    """Whether a cell under ``policy`` reads a key that the chain leaves to the cell that uses it.

    ``method`` is that cell's; ``reads(method, key)`` says what a method reads.
    """
    if isinstance(policy, Merged):
        return any(is_read_by_chain(part, key, method, reads) for part in policy.policies)
    if not isinstance(policy, Trained) or key in policy.written:
        return False
    own = str(policy.written.get("algorithm", method))
    return reads(own, key) or is_read_by_chain(policy.start, key, own, reads)


def _name(keys: Mapping[str, Scalar]) -> str:
    words = [f"{key}={_spelt(keys[key])}" for key in sorted(keys) if key != "algorithm"]
    return f"{keys.get('algorithm', 'from')}({' '.join(words)})"


def _spelt(value: Scalar) -> str:
    # 1 and 1.0 are one value of a key, so they are one spelling.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _title(keys: Mapping[str, Scalar], start: str) -> str:
    method = keys.get("algorithm")
    words = [METHODS[str(method)].title if method is not None else "the same method"]
    if "dataset" in keys:
        words.append(f"on {keys['dataset']}")
    others = [f"{key}={_spelt(keys[key])}" for key in sorted(keys) if key not in ("algorithm", "dataset", "policy")]
    own = " ".join(words) + (f" ({', '.join(others)})" if others else "")
    if isinstance(start, Chain) or "policy" in keys:
        return f"{title_of(start)} → {own}"
    return own
