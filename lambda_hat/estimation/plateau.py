"""Where an estimate does not depend on the step size: found from the runs alone, without knowing the answer. Pure.

At one posterior, a **plateau** is a stretch of at least two neighbouring step sizes of the grid whose runs are all
reliable (their verdict has no reason) and whose LLCs all agree, every two within three combined errors or 1 % of the
LLC, whichever is more. Its widest stretch counts; of two as wide, that of the larger steps, which mix faster.

Of its steps the recommended one has the smallest expected error sqrt(mcse^2 + bias^2). A step's bias is taken as b eps,
from the line a + b eps that least squares put through the plateau, since SGLD and its kin err at O(eps); as far as b
exceeds its own error, for noise has a slope, too.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lambda_hat.estimation.estimate import AGREEMENT, LLC

TOLERANCE = 0.01
_FEWEST_STEPS = 2


class Cell(NamedTuple):
    """One run of the grid; ``llc`` and ``mcse`` are NaN for one without a result."""

    step_size: float
    gamma: float
    nbeta: float
    llc: float
    mcse: float
    reasons: tuple[str, ...]
    run_id: str

    @property
    def is_sound(self) -> bool:
        return math.isfinite(self.llc) and math.isfinite(self.mcse) and not self.reasons


class Plateau(NamedTuple):
    """Neighbouring step sizes of one posterior, by rising step size, and which of them is best."""

    cells: tuple[Cell, ...]
    best: int
    slope: LLC

    @property
    def recommended(self) -> Cell:
        return self.cells[self.best]

    @property
    def bias(self) -> LLC:
        """What the recommended step is expected to be off by, and how well that is known."""
        step = self.recommended.step_size
        return LLC(self.slope.llc * step, self.slope.mcse * step)


def agree(first: Cell, second: Cell) -> bool:
    """Whether two step sizes give one LLC, as far as their errors and 1 % of it can tell."""
    allowed = max(AGREEMENT * math.hypot(first.mcse, second.mcse), TOLERANCE * max(abs(first.llc), abs(second.llc)))
    return abs(first.llc - second.llc) <= allowed


def find_plateau(cells: Sequence[Cell]) -> Plateau | None:
    """The plateau among the runs of one posterior, or None.

    Args:
        cells: One for each step size of the grid, whatever became of it.
    """
    ordered = sorted(cells, key=lambda cell: cell.step_size)
    stretches = [
        ordered[start:stop]
        for start, stop in itertools.combinations(range(len(ordered) + 1), 2)
        if stop - start >= _FEWEST_STEPS
        and all(cell.is_sound for cell in ordered[start:stop])
        and all(agree(*pair) for pair in itertools.combinations(ordered[start:stop], 2))
    ]
    if not stretches:
        return None
    widest = max(stretches, key=lambda stretch: (len(stretch), stretch[0].step_size))
    slope = _slope(widest)
    known = max(abs(slope.llc) - slope.mcse, 0.0)
    errors = [math.hypot(cell.mcse, known * cell.step_size) for cell in widest]
    return Plateau(tuple(widest), int(np.argmin(errors)), slope)


def _slope(cells: Sequence[Cell]) -> LLC:
    """b of the line a + b eps through the LLCs, and its error."""
    steps, values, errors = np.array([(cell.step_size, cell.llc, cell.mcse) for cell in cells]).T
    weights = errors**-2
    centred = steps - weights @ steps / weights.sum()
    squares = float(weights @ centred**2)
    return LLC(float(weights @ (centred * values)) / squares, squares**-0.5)


def best_plateau(cells: Sequence[Cell]) -> Plateau | None:
    """Of all posteriors of a grid, the widest plateau; of equally wide ones that of the smallest gamma, which erases
    least, and then of the largest nbeta."""
    found = [plateau for group in posteriors(cells).values() if (plateau := find_plateau(group)) is not None]
    return max(found, key=lambda p: (len(p.cells), -p.cells[0].gamma, p.cells[0].nbeta), default=None)


def posteriors(cells: Sequence[Cell]) -> dict[tuple[float, float], list[Cell]]:
    """The cells of each (nbeta, gamma), both rising."""
    groups: dict[tuple[float, float], list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.nbeta, cell.gamma, cell.step_size)):
        groups.setdefault((cell.nbeta, cell.gamma), []).append(cell)
    return groups
