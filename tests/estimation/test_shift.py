"""The shift of an LLC by a gradient at w0, on quadratics whose shift is known, and where there is none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lambda_hat.estimation.shift import shift

CASES = {
    case["id"]: case for case in json.loads((Path(__file__).parents[1] / "data" / "oracles2.json").read_text())["cases"]
}


def diagonal() -> tuple[np.ndarray, np.ndarray]:
    return np.diag([4, 1, 0.25, 0.01]), np.array([0.05, -0.1, 0.2, 1])


def dense() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    half = rng.standard_normal((16, 8))
    return half.T @ half / 16, 0.05 * rng.standard_normal(8)


def regression() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    teacher, inputs = rng.standard_normal(6) / np.sqrt(6), rng.standard_normal((500, 6))
    hessian = inputs.T @ inputs / 500 / 0.25
    outputs = inputs @ teacher + 0.5 * rng.standard_normal(500)
    minimum = np.linalg.lstsq(inputs, outputs, rcond=None)[0]
    return hessian, teacher + 0.1 - minimum


def subset() -> tuple[np.ndarray, np.ndarray]:
    """Free coordinates alone, where the gradient is that of the whole."""
    rng = np.random.default_rng(5)
    half = rng.standard_normal((20, 12))
    hessian, c, free = half.T @ half / 20, 0.1 * rng.standard_normal(12), [0, 2, 3, 7, 11]
    block = hessian[np.ix_(free, free)]
    return block, np.linalg.solve(block, (hessian @ c)[free])


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("quad_displaced_diag_d4", diagonal),
        ("quad_displaced_dense_d8", dense),
        ("linreg_displaced_d6", regression),
        ("quad_subset_5of12_off_minimum", subset),
    ],
)
def test_it_is_exact_on_quadratics(name: str, recipe: Callable[[], Any]) -> None:
    """Within the bound, which is within 1 %. Sees a factor of nbeta, a sign, and a bound that is none."""
    case, (hessian, away) = CASES[name], recipe()
    found = shift(lambda v: hessian @ v, hessian @ away, case["nbeta"], case["gamma"])
    assert found.value is not None
    assert found.error is not None
    assert found.reason is None
    error = abs(found.value - case["shift"])
    assert error <= found.error + 1e-9 * abs(case["shift"])
    assert found.error <= 0.01 * abs(found.value)
    assert found.products <= len(away)
    assert case["E1"] - found.value == pytest.approx(case["E1_at_zero_gradient"], abs=found.error + 1e-9)


@pytest.mark.parametrize("gamma", [0.0, 1e-3, 1.0, 100.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_bound_holds(seed: int, gamma: float) -> None:
    """On spectra over six orders of magnitude, against a dense solve, where it ends and where it gives up."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    hessian = turn @ np.diag(np.logspace(-5, 1, 60)) @ turn.T
    g, nbeta = hessian @ rng.standard_normal(60), 100.0
    x = np.linalg.solve(nbeta * hessian + gamma * np.eye(60), g)
    exact = -(nbeta**2) * g @ x + 0.5 * nbeta**3 * x @ hessian @ x
    found = shift(lambda v: hessian @ v, g, nbeta, gamma)
    assert found.products <= 200
    if found.value is None:
        assert gamma == 0, "a localiser makes it solvable"
        return
    assert found.error is not None
    assert abs(found.value - exact) <= found.error + 1e-6 * abs(exact)
    assert abs(found.value - exact) <= 0.01 * abs(exact)


def test_it_is_of_first_order_on_a_quartic() -> None:
    case = CASES["quartic_displaced_d1"]
    found = shift(lambda v: (1 + 24 * 0.2**2) * v, np.array([0.2 + 8 * 0.2**3]), case["nbeta"], case["gamma"])
    assert found.value == pytest.approx(case["shift_formula"], rel=1e-9)


def test_no_gradient_is_no_shift() -> None:
    assert shift(lambda v: v, np.zeros(3), 10.0, 1.0) == (0.0, 0.0, 0, None)


def test_negative_curvature_has_no_shift() -> None:
    """Where nbeta h + gamma is negative along the gradient, and not where gamma outweighs it."""
    hessian, g = np.diag([1.0, -0.1]), np.array([0.1, 0.2])
    found = shift(lambda v: hessian @ v, g, 100.0, 1.0)
    assert (found.value, found.error) == (None, None)
    assert found.reason is not None
    assert "nbeta H + gamma I is not positive definite: along a direction its curvature is -" in found.reason
    outweighed = shift(lambda v: hessian @ v, g, 100.0, 20.0)
    x = g / np.array([120.0, 10.0])
    assert outweighed.value == pytest.approx(-0.5 * 100.0**2 * (g @ x + 20 * x @ x), rel=1e-2)


def test_it_gives_up_after_200_products() -> None:
    """Of a spectrum too wide for so few, with what is left of the error."""
    spectrum = np.logspace(-9, 0, 3000)
    calls: list[int] = []

    def product(v: np.ndarray) -> np.ndarray:
        calls.append(1)
        return spectrum * v

    found = shift(product, spectrum**0.5, 1e6, 1e-6)
    assert found.value is None
    assert len(calls) == found.products == 200
    assert found.error is not None
    assert found.reason is not None
    assert found.reason.startswith("after 200 products with the Hessian the error may be ")


def test_what_is_not_finite_has_no_shift() -> None:
    found = shift(lambda v: v * np.nan, np.ones(2), 10.0, 1.0)
    assert found.value is None
    assert found.reason == "a gradient or a product with the Hessian is not finite"
