"""Released reward models in a plan: scored as their publishers read them, in the protocol of ours."""

from __future__ import annotations

from collections.abc import Callable

from ablate.plan.plan import Plan

REVISION = "0" * 40
SPEC = f"""
name: released
policy: pocket-small
sft: {{dataset: pocket-instructions}}
ppo: {{max_prompt_length: 128, max_response_length: 64}}
reward_models: [someone/reward-model@{REVISION}]
grid:
  - {{dataset: pocket-ultrafeedback, algorithm: ppo}}
evaluate: {{policy: [], reward_model: [pocket-pairs]}}
"""


def test_released_models_are_scored_at_their_last_token_and_ours_where_they_were_trained(
    plan: Callable[..., Plan],
) -> None:
    made = plan(SPEC)
    scores = [stage for stage in made.stages.values() if stage.kind == "score"]
    scored = {stage.id: made.stages[dict(stage.identity.inputs)["reward_model"].stage].kind for stage in scores}
    configs = {scored[stage.id]: stage.identity.config.value for stage in scores}
    assert configs["model"]["released"] is True and "released" not in configs["reward_model"]
    assert {**configs["reward_model"], "released": True} == configs["model"]
    (model,) = (stage for stage in made.stages.values() if stage.kind == "model")
    assert model.identity.config.value["scores"] is True
