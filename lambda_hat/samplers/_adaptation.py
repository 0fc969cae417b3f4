"""Warm-up of the gradient-based Metropolis samplers: step size by dual averaging on the acceptance of all
chains, and, if asked, a diagonal mass from their pooled variance, in windows that double.

The step size follows Hoffman & Gelman 2014 (section 3.2); its acceptance statistic is the harmonic mean over chains
(Hoffman, Radul & Sountsov 2021), in which one hopeless proposal outweighs many that were nearly accepted. The mass is
frozen for the last quarter of warm-up, so that the step size settles for the mass that sampling will use.
:func:`tuned_kernel` makes a whole sampler of one transition.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from lambda_hat.posterior import Posterior
from lambda_hat.samplers.base import Kernel, StepInfo, pooled, step_info, thin

_FIRST_WINDOW = 16
# The step size of a transition is uniform on [eps/2, eps]: in the narrow valleys of a singular loss every full step may
# be refused, and a chain gets stuck. On w1^2 w2^2 (HMC, one seed) it gains 1.5 in effective sample size at a target
# acceptance of 0.8 and 1.1 at 0.95; 0.95 instead of 0.8 gains 4 to 6.
_SHORTEST_STEP = 0.5
_SHRINKAGE = 5.0
# An acceptance below this counts as this much: with many chains one refused proposal must not decide alone.
_LEAST_ACCEPTANCE = 0.05


class Moments(NamedTuple):
    """The positions of all chains in the current window: how many, their mean, their squared deviations."""

    count: Float[Array, ""]
    mean: Float[Array, " d"]
    sum_squares: Float[Array, " d"]


def no_moments(u0: Float[Array, "chain d"]) -> Moments:
    """An empty window."""
    nothing = jnp.zeros_like(u0[0])
    return Moments(jnp.zeros((), u0.dtype), nothing, nothing)


def add_positions(window: Moments, positions: Float[Array, "chain d"]) -> Moments:
    """Chan's pooled update of mean and squares."""
    chains = positions.shape[0]
    total = window.count + chains
    batch_mean = jnp.mean(positions, 0)
    delta = batch_mean - window.mean
    spread = jnp.sum((positions - batch_mean) ** 2, 0)
    squares = window.sum_squares + spread + delta**2 * window.count * chains / total
    return Moments(total, window.mean + delta * chains / total, squares)


def variance(window: Moments) -> Float[Array, " d"]:
    """The pooled variance of the window."""
    return window.sum_squares / jnp.maximum(window.count - 1.0, 1.0)


def window_closes(steps: Int[Array, ""], num_steps: int) -> Bool[Array, ""]:
    """Windows end after 16, 32, 64, ... steps, and none in the last quarter of ``num_steps``."""
    is_power = (steps & (steps - 1)) == 0
    return is_power & (steps >= _FIRST_WINDOW) & (steps <= num_steps - num_steps // 4)


class Adaptation(NamedTuple):
    """What is tuned (``step_size``, ``inverse_mass``) and the statistics that tune it; shared by the chains.

    ``own`` is what a sampler tunes by a rule of its own, a :class:`Rule`.
    """

    step_size: Float[Array, ""]
    inverse_mass: Float[Array, " d"]
    log_mean_step: Float[Array, ""]
    log_anchor: Float[Array, ""]
    error_sum: Float[Array, ""]
    age: Int[Array, ""]  # steps since the last restart of the dual averaging
    steps: Int[Array, ""]  # warm-up steps taken
    window: Moments
    own: Any = ()


def init(step_size: Float[Array, ""] | float, u0: Float[Array, "chain d"]) -> Adaptation:
    """Start from ``step_size`` and the identity."""
    step = jnp.asarray(step_size, u0.dtype)
    start = jnp.zeros((), jnp.int32)
    anchor = jnp.log(10 * step)
    nothing = jnp.zeros((), u0.dtype)
    return Adaptation(step, jnp.ones_like(u0[0]), jnp.log(step), anchor, nothing, start, start, no_moments(u0))


def update(
    state: Adaptation,
    positions: Float[Array, "chain d"],
    acceptance: Float[Array, " chain"],
    *,
    target: Float[Array, ""] | float,
    mass: Literal["identity", "diagonal"],
    num_steps: int,
) -> Adaptation:
    """One of ``num_steps`` steps of warm-up, after the chains have moved."""
    state = _dual_average(state, acceptance, target)._replace(steps=state.steps + 1)
    if mass == "identity":
        return state
    state = state._replace(window=add_positions(state.window, positions))
    closes = window_closes(state.steps, num_steps)
    return jax.tree.map(lambda new, old: jnp.where(closes, new, old), _new_mass(state), state)


def finish(state: Adaptation, *, num_steps: int) -> Adaptation:
    """Take the averaged step size; without any warm-up step, the one that was given."""
    return state._replace(step_size=jnp.exp(state.log_mean_step)) if num_steps > 0 else state


def _dual_average(
    state: Adaptation, acceptance: Float[Array, " chain"], target: Float[Array, ""] | float
) -> Adaptation:
    shrink, delay, decay = 0.05, 10.0, 0.75  # Hoffman & Gelman's gamma, t0, kappa
    age = (state.age + 1).astype(state.step_size.dtype)
    # Regular targets see no difference to the mean; on w1^2 w2^2 a target of 0.97 leaves a fifth of the divergences.
    floored = jnp.where(acceptance > _LEAST_ACCEPTANCE, acceptance, _LEAST_ACCEPTANCE)
    accepted = 1.0 / jnp.mean(1.0 / floored)
    weight = 1.0 / (age + delay)
    error = (1.0 - weight) * state.error_sum + weight * (target - accepted)
    log_step = state.log_anchor - jnp.sqrt(age) / shrink * error
    forget = age**-decay
    log_mean = forget * log_step + (1.0 - forget) * state.log_mean_step
    return state._replace(step_size=jnp.exp(log_step), log_mean_step=log_mean, error_sum=error, age=state.age + 1)


def _new_mass(state: Adaptation) -> Adaptation:
    """The mass that the window suggests, a fresh window and a fresh search for the step size."""
    widths = variance(state.window)
    # Few positions say little: shrink towards their common scale, as Stan does towards 1e-3.
    common = jnp.mean(widths)
    pooled = (state.window.count * widths + _SHRINKAGE * common) / (state.window.count + _SHRINKAGE)
    return state._replace(
        # Only relative widths matter for the mass; the common scale stays with the step size.
        inverse_mass=pooled / jnp.maximum(common, jnp.finfo(common.dtype).tiny),
        log_anchor=jnp.log(10 * state.step_size),
        error_sum=jnp.zeros_like(state.error_sum),
        age=jnp.zeros_like(state.age),
        window=jax.tree.map(jnp.zeros_like, state.window),
    )


class Chains(NamedTuple):
    """Where the chains are (chain axis first): BlackJAX's HMCState, which only ``build`` may import."""

    position: Float[Array, "*chain d"]
    logdensity: Float[Array, "*chain"]
    logdensity_grad: Float[Array, "*chain d"]


class State(NamedTuple):
    """The chains and what they share."""

    chains: Chains
    tuned: Adaptation


@runtime_checkable
class Evaluated(Protocol):
    """Chains with their log density and its gradient: :class:`Chains`, or another state of BlackJAX's."""

    @property
    def position(self) -> Float[Array, "chain d"]: ...
    @property
    def logdensity(self) -> Float[Array, " chain"]: ...
    @property
    def logdensity_grad(self) -> Float[Array, "chain d"]: ...


@runtime_checkable
class Tunable(Protocol):
    """The fields by which a Metropolis sampler is tuned."""

    @property
    def step_size(self) -> float: ...
    @property
    def target_acceptance(self) -> float: ...
    @property
    def mass(self) -> Literal["identity", "diagonal"]: ...
    @property
    def num_warmup(self) -> int: ...
    @property
    def steps_per_draw(self) -> int: ...


class Move(NamedTuple):
    """What one transition of all chains did: BlackJAX's info, narrowed.

    ``momentum`` is the one it began with, of kinetic energy p' M^-1 p / 2; None where the sampler has no such energy.
    ``proposal`` is what the sampler's :class:`Rule` wants to know.
    """

    num_gradients: Int[Array, "*chain"] | int
    acceptance: Float[Array, " chain"]
    diverged: Bool[Array, " chain"]
    momentum: Float[Array, "chain d"] | None = None
    proposal: Any = None


class Rule(NamedTuple):
    """How a sampler tunes ``Adaptation.own``; pure functions, like a kernel's.

    ``start`` makes it from the first offsets; ``update`` follows each warm-up transition, given what was tuned and
    where the chains of this device stood before it.
    """

    start: Callable[[Float[Array, "chain d"]], Any] = lambda _: ()
    update: Callable[[Adaptation, Chains, Move], Any] = lambda *_: ()


_NO_RULE = Rule()


def info_at(
    posterior: Posterior, chains: Evaluated, num_gradients: Int[Array, "*chain"] | int, **known: Array
) -> StepInfo:
    """Loss and virial, read back from the log density and gradient that were already evaluated."""
    loss = jax.vmap(posterior.loss_from_logdensity)(chains.logdensity, chains.position)
    virial = -jnp.sum(chains.position * chains.logdensity_grad, -1)
    return step_info(loss, num_gradients, virial=virial, **known)


def tuned_kernel(
    sampler: Tunable,
    posterior: Posterior,
    transition: Callable[[Key[Array, ""], Chains, Adaptation], tuple[Chains, Move]],
    rule: Rule = _NO_RULE,
) -> Kernel:
    """The kernel of a Metropolis sampler, whose ``transition`` moves all chains once.

    The step size is jittered, one number for all chains. The energy of a draw is the Hamiltonian at its transition's
    start, -log pi(u) + p' M^-1 p / 2.
    """
    num_steps = sampler.num_warmup * sampler.steps_per_draw

    def init_chains(key: Key[Array, ""], u0: Float[Array, "chain d"]) -> tuple[State, StepInfo]:
        del key
        logdensity, grad = jax.vmap(jax.value_and_grad(posterior.logdensity))(u0)
        chains, tuned = Chains(u0, logdensity, grad), init(sampler.step_size, u0)
        return State(chains, tuned._replace(own=rule.start(u0))), info_at(posterior, chains, 1)

    def advance(key: Key[Array, ""], state: State) -> tuple[State, StepInfo, Move]:
        step_key, key = jax.random.split(key)
        jitter = jax.random.uniform(step_key, (), posterior.nbeta.dtype, _SHORTEST_STEP, 1.0)
        jittered = state.tuned._replace(step_size=jitter * state.tuned.step_size)
        chains, move = transition(key, state.chains, jittered)
        known = {"acceptance": move.acceptance, "diverged": move.diverged}
        if move.momentum is not None:
            kinetic = 0.5 * jnp.sum(state.tuned.inverse_mass * move.momentum**2, -1)
            known["energy"] = kinetic - state.chains.logdensity
        return State(chains, state.tuned), info_at(posterior, chains, move.num_gradients, **known), move

    def step(key: Key[Array, ""], state: State) -> tuple[State, StepInfo]:
        return advance(key, state)[:2]

    def adapt(key: Key[Array, ""], state: State) -> tuple[State, StepInfo]:
        (chains, tuned), info, move = advance(key, state)
        own, target = rule.update(tuned, state.chains, move), sampler.target_acceptance
        positions, acceptance = pooled((chains.position, info.acceptance))
        tuned = update(tuned, positions, acceptance, target=target, mass=sampler.mass, num_steps=num_steps)
        return State(chains, tuned._replace(own=own)), info

    def freeze(state: State) -> State:
        return state._replace(tuned=finish(state.tuned, num_steps=num_steps))

    return Kernel(init_chains, thin(adapt, sampler.steps_per_draw), freeze, thin(step, sampler.steps_per_draw))
