"""The methods by name."""

from __future__ import annotations

from ablate.algorithms import (
    aot,
    bco,
    d2po,
    dpo,
    grpo,
    hinge,
    ipo,
    kto,
    none,
    online_dpo,
    orpo,
    ppo,
    pro,
    rejection_sampling,
    reward_modelling,
    rloo,
    robust_dpo,
    rrhf,
    sdpo,
    simpo,
    steerlm,
    supervised,
    trl_losses,
)
from ablate.algorithms.base import Method
from ablate.errors import Location, UnknownNameError

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *(dpo.METHOD, ipo.METHOD, ipo.AVERAGED, hinge.METHOD, robust_dpo.METHOD),
        *(simpo.METHOD, orpo.METHOD),
        *(kto.METHOD, bco.METHOD, aot.METHOD, aot.UNPAIRED),
        *(*trl_losses.METHODS, sdpo.METHOD),
        *(rrhf.METHOD, pro.METHOD),
        *(supervised.METHOD, rejection_sampling.METHOD, steerlm.METHOD),
        *(ppo.METHOD, rloo.METHOD, grpo.METHOD),
        *(online_dpo.METHOD, d2po.METHOD),
        *(reward_modelling.METHOD, none.METHOD),
    )
}


def find_method(name: str, *, location: Location | None = None) -> Method:
    """Return the method called ``name``; raises UnknownNameError with the nearest name."""
    method = METHODS.get(name)
    if method is None:
        raise UnknownNameError("algorithm", name, METHODS, location=location)
    return method
