"""Tables of hyperparameters: of every method and model that is trained, what differs from the defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ablate.results.appendix.stages import StageRecord
from ablate.results.long import Results
from ablate.results.tables.table import Cell, Column, Row, Table

_COLUMNS = (
    Column("parameter", "Parameter", "label"),
    Column("value", "Value", "label"),
    Column("default", "Default", "label"),
)
_KINDS = {"pretrain": "Base model", "sft": "SFT", "reward_model": "Reward model"}
_NO_PARAMETERS = frozenset({"algorithm", "seed", "format"})

_ABSENT = object()


def hyperparameter_tables(results: Results, stages: Mapping[str, StageRecord]) -> list[Table]:
    """Return a table for each method, reward model, SFT and base model, with the values that its stages have.

    A value that no stage changes from its default is left out, and counted. Settings that the stage which tokenises
    applied (lengths, truncation) are among those of the method that reads its tokens. What tuning tried and did not
    choose is not among them.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for stage in stages.values():
        is_tried = results.plan["stages"][stage.id].get("tuning", False)
        if not is_tried and (stage.kind == "train" or stage.kind in _KINDS):
            name = f"train.{stage.config['algorithm']}" if stage.kind == "train" else stage.kind
            groups.setdefault(name, []).append(dict(_parameters(stage, stages)))
    defaults = results.plan.get("defaults", {})
    return [_table(results, name, groups[name], defaults.get(name)) for name in sorted(groups, key=_position)]


def _position(name: str) -> tuple[int, str]:
    kinds = list(_KINDS)
    return (kinds.index(name) if name in kinds else len(kinds), name)


def _parameters(stage: StageRecord, stages: Mapping[str, StageRecord]) -> Iterator[tuple[str, Any]]:
    for parent in stage.parents:
        if parent in stages and stages[parent].kind == "tokenise":
            yield from ((key, value) for key, value in stages[parent].config.items() if key not in _NO_PARAMETERS)
    for key, value in stage.config.items():
        if isinstance(value, Mapping):  # the parameters, or those of a base model's architecture
            yield from value.items()
        elif key not in _NO_PARAMETERS:
            yield key, value


def _table(results: Results, name: str, found: list[Mapping[str, Any]], defaults: Mapping[str, Any] | None) -> Table:
    method = name.removeprefix("train.")
    title = _KINDS.get(name) or str(results.plan.get("algorithms", {}).get(method, method))
    names = sorted({key for parameters in found for key in parameters})
    rows, left_out = [], 0
    for key in names:
        default = _ABSENT if defaults is None else defaults.get(key, _ABSENT)
        values = list(dict.fromkeys(_text(parameters.get(key, default)) for parameters in found))
        if values == [_text(default)]:
            left_out += 1
            continue
        cells = (key, ", ".join(sorted(values, key=_numerically)), _text(default))
        rows.append(Row("cell", tuple(Cell(text=text) for text in cells)))
    if defaults is None:
        remark = (
            "All settings, for the plan was recorded by a version that did not say what the defaults are; "
            "`ablate run` records it again, and runs nothing that is done."
        )
    else:
        remark = f"{left_out} further settings are at their defaults." if left_out else "No other setting is read."
    key = f"hyperparameters-{name.replace('_', '-').replace('.', '-')}"
    return Table(key, f"Hyperparameters: {title}", _COLUMNS, tuple(rows), remarks=(remark,))


def _text(value: Any) -> str:
    if value is _ABSENT:
        return ""
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value, sort_keys=True)


def _numerically(text: str) -> tuple[bool, float, str]:
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text
