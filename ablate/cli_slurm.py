"""What the commands print and ask for that have to do with SLURM."""

from __future__ import annotations

from typing import Annotated

import typer

from ablate.console import out
from ablate.execution.slurm.submit import Submitted

On = Annotated[
    str | None,
    typer.Option("--on", help="Profile of a SLURM cluster, a file or a name in slurm/; default: this machine."),
]


def print_submitted(name: str, result: Submitted, *, dry_run: bool = False) -> None:
    """Say what was handed to SLURM, what was there already, and what is next."""
    if dry_run:
        _say(f"{name}: {result.stages} stages as {len(result.arrays)} job arrays; nothing is submitted")
        _say(f"the scripts: {result.folder}/")
        return
    if not result.arrays:
        words = f"all that is not done is queued ({result.queued} stages)" if result.queued else "all stages are done"
        _say(f"{name}: nothing to submit, {words}")
        return
    queued = f"; {result.queued} were queued already" if result.queued else ""
    _say(f"{name}: {result.stages} stages submitted as {len(result.arrays)} job arrays{queued}")
    if result.left:
        _say(f"{result.left} stages do not fit limits.submit: repeat the command when some have ended")
    _say(f"next: ablate status {name} --watch")


def _say(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)
