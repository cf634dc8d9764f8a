"""Intel/orca_dpo_pairs: a GPT answer as chosen and one of Llama-2-13B-chat as rejected, by construction."""

from __future__ import annotations

from ablate.catalogs.converters import OrcaOptions
from ablate.data.converters.columns import columns
from ablate.data.converters.sides import two_responses, user_prompt
from ablate.data.records import Converted, Dropped, Row


def convert(row: Row, options: OrcaOptions) -> Converted:
    """The system prompt, where there is one, stands before the question unless it is dropped."""
    system, question, *answers = columns(row, "orca_dpo_pairs", "system", "question", "chosen", "rejected")
    if not isinstance(question, str) or not isinstance(system, str | None):
        return Dropped("not-text")
    kept = (system or "") if options.system == "keep" else ""
    return two_responses(row, user_prompt(question, system=kept), answers, source="orca")
