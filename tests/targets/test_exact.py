"""Exact values against oracles made elsewhere, and against each other."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy.special import k0e, k1e

from lambda_hat.targets import exact
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
