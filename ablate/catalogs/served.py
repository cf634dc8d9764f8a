"""Where a policy is served: an address that completes prompts in its place, and under which name.

None of it is identity: a served policy is the model that its name says, wherever its responses are computed.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ablate.catalogs.closed import Closed


class Served(Closed):
    """An OpenAI-compatible server (``vllm serve``, ``transformers serve``) that completes prompts with a policy."""

    url: str = Field(pattern=r"^https?://", description="Address before /completions, e.g. http://127.0.0.1:8000/v1.")
    model: str | None = Field(None, min_length=1, description="Its name there; default: the only one that is served.")
    key: str = Field(
        "",
        pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$",
        description="Environment variable that holds the key; empty for a server without one.",
    )
    parallel: int = Field(32, ge=1, description="Prompts that are asked at a time.")
    requests_per_minute: float | None = Field(None, gt=0, description="Most prompts a minute.")
    timeout: float = Field(600.0, gt=0, description="Seconds without a response after which a prompt is asked again.")

    def location(self) -> dict[str, str]:
        """Return it as a stage's locations spell it; the key itself is not in it."""
        return {"endpoint": self.model_dump_json(exclude_defaults=True)}


def _written(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


WrittenServed = Annotated[Served, BeforeValidator(_written, json_schema_input_type=str | Served)]
"""A server as YAML may write it: its address, or its keys."""
