"""The methods by name."""

from __future__ import annotations

from ablate.algorithms import dpo, hinge, ipo, none, ppo, rejection_sampling, robust_dpo, sdpo, supervised
from ablate.algorithms.base import Method
from ablate.errors import Location, UnknownNameError

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        dpo.METHOD,
        ipo.METHOD,
        ipo.AVERAGED,
        hinge.METHOD,
        robust_dpo.METHOD,
        sdpo.METHOD,
        supervised.METHOD,
        rejection_sampling.METHOD,
        ppo.METHOD,
        none.METHOD,
    )
}


def find_method(name: str, *, location: Location | None = None) -> Method:
    """Return the method called ``name``; raises UnknownNameError with the nearest name."""
    method = METHODS.get(name)
    if method is None:
        raise UnknownNameError("algorithm", name, METHODS, location=location)
    return method
