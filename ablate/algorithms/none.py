"""No training: the policy as it is, so that a merge or another starting point has a row of its own."""

from __future__ import annotations

from ablate.algorithms.base import Method
from ablate.catalogs.parameters import Parameters


class NoParameters(Parameters):
    """There is nothing to set."""


METHOD = Method(
    name="none",
    title="no training",
    parameters=NoParameters,
    formula="pi = the policy of the cell",
    source="a row for a policy that is made elsewhere: a merge, a chain, a model as released",
    reads=frozenset(),
    needs=(),
    entry="",
    cost="nothing",
)
