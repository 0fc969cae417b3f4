"""``step_size: auto`` of the stochastic-gradient samplers: so small that its bias is a given share of the LLC.

At every warm-up draw each chain takes three minibatch gradients where it stands. All chains and draws together tell,
with t = nbeta, U the potential and g_1, g_2 gradients of the loss on independent minibatches,

    LLC         mean of t (L_n(w) - L_n(w0))
    curvature   E[t grad L . grad U], from t g_1 . (t g_2 + gamma u) and its mirror image
    noise       t^2 times the variance of a minibatch's gradient, from t^2 |g_1 - g_2|^2 / 2
    stiffness   largest eigenvalue of the Hessian of U, from a power iteration along the chain

On a quadratic of curvatures h_i, with p_i = t h_i + gamma, a step eps adds to Var u_i a share that is linear in eps
(:class:`BiasLaw`), and so to the LLC at most eps (drift curvature + noise noise) / 2, for curvature = sum t h_i in
equilibrium. That is held to ``target_bias`` times the LLC. Nor does the step exceed an eighth of what the stiffest
direction bears on average, or a quarter of what it bore where it was stiffest. Nothing here uses the answer; what it
promises of a singular loss is checked by the companion chains.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lambda_hat.posterior import Posterior

GRADIENTS = 3  # of a chain, a warm-up draw
# The step starts far below what a unit curvature bears, and grows slowly: a quartic loss does not forgive one step.
_FIRST = 0.01
_GROWTH = 1.2
# eps times the stiffest direction's curvature, on average and where it was largest. Chains are unstable from 4, their
# companions from 2; on a singular loss they go further in a long run than in warm-up, and one blow-up is the end.
_STIFF, _STIFFEST = 0.5, 1.0
_LEAST_LLC = 0.25  # of a smaller LLC the bias is held to a share of this


class BiasLaw(NamedTuple):
    """On a quadratic, Var u_i grows by the share eps (drift p_i + noise t^2 s_i^2), s_i^2 the variance of g_i."""

    drift: Float[Array, ""] | float
    noise: Float[Array, ""] | float


class Found(NamedTuple):
    """One measurement: see the module's docstring. ``direction`` is the power iteration's next unit vector."""

    llc: Float[Array, ""]
    curvature: Float[Array, ""]
    noise: Float[Array, ""]
    stiffness: Float[Array, ""]
    direction: Float[Array, " d"]


class Pilot(NamedTuple):
    """Running means over draws and chains, the largest stiffness of all, how many draws they are of, and each chain's
    direction."""

    llc: Float[Array, ""]
    curvature: Float[Array, ""]
    noise: Float[Array, ""]
    stiffness: Float[Array, ""]
    stiffest: Float[Array, ""]
    draws: Int[Array, ""]
    direction: Float[Array, "chain d"]


def start(u0: Float[Array, "chain d"]) -> Pilot:
    """A pilot that knows nothing."""
    nothing = jnp.zeros((), u0.dtype)
    return Pilot(nothing, nothing, nothing, nothing, nothing, jnp.zeros((), jnp.int32), _unit(u0))


def smallest(posterior: Posterior) -> Float[Array, ""]:
    """The step size from which the search starts."""
    return _FIRST / (posterior.nbeta + posterior.gamma)


def _unit(v: Float[Array, "*chain d"]) -> Float[Array, "*chain d"]:
    return v / jnp.maximum(jnp.linalg.norm(v, axis=-1, keepdims=True), jnp.finfo(v.dtype).tiny)


def measurement(
    batch_size: int, posterior: Posterior, scale_of: Callable[[Any], Float[Array, " d"]]
) -> Callable[..., Found]:
    """``measure(key, (particle, direction), eps)`` for one chain; ``scale_of(particle)`` are its factors of eps."""

    def measure(key: Key[Array, ""], chain: tuple[Any, Array], eps: Float[Array, ""]) -> Found:
        particle, direction = chain
        u, scale = particle.position, scale_of(particle)
        t, gamma = posterior.nbeta, posterior.gamma
        first_key, second_key = jax.random.split(key)
        # As far as the noise of one update carries: a curvature of that range is what the update feels.
        reach = jnp.sqrt(eps)
        first = t * posterior.minibatch_grad(first_key, u, batch_size)
        second = t * posterior.minibatch_grad(second_key, u, batch_size)
        ahead = t * posterior.minibatch_grad(first_key, u + reach * direction, batch_size)
        # Not over reach: XLA makes that a product where several devices share the chains, and only there.
        image = scale * ((ahead - first) * (1.0 / reach) + gamma * direction)
        half = 0.5 * (jnp.dot(scale * first, second + gamma * u) + jnp.dot(scale * second, first + gamma * u))
        return Found(
            llc=t * (posterior.loss(u) - posterior.loss_at_w0),
            curvature=half,
            noise=0.5 * jnp.dot(scale, (first - second) ** 2),
            stiffness=jnp.linalg.norm(image),
            direction=_unit(image),
        )

    return measure


def choose(
    eps: Float[Array, ""], pilot: Pilot, found: Found, law: BiasLaw, target_bias: Float[Array, ""] | float
) -> tuple[Float[Array, ""], Pilot]:
    """The next step size, from what all chains found (``found`` has a chain axis) and what was known before.

    ``found.direction`` may be that of this device's chains alone.
    """
    # Means whose weights grow with the cube of the draw's number: the way in is soon forgotten.
    draws = pilot.draws + 1
    weight = 4.0 / (draws + 3).astype(eps.dtype)

    def running(old: Array, new: Array) -> Array:
        mean = jnp.mean(new)
        return jnp.where(jnp.isfinite(mean), (1.0 - weight) * old + weight * mean, old)

    known = pilot._replace(
        **{
            name: running(getattr(pilot, name), getattr(found, name))
            for name in ("llc", "curvature", "noise", "stiffness")
        },
        stiffest=jnp.fmax(pilot.stiffest, jnp.max(found.stiffness)),
        draws=draws,
        direction=found.direction,
    )
    bias = 0.5 * (law.drift * jnp.maximum(known.curvature, 0.0) + law.noise * known.noise)
    tiny = jnp.finfo(eps.dtype).tiny
    small = target_bias * jnp.maximum(jnp.abs(known.llc), _LEAST_LLC) / jnp.maximum(bias, tiny)
    stable = jnp.minimum(_STIFF / jnp.maximum(known.stiffness, tiny), _STIFFEST / jnp.maximum(known.stiffest, tiny))
    return jnp.minimum(jnp.minimum(small, stable), _GROWTH * eps), known
