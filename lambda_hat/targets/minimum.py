"""To a minimum of L_n, and what a w0 is: gradient norm, extreme Hessian eigenvalues, warnings.

Deterministic: the same target and settings give the same bytes on the same kind and number of cores (XLA splits long
sums over its threads).
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree
from scipy.linalg import eigvalsh_tridiagonal
from scipy.optimize import OptimizeResult, minimize
from threadpoolctl import threadpool_limits

from lambda_hat.targets.base import Built, Model, Target
from lambda_hat.targets.training import Training

# A gradient is worth a warning when nbeta^2 ||g||^2 / 2, the most it can lower the LLC at gamma = 1, is more than
# this share of d/2, the LLC of a regular model.
_HARMLESS = 0.01
# The least eigenvalue is notably negative below this share of the greatest, where nbeta times it also outweighs a
# tenth of gamma = 1.
_NEGATIVE = -1e-3
_OUTWEIGHED = -0.1
# Vectors that L-BFGS and Lanczos keep, and numbers that these may hold: the build of a million parameters must not
# need more memory than the run after it.
_LBFGS_VECTORS, _LANCZOS_VECTORS, _KEPT_NUMBERS = 20, 300, 5_000_000
# Rows at which the gradient's noise is measured: its trace to about a tenth.
_NOISE_DRAWS = 256


class Trained(NamedTuple):
    """Where the optimisation ended, and facts of how (JSON types)."""

    w0: np.ndarray
    facts: dict[str, Any]


def train(model: Model, arrays: dict[str, np.ndarray], start: np.ndarray, num_data: int, training: Training) -> Trained:
    """From ``start`` by gradient steps, then by the polish, towards a minimum of L_n.

    Args:
        model: Owner of the loss.
        arrays: What it reads, float64.
        start: Flat (d,), float64.
        num_data: n.
        training: The settings.
    """
    target = _on_device(model, arrays, start, num_data)
    if training.steps:
        start = _descend(target, training)
    loss, gradient = _value_and_grad(target, start)
    facts: dict[str, Any] = {"steps": training.steps, "loss": float(loss), "gradient_norm": _norm(gradient)}
    if training.polish_steps == 0:
        return Trained(start, facts)
    w, facts["polish_steps"] = _polish(target, start, training)
    return Trained(w, facts)


def _descend(target: Target, training: Training) -> np.ndarray:
    narrow = target.astype(training.dtype)
    batch_size = training.batch_size
    if batch_size is not None and batch_size >= target.num_data:
        batch_size = None
    plan = _Plan(training.optimizer, training.schedule, training.steps, batch_size)
    w = _gradient_steps(plan, narrow, training.learning_rate, jax.random.key(training.seed, impl="threefry2x32"))
    return np.asarray(w, float)


class _Plan(NamedTuple):
    """What the compiled gradient steps depend on."""

    optimizer: str
    schedule: str
    steps: int
    batch_size: int | None


@functools.partial(jax.jit, static_argnames="plan")
def _gradient_steps(
    plan: _Plan, target: Target, learning_rate: Float[Array, ""] | float, key: Key[Array, ""]
) -> Float[Array, " d"]:
    def rate(count: Any) -> Float[Array, ""]:
        decay = 0.5 * (1 + jnp.cos(jnp.pi * count / plan.steps)) if plan.schedule == "cosine" else 1.0
        return jnp.asarray(learning_rate * decay, target.w0.dtype)

    by_name: Any = optax
    optimizer = (
        optax.sgd(rate, momentum=0.9) if plan.optimizer == "momentum" else getattr(by_name, plan.optimizer)(rate)
    )

    def gradient(index: Int[Array, ""], w: Float[Array, " d"]) -> Float[Array, " d"]:
        if plan.batch_size is None:
            return jax.grad(target.loss)(w)
        batch = target.minibatch(jax.random.fold_in(key, index), plan.batch_size)
        return jax.grad(target.minibatch_loss)(w, batch)

    def step(index: Int[Array, ""], carry: tuple[Array, PyTree]) -> tuple[Array, PyTree]:
        w, state = carry
        updates, state = optimizer.update(gradient(index, w), state, w)
        return optax.apply_updates(w, updates), state  # pyright: ignore[reportReturnType]

    return jax.lax.fori_loop(0, plan.steps, step, (target.w0, optimizer.init(target.w0)))[0]


def _polish(target: Target, start: np.ndarray, training: Training) -> tuple[np.ndarray, int]:
    """L-BFGS over all rows, until ||grad L_n|| <= tolerance. Returns the w of smallest gradient, which along a flat
    valley is rarely the last, and the number of iterations."""
    best, smallest = start, math.inf

    def value_and_grad(w: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best, smallest
        value, gradient = _value_and_grad(target, w)
        norm = _norm(gradient)
        if norm < smallest:
            best, smallest = w.copy(), norm
        return float(value), np.array(gradient)

    def stop(intermediate_result: OptimizeResult) -> None:
        del intermediate_result
        if smallest <= training.gradient_tolerance:
            raise StopIteration

    options = {
        "maxiter": training.polish_steps,
        "maxfun": 2 * training.polish_steps,
        "maxcor": _num_vectors(start.size, _LBFGS_VECTORS),
        "ftol": 0.0,
        "gtol": 0.0,
    }
    # BLAS threads spin between these short products, and take the cores from XLA: twice the time.
    with threadpool_limits(1):
        found = minimize(value_and_grad, start, jac=True, method="L-BFGS-B", callback=stop, options=options)
    return best, int(found.nit)


def _num_vectors(dim: int, at_most: int) -> int:
    return min(at_most, max(5, _KEPT_NUMBERS // dim))


class Spectrum(NamedTuple):
    """The ends of a Hessian's spectrum (None: not measured), and whether they are those of all d directions."""

    least: float | None
    greatest: float | None
    is_whole: bool


def _extreme_eigenvalues(target: Target) -> Spectrum:
    """The least and the greatest eigenvalue of the Hessian of L_n at w0, by Lanczos.

    Ritz values lie between the true ends. m steps, every vector kept orthogonal to all others, find isolated
    eigenvalues exactly, and the edge of a crowd of them to about (greatest - least) / m^2.
    """
    dim = target.dim
    num_steps = min(dim, _num_vectors(dim, _LANCZOS_VECTORS))
    vector = np.random.default_rng(0).standard_normal(dim)
    basis = np.empty((num_steps, dim))
    diagonal, off_diagonal = np.zeros(num_steps), np.zeros(num_steps)
    step, is_whole = 0, num_steps == dim
    for step in range(num_steps):
        basis[step] = vector / np.linalg.norm(vector)
        vector = np.array(_hessian_vector(target, target.w0, jnp.asarray(basis[step])))
        diagonal[step] = basis[step] @ vector
        size = np.linalg.norm(vector)
        for _ in range(2):  # once is not enough in floating point
            vector -= basis[: step + 1].T @ (basis[: step + 1] @ vector)
        off_diagonal[step] = np.linalg.norm(vector)
        if off_diagonal[step] <= 1e-12 * size:
            is_whole = True  # all that the first vector can reach, which is every eigenvalue that there is
            break
    ritz = eigvalsh_tridiagonal(diagonal[: step + 1], off_diagonal[:step])
    return Spectrum(float(ritz[0]), float(ritz[-1]), is_whole)


def examine(
    model: Model,
    arrays: dict[str, np.ndarray],
    w0: np.ndarray,
    num_data: int,
    training: Training,
    facts: dict[str, Any] | None = None,
) -> Built:
    """The finished target, rounded to ``training.dtype``, and what its w0 is.

    Args:
        model: Owner of the functions.
        arrays: What they read, float64.
        w0: The parameter, flat (d,), float64.
        num_data: n.
        training: Its dtype and gradient_tolerance.
        facts: Of the training, for the report; None: w0 was set, not trained.
    """
    kept = {name: _rounded(array, training.dtype) for name, array in arrays.items()}
    w0 = _rounded(w0, training.dtype)
    target = _on_device(model, kept, w0, num_data)
    loss, gradient = _value_and_grad(target, target.w0)
    spectrum = _extreme_eigenvalues(target) if np.isfinite(loss) else Spectrum(None, None, False)
    report: dict[str, Any] = {
        "loss": float(loss),
        "gradient_norm": _norm(gradient),
        "hessian_max": spectrum.greatest,
        "hessian_min": spectrum.least,
        "is_whole_spectrum": spectrum.is_whole,
        "dim": int(w0.size),
        "has_rows": "inputs" in arrays,
        "row_noise": _row_noise(target) - _norm(gradient) ** 2,
        "training": facts,
        "warnings": [],
    }
    report["warnings"] += _gradient_warnings(report, num_data, training) + _hessian_warnings(report, num_data)
    return Built(w0, kept, num_data, report)


def _usual_nbeta(num_data: int) -> float:
    return num_data / math.log(max(num_data, 3))


def _gradient_warnings(report: dict[str, Any], num_data: int, training: Training) -> list[str]:
    norm = report["gradient_norm"]
    lowering = (_usual_nbeta(num_data) * norm) ** 2
    if norm <= training.gradient_tolerance or lowering <= _HARMLESS * report["dim"] / 2:
        return []
    way_out = (
        "it was set, not trained" if report["training"] is None else "raise training.steps or training.polish_steps"
    )
    return [
        f"w0 is no minimum: the gradient there has norm {norm:.2g}, which at beta = 1 / log n and gamma = 1 can lower "
        f"the LLC by up to {lowering:.2g}; {way_out}"
    ]


def _hessian_warnings(report: dict[str, Any], num_data: int) -> list[str]:
    least, greatest = report["hessian_min"], report["hessian_max"]
    if least is None or least >= min(_NEGATIVE * abs(greatest), _OUTWEIGHED / _usual_nbeta(num_data)):
        return []
    return [f"w0 is a saddle point: the Hessian's eigenvalues reach from {least:.2g} to {greatest:.2g}"]


def _on_device(model: Model, arrays: dict[str, np.ndarray], w0: np.ndarray, num_data: int) -> Target:
    """In float64, whatever the build keeps."""
    on_device = {name: jnp.asarray(array) for name, array in arrays.items()}
    return Target(jnp.asarray(w0), on_device, model, num_data).astype("float64")


def _rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    return array.astype(dtype) if np.issubdtype(array.dtype, np.floating) else array


def _norm(gradient: Float[Array, " d"]) -> float:
    return float(np.linalg.norm(np.asarray(gradient)))


@jax.jit
def _value_and_grad(
    target: Target, w: Float[Array, " d"] | Float[np.ndarray, " d"]
) -> tuple[Float[Array, ""], Float[Array, " d"]]:
    return jax.value_and_grad(target.loss)(w)


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
def _hessian_vector(
    target: Target, w: Float[Array, " d"], v: Float[Array, " d"] | Float[np.ndarray, " d"]
) -> Float[Array, " d"]:
    return jax.jvp(jax.grad(target.loss), (w,), (v,))[1]
