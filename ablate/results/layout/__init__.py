"""Declared reports: what a researcher writes in ``reports/*.yaml``, typed and closed, and a default without one."""

from ablate.results.layout.claims import ClaimLayout
from ablate.results.layout.columns import Attribute, Column, Health, NumberFormat, named_column
from ablate.results.layout.correlations import CorrelationLayout
from ablate.results.layout.default import default_layout
from ablate.results.layout.effects import EffectsLayout, RankingLayout
from ablate.results.layout.figures import BarLayout, CurveLayout
from ablate.results.layout.names import averaged_categories, axis_names, baseline_name
from ablate.results.layout.report import Layout, check_layout, load_layout
from ablate.results.layout.tables import (
    RULES,
    Compare,
    Delta,
    Groups,
    RowAxis,
    TableLayout,
    fits,
    is_wanted,
    refuse_hidden_axis,
    row_key,
)

__all__ = [
    "RULES",
    "Attribute",
    "BarLayout",
    "ClaimLayout",
    "Column",
    "Compare",
    "CorrelationLayout",
    "CurveLayout",
    "Delta",
    "EffectsLayout",
    "Groups",
    "Health",
    "Layout",
    "NumberFormat",
    "RankingLayout",
    "RowAxis",
    "TableLayout",
    "averaged_categories",
    "axis_names",
    "baseline_name",
    "check_layout",
    "default_layout",
    "fits",
    "is_wanted",
    "load_layout",
    "named_column",
    "refuse_hidden_axis",
    "row_key",
]
