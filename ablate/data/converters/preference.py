"""The converters that make preference records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ablate.data.converters import hh_rlhf, nectar, shp, ultrafeedback_binarized, ultrafeedback_raw
from ablate.data.records import Converted, Row

PREFERENCE: dict[str, Callable[[Row, Any], Converted]] = {
    "hh_rlhf": hh_rlhf.convert,
    "ultrafeedback_raw": ultrafeedback_raw.convert,
    "ultrafeedback_binarized": ultrafeedback_binarized.convert,
    "nectar": nectar.convert,
    "shp": shp.convert,
}
