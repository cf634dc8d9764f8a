"""The converters that make preference records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ablate.data.converters import (
    alpaca_farm,
    capybara,
    chatbot_arena,
    fine_grained_rlhf,
    helpsteer,
    hh_rlhf,
    hhh_alignment,
    llama_factory,
    native,
    nectar,
    online_pairs,
    orca_dpo_pairs,
    pair_columns,
    prm800k,
    shp,
    stack_exchange_paired,
    summarize_from_feedback,
    tulu_2_5,
    ultrafeedback_binarized,
    ultrafeedback_raw,
    webgpt_comparisons,
)
from ablate.data.records import Converted, Row

PREFERENCE: dict[str, Callable[[Row, Any], Converted]] = {
    "hh_rlhf": hh_rlhf.convert,
    "ultrafeedback_raw": ultrafeedback_raw.convert,
    "ultrafeedback_binarized": ultrafeedback_binarized.convert,
    "nectar": nectar.convert,
    "shp": shp.convert,
    "columns": pair_columns.convert,
    "tulu_2_5": tulu_2_5.convert,
    "stack_exchange_paired": stack_exchange_paired.convert,
    "prm800k": prm800k.convert,
    "chatbot_arena_2023": chatbot_arena.convert_2023,
    "chatbot_arena_2024": chatbot_arena.convert_2024,
    "alpaca_farm": alpaca_farm.convert,
    "capybara": capybara.convert,
    "helpsteer": helpsteer.convert,
    "helpsteer2": helpsteer.convert_2,
    "helpsteer2_preference": helpsteer.convert_2_preference,
    "orca_dpo_pairs": orca_dpo_pairs.convert,
    "summarize_from_feedback": summarize_from_feedback.convert,
    "webgpt_comparisons": webgpt_comparisons.convert,
    "hhh_alignment": hhh_alignment.convert,
    "fine_grained_rlhf": fine_grained_rlhf.convert,
    "llama_factory": llama_factory.convert,
    "records": native.convert,
    "online_pairs": online_pairs.convert,
}

GROUP_KEYS: dict[str, Callable[[Row, Any], str | None]] = {
    "helpsteer": helpsteer.key,
    "helpsteer2": helpsteer.key,
    "prm800k": prm800k.key,
}
"""Converters that read several rows as one: rows of one file with equal keys come together, as ``{"rows": […]}``."""
