"""Further losses over pairs with a reference, under the names they have as loss types of TRL's DPOTrainer."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import COST_OF_PAIRS, Method, TRLPairParameters

RATIO = "d = log pi - log pi_ref of a completion"


class PairLossParameters(TRLPairParameters):
    """Parameters of a loss with one strength; the training defaults are the study's for DPO."""

    beta: float = Field(0.1, gt=0, description="Scale of the log-ratios; TRL's default for all its loss types.")


class NormalisedParameters(TRLPairParameters):
    """Parameters of DPO on mean log-ratios; the training defaults are the study's for DPO."""

    beta: float = Field(
        5.0, gt=0, description="Scale of the mean log-ratios (nats a token); Lambert et al. 2024 (arXiv 2411.15124)."
    )


class EXOParameters(PairLossParameters):
    """Parameters of EXO; the training defaults are the study's for DPO."""

    label_smoothing: float = Field(
        1e-3, gt=0, lt=0.5, description="Probability that the labels give the rejected completion; Ji et al. 2024."
    )


class DiscoPOPParameters(PairLossParameters):
    """Parameters of DiscoPOP; the training defaults are the study's for DPO."""

    tau: float = Field(0.05, gt=0, description="Temperature of the mixture of two losses; Lu et al. 2024.")


def _method(name: str, title: str, formula: str, source: str, parameters: type[TRLPairParameters]) -> Method:
    return Method(
        name=name,
        title=title,
        parameters=parameters,
        formula=formula,
        source=source,
        reads=frozenset({"dataset"}),
        needs=("pairs", "reference_logprobs"),
        entry="ablate.training.preference:run",
        cost=COST_OF_PAIRS,
    )


METHODS = (
    _method(
        "sigmoid_norm",
        "DPO (averaged)",
        "L = -log sigma(beta (d_c / |c| - d_r / |r|)), " + RATIO,
        "Lambert et al. 2024 (arXiv 2411.15124), length-normalised DPO",
        NormalisedParameters,
    ),
    _method(
        "exo_pair",
        "EXO",
        "L = sigma(h) log [sigma(h) / (1 - eps)] + sigma(-h) log [sigma(-h) / eps], h as in DPO",
        "Ji et al. 2024 (arXiv 2402.00856), eq. 16",
        EXOParameters,
    ),
    _method(
        "nca_pair",
        "NCA",
        "L = -log sigma(beta d_c) - [log sigma(-beta d_c) + log sigma(-beta d_r)] / 2, " + RATIO,
        "Chen et al. 2024 (arXiv 2402.05369), for pairs",
        PairLossParameters,
    ),
    _method(
        "bco_pair",
        "BCO (pairs, no shift)",
        "L = -log sigma(beta d_c) - log sigma(-beta d_r), " + RATIO,
        "Jung et al. 2024 (arXiv 2404.04656), as TRL's loss type bco_pair: delta = 0",
        PairLossParameters,
    ),
    _method(
        "sppo_hard",
        "SPPO (hard labels)",
        "L = (d_c - 1/(2 beta))^2 + (d_r + 1/(2 beta))^2, " + RATIO,
        "Wu et al. 2024 (arXiv 2405.00675), eq. 4.7, with hard labels",
        PairLossParameters,
    ),
    _method(
        "apo_zero",
        "APO-zero",
        "L = 1 - sigma(beta d_c) + sigma(beta d_r), " + RATIO,
        "D'Oosterlinck et al. 2024 (arXiv 2408.06266), eq. 7",
        PairLossParameters,
    ),
    _method(
        "apo_down",
        "APO-down",
        "L = sigma(beta d_c) + 1 - sigma(beta (d_c - d_r)), " + RATIO,
        "D'Oosterlinck et al. 2024 (arXiv 2408.06266), eq. 8",
        PairLossParameters,
    ),
    _method(
        "discopop",
        "DiscoPOP",
        "L = -(1 - sigma(h / tau)) log sigma(h) + sigma(h / tau) exp(-h), h as in DPO",
        "Lu et al. 2024 (arXiv 2406.08414), eq. 5",
        DiscoPOPParameters,
    ),
)

_SAMPLES = "TRL's trainer of it samples and scores by itself: it would share neither rollouts nor rewards with others"
_CUT = "TRL's loss of it sorts what passes at once, not the batch"
_NOT_OFFERED = {
    "ipo": "TRL's IPO averages over tokens: that is ipo_avg",
    "bco": "TRL has dropped its trainer of it; its loss without a shift is bco_pair",
    "ppo": "TRL has dropped its trainer of it",
    "aot": _CUT,
    "aot_unpaired": _CUT,
    "rloo": _SAMPLES,
    "grpo": _SAMPLES,
    "online_dpo": _SAMPLES,
    "supervised": "it runs on TRL's SFTTrainer anyway",
}


def without_trl(method: Method) -> str:
    """Return why a method has no choice of ``implementation``."""
    return f"{method.title}: {_NOT_OFFERED.get(method.name, 'TRL has no trainer of it')}; leave implementation out"
