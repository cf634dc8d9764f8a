"""What a report says of its numbers beside its tables: effects of axes, how sure an order is, claims."""

from __future__ import annotations

from ablate.catalogs.origins import Origins
from ablate.results.claims.table import build_claims
from ablate.results.layout import Layout
from ablate.results.layout.claims import read_claims
from ablate.results.long import Results
from ablate.results.tables.effects import build_effects
from ablate.results.tables.ranking import build_ranking
from ablate.results.tables.table import Table


def build_analyses(results: Results, layout: Layout) -> tuple[Table, ...]:
    """Return the declared analyses as tables, the claims last."""
    built: list[Table] = []
    built += [build_effects(results, effects) for effects in layout.effects]
    tables = {table.name: table for table in layout.tables}
    built += [build_ranking(results, ranking, tables[ranking.table]) for ranking in layout.rankings]
    claims = (*layout.claims, *read_claims(results.plan.get("claims", ()), results.plan, Origins()))
    if claims:
        built.append(build_claims(results, claims))
    return tuple(built)
