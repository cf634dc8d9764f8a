"""What ``ablate plan`` prints of large models: the devices they need."""

from __future__ import annotations

from rich.table import Table

from ablate.catalogs.memory import GIB
from ablate.console import out
from ablate.plan.size import COUNTS, DEVICE_GIB, Sizes


def print_sizes(sizes: Sizes) -> None:
    """Print the memory of weights, gradients and optimiser; activations come on top."""
    if sizes.trained:
        heads = [f"{count} GPU{'s' * (count > 1)}" for count in COUNTS]
        table = Table(f"all weights trained, GPUs of {DEVICE_GIB} GiB", "GiB", *heads, box=None, pad_edge=False)
        for model in sizes.trained:
            shardings = (model.shardings[count] or "-" for count in COUNTS)
            table.add_row(f"{model.name} ({model.dtype})", f"{model.bytes / GIB:.0f}", *shardings)
        out.print(table)
    for four in sizes.ppo:
        title = f"PPO of {four.policy} against {four.reward_model} ({four.dtype})"
        table = Table(title, "device GiB", "other GiB", "host GiB", box=None, pad_edge=False)
        for item in four.placements:
            shown = (f"{size / GIB:.0f}" if size else "" for size in (item.device, item.other, item.host))
            table.add_row(item.name, *shown)
        out.print(table)
