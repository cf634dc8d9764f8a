"""A folder with the pocket sweep, run where a policy's gold reward is minus the distance of log beta from log 0.5."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablate.store import Store

HELPERS = Path(__file__).parent / "helpers"
SHARED = Path(__file__).parents[1] / "execution" / "helpers"
ROOT = Path(__file__).parents[2]


class Folder:
    """A researcher's folder with the specification ``sweep.yaml``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store(folder / "store")
        folder.mkdir(exist_ok=True)
        self.write()

    def write(self, **sweep: Any) -> None:
        """Write the specification anew; ``sweep`` are keys of its section, null leaves one out."""
        section = {"search": {"dpo.beta": {"log": [0.01, 10.0]}}, "maximise": "pocket-validation-gold", "trials": 6}
        section = {key: value for key, value in {**section, **sweep}.items() if value is not None}
        values = {
            "extends": str(ROOT / "experiments/pocket_quick.yaml"),
            "name": "small",
            "grid": [{"dataset": "pocket-ultrafeedback", "algorithm": "dpo", "seed": [0, 1]}],
            "baselines": [],
            "evaluate": {"policy": ["pocket-validation-gold"], "reward_model": []},
            "report": None,
        }
        self.write_values({**values, "sweep": section})

    def write_values(self, values: dict[str, Any]) -> None:
        """Write the specification as it is given."""
        (self.folder / "sweep.yaml").write_text(yaml.safe_dump(values, sort_keys=False))

    def line(self, *words: str) -> list[str]:
        """The command, with light stages in place of all that computes."""
        return [sys.executable, str(HELPERS / "light_sweep.py"), *words]

    def settings(self, **variables: str) -> dict[str, str]:
        """The command's environment."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ABLATE_")}
        paths = os.pathsep.join([str(HELPERS), str(SHARED), str(ROOT), os.environ.get("PYTHONPATH", "")])
        return {**kept, "PYTHONPATH": paths, **variables}

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        settings = self.settings(**variables)
        return subprocess.run(
            self.line(*words), cwd=self.folder, env=settings, capture_output=True, text=True, timeout=300, check=False
        )

    def sweep(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the sweep."""
        return self.run("sweep", "sweep.yaml", "--jobs", "2", *words, **variables)

    def start(self, **variables: str) -> subprocess.Popen[str]:
        """Begin the sweep and return at once."""
        return subprocess.Popen(
            self.line("sweep", "sweep.yaml", "--jobs", "2"),
            cwd=self.folder,
            env=self.settings(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def found(self) -> dict[str, Any]:
        """What `ablate sweep show` says."""
        shown = self.run("sweep", "show", "small", "--json")
        assert shown.returncode == 0, shown.stderr
        found: dict[str, Any] = json.loads(shown.stdout)
        return found

    def trials(self) -> list[dict[str, Any]]:
        """The trials as `ablate sweep show` has them."""
        trials: list[dict[str, Any]] = self.found()["trials"]
        return trials

    def attempts(self, kind: str) -> list[int]:
        """How often each stage of a kind was tried."""
        stages = [self.store.stage(entry.name) for entry in self.store.stages.iterdir() if entry.name.startswith(kind)]
        return [len(stage.attempts()) for stage in stages]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)
