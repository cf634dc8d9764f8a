"""One element of a job array, with light stages: in place of `python -P -m ablate.execution.slurm.element`."""

from __future__ import annotations

import importlib
import os

from ablate.execution.slurm.element import main

if __name__ == "__main__":
    work = importlib.import_module(os.environ.get("LIGHT_WORK", "light_sweep"))
    print(f"light work: {work.__file__}", flush=True)
    main()
