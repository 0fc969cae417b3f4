"""Change points: how often flat noise shows one, whether real ones are found, and whether intervals hold them."""

import math

import numpy as np
import pytest
from jaxtyping import Float

from lambda_hat.estimation.change_points import ChangePoints, change_points


def noisy(rng: np.random.Generator, n: int, scatter: float) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Noise around 0 with known errors, and these: the scatter is not among them."""
    errors = 0.5 + rng.random(n)
    return rng.normal(size=n) * np.hypot(errors, scatter), errors


def found(values: Float[np.ndarray, " n"], errors: Float[np.ndarray, " n"]) -> ChangePoints:
    return change_points(range(values.size), values.tolist(), errors.tolist(), [True] * values.size)


@pytest.mark.parametrize(("n", "scatter"), [(8, 3.0), (30, 0.0), (30, 1.0), (200, 3.0)])
def test_flat_noise_seldom_changes(n: int, scatter: float) -> None:
    """In at most one curve of 20, but for three binomial errors."""
    rng, repeats = np.random.default_rng(n), 200
    false = sum(bool(found(*noisy(rng, n, scatter)).points) for _ in range(repeats))
    assert false / repeats <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)


@pytest.mark.parametrize(("n", "scatter", "step"), [(30, 0.0, 5.0), (100, 1.0, 6.0)])
def test_steps_are_found_and_their_intervals_hold_them(n: int, scatter: float, step: float) -> None:
    rng, repeats, places, held = np.random.default_rng(n), 150, (n // 3, n // 2), 0
    for _ in range(repeats):
        values, errors = noisy(rng, n, scatter)
        for place in places:
            values[place:] += step
        points = found(values, errors).points
        held += len(points) == 2 and all(
            point.low <= place - 1 and place <= point.high for point, place in zip(points, places, strict=True)
        )
    assert held / repeats >= 0.9**2 - 3 * math.sqrt(0.81 * 0.19 / repeats)


def test_levels_and_scatter_are_those_of_the_curve() -> None:
    rng = np.random.default_rng(0)
    values = 1000.0 + np.where(np.arange(400) < 250, 0.0, 10.0) + rng.normal(size=400) * math.hypot(0.3, 1.0)
    seen = change_points(range(0, 4000, 10), values.tolist(), [0.3] * 400, [True] * 400)
    (point,) = seen.points
    assert (point.before, point.after) == (2490, 2500)
    assert point.low <= 2490 < 2500 <= point.high
    assert abs(point.level_before - 1000) < 4 * 1.05 / math.sqrt(250)
    assert abs(point.level_after - 1010) < 4 * 1.05 / math.sqrt(150)
    assert abs(seen.scatter - 1.0) < 0.25


def test_refused_points_are_left_out() -> None:
    values = [1.0] * 6 + [900.0] * 3 + [1.1] * 6 + [math.nan]
    reliable = [True] * 6 + [False] * 3 + [True] * 7
    seen = change_points(range(16), values, [0.1] * 16, reliable)
    assert (seen.points, seen.left_out, seen.reason) == ((), 4, None)


@pytest.mark.parametrize(("values", "errors", "reason"), [
    ([1.0] * 5, [0.1] * 5, "needs 6 reliable points, got 5"),
    ([1.0] * 8, [0.0] * 8, "needs values with errors, or that scatter"),
    ([], [], "needs 6 reliable points, got 0"),
])  # fmt: skip
def test_what_cannot_be_looked_at_has_a_reason(values: list[float], errors: list[float], reason: str) -> None:
    seen = change_points(range(len(values)), values, errors, [True] * len(values))
    assert (seen.points, seen.reason) == ((), reason)
