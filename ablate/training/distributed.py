"""Several processes that train one model together: who this one is, its share of the work, and what they exchange.

A rank computes its share of every batch and the gradients are added up, so that batches, data order and results are
those of one process, but for rounding. Everything here does nothing in a stage of one process.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")
PATIENCE = datetime.timedelta(hours=2)
"""How long a rank waits for the others; whoever fails is told from outside, by killing the rest."""


def join(rendezvous: str, rank: int, world: int, gpu: int) -> None:
    """Make this process rank ``rank`` of ``world``, with the GPU of index ``gpu``, if there are any.

    They find one another through ``rendezvous``, the address of a file or of a host and its port.
    """
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(gpu)
    distributed.init_process_group(backend, init_method=rendezvous, rank=rank, world_size=world, timeout=PATIENCE)


def leave() -> None:
    """End what ``join`` began, when all ranks have come so far."""
    distributed.barrier()
    distributed.destroy_process_group()


def world() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return this process's number among them."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Return whether this is the one process that writes checkpoints, history and output."""
    return rank() == 0


def share(items: Sequence[T]) -> list[T]:
    """Return this process's share: every ``world``-th item, so that neighbours (of similar length) are spread."""
    return list(items[rank() :: world()])


def gathered(value: T) -> list[T]:
    """Return the values of all processes, by rank."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    distributed.all_gather_object(values, value)
    return values


def interleaved(own: Sequence[T]) -> list[T]:
    """Return the items of which each process has its ``share``, in their order."""
    parts = gathered(list(own))
    return [parts[i % len(parts)][i // len(parts)] for i in range(sum(len(part) for part in parts))]


def from_main(value: T) -> T:
    """Return the main process's value."""
    if world() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def barrier() -> None:
    """Wait for all processes."""
    if world() > 1:
        distributed.barrier()


def summed(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; one that is 0 outside its own rows is put together so."""
    if world() > 1:
        value = value.clone()
        distributed.all_reduce(value)
    return value


def summed_values(values: Mapping[str, float]) -> dict[str, float]:
    """Return the sums of named values over all processes."""
    sums: dict[str, float] = {}
    for part in gathered(dict(values)):
        for name, value in part.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add the gradients of all processes up, in place."""
    if world() == 1:
        return
    works = []
    for parameter in parameters:
        if parameter.grad is None:  # this process had no share of the batch
            parameter.grad = torch.zeros_like(parameter)
        works.append(cast(distributed.Work, distributed.all_reduce(parameter.grad, async_op=True)))
    for work in works:
        work.wait()
