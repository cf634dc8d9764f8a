"""One audit: every check over one pass of a set's records."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.catalogs.datasets import DatasetEntry, data_files
from ablate.catalogs.digests import sha256_file
from ablate.data.account import OTHER_PART
from ablate.data.audit.duplicates import PairDuplicates, PromptDuplicates
from ablate.data.audit.endings import Endings, Refusals
from ablate.data.audit.findings import Cell, Check, Finding, Share, Table
from ablate.data.audit.items import Account, read, sample
from ablate.data.audit.labels import Agreement, Direction, Margins
from ablate.data.audit.languages import Languages
from ablate.data.audit.lengths import Lengths, LongerWins, Turns
from ablate.data.audit.overlap import Against, Overlap

SAMPLE_SEED = 0
MOST_DROPPED = 0.05


@dataclass(frozen=True, slots=True)
class Audit:
    """What is known of a set and what the checks found in it."""

    name: str
    title: str
    facts: dict[str, Any]
    findings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "name": self.name,
            "title": self.title,
            "facts": self.facts,
            "findings": [finding.as_json() for finding in self.findings],
        }


def audit(
    entry: DatasetEntry,
    root: Path | None,
    *,
    against: Against | None = None,
    sampled: int | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Audit:
    """Audit a set of the catalog: all its records, or a seeded sample of ``sampled`` of them.

    Files are read under the data root, pocket sets are made here. Raises ``DataError`` or ``UsageError`` for what can't
    be read, as :func:`ablate.data.audit.items.read` does.
    """
    account = Account()
    checks: tuple[Check, ...] = (
        Direction(),
        Margins(),
        Agreement(),
        PromptDuplicates(),
        PairDuplicates(),
        Overlap(against),
        LongerWins(),
        Lengths(),
        Turns(),
        Endings(),
        Refusals(),
        Languages(),
    )
    audited = 0
    for item in sample(read(entry, root, account, progress), sampled, SAMPLE_SEED):
        audited += 1
        for check in checks:
            check.add(item)
    findings = (_account(account, audited), *(check.finding() for check in checks))
    return Audit(entry.name, entry.title, _facts(entry, root, audited, sampled), findings)


def _facts(entry: DatasetEntry, root: Path | None, audited: int, sampled: int | None) -> dict[str, Any]:
    known = entry.facts()
    files = {} if entry.source.pocket else {name: sha256_file(path) for name, path in data_files(entry, root).items()}
    names = ("format", "label_kind", "licence", "from", "revision", "converter", "options", "pairing", "part")
    return {
        **{name: known[name] for name in names},
        "sha256": files,
        "sample": {"records": audited, "seed": SAMPLE_SEED} if sampled is not None else None,
        "libraries": {name: importlib.metadata.version(name) for name in ("datasketch", "py3langid")},
    }


def _account(account: Account, audited: int) -> Finding:
    """Return what became of the rows; the other part of a split is no loss."""
    numbers = account.as_json()
    lost = Share(account.dropped.total() - account.dropped[OTHER_PART], account.rows)
    other = Share(account.dropped[OTHER_PART], account.rows)
    parts = [f"{Share(account.kept, account.rows)} rows kept", f"{lost} dropped"]
    parts += [f"{other} in the other part of the split"] if other.count else []
    made = f"{account.records:,} records" + (f", {account.pairs:,} pairs" if account.pairs else "")
    summary = f"{', '.join(parts)}; {made}"
    if audited < account.records:
        summary += (
            f"; a seeded sample of {audited:,} records is audited, in which duplicates are rarer than in the whole"
        )
    rows: list[tuple[Cell, ...]] = [
        (reason, Share(count, account.rows)) for reason, count in account.dropped.most_common()
    ]
    tables = [Table("Rows dropped, by reason", ("reason", "rows"), tuple(rows))] if rows else []
    if account.left_out:
        left = tuple((reason, Share(count, account.responses)) for reason, count in account.left_out.most_common())
        tables.append(Table("Responses that are in no record, by reason", ("reason", "responses"), left))
    if len(account.files) > 1:
        tables.append(Table("Rows of each file", ("file", "rows"), tuple(account.files.items())))
    look = (f"{lost} rows are dropped",) if lost.above(MOST_DROPPED) else ()
    return Finding(
        "rows",
        "What became of the rows",
        summary,
        f"look: more than {100 * MOST_DROPPED:g} % of the rows are dropped (the other part of a split is not counted)",
        look,
        numbers={**numbers, "audited": audited},
        tables=tuple(tables),
    )
