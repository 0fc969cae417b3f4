r"""Where a curve steps from one level to another: change points of a mean, with an interval for each.

The model of values y_i with known standard errors s_i, in the order of their steps:

    y_i ~ N(mu_k, s_i^2 + tau^2)    for i in the k-th stretch,

where tau is an extra scatter, from checkpoint to checkpoint, that the errors do not know. It is estimated from the
differences of neighbours by their median, which a few steps between levels do not move. The stretches, of two points or
more, minimise

    sum_i (y_i - mean_k(i))^2 / (s_i^2 + tau^2)  +  penalty x (number of change points)

exactly, by dynamic programming in O(n^2). The penalty was set by simulation: of flat curves, at most one in 20 shows a
change point. A curve that drifts shows change points, too: a staircase is what the model can make of a slope.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# Reliable points below which nothing is looked for, and the shortest stretch.
_LEAST_POINTS, _SHORTEST = 6, 2
# Median of a squared standard normal.
_MEDIAN_CHI2 = 0.4549364
# Share of the likelihood that an interval holds.
_SHARE = 0.9

Values = Float[np.ndarray, " point"]


class ChangePoint(NamedTuple):
    """One step from a level to another.

    before: The last step of the old level. after: The first of the new one. low, high: 90 % of the likelihood is for a
    change between these steps. level_before, level_after: The means on both sides.
    """

    before: float
    after: float
    low: float
    high: float
    level_before: float
    level_after: float


class ChangePoints(NamedTuple):
    """What was found.

    points: The change points, in the order of steps. left_out: Points that were not looked at: refused, or without a
    value or an error. scatter: tau; NaN where there is a reason. reason: Why nothing was looked for.
    """

    points: tuple[ChangePoint, ...]
    left_out: int
    scatter: float
    reason: str | None = None


class _Sums(NamedTuple):
    """Running sums of weights, weighted values and weighted squares, from which a stretch's cost follows."""

    w: Values
    wy: Values
    wyy: Values

    def cost(self, start: Int[np.ndarray, " start"] | int, stop: Int[np.ndarray, " stop"] | int) -> Values:
        w, wy, wyy = (total[stop] - total[start] for total in self)
        return np.maximum(wyy - wy**2 / w, 0.0)


def change_points(
    steps: Sequence[float], values: Sequence[float], errors: Sequence[float], reliable: Sequence[bool]
) -> ChangePoints:
    """The change points of a curve.

    Args:
        steps: Increasing.
        values: One a step.
        errors: Their standard errors.
        reliable: Which of them the verdict accepts; the others are left out.
    """
    t, y, s = (np.asarray(column, float) for column in (steps, values, errors))
    kept = np.asarray(reliable, bool) & np.isfinite(y) & np.isfinite(s)
    left_out = int(y.size - kept.sum())
    t, y, s = t[kept], y[kept], s[kept]
    if y.size < _LEAST_POINTS:
        reason = f"needs {_LEAST_POINTS} reliable points, got {y.size}"
        return ChangePoints((), left_out, math.nan, reason)
    scatter = _scatter(y, s)
    variance = s**2 + scatter**2
    if not (variance > 0).all():
        return ChangePoints((), left_out, scatter, "needs values with errors, or that scatter")
    centre = float(np.average(y, weights=1 / variance))  # else its square would swallow the differences
    sums = _sums(y - centre, 1 / variance)
    starts = _best_starts(sums, _penalty(y.size))
    return ChangePoints(tuple(_described(t, sums, starts, centre)), left_out, scatter)


def _scatter(y: Values, s: Values) -> float:
    """tau at which half of the squared differences of neighbours are below their median under the model."""
    squares, known = np.diff(y) ** 2, s[1:] ** 2 + s[:-1] ** 2

    def is_too_small(tau: float) -> bool:
        return bool(np.median(squares - _MEDIAN_CHI2 * (known + 2 * tau**2)) > 0)

    low, high = 0.0, 2.0 * math.sqrt(float(squares.max()))
    if not is_too_small(low):
        return 0.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if is_too_small(middle) else (low, middle)
    return high


def _penalty(n: int) -> float:
    """What a change point must gain: more where few differences tell of the scatter, or there are many places."""
    return 10.5 + 0.45 * math.log(n) + 30.0 / n


def _sums(y: Values, weight: Values) -> _Sums:
    columns = (weight, weight * y, weight * y**2)
    return _Sums(*(np.concatenate([[0.0], np.cumsum(column)]) for column in columns))


def _best_starts(sums: _Sums, penalty: float) -> list[int]:
    """Where the best stretches begin, the first of them at 0, and where the last ends."""
    n = sums.w.size - 1
    best, came_from = np.full(n + 1, np.inf), np.zeros(n + 1, int)
    best[0] = -penalty
    for stop in range(_SHORTEST, n + 1):
        starts = np.arange(stop - _SHORTEST + 1)
        total = best[starts] + sums.cost(starts, stop) + penalty
        came_from[stop] = int(np.argmin(total))
        best[stop] = total[came_from[stop]]
    ends = [n]
    while ends[-1] > 0:
        ends.append(int(came_from[ends[-1]]))
    return ends[::-1]


def _described(t: Values, sums: _Sums, starts: list[int], centre: float) -> list[ChangePoint]:
    mean = centre + np.diff(sums.wy[starts]) / np.diff(sums.w[starts])
    found: list[ChangePoint] = []
    for place in range(1, len(starts) - 1):
        change = starts[place]
        first, last = _interval(sums, starts[place - 1], starts[place + 1])
        before, after, low, high = t[[change - 1, change, first - 1, last]].tolist()
        found.append(ChangePoint(before, after, low, high, *mean[place - 1 : place + 1].tolist()))
    return found


def _interval(sums: _Sums, start: int, stop: int) -> tuple[int, int]:
    """The first and last of the most likely places of the one change between ``start`` and ``stop``, which together
    have 90 % of the likelihood."""
    places = np.arange(start + 1, stop)
    cost = sums.cost(start, places) + sums.cost(places, stop)
    share = np.exp(-0.5 * (cost - cost.min()))
    order = np.argsort(-share, kind="stable")
    held = np.cumsum(share[order]) / share.sum()
    likely = places[order[: int(np.searchsorted(held, _SHARE)) + 1]]
    return int(likely.min()), int(likely.max())
