"""To a minimum of L_n: gradient steps from random weights, then L-BFGS over all rows.

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
from scipy.optimize import OptimizeResult, minimize
from threadpoolctl import threadpool_limits

from lambda_hat.targets.base import DataSet, Model, Target
from lambda_hat.targets.training import Training
from lambda_hat.targets.w0_report import norm, on_device, value_and_grad

# Vectors that L-BFGS keeps, and numbers that these may hold: the build of a million parameters must not need more
# memory than the run after it.
_LBFGS_VECTORS, _KEPT_NUMBERS = 20, 5_000_000


class Trained(NamedTuple):
    """Where the optimisation ended, and facts of how (JSON types)."""

    w0: np.ndarray
    facts: dict[str, Any]


def train(model: Model, data: DataSet, start: np.ndarray, num_data: int, training: Training) -> Trained:
    """From ``start`` by gradient steps, then by the polish, towards a minimum of L_n.

    Args:
        model: Owner of the loss.
        data: What it reads, float64.
        start: Flat (d,), float64.
        num_data: n.
        training: The settings.
    """
    target = on_device(model, data, start, num_data)
    if training.steps:
        start = _descend(target, training)
    loss, gradient = value_and_grad(target, start)
    facts: dict[str, Any] = {"steps": training.steps, "loss": float(loss), "gradient_norm": norm(gradient)}
    if training.polish_steps == 0:
        return Trained(start, facts)
    w, facts["polish_steps"] = polish(target, start, training)
    return Trained(w, facts)


def _descend(target: Target, training: Training) -> np.ndarray:
    narrow = target.astype(training.dtype)
    batch_size = training.batch_size
    if batch_size is not None and batch_size >= target.num_data:
        batch_size = None
    plan = _Steps(training.optimizer, training.schedule, training.steps, batch_size)
    w = _gradient_steps(plan, narrow, training.learning_rate, jax.random.key(training.seed, impl="threefry2x32"))
    return np.asarray(w, float)


class _Steps(NamedTuple):
    """What the compiled gradient steps depend on."""

    optimizer: str
    schedule: str
    steps: int
    batch_size: int | None


@functools.partial(jax.jit, static_argnames="plan")
def _gradient_steps(
    plan: _Steps, target: Target, learning_rate: Float[Array, ""] | float, key: Key[Array, ""]
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


def polish(target: Target, start: np.ndarray, training: Training) -> tuple[np.ndarray, int]:
    """L-BFGS over all rows, until ||grad L_n|| <= tolerance. Returns the w of smallest gradient, which along a flat
    valley is rarely the last, and the number of iterations."""
    best, smallest = start, math.inf

    def follow(w: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best, smallest
        value, gradient = value_and_grad(target, w)
        if (size := norm(gradient)) < smallest:
            best, smallest = w.copy(), size
        return float(value), np.array(gradient)

    def stop(intermediate_result: OptimizeResult) -> None:
        del intermediate_result
        if smallest <= training.gradient_tolerance:
            raise StopIteration

    options = {
        "maxiter": training.polish_steps,
        "maxfun": 2 * training.polish_steps,
        "maxcor": min(_LBFGS_VECTORS, max(5, _KEPT_NUMBERS // start.size)),
        "ftol": 0.0,
        "gtol": 0.0,
    }
    # BLAS threads spin between these short products, and take the cores from XLA: twice the time.
    with threadpool_limits(1):
        found = minimize(follow, start, jac=True, method="L-BFGS-B", callback=stop, options=options)
    return best, int(found.nit)
