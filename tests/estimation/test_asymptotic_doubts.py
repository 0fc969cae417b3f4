"""Curves that are known exactly and that no range of these temperatures tells: a lambda that is wrong is doubted."""

import functools

import numpy as np
import pytest

from lambda_hat.estimation.temperatures import fit
from lambda_hat.targets.exact import normal_crossing_llc
from tests.estimation.test_temperatures import CASES, RANGE, Case, exact_point, quadratic, sample

SHORT = tuple(np.geomspace(1e3, 3e4, 4))


def crossing(*exponents: int) -> Case:
    value = min(1 / (2 * exponent) for exponent in exponents)
    exact = functools.partial(normal_crossing_llc, exponents=list(exponents))
    return Case(exact, value, [1 / (2 * exponent) for exponent in exponents].count(value), len(exponents))


def with_flat(case: Case, num_flat: int) -> Case:
    return case._replace(dim=case.dim + num_flat)


ESCAPING = {
    "50 of 1e-4 to 10, 30 flat": (with_flat(quadratic(*np.logspace(-4, 1, 50)), 30), 1e-4),
    "20 of 1, 4 of 1e-6": (quadratic(*[1.0] * 20, *[1e-6] * 4), 1e-6),
    "20 of 1, 4 of 1e-6, 10 flat": (with_flat(quadratic(*[1.0] * 20, *[1e-6] * 4), 10), 1e-6),
    "10 of 1, 10 of 1e-4": (quadratic(*[1.0] * 10, *[1e-4] * 10), 1e-4),
    "40 of 1e-7 to 1": (quadratic(*np.logspace(-7, 0, 40)), 1e-7),
}


@pytest.mark.parametrize("name", ESCAPING)
@pytest.mark.parametrize("nbetas", [SHORT, tuple(np.geomspace(1e3, 3e4, 6))])
def test_directions_that_the_localiser_still_holds_are_doubted(name: str, nbetas: tuple[float, ...]) -> None:
    """Sees a spectrum that the target's report knows, and a fit that does not ask for it."""
    case, curvature = ESCAPING[name]
    for seed in range(3):
        found = fit(sample(case, seed, nbetas), 1.0, case.dim, curvature)
        assert any("directions of curvature" in reason for reason in found.reasons)


@pytest.mark.parametrize("exponents", [(4, 5, 6), (6, 6), (5, 6, 7, 8)], ids=str)
@pytest.mark.parametrize("nbetas", [SHORT, tuple(np.geomspace(1e3, 1e5, 5))])
def test_a_loss_that_is_too_flat_for_its_temperatures_is_doubted(
    exponents: tuple[int, ...], nbetas: tuple[float, ...]
) -> None:
    case = crossing(*exponents)
    for seed in range(2):
        found = fit(sample(case, seed, nbetas), 1.0, case.dim)
        assert found.reasons or abs(found.lambda_value - case.value) < 3 * found.lambda_error


def test_a_short_range_allows_a_short_extrapolation() -> None:
    """The first curve of the above by its points alone."""
    case, _ = ESCAPING["50 of 1e-4 to 10, 30 flat"]
    for seed in range(4):
        found = fit(sample(case, seed, SHORT), 1.0, case.dim)
        assert found.reasons or abs(found.lambda_value - case.value) < 3 * found.lambda_error


@pytest.mark.parametrize("name", ["quadratic", "w1^2 w2^4", "w1^2 w2^2 w3^2"])
def test_a_curvature_that_is_free_is_no_doubt(name: str) -> None:
    case = CASES[name]
    assert not fit(sample(case, 0), 1.0, case.dim, 1e-2).reasons


@pytest.mark.parametrize("case", [crossing(3), crossing(4)], ids=["w^6", "w^8"])
def test_a_high_degree_that_its_temperatures_reach_is_no_doubt(case: Case) -> None:
    found = fit(sample(case, 0), 1.0, case.dim)
    assert not found.reasons
    assert abs(found.lambda_value - case.value) < 3 * found.lambda_error


def test_the_doubt_scales_with_gamma() -> None:
    case = quadratic(*[1.0] * 20)
    for gamma, doubted in ((1.0, False), (300.0, True)):
        points = [exact_point(case, nbeta, gamma) for nbeta in RANGE]
        reasons = fit(points, gamma, case.dim, 1e-2).reasons
        assert any("directions of curvature" in reason for reason in reasons) == doubted
