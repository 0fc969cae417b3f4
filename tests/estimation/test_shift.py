"""The shift of an LLC by a gradient at w0, on quadratics whose shift is known, and where there is none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lambda_hat.estimation.shift import Shift, shift

CASES = {
    case["id"]: case for case in json.loads((Path(__file__).parents[1] / "data" / "oracles2.json").read_text())["cases"]
}


def quadratic(hessian: np.ndarray, g: np.ndarray) -> tuple[Any, Any, np.ndarray]:
    """Products with the Hessian, changes of the loss, and the gradient."""
    return lambda v: hessian @ v, lambda u: float(g @ u + u @ hessian @ u / 2), g


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
    found = shift(*quadratic(hessian, hessian @ away), case["nbeta"], case["gamma"])
    assert found.value is not None
    assert found.error is not None
    assert found.first_order
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
    found = shift(*quadratic(hessian, g), nbeta, gamma)
    assert found.products <= 200
    if found.value is None:
        assert gamma == 0, "a localiser makes it solvable"
        return
    assert found.error is not None
    assert abs(found.value - exact) <= found.error + 1e-6 * abs(exact)
    assert abs(found.value - exact) <= 0.01 * abs(exact)


def test_a_quartic_is_beyond_first_order() -> None:
    """The formula is off by a third there; nearer to the minimum it is right, and says so."""
    case = CASES["quartic_displaced_d1"]

    def at(w0: float) -> Shift:
        def loss(w: float) -> float:
            return w**2 / 2 + 2 * w**4

        gradient = np.array([w0 + 8 * w0**3])
        changed = lambda u: loss(w0 + float(u[0])) - loss(w0)  # noqa: E731 - one line reads best here
        return shift(lambda v: (1 + 24 * w0**2) * v, changed, gradient, case["nbeta"], case["gamma"])

    found = at(0.2)
    assert found.value == pytest.approx(case["shift_formula"], rel=1e-9)
    assert found.first_order is False
    assert found.lowering is None
    assert "beyond first order: where the posterior's centre should be, nbeta times the loss" in (found.reason or "")
    assert at(0.02).first_order


def test_no_gradient_is_no_shift() -> None:
    assert shift(*quadratic(np.eye(3), np.zeros(3)), 10.0, 1.0) == (0.0, 0.0, 0, None, True)


def test_negative_curvature_has_no_shift() -> None:
    """Where nbeta h + gamma is negative along the gradient, and not where gamma outweighs it."""
    hessian, g = np.diag([1.0, -0.1]), np.array([0.1, 0.2])
    found = shift(*quadratic(hessian, g), 100.0, 1.0)
    assert (found.value, found.error) == (None, None)
    assert found.reason is not None
    assert "nbeta H + gamma I is not positive definite: along a direction its curvature is -" in found.reason
    outweighed = shift(*quadratic(hessian, g), 100.0, 20.0)
    x = g / np.array([120.0, 10.0])
    assert outweighed.value == pytest.approx(-0.5 * 100.0**2 * (g @ x + 20 * x @ x), rel=1e-2)


def test_it_gives_up_after_200_products() -> None:
    """Of a spectrum too wide for so few, with what is left of the error."""
    spectrum = np.logspace(-9, 0, 3000)
    calls: list[int] = []

    def product(v: np.ndarray) -> np.ndarray:
        calls.append(1)
        return spectrum * v

    found = shift(product, lambda u: np.nan, spectrum**0.5, 1e6, 1e-6)
    assert found.value is None
    assert len(calls) == found.products == 200
    assert found.error is not None
    assert found.reason is not None
    assert found.reason.startswith("after 200 products with the Hessian the error may be ")


def test_what_is_not_finite_has_no_shift() -> None:
    found = shift(*quadratic(np.full((2, 2), np.nan), np.ones(2)), 10.0, 1.0)
    assert found.value is None
    assert found.reason == "a gradient or a product with the Hessian is not finite"
