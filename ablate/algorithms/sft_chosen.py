"""Supervised fine-tuning on the chosen completions of a preference set: the baseline that never sees a rejected one."""

from __future__ import annotations

from ablate.algorithms.base import Method, PairParameters


class ChosenParameters(PairParameters):
    """Parameters of fine-tuning on chosen completions; the defaults are the study's for DPO."""


METHOD = Method(
    name="sft_chosen",
    title="SFT on chosen",
    parameters=ChosenParameters,
    formula="L = -sum_t log pi(c_t | c_<t, x) / (number of tokens), over all chosen completions of a batch",
    source="Rafailov et al. 2023 (arXiv 2305.18290), baseline Preferred-FT; TRL's loss type sft",
    reads=frozenset({"dataset"}),
    needs=("pairs",),
    entry="ablate.training.chosen:run",
    cost="an epoch: one forward and one backward pass of the policy over the chosen completion of every pair",
)
