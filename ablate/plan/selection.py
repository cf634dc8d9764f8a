"""Which cells are planned: those of the grid as it is written, or with the values that tuning found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ablate.experiment.grid import Cell, Grid
from ablate.experiment.tuning import Tuning


@dataclass(frozen=True)
class Selection:
    """The cells to plan.

    ``whole`` is the grid they are of: what its cells share by being together (``data.match``) is the same for a part of
    them. ``waiting`` are cells that can't be run yet, with the reason; they have rows and no stages.
    """

    whole: Grid
    grid: Grid
    waiting: Mapping[Cell, str] = field(default_factory=dict)
    tuning: Tuning | None = None

    @classmethod
    def of_tuning(cls, tuning: Tuning) -> Selection:
        """Return the cells of an experiment that is tuned, as far as its tuning has come."""
        return cls(tuning.whole, tuning.grid, tuning.waiting, tuning)

    def starts_open(self, cell: Cell) -> bool:
        """Return whether a waiting cell's tuning reaches what it starts from: its data, SFT or reward model."""
        if self.tuning is None or cell not in self.waiting:
            return False
        return any(key.partition(".")[0] != cell.method.name for key in self.tuning.of_cell[cell].search)
