"""The methods by name."""

from __future__ import annotations

from ablate.algorithms import d2po, dpo, grpo, hinge, ipo, online_dpo, ppo, rloo, robust_dpo
from ablate.algorithms.base import Method
from ablate.errors import Location, UnknownNameError

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *(dpo.METHOD, ipo.METHOD, ipo.AVERAGED, hinge.METHOD, robust_dpo.METHOD),
        *(ppo.METHOD, rloo.METHOD, grpo.METHOD),
        *(online_dpo.METHOD, d2po.METHOD),
    )
}


def find_method(name: str, *, location: Location | None = None) -> Method:
    """Return the method called ``name``; raises UnknownNameError with the nearest name."""
    method = METHODS.get(name)
    if method is None:
        raise UnknownNameError("algorithm", name, METHODS, location=location)
    return method
