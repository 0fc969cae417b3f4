"""lambda and its multiplicity from several temperatures, on curves that are known exactly, with Monte Carlo noise."""

import functools
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from lambda_hat.estimation.temperatures import Point, fit, pairs
from lambda_hat.run.loop import execute
from lambda_hat.store.layout import Store
from lambda_hat.targets.exact import deep_linear_lambda, deep_linear_llc, normal_crossing_llc, quadratic_llc
from tests.jobs import make_job
from tests.targets.oracles import ASYMPTOTIC

# The effective draws of an estimate whose error is about 0.4 % of an LLC of 1 to 10.
DRAWS = 10_000
RANGE = tuple(np.geomspace(1e2, 1e6, 6))


class Case(NamedTuple):
    """E1 of nbeta and gamma exactly, and what it tends to."""

    llc: Callable[[float, float], float | None]
    value: float
    multiplicity: int
    dim: int


def deep_linear(*widths: int) -> Case:
    value, multiplicity = deep_linear_lambda(widths, 0)
    dim = sum(a * b for a, b in itertools.pairwise(widths))
    return Case(functools.partial(deep_linear_llc, widths=widths), float(value), multiplicity, dim)


def quadratic(*curvatures: float) -> Case:
    exact = functools.partial(quadratic_llc, curvatures=curvatures, offsets=[0.0] * len(curvatures))
    return Case(exact, len(curvatures) / 2, 1, len(curvatures))


CASES = {
    "quadratic": quadratic(*np.logspace(-2, 0, 20)),
    "w1^2 w2^2": Case(functools.partial(normal_crossing_llc, exponents=[1, 1]), 0.5, 2, 2),
    "w1^2 w2^4": Case(functools.partial(normal_crossing_llc, exponents=[1, 2]), 0.25, 1, 2),
    "w1^2 w2^2 w3^2": Case(functools.partial(normal_crossing_llc, exponents=[1, 1, 1]), 0.5, 3, 3),
    "3-1-3": deep_linear(3, 1, 3),
    "2-2-2": deep_linear(2, 2, 2),
    "5-2-4": deep_linear(5, 2, 4),
    "2-2-2-1": deep_linear(2, 2, 2, 1),
    "5-4-3-2-1": deep_linear(5, 4, 3, 2, 1),
}


def exact_point(case: Case, nbeta: float, gamma: float = 1.0) -> Point:
    """What infinitely many draws would give, with the errors of DRAWS draws of x ~ Gamma(E1)."""
    step = 1e-4
    llc = case.llc(nbeta, gamma)
    above, below = case.llc(nbeta * math.exp(step), gamma), case.llc(nbeta * math.exp(-step), gamma)
    assert llc is not None
    assert above is not None
    assert below is not None
    slope = (above - below) / (2 * step)
    variance = llc - slope
    e1_mcse, e3_mcse = math.sqrt(variance / DRAWS), math.sqrt((2 * variance**2 + 6 * variance) / DRAWS)
    # Gamma's correlation between mean and variance, 2 / sqrt(2 (k + 3)).
    shared = e1_mcse * e3_mcse * 2 / math.sqrt(2 * (llc + 3))
    return Point(nbeta, llc, e1_mcse, variance, e3_mcse, slope, math.sqrt(e1_mcse**2 + e3_mcse**2 - 2 * shared))


def noisy(point: Point, rng: np.random.Generator) -> Point:
    e1, e3 = rng.multivariate_normal([point.e1, point.e3], point.covariance)
    return point._replace(e1=e1, e3=e3, e1_minus_e3=e1 - e3)


def sample(case: Case, seed: int, nbetas: tuple[float, ...] = RANGE, gamma: float = 1.0) -> list[Point]:
    rng = np.random.default_rng(seed)
    return [noisy(exact_point(case, nbeta, gamma), rng) for nbeta in nbetas]


@pytest.mark.parametrize("name", CASES)
def test_lambda_within_its_error(name: str) -> None:
    case = CASES[name]
    found = [fit(sample(case, seed), 1.0, case.dim) for seed in range(4)]
    for one in found:
        assert not one.reasons
        assert abs(one.lambda_value - case.value) < 3 * one.lambda_error
        assert one.lambda_error < 0.1 * case.value + 0.02
        assert abs(one.lambda_value - case.value) < 0.1 * case.value
    # Noise leaves m open (its probabilities say how much), but not whether it is likely at all.
    assert np.mean([one.probabilities[case.multiplicity - 1] for one in found]) > 0.15


@pytest.mark.slow
def test_intervals_cover() -> None:
    """The 90 % intervals of 108 fits, mixed over m: the worst case, m = 3 at four temperatures, is among them."""
    covered = [
        low < case.value < high
        for case in CASES.values()
        for nbetas in (RANGE, tuple(np.geomspace(1e3, 1e6, 4)))
        for seed in range(6)
        for low, high in [fit(sample(case, seed, nbetas), 1.0, case.dim).lambda_interval90]
    ]
    assert 0.85 <= np.mean(covered) <= 0.99


def test_the_fit_tells_more_than_the_last_temperature() -> None:
    """On singular cases with m > 1 the LLC at the highest nbeta is still 12 % low; the fit is not."""
    case = CASES["w1^2 w2^2"]
    points = sample(case, 0)
    assert points[-1].e1 < 0.9 * case.value
    assert fit(points, 1.0, case.dim).lambda_value == pytest.approx(case.value, rel=0.07)


def test_gamma_shifts_the_curve_and_not_lambda() -> None:
    case = CASES["5-2-4"]
    for gamma in (0.3, 3.0):
        found = fit(sample(case, 1, gamma=gamma), gamma, case.dim)
        assert found.lambda_value == pytest.approx(case.value, abs=3 * found.lambda_error)


def test_multiplicity_is_found_where_noise_allows() -> None:
    """Ten times as small errors, four decades."""
    for name in ("w1^2 w2^4", "w1^2 w2^2"):
        case = CASES[name]
        exact = [exact_point(case, nbeta) for nbeta in RANGE]
        sharp = [
            point._replace(
                e1_mcse=point.e1_mcse / 10, e3_mcse=point.e3_mcse / 10, e1_minus_e3_mcse=point.e1_minus_e3_mcse / 10
            )
            for point in exact
        ]
        assert fit(sharp, 1.0, case.dim).multiplicity == case.multiplicity


def test_temperatures_that_the_localiser_still_holds_are_dropped() -> None:
    """Below nbeta = gamma / h a direction of curvature h is erased: no asymptotic form bends so."""
    case = quadratic(*[1.0] * 20)
    nbetas = (3.0, 10.0, *np.geomspace(1e3, 1e5, 4))
    found = fit(sample(case, 0, nbetas, gamma=30.0), 30.0, case.dim)
    assert min(found.nbetas) >= 10.0
    assert found.lambda_value == pytest.approx(10.0, abs=3 * found.lambda_error)


def test_a_spectrum_that_is_still_escaping_is_doubted() -> None:
    """Curvatures over five decades: E1 rises steadily and is nowhere near d / 2 yet."""
    case = quadratic(*np.logspace(-4, 1, 50))
    found = fit(sample(case, 0, tuple(np.geomspace(1e2, 1e4, 5))), 1.0, case.dim)
    assert found.reasons


def test_a_loss_at_w0_that_is_off_is_doubted() -> None:
    """L_n(w0) too high by a: E1 falls by a t, which no asymptotic form does."""
    points = [point._replace(e1=point.e1 - 1e-5 * point.nbeta) for point in sample(CASES["5-2-4"], 0)]
    points = [point._replace(e1_minus_e3=point.e1 - point.e3) for point in points]
    assert "no asymptotic form explains" in fit(points, 1.0, 18).reasons[0]


def test_a_narrow_span_and_a_long_extrapolation_are_doubted() -> None:
    near = fit(sample(CASES["5-2-4"], 0, (1000.0, 1500.0, 2000.0, 3000.0)), 1.0, 18)
    assert any("span a factor of 3 only" in reason for reason in near.reasons)
    far = fit(sample(Case(functools.partial(normal_crossing_llc, exponents=[1] * 4), 0.5, 4, 4), 0), 1.0, 4)
    assert any("beyond the LLC at the highest nbeta" in reason for reason in far.reasons)


def test_errors_that_contradict_each_other_make_nothing_exact() -> None:
    """Four short runs on a network of 24,128 parameters, one of which has a larger error of E1 - E3 than its E1 and E3
    allow. Sees a combination of the two that then has no error rule the fit: its E1 alone give 574 to 585 +- 3."""
    points = [
        Point(1e3, 571.7, 5.035, 476.3, 112.2, 95.47, 110.6),
        Point(1e4, 579.9, 7.815, 963.0, 168.0, -383.1, 170.0),
        Point(1e5, 585.6, 6.676, 973.0, 273.2, -387.3, 280.1),
        Point(1e6, 579.0, 4.061, 695.2, 100.5, -116.2, 99.59),
    ]
    assert points[2].e1_minus_e3_mcse > points[2].e1_mcse + points[2].e3_mcse
    found = fit(points, 10.0, 24_128)
    assert found.lambda_error > sum(point.e1_mcse**-2 for point in points) ** -0.5
    assert found.lambda_value == pytest.approx(580.0, abs=3 * found.lambda_error)


def test_three_temperatures_are_refused() -> None:
    points = sample(CASES["2-2-2"], 0, (1e3, 1e4, 1e5))
    nothing = Point(1e6, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan)
    with pytest.raises(ValueError, match="needs at least 4 values of nbeta with an LLC and its error, got 3"):
        fit([*points, points[0], nothing], 1.0, 8)


def test_e2_is_the_mean_of_e3_and_needs_no_loss_at_w0() -> None:
    case = CASES["w1^2 w2^2"]
    low, high = (exact_point(case, nbeta) for nbeta in (1e3, 1.5e3))
    [pair] = pairs([high, low])
    assert (pair.low, pair.high) == (1e3, 1.5e3)
    # Between two near temperatures E3 is all but linear in log t.
    assert pair.e2.llc == pytest.approx(0.5 * (low.e3 + high.e3), rel=1e-2)
    assert pair.e2_minus_e3.llc == pytest.approx(0.0, abs=1e-4)
    assert pair.e1_minus_e2.llc == pytest.approx(low.e1_minus_e3, rel=0.05)
    off = [point._replace(e1=point.e1 - 0.01 * point.nbeta) for point in (low, high)]
    [shifted] = pairs(off)
    assert shifted.e2.llc == pytest.approx(pair.e2.llc)
    assert shifted.e1_minus_e2.llc < -1


def test_errors_of_e2_are_those_of_its_noise() -> None:
    case, rng = CASES["5-2-4"], np.random.default_rng(0)
    exact = [exact_point(case, nbeta) for nbeta in (1e3, 1e4)]
    drawn = [pairs([noisy(point, rng) for point in exact])[0] for _ in range(400)]
    for name in ("e2", "e1_minus_e2", "e2_minus_e3"):
        values = [getattr(pair, name).llc for pair in drawn]
        assert np.std(values) == pytest.approx(getattr(drawn[0], name).mcse, rel=0.15)


def _measured(row: dict[str, Any], nbeta: float, root: Path, num_steps: int, budget: dict[str, float]) -> Point:
    """The estimate of HMC at one temperature of a row of oracles.json."""
    job = make_job(
        root,
        model={"_target_": "lambda_hat.targets.deep_linear.DeepLinear", "widths": row["widths"], "rank": row["rank"]},
        data={"_target_": "lambda_hat.targets.data.Population", "n": 10_000},
        posterior={"gamma": 1.0, "nbeta": nbeta},
        sampler={"_target_": "lambda_hat.samplers.hmc.HMC", "num_integration_steps": num_steps},
        num_chains=4,
        budget=budget,
    )
    found = json.loads(execute(job, Store(root)).analysis.read_text())
    names = ("nbeta", "llc", "llc_mcse", "llc_variance", "llc_variance_mcse", "e1_minus_e3", "e1_minus_e3_mcse")
    return Point(*(found[name] for name in names))


@pytest.mark.slow
def test_a_deep_linear_network_of_two_ranks_is_within_five_percent_and_in_order(tmp_path: Path) -> None:
    """The fast slice of the next test: two asymptotic rows of one shape, so that they share compiled code."""
    rows = [row for row in ASYMPTOTIC if row["widths"] == [5, 5, 5, 5]]
    assert [row["lam_float"] for row in rows] == [8.5, 11.0]
    fitted: list[float] = []
    for row in rows:
        points = [_measured(row, nbeta, tmp_path, 64, {"draws": 600}) for nbeta in (1e3, 1e4, 1e5, 1e6)]
        found = fit(points, 1.0, row["d"])
        assert found.lambda_value == pytest.approx(row["lam_float"], rel=0.05)
        fitted.append(found.lambda_value)
    assert fitted[0] < fitted[1]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_deep_linear_networks_are_within_five_percent_and_in_order(tmp_path: Path) -> None:
    """The asymptotic rows of oracles.json of up to 1,000 parameters, by HMC at four temperatures."""
    rows = [row for row in ASYMPTOTIC if row["d"] <= 1000]
    assert len(rows) == 10
    budget = {"mcse": 0.004, "seconds": 400}
    fitted: list[float] = []
    for row in rows:
        points = [_measured(row, nbeta, tmp_path, 48 if nbeta < 3e4 else 128, budget) for nbeta in (1e3, 1e4, 1e5, 1e6)]
        found = fit(points, 1.0, row["d"])
        assert found.lambda_value == pytest.approx(row["lam_float"], rel=0.05)
        fitted.append(found.lambda_value)
    known = [row["lam_float"] for row in rows]
    assert np.array_equal(np.argsort(fitted), np.argsort(known))
