"""Warm-up of the gradient-based Metropolis samplers: step size by dual averaging on the mean acceptance of all
chains, and, if asked, a diagonal mass from their pooled variance, in windows that double.

The step size follows Hoffman & Gelman 2014 (section 3.2); its acceptance statistic is the mean over chains,
which divides its noise by their number. The mass is frozen for the last quarter of warm-up, so that the step
size settles for the mass that sampling will use.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_FIRST_WINDOW = 16
_SHRINKAGE = 5.0


class Adaptation(NamedTuple):
    """What is tuned (``step_size``, ``inverse_mass``) and the statistics that tune it; shared by the chains."""

    step_size: Float[Array, ""]
    inverse_mass: Float[Array, " d"]
    log_mean_step: Float[Array, ""]
    log_anchor: Float[Array, ""]
    error_sum: Float[Array, ""]
    age: Int[Array, ""]  # steps since the last restart of the dual averaging
    steps: Int[Array, ""]  # warm-up steps taken
    count: Float[Array, ""]  # positions in the current window
    mean: Float[Array, " d"]
    sum_squares: Float[Array, " d"]


def init(step_size: Float[Array, ""] | float, u0: Float[Array, "chain d"]) -> Adaptation:
    """Start from ``step_size`` and the identity."""
    d, dtype = u0.shape[1], u0.dtype
    zero = jnp.zeros((), dtype)
    step = jnp.asarray(step_size, dtype)
    return Adaptation(
        step, jnp.ones(d, dtype), jnp.log(step), jnp.log(10 * step), zero,
        jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), zero, jnp.zeros(d, dtype), jnp.zeros(d, dtype),
    )  # fmt: skip


def update(
    state: Adaptation,
    positions: Float[Array, "chain d"],
    acceptance: Float[Array, " chain"],
    *,
    target: Float[Array, ""] | float,
    mass: Literal["identity", "diagonal"],
    num_warmup: int,
) -> Adaptation:
    """One step of warm-up, after the chains have moved."""
    state = _dual_average(state, acceptance, target)._replace(steps=state.steps + 1)
    if mass == "identity":
        return state
    return _accumulate_mass(state, positions, num_warmup)


def finish(state: Adaptation, *, num_warmup: int) -> Adaptation:
    """Take the averaged step size; without any warm-up step, the one that was given."""
    return state._replace(step_size=jnp.exp(state.log_mean_step)) if num_warmup > 0 else state


def _dual_average(
    state: Adaptation, acceptance: Float[Array, " chain"], target: Float[Array, ""] | float
) -> Adaptation:
    shrink, delay, decay = 0.05, 10.0, 0.75  # Hoffman & Gelman's gamma, t0, kappa
    age = (state.age + 1).astype(state.step_size.dtype)
    accepted = jnp.mean(jnp.where(jnp.isfinite(acceptance), acceptance, 0.0))
    weight = 1.0 / (age + delay)
    error = (1.0 - weight) * state.error_sum + weight * (target - accepted)
    log_step = state.log_anchor - jnp.sqrt(age) / shrink * error
    forget = age**-decay
    log_mean = forget * log_step + (1.0 - forget) * state.log_mean_step
    return state._replace(
        step_size=jnp.exp(log_step), log_mean_step=log_mean, error_sum=error, age=state.age + 1
    )


def _accumulate_mass(state: Adaptation, positions: Float[Array, "chain d"], num_warmup: int) -> Adaptation:
    """Chan's pooled update of mean and squares; at the end of a window, a new mass and a fresh step size."""
    chains = positions.shape[0]
    total = state.count + chains
    batch_mean = jnp.mean(positions, 0)
    delta = batch_mean - state.mean
    mean = state.mean + delta * chains / total
    squares = state.sum_squares + jnp.sum((positions - batch_mean) ** 2, 0) + delta**2 * state.count * chains / total
    state = state._replace(count=total, mean=mean, sum_squares=squares)

    # Windows end after 16, 32, 64, ... steps, and none begins in the last quarter.
    is_power = (state.steps & (state.steps - 1)) == 0
    closes = is_power & (state.steps >= _FIRST_WINDOW) & (state.steps <= num_warmup - num_warmup // 4)
    variance = squares / jnp.maximum(total - 1.0, 1.0)
    # Few positions say little: shrink towards their common scale, as Stan does towards 1e-3.
    common = jnp.mean(variance)
    pooled = (total * variance + _SHRINKAGE * common) / (total + _SHRINKAGE)
    # Only relative widths matter for the mass; the common scale stays with the step size.
    inverse_mass = jnp.where(closes, pooled / jnp.maximum(common, jnp.finfo(common.dtype).tiny), state.inverse_mass)
    fresh = state._replace(
        log_anchor=jnp.log(10 * state.step_size),
        error_sum=jnp.zeros_like(state.error_sum),
        age=jnp.zeros_like(state.age),
        count=jnp.zeros_like(state.count),
        mean=jnp.zeros_like(state.mean),
        sum_squares=jnp.zeros_like(state.sum_squares),
    )
    chosen = [jnp.where(closes, new, old) for new, old in zip(fresh, state, strict=True)]
    return Adaptation(*chosen)._replace(inverse_mass=inverse_mass)
