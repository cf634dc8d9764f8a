"""One element of a job array, with light stages: in place of `python -P -m ablate.execution.slurm.element`."""

from __future__ import annotations

import light_sweep

from ablate.execution.slurm.element import main

if __name__ == "__main__":
    print(f"light work: {light_sweep.__file__}", flush=True)
    main()
