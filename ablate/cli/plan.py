"""What ``ablate plan`` prints of what a run would take: devices for large models, disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import typer
from rich.table import Table

from ablate.catalogs.memory import GIB
from ablate.console import out
from ablate.plan.disk import Disk
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


def print_disk(disk: Disk, store: Path) -> None:
    """Print what the stages to run would leave on the disk, and whether the store's has that much."""
    free = free_bytes(store)
    if disk.bytes:
        beside = f" beside {', '.join(disk.unknown)}, of which none has run here yet" if disk.unknown else ""
        known = f"about {in_words(disk.bytes)} of disk{beside}"
    else:
        known = "no estimate of the disk: these kinds of stages have not run in this store yet"
    checkpoint = f"; a checkpoint of the largest training takes {in_words(disk.checkpoint)}" if disk.checkpoint else ""
    out.print(f"{known}{checkpoint}; {in_words(free)} are free", highlight=False, soft_wrap=True)
    if disk.bytes + disk.checkpoint > free:
        out.print("warning: the disk of the store is too small for that", style="yellow", highlight=False)


def confirm_disk(disk: Disk, store: Path) -> None:
    """Ask whether stages are to be submitted that would leave more than the disk of the store has room for."""
    needed, free = disk.bytes + disk.checkpoint, free_bytes(store)
    if needed > free:
        out.print(f"about {in_words(needed)} of disk are needed, and {in_words(free)} are free", highlight=False)
        typer.confirm("submit nevertheless?", abort=True)


def free_bytes(folder: Path) -> int:
    """Return what the disk has room for on which a folder lies, or will lie."""
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


def in_words(size: float) -> str:
    """Return bytes in the unit that suits them."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1e6:.1f} MB"
