"""The table of compute: what the stages of each kind took, and what they would have without sharing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ablate.results.appendix.stages import StageRecord
from ablate.results.long import Results
from ablate.results.tables.table import Cell, Column, Row, Table

_COLUMNS = (
    Column("kind", "Stages of kind", "label"),
    Column("stages", "Stages", "attribute", digits=0),
    Column("uses", "Uses", "attribute", digits=0),
    Column("gpu_hours", "GPU-hours", "attribute", digits=2),
    Column("cpu_hours", "CPU-hours", "attribute", digits=2),
    Column("gpu_saved", "GPU-hours saved", "attribute", digits=2),
    Column("cpu_saved", "CPU-hours saved", "attribute", digits=2),
)
_REMARK = (
    "A use is a cell, baseline or reward model that needs the stage; saved is what the stages would have taken beside "
    "if each had been run for every use. Attempts that failed, and time in a queue, are not counted."
)


def compute_table(results: Results, stages: Mapping[str, StageRecord]) -> Table:
    """Return the table, the most expensive kind first, with a total; stages that are not done take nothing yet."""
    uses = _uses(results, stages)
    kinds: dict[str, list[StageRecord]] = {}
    for stage in stages.values():
        if stage.is_done:
            kinds.setdefault(stage.kind, []).append(stage)
    dearest = sorted(kinds, key=lambda kind: (*(-value for value in _taken(kinds[kind])), kind))
    rows = [_row(kind, kinds[kind], uses) for kind in dearest]
    done = [stage for own in kinds.values() for stage in own]
    if done:
        rows.append(_row("all", done, uses))
    remarks = [_REMARK]
    if len(done) < len(stages):
        remarks.append(f"{len(done)} of {len(stages)} stages are done; what the others will take is not in it.")
    unknown = sum(stage.cost.gpu_hours is None or stage.cost.cpu_hours is None for stage in done)
    if unknown:
        remarks.append(f"The records of {unknown} stages do not say what they took; they count as nothing.")
    return Table("compute", "Compute", _COLUMNS, tuple(rows), remarks=tuple(remarks))


def _uses(results: Results, stages: Mapping[str, StageRecord]) -> Counter[str]:
    """Count the subjects that need a stage, at whatever distance."""
    above: dict[str, frozenset[str]] = {}

    def closure(stage: str) -> frozenset[str]:
        if stage not in above:
            above[stage] = frozenset()  # stops a walk around a (wrong) cycle
            parents = stages[stage].parents if stage in stages else ()
            above[stage] = frozenset({stage}).union(*(closure(parent) for parent in parents))
        return above[stage]

    counts: Counter[str] = Counter()
    for subject in results.subjects:
        counts.update(frozenset().union(*(closure(stage) for stage in (subject.stage, *subject.evaluations.values()))))
    return counts


def _taken(stages: Iterable[StageRecord]) -> tuple[float, float]:
    own = list(stages)
    return sum(item.cost.gpu_hours or 0.0 for item in own), sum(item.cost.cpu_hours or 0.0 for item in own)


def _row(kind: str, stages: list[StageRecord], uses: Mapping[str, int]) -> Row:
    beside = {stage.id: max(uses.get(stage.id, 0), 1) for stage in stages}
    gpu, cpu = _taken(stages)
    gpu_saved = sum((beside[stage.id] - 1) * (stage.cost.gpu_hours or 0.0) for stage in stages)
    cpu_saved = sum((beside[stage.id] - 1) * (stage.cost.cpu_hours or 0.0) for stage in stages)
    numbers = (float(len(stages)), float(sum(beside.values())), gpu, cpu, gpu_saved, cpu_saved)
    return Row("cell", (Cell(text=kind), *(Cell(value=number, n=1) for number in numbers)))
