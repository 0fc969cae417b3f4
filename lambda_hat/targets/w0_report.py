"""What a w0 is: its gradient's norm, the ends of the Hessian's spectrum, the noise of a row's gradient, warnings."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from scipy.linalg import eigvalsh_tridiagonal

from lambda_hat.config.schema import Document, Dtype
from lambda_hat.targets.base import Built, DataSet, Model, Target
from lambda_hat.targets.training import Training

# A gradient is worth a warning when the most that it can lower the LLC at gamma = 1 (docs/estimator.md) is more than
# this share of d/2, the LLC of a regular model.
_HARMLESS = 0.01
# The least eigenvalue is notably negative below this share of the greatest, where nbeta times it also outweighs a
# tenth of gamma = 1.
_NEGATIVE = -1e-3
_OUTWEIGHED = -0.1
# Vectors that Lanczos keeps, and numbers that these may hold: the build of a million parameters must not need more
# memory than the run after it.
_LANCZOS_VECTORS, _KEPT_NUMBERS = 300, 5_000_000
# Below this share of the greatest an eigenvalue is rounding: of rows that are badly scaled, the least may be.
_ROUNDING = 1e-12
_NUMBERS = ("gradient_norm", "hessian_min", "hessian_max", "row_noise")
# Rows at which the gradient's noise is measured: its trace to about a tenth.
_NOISE_DRAWS = 256
# How closely w0 is looked at.
Depth = Literal["full", "gradient", "none"]


def examine(
    model: Model,
    data: DataSet,
    w0: np.ndarray,
    num_data: int,
    training: Training,
    facts: Document | None = None,
) -> Built:
    """The finished target, rounded to ``training.dtype``, and what its w0 is.

    Args:
        model: Owner of the functions.
        data: What they read, float64.
        w0: The parameter, flat (d,), float64.
        num_data: n.
        training: Its dtype and gradient_tolerance.
        facts: Of the training, for the report; None: w0 was set, not trained.
    """
    kept: DataSet = jax.tree.map(lambda array: _rounded(array, training.dtype), data)
    w0 = _rounded(w0, training.dtype)
    return Built(w0, kept, num_data, report_of(on_device(model, kept, w0, num_data), training, facts))


def report_of(target: Target, training: Training, facts: Document | None = None, depth: Depth = "full") -> Document:
    """What the w0 of a target is: ``Built.report``.

    Args:
        target: In float64.
        training: Its dtype and gradient_tolerance.
        facts: Of the training; None: w0 was set, not trained.
        depth: ``full``; ``gradient`` leaves the Hessian out, and ``none`` all but the loss: null in the report.
    """
    loss, gradient = (_loss_at_w0(target), None) if depth == "none" else value_and_grad(target, target.w0)
    square = None if gradient is None else norm(gradient) ** 2
    looks_at_hessian = depth == "full" and np.isfinite(loss)
    spectrum = _extreme_eigenvalues(target, training.dtype) if looks_at_hessian else Spectrum(None, None, False)
    report: dict[str, Any] = {
        "loss": float(loss),
        "gradient_norm": None if gradient is None else norm(gradient),
        "hessian_max": spectrum.greatest,
        "hessian_min": spectrum.least,
        "hessian_least_positive": spectrum.least_positive,
        "is_whole_spectrum": spectrum.is_whole,
        "dim": target.dim,
        "has_rows": target.data.has_rows,
        "row_noise": None if square is None else _row_noise(target) - square,
        "training": facts,
        "warnings": [],
    }
    # JSON has one null for what is not finite and for what was not examined.
    report["not_finite"] = [name for name in _NUMBERS if report[name] is not None and not math.isfinite(report[name])]
    num_data = target.num_data
    report["warnings"] += _gradient_warnings(report, num_data, training) + _hessian_warnings(report, num_data)
    return report


def _usual_nbeta(num_data: int) -> float:
    return num_data / math.log(max(num_data, 3))


def _gradient_warnings(report: Document, num_data: int, training: Training) -> list[str]:
    norm = report["gradient_norm"]
    if norm is None:
        return []
    nbeta = _usual_nbeta(num_data)
    # Only a whole spectrum can vouch for curvature along the gradient.
    curvature = max(report["hessian_min"] or 0.0, 0.0) if report["is_whole_spectrum"] else 0.0
    stiffness = nbeta * curvature + 1.0
    lowering = (nbeta * norm) ** 2 * (stiffness + 1.0) / (2 * stiffness**2)
    if not norm > training.gradient_tolerance or lowering <= _HARMLESS * report["dim"] / 2:
        return []
    way_out = "it was set, not trained"
    if report["training"] is not None:
        is_own = "moved" in report["training"]
        way_out = "the polish went no further" if is_own else "raise training.steps or training.polish_steps"
    return [
        f"w0 is no minimum: the gradient there has norm {norm:.2g}, which at beta = 1 / log n and gamma = 1 can lower "
        f"the LLC by up to {lowering:.2g}; {way_out}"
    ]


def _hessian_warnings(report: Document, num_data: int) -> list[str]:
    least, greatest = report["hessian_min"], report["hessian_max"]
    if least is None or not least < min(_NEGATIVE * abs(greatest), _OUTWEIGHED / _usual_nbeta(num_data)):
        return []
    return [f"w0 is a saddle point: the Hessian's eigenvalues reach from {least:.2g} to {greatest:.2g}"]


def on_device(model: Model, data: DataSet, w0: np.ndarray, num_data: int) -> Target:
    """In float64, whatever the build keeps."""
    return Target(jnp.asarray(w0), data, model, num_data).astype("float64")


def _rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    return array.astype(dtype) if np.issubdtype(array.dtype, np.floating) else array


def norm(gradient: Float[Array, " d"]) -> float:
    return float(np.linalg.norm(np.asarray(gradient)))


@jax.jit
def _loss_at_w0(target: Target) -> Float[Array, ""]:
    return target.loss(target.w0)


@jax.jit
def value_and_grad(
    target: Target, w: Float[Array, " d"] | Float[np.ndarray, " d"]
) -> tuple[Float[Array, ""], Float[Array, " d"]]:
    return jax.value_and_grad(target.loss)(w)


class Spectrum(NamedTuple):
    """The ends of a Hessian's spectrum (None: not measured), and whether they are those of all d directions.

    least_positive: the least eigenvalue above rounding; None where there is none, or the spectrum is not whole.
    """

    least: float | None
    greatest: float | None
    is_whole: bool
    least_positive: float | None = None


def _extreme_eigenvalues(target: Target, kept_as: Dtype = "float64") -> Spectrum:
    """The least and the greatest eigenvalue of the Hessian of L_n at w0, by Lanczos.

    Ritz values lie between the true ends. m steps, every vector kept orthogonal to all others, find isolated
    eigenvalues exactly, and the edge of a crowd of them to about (greatest - least) / m^2. ``eigsh`` of SciPy iterates
    until a crowd's edge has converged too: 67,000 products instead of 300 for a singular Hessian of d = 2000, at the
    tolerance (1e-7) that finds a small negative eigenvalue as exactly.
    """
    dim = target.dim
    num_steps = min(dim, max(5, _KEPT_NUMBERS // dim), _LANCZOS_VECTORS)
    vector = np.random.default_rng(0).standard_normal(dim)
    basis = np.empty((num_steps, dim))
    diagonal, off_diagonal = np.zeros(num_steps), np.zeros(num_steps)
    step, is_whole = 0, num_steps == dim
    for step in range(num_steps):
        basis[step] = vector / np.linalg.norm(vector)
        vector = np.array(hessian_vector(target, target.w0, jnp.asarray(basis[step])))
        if not np.isfinite(vector).all():
            return Spectrum(math.nan, math.nan, False)
        diagonal[step] = basis[step] @ vector
        size = np.linalg.norm(vector)
        for _ in range(2):  # once is not enough in floating point
            vector -= basis[: step + 1].T @ (basis[: step + 1] @ vector)
        off_diagonal[step] = np.linalg.norm(vector)
        if off_diagonal[step] <= _ROUNDING * size:
            is_whole = True  # all that the first vector can reach, which is every eigenvalue that there is
            break
    ritz = np.asarray(eigvalsh_tridiagonal(diagonal[: step + 1], off_diagonal[:step]))
    size = np.abs(ritz).max()
    ritz[np.abs(ritz) <= _ROUNDING * size] = 0.0
    # A w0 that was rounded bends the flat directions, too.
    curved = ritz[ritz > max(_ROUNDING, 4 * np.finfo(kept_as).eps) * size] if is_whole else ritz[:0]
    return Spectrum(float(ritz[0]), float(ritz[-1]), is_whole, float(curved[0]) if curved.size else None)


def _row_noise(target: Target) -> float:
    """E ||g||^2 of the gradient g at w0 of a minibatch of one row; less ||grad L_n||^2, the trace of its covariance."""
    return float(_mean_square_gradient(target, jax.random.key(0, impl="threefry2x32")))


@jax.jit
def _mean_square_gradient(target: Target, key: Key[Array, ""]) -> Float[Array, ""]:
    def square(key: Key[Array, ""]) -> Float[Array, ""]:
        gradient = jax.grad(target.minibatch_loss)(target.w0, target.minibatch(key, 1))
        return jnp.dot(gradient, gradient)

    return jax.lax.map(square, jax.random.split(key, _NOISE_DRAWS)).mean()


@jax.jit
def hessian_vector(
    target: Target, w: Float[Array, " d"], v: Float[Array, " d"] | Float[np.ndarray, " d"]
) -> Float[Array, " d"]:
    return jax.jvp(jax.grad(target.loss), (w,), (v,))[1]
