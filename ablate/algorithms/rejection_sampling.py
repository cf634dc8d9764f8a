"""Rejection sampling: the policy's own best responses are what it is fine-tuned on."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import Method
from ablate.algorithms.sft import SFTParameters
from ablate.algorithms.supervised import COST

LLAMA_2 = "Touvron et al. 2023 (arXiv 2307.09288), section 3.2.3"


class RejectionSamplingParameters(SFTParameters):
    """Parameters of rejection sampling; those of the fine-tuning default to Tülu 2's."""

    n: int = Field(10, ge=2, le=256, description=f"Responses to each prompt; {LLAMA_2} draws 10 to 100.")
    temperature: float = Field(
        1.0, gt=0, le=5, description=f"Of sampling; {LLAMA_2} raises it to 1.2 to 1.3 once the policy is tuned."
    )
    top_p: float = Field(1.0, gt=0, le=1, description="Of sampling: nucleus.")
    max_response_length: int = Field(1024, ge=1, description="Tokens; a response that does not end within is left out.")
    top_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description=f"null: the best response of every prompt is kept ({LLAMA_2}); a number: that share of all "
        "responses, the highest-scored whatever their prompt (Dong et al. 2023, arXiv 2304.06767, takes 1/n).",
    )


METHOD = Method(
    name="rejection_sampling",
    title="Rejection sampling",
    parameters=RejectionSamplingParameters,
    formula="L = -sum_t log pi(y*_t | y*_<t, x), y* = argmax over n samples y ~ pi(.|x) of r(x, y)",
    source=LLAMA_2,
    reads=frozenset({"dataset", "reward_model", "prompts"}),
    needs=("best_responses",),
    entry="ablate.training.sft:run_method",
    judge="reward",
    cost=f"n samples of the policy to every prompt; one forward pass of the reward model over each; {COST} kept",
)
