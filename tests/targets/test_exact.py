"""Exact values against oracles made elsewhere, and against each other."""

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy.special import k0e, k1e

from lambda_hat.targets import exact
from lambda_hat.targets.deep_linear import DeepLinear
from tests.targets.oracles import ASYMPTOTIC, CASES
from tests.targets.oracles import exact as oracle

POPULATION = {"has_rows": False}
IDS = [case["id"] for case, _ in CASES]


@pytest.mark.parametrize(("case", "model"), CASES, ids=IDS)
def test_exact_llc_is_the_oracle(case: dict[str, Any], model: Any) -> None:
    """Sees a wrong power of gamma, a missing constant, a contour on the wrong side of a pole."""
    value = model.exact_llc(case.get("t", case["n"] * case["beta"]), case["gamma"], POPULATION)
    if case["kind"] == "importance sampling":
        assert value is None
        return
    assert value == pytest.approx(oracle(case), rel=1e-6)


@pytest.mark.parametrize(("case", "model"), CASES, ids=IDS)
def test_known_lambda_is_the_oracle(case: dict[str, Any], model: Any) -> None:
    """Sees a lambda that is claimed off the minimum, and a wrong multiplicity."""
    expected = None if case["lambda_float"] is None else (case["lambda_float"], case["multiplicity"])
    assert model.known_lambda() == expected


def test_the_oracles_are_read() -> None:
    """Sees a parser that has silently lost cases."""
    assert len(CASES) == 18


@pytest.mark.parametrize(("t", "gamma"), [(1e-3, 1.0), (1.0, 1.0), (145.0, 100.0), (1e4, 0.1), (1e14, 1.0)])
def test_contour_agrees_with_bessel(t: float, gamma: float) -> None:
    """E1 of w1^2 w2^2 is 1/2 + x (1 - K1(x)/K0(x)), x = gamma^2/(8 t). Sees a contour that is too short or coarse."""
    x = gamma**2 / (8 * t)
    bessel = 0.5 + x * (1 - k1e(x) / k0e(x))
    assert exact.normal_crossing_llc(t, gamma, [1, 1]) == pytest.approx(bessel, rel=1e-8)


def test_a_crossing_of_one_variable_is_a_quadratic() -> None:
    """L = w^2 has curvature 2. Sees a wrong scale of w^2 = (2/gamma) Gamma(1/2)."""
    assert exact.normal_crossing_llc(50.0, 3.0, [1]) == pytest.approx(
        exact.quadratic_llc(50.0, 3.0, [2.0], [0.0]), rel=1e-10
    )


@pytest.mark.parametrize("widths", [(3, 1, 4), (1, 3, 4), (4, 3, 1)])
def test_width_one_anywhere_by_quadrature(widths: tuple[int, ...]) -> None:
    """Against E over one chi-square (the other layer integrated out). Sees the wrong widths in the product."""
    t, gamma = 300.0, 2.0
    others = list(widths)
    others.remove(1)
    a, b = others
    chi = np.exp(np.linspace(-60, 6, 20001))
    # A chi-square of a degrees of freedom, times one of b integrated out: (1 + s chi)^(-b/2).
    s = t / gamma**2
    log_weight = 0.5 * a * np.log(chi) - 0.5 * chi - 0.5 * b * np.log1p(s * chi)
    weight = np.exp(log_weight - log_weight.max())
    expected = np.sum(weight * 0.5 * b * s * chi / (1 + s * chi)) / np.sum(weight)
    assert exact.deep_linear_llc(t, gamma, widths) == pytest.approx(expected, rel=1e-8)


def test_no_localiser_no_value() -> None:
    """Sees a number for a posterior that cannot be normalised."""
    assert exact.normal_crossing_llc(10.0, 0.0, [1, 1]) is None
    assert exact.deep_linear_llc(10.0, 0.0, (1, 1, 1)) is None
    assert exact.quadratic_llc(10.0, 0.0, [1.0, 0.0], [0.0, 0.0]) is None
    assert exact.quadratic_llc(10.0, 0.0, [1.0, 2.0], [0.0, 0.0]) == 1.0


@pytest.mark.parametrize("row", ASYMPTOTIC, ids=lambda row: f"{row['widths']} rank {row['rank']}")
def test_deep_linear_lambda_is_the_table(row: dict[str, Any]) -> None:
    """Aoyagi's formula: sees a wrong set S or rounding."""
    assert exact.deep_linear_lambda(row["widths"], row["rank"]) == (Fraction(row["lam"]), row["m"])


def _reduced_rank(m: int, h: int, n: int, r: int) -> tuple[Fraction, int]:
    """(lambda, multiplicity) of reduced rank regression, in M, hidden H, out N (Aoyagi & Watanabe 2005)."""
    if n + r <= m + h and m + r <= n + h and h + r <= m + n:
        value = 2 * (h + r) * (m + n) + 2 * m * n - (h + r) ** 2 - m**2 - n**2
        odd = (m + n + h + r) % 2
        return Fraction(value + odd, 8), 1 + odd
    if m + h < n + r:
        return Fraction(h * m - h * r + n * r, 2), 1
    if n + h < m + r:
        return Fraction(h * n - h * r + m * r, 2), 1
    return Fraction(m * n, 2), 1


def test_two_layers_are_reduced_rank_regression() -> None:
    """An older formula for L = 2, over all small widths. Sees a tie between widths that is cut in two."""
    for m, h, n in np.ndindex(6, 6, 6):
        widths = (m + 1, h + 1, n + 1)
        for rank in range(min(widths) + 1):
            assert exact.deep_linear_lambda(widths, rank) == _reduced_rank(*widths, rank), (widths, rank)


def test_e1_tends_to_lambda() -> None:
    """The finite value and lambda are two fields: they agree only as nbeta grows."""
    value = exact.deep_linear_llc(1e14, 1.0, (5, 4, 3, 2, 1))
    assert value == pytest.approx(float(exact.deep_linear_lambda((5, 4, 3, 2, 1), 0)[0]), rel=1e-6)


def _brute_force(widths: tuple[int, ...], rank: int) -> set[tuple[Fraction, int]]:
    """What Aoyagi's formula says for every set S of layers that fits its conditions, whatever its order."""
    deficits = [h - rank for h in widths]
    found: set[tuple[Fraction, int]] = set()
    for size in range(2, len(deficits) + 1):
        for chosen in itertools.combinations(range(len(deficits)), size):
            inside = [deficits[i] for i in chosen]
            outside = [deficit for i, deficit in enumerate(deficits) if i not in chosen]
            s, l = sum(inside), size - 1  # noqa: E741 - the paper's letter
            if s < l * max(inside) or (outside and not (max(inside) < min(outside) and s < l * min(outside))):
                continue
            a = s - (math.ceil(Fraction(s, l)) - 1) * l
            products = sum(x * y for x, y in itertools.combinations(inside, 2))
            value = Fraction(rank * (widths[0] + widths[-1]) - rank**2, 2) + Fraction(a * (l - a), 4 * l)
            found.add((value - Fraction(l - 1, 4 * l) * s**2 + Fraction(products, 2), a * (l - a) + 1))
    return found


def _random_networks(count: int) -> list[tuple[tuple[int, ...], int]]:
    """Widths of one to six layers with many ties, and a rank."""
    rng = np.random.default_rng(0)
    widths = [tuple(rng.integers(1, rng.integers(3, 13), rng.integers(2, 8)).tolist()) for _ in range(count)]
    return [(h, int(rng.integers(0, min(h) + 1))) for h in widths]


NETWORKS = _random_networks(400)


def test_the_prefix_search_is_the_search_over_all_sets() -> None:
    """Exactly one value for each network. Sees a tie that is cut in two, and a set that only another order has."""
    assert {len(widths) - 1 for widths, _ in NETWORKS} == {1, 2, 3, 4, 5, 6}
    for widths, rank in NETWORKS:
        assert {exact.deep_linear_lambda(widths, rank)} == _brute_force(widths, rank), (widths, rank)


def test_a_width_of_one_is_a_product_of_norms() -> None:
    """Rank 0: L is a product of squared norms, so lambda is half the least of the other widths, and m how many have it.
    Sees a wrong multiplicity at a depth that reduced rank regression has not."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        others = rng.integers(1, 6, rng.integers(1, 7)).tolist()
        widths = list(others)
        widths.insert(int(rng.integers(len(widths) + 1)), 1)
        assert exact.deep_linear_lambda(widths, 0) == (Fraction(min(others), 2), others.count(min(others))), widths


def test_what_lambda_does_as_a_network_changes() -> None:
    """Hidden layers may be permuted; a wider one never lowers lambda, and no lambda exceeds half of what it counts."""
    rng = np.random.default_rng(2)
    for widths, rank in NETWORKS:
        value, multiplicity = exact.deep_linear_lambda(widths, rank)
        first, *hidden, last = widths
        mixed = rng.permutation(hidden).tolist()
        assert exact.deep_linear_lambda([last, *mixed, first], rank) == (value, multiplicity)
        assert value <= Fraction(first * last, 2)
        assert value <= Fraction(sum(a * b for a, b in itertools.pairwise(widths)), 2)
        assert 1 <= multiplicity <= (len(widths) - 1) ** 2 // 4 + 1
        if hidden:
            wider = [first, hidden[0] + 1, *hidden[1:], last]
            assert exact.deep_linear_lambda(wider, rank)[0] >= value
        # One more layer, as wide as all others together, binds nothing; a narrower one only frees.
        assert exact.deep_linear_lambda([first, sum(widths), *hidden, last], rank) == (value, multiplicity)
        assert exact.deep_linear_lambda([first, rank + 1, *hidden, last], rank)[0] <= value


def test_rank_zero_and_full_rank_are_limits() -> None:
    """A full-rank product of layers that bind nothing is regular: lambda is half the product's entries."""
    for widths, _ in NETWORKS:
        first, last = widths[0], widths[-1]
        wide = [first, first + last, last]
        assert exact.deep_linear_lambda(wide, min(first, last)) == (Fraction(first * last, 2), 1)
        if min(widths) == min(first, last):
            assert exact.deep_linear_lambda(widths, min(widths)) == (Fraction(first * last, 2), 1), widths


@pytest.mark.parametrize("widths", [(4, 7), (1, 1), (9, 2)])
def test_one_layer_of_any_rank_is_regular(widths: tuple[int, int]) -> None:
    for rank in range(min(widths) + 1):
        assert exact.deep_linear_lambda(widths, rank) == (Fraction(widths[0] * widths[1], 2), 1)
        value = DeepLinear(widths=widths, rank=rank).exact_llc(50.0, 2.0, POPULATION)
        assert value == pytest.approx(widths[0] * widths[1] / 2 * 50 / 52)


@pytest.mark.parametrize("widths", [(3, 1, 2, 2), (1, 2, 4), (2, 3, 2), (4, 2, 3), (2, 2, 2, 1, 5), (1, 1, 1, 1)])
def test_finite_values_approach_lambda_as_the_multiplicity_says(widths: tuple[int, ...]) -> None:
    """E1 = lambda - (m - 1) / (log t + c) + ..., so that 1 / (lambda - E1) rises with log t by 1 / (m - 1). Sees a
    lambda and an E1 that are of two networks, a multiplicity off by one, and an integral that is cut short."""
    value, multiplicity = exact.deep_linear_lambda(widths, 0)
    low, high = 1e30, 1e36
    gaps = [float(value) - (exact.deep_linear_llc(t, 1.0, widths) or 0.0) for t in (low, high)]
    if multiplicity == 1:
        assert gaps == pytest.approx([0.0, 0.0], abs=1e-6)
        return
    slope = (1 / gaps[1] - 1 / gaps[0]) / math.log(high / low)
    assert 1 / slope == pytest.approx(multiplicity - 1, rel=0.1)
