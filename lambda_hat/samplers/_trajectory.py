"""The length of a trajectory, tuned on the ensemble by the ChEES criterion (Hoffman, Radul & Sountsov 2021).

A trajectory runs for a time t = h T, h uniform on (0, 1] and one number for all chains. Warm-up raises the change in
the estimator of the expected square, that of the squared distance from the mean m between start u and proposal u',

    ChEES(T) = E[(|u' - m|^2 - |u - m|^2)^2] / 4,
    dChEES / dlog T = E[t (|u' - m|^2 - |u - m|^2) (u' - m) . v'],    v' the velocity at the proposal,

by Adam on log T, averaging over the chains with their acceptance as weight. Distances are those of the mass. m is the
mean of all chains over the current window, not over the chains at one moment as in the paper: it serves a few chains.
In a singular posterior the widest directions, of width gamma^-1/2, rule the criterion: T grows until trajectories cross
them, or have as many steps as they may.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from lambda_hat.posterior import Posterior
from lambda_hat.samplers._adaptation import (
    Adaptation,
    Chains,
    Moments,
    Move,
    Rule,
    add_positions,
    no_moments,
    window_closes,
)
from lambda_hat.samplers.base import pooled

_ADAM = optax.adam(0.025, b1=0.0, b2=0.95)  # the authors' settings
_LARGEST_UPDATE = 0.35  # of log T in one step, theirs too
_MEMORY = 0.5  # log T is averaged with weights age^-0.5


class Length(NamedTuple):
    """``value`` is T; the rest tunes it: the iterate, Adam's moments, and where the chains have been lately."""

    value: Float[Array, ""]
    log_iterate: Float[Array, ""]
    ascent: optax.OptState
    window: Moments


class Proposal(NamedTuple):
    """Where the trajectories ended after ``time``, and the velocity du/dt there."""

    time: Float[Array, ""]
    position: Float[Array, "chain d"]
    velocity: Float[Array, "chain d"]


def draw_num_steps(key: Key[Array, ""], tuned: Adaptation, longest: int) -> Int[Array, ""]:
    """The number of steps of one trajectory: ceil(h T / step size), at most ``longest``."""
    h = jax.random.uniform(key, (), tuned.step_size.dtype)
    return jnp.clip(jnp.ceil(h * tuned.own.value / tuned.step_size), 1, longest).astype(jnp.int32)


def unit_width(posterior: Posterior) -> Float[Array, ""]:
    """The posterior's width along a unit curvature: a scale to start from."""
    return 1.0 / jnp.sqrt(posterior.nbeta + posterior.gamma)


def chees(length: Float[Array, ""] | float, longest: int, num_steps: int) -> Rule:
    """The rule that tunes T.

    Args:
        length: T at the start.
        longest: The most steps of a trajectory.
        num_steps: Steps of warm-up.
    """

    def start(u0: Float[Array, "chain d"]) -> Length:
        value = jnp.asarray(length, u0.dtype)
        return Length(value, jnp.log(value), _ADAM.init(value), no_moments(u0))

    def update(tuned: Adaptation, before: Chains, move: Move) -> Length:
        own: Length = tuned.own
        window = add_positions(own.window, pooled(before.position))
        change, ascent = _ADAM.update(-_slope(tuned, before, move, window.mean), own.ascent)
        log_iterate = own.log_iterate + jnp.clip(change, -_LARGEST_UPDATE, _LARGEST_UPDATE)
        log_iterate = jnp.minimum(log_iterate, tuned.log_mean_step + jnp.log(longest))
        steps = tuned.steps + 1
        weight = steps.astype(log_iterate.dtype) ** -_MEMORY
        value = jnp.exp(weight * log_iterate + (1.0 - weight) * jnp.log(own.value))
        closes = window_closes(steps, num_steps)
        window = jax.tree.map(lambda leaf: jnp.where(closes, jnp.zeros_like(leaf), leaf), window)
        return Length(value, log_iterate, ascent, window)

    return Rule(start, update)


def _slope(tuned: Adaptation, before: Chains, move: Move, mean: Float[Array, " d"]) -> Float[Array, ""]:
    """dChEES / dlog T from the proposals that are sound; 0 if none is."""
    time, position, velocity = move.proposal
    old, new = before.position - mean, position - mean
    growth = jnp.sum((new**2 - old**2) / tuned.inverse_mass, -1)
    slopes = time * growth * jnp.sum(new * velocity / tuned.inverse_mass, -1)
    slopes, diverged, acceptance = pooled((slopes, move.diverged, move.acceptance))
    is_sound = ~diverged & jnp.isfinite(slopes)
    weights = jnp.where(is_sound, acceptance, 0.0)
    total = jnp.sum(weights)
    return jnp.sum(weights * jnp.where(is_sound, slopes, 0.0)) / jnp.where(total > 0, total, 1.0)
