"""What an attempt's code digest covers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import ablate
from ablate.algorithms.registry import METHODS
from ablate.execution.environment import COMPUTING
from ablate.plan.kinds import KINDS

PACKAGE = Path(ablate.__file__).parent


def imported(file: Path) -> Iterator[str]:
    """The modules of ablate that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ablate."))
        elif isinstance(node, ast.ImportFrom) and node.module == "ablate":
            yield from (f"ablate.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ablate."):
            yield node.module or ""


def test_the_digest_covers_every_package_that_a_stage_s_work_imports() -> None:
    entries = [kind.entry for kind in KINDS.values()] + [method.entry for method in METHODS.values()]
    reached: set[str] = set()
    waiting = {entry.partition(":")[0] for entry in entries if entry}
    while waiting:
        package = waiting.pop().split(".")[1]
        if package not in reached and (PACKAGE / package).is_dir():
            reached.add(package)
            waiting.update(name for file in (PACKAGE / package).rglob("*.py") for name in imported(file))
    assert reached == {name for name in COMPUTING if not name.endswith(".py")}
