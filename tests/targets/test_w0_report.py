"""What a w0 is: the ends of the Hessian's spectrum, and when something is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lambda_hat.targets.base import Target
from lambda_hat.targets.data import Population, Synthetic
from lambda_hat.targets.deep_linear import DeepLinear
from lambda_hat.targets.quadratic import Curvatures, Quadratic
from lambda_hat.targets.training import Training
from lambda_hat.targets.w0_report import _extreme_eigenvalues, examine
from tests.targets.conftest import build


def _ends(curvatures: np.ndarray) -> tuple[float, float]:
    with jax.enable_x64(True):
        data = Curvatures(curvatures=jnp.asarray(curvatures))
        target = Target(jnp.zeros(curvatures.size), data, Quadratic(dim=curvatures.size), 100)
        spectrum = _extreme_eigenvalues(target)
    assert spectrum.least is not None
    assert spectrum.greatest is not None
    return spectrum.least, spectrum.greatest


@pytest.mark.parametrize("curvatures", [[2.0], [3.0, 3.0, 3.0], [0.0, 0.0], [1e-6, 0.1, 1e3], [-2.0, 0.5, 1.0]])
def test_few_eigenvalues_are_exact(curvatures: list[float]) -> None:
    """Sees a Lanczos that breaks down on repeated eigenvalues or on the zero matrix."""
    least, greatest = _ends(np.array(curvatures))
    assert least == pytest.approx(min(curvatures), abs=1e-9 * max(np.abs(curvatures)))
    assert greatest == pytest.approx(max(curvatures))


def test_one_negative_eigenvalue_in_a_crowd_is_found() -> None:
    """A singular model's spectrum: most near 0, a few large. Sees a saddle point passed as a minimum."""
    curvatures = np.concatenate([[-1e-2], 1e-3 * np.random.default_rng(0).random(2000), np.logspace(-2, 1, 100)])
    least, greatest = _ends(curvatures)
    assert least == pytest.approx(-1e-2, rel=1e-6)
    assert greatest == pytest.approx(10.0, rel=1e-6)


def test_a_saddle_point_is_said_aloud() -> None:
    with jax.enable_x64(True):
        h = np.array([1.0, -0.5])
        built = examine(Quadratic(dim=2), Curvatures(curvatures=h), np.zeros(2), 100, Training())
    assert built.report["warnings"] == ["w0 is a saddle point: the Hessian's eigenvalues reach from -0.5 to 1"]


@pytest.mark.parametrize(("offset", "is_said"), [(1e-7, False), (1e-3, False), (0.1, True)])
def test_a_gradient_is_said_aloud_where_it_matters(offset: float, is_said: bool) -> None:
    """n = 1000: nbeta^2 ||g||^2 / 2 is 0.01 of d/2 = 1 at a gradient of 0.001. Sees an alarm about rounding."""
    with jax.enable_x64(True):
        w0 = np.array([offset / 2, 0.0])
        built = examine(Quadratic(dim=2), Curvatures(curvatures=np.ones(2)), w0, 1000, Training())
    assert bool(built.report["warnings"]) == is_said


def test_row_noise_is_the_trace_of_the_covariance_of_the_rows_gradients() -> None:
    """Linear regression at the teacher: a row's gradient is -(y - w x) x. A population's noise is what it was given."""
    built = build(DeepLinear(widths=(6, 1), rank=1), Synthetic(n=4000))
    inputs, residuals = built.arrays["inputs"], built.arrays["outputs"] - built.arrays["inputs"] @ built.w0[:, None]
    trace = np.var(residuals * inputs, axis=0).sum()
    # 256 rows: the standard deviation of their mean square is 13 % here.
    assert built.report["row_noise"] == pytest.approx(trace, rel=0.4)
    population = build(Quadratic(dim=20, gradient_noise=0.3), Population(n=100))
    assert population.report["row_noise"] == pytest.approx(20 * 0.3, rel=0.1)
    assert build(Quadratic(dim=20), Population(n=100)).report["row_noise"] == 0.0


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("small", [1e-16, 1e-14])
def test_rounding_is_no_least_eigenvalue(scale: float, small: float) -> None:
    """Rows of badly scaled columns: Lanczos' least eigenvalue is rounding of the greatest, 1e16 times the true one."""
    columns = np.random.default_rng(0).standard_normal((50, 3)) * scale * np.sqrt([1.0, 0.5, small])
    with jax.enable_x64(True):
        hessian = columns.T @ columns / 50
        data = Curvatures(curvatures=jnp.asarray(np.linalg.eigvalsh(hessian)))
        spectrum = _extreme_eigenvalues(Target(jnp.zeros(3), data, Quadratic(dim=3), 100))
    assert spectrum.least == 0.0
    assert spectrum.least_positive == pytest.approx(np.sort(np.linalg.eigvalsh(hessian))[1], rel=1e-6)


@pytest.mark.parametrize(
    ("curvatures", "expected"),
    [([0.0, 0.0], None), ([-1.0, 2.0], 2.0), ([1e-6] * 4 + [1.0] * 20, 1e-6), ([0.0] * 30 + [1e-4, 0.1, 10.0], 1e-4)],
)
def test_the_least_curvature_above_rounding_is_found_among_flat_directions(
    curvatures: list[float], expected: float | None
) -> None:
    with jax.enable_x64(True):
        data = Curvatures(curvatures=jnp.asarray(curvatures))
        target = Target(jnp.zeros(len(curvatures)), data, Quadratic(dim=len(curvatures)), 100)
        found = _extreme_eigenvalues(target).least_positive
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-3))


@pytest.mark.parametrize("curvature", [np.nan, np.inf])
def test_what_is_not_finite_at_w0_is_listed(curvature: float) -> None:
    """JSON has null for it and for what was not examined. Sees a NaN gradient turn into "no gradient" in the file."""
    with jax.enable_x64(True):
        data = Curvatures(curvatures=np.array([1.0, curvature]))
        report = examine(Quadratic(dim=2), data, np.zeros(2), 100, Training()).report
    assert {"gradient_norm", "row_noise"} & set(report["not_finite"]) or not np.isfinite(report["loss"])
    with jax.enable_x64(True):
        sound = examine(Quadratic(dim=2), Curvatures(curvatures=np.ones(2)), np.zeros(2), 100, Training())
    assert sound.report["not_finite"] == []


def test_curvature_along_the_gradient_makes_it_harmless() -> None:
    """Every warning is a reason against each run, so that none is given where the spectrum vouches for w0."""
    with jax.enable_x64(True):
        stiff = examine(Quadratic(dim=2), Curvatures(curvatures=np.full(2, 50.0)), np.full(2, 1e-4), 1000, Training())
        soft = examine(
            Quadratic(dim=2), Curvatures(curvatures=np.array([50.0, 0.0])), np.full(2, 1e-4), 1000, Training()
        )
    assert not stiff.report["warnings"]
    assert soft.report["warnings"]
