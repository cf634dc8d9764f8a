"""The page on a first experiment: its plans are as printed, and its stages are those that a reader makes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ablate.cli.app import app

PAGE = (Path(__file__).resolve().parents[2] / "docs/first-experiment.md").read_text(encoding="utf-8")
SPEC = PAGE.partition("`experiments/beta.yaml`:\n\n```yaml\n")[2].partition("```")[0]
ID = re.compile(r"\b[a-z_]+-[0-9a-f]{16}\b")

Planned = Callable[..., list[str]]


def printed(command: str) -> list[str]:
    """Return the lines that the page has below a command, without those of the next."""
    block = PAGE.partition(f"$ {command}\n")[2].partition("```")[0]
    return [line.rstrip() for line in block.partition("\n$ ")[0].splitlines()]


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """Run a command of the page with the specification of the page, changed by ``last`` in place of β = 1.0."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()

    def plan(command: str, last: str = "1.0", code: int = 0) -> list[str]:
        (tmp_path / "experiments/beta.yaml").write_text(SPEC.replace("1.0]", f"{last}]"), encoding="utf-8")
        answer = CliRunner().invoke(app, shlex.split(command)[1:], env={"COLUMNS": "200"})
        assert answer.exit_code == code, answer.output
        return [line.rstrip() for line in answer.output.splitlines()]

    return plan


def test_the_first_plan_is_as_printed(planned: Planned) -> None:
    lines = printed("ablate plan beta")
    assert lines[-1].endswith("; … GB are free")
    assert planned("ablate plan beta")[: len(lines) - 1] == lines[:-1]


def test_the_stages_are_those_of_the_page(planned: Planned) -> None:
    again = next(line[2:] for line in PAGE.splitlines() if line.startswith("$ ablate plan beta name=beta-dry"))
    short = next(line[2:] for line in PAGE.splitlines() if line.startswith("$ ablate run beta name=beta-short"))
    found = set(ID.findall("\n".join(planned(again, last="2.0"))))
    found |= set(ID.findall("\n".join(planned(short.replace("ablate run", "ablate plan -v")))))
    named = ID.findall(PAGE)
    assert len(named) >= 6, "the page names stages"
    assert set(named) <= found, "make the page's output again: its stages have changed"
