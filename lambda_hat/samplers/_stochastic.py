"""What the stochastic-gradient samplers share: minibatch gradients, draws of many updates, and a companion chain.

A :class:`Dynamics` moves one particle by one update; :func:`stochastic_kernel` makes a sampler of it. Every such
sampler errs at O(eps) in its step size eps, so each chain has a **companion** at 2 eps, driven by the same noise: one
update of it for two of the chain's, with the sum of their normals and the first one's minibatch. Where the loss is
convex the two stay close, so that the difference of their losses, which is the bias of the step to first order
(Richardson), has far less noise than either (multilevel Monte Carlo: Giles et al. 2016, arXiv 1609.06144).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lambda_hat.posterior import Posterior
from lambda_hat.samplers import _step_size as step_size
from lambda_hat.samplers._step_size import BiasLaw, Pilot
from lambda_hat.samplers.base import Kernel, StepInfo, Traits, check_batch, per_chain, pooled, step_info
from lambda_hat.targets.random_numbers import draw_normals


@runtime_checkable
class Stochastic(Protocol):
    """The fields that all of them have."""

    @property
    def step_size(self) -> float | Literal["auto"]: ...
    @property
    def target_bias(self) -> float: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def measure_bias(self) -> bool: ...
    @property
    def num_warmup(self) -> int: ...
    @property
    def steps_per_draw(self) -> int: ...


class Dynamics(NamedTuple):
    """One update of one particle, a NamedTuple with a ``position``.

    start(key, u0) -> particle
    drift(particle, eps) -> particle                    moves to where the gradient is to be taken
    kick(particle, grad, noise, eps, t) -> particle     the rest; grad is that of the loss alone, t counts from 1
    scale(particle) -> factors                          of eps, for each parameter
    law                                                 how the bias grows with eps
    decay                                               eps_t = eps t^-decay
    """

    start: Callable[[Key[Array, ""], Float[Array, " d"]], Any]
    drift: Callable[[Any, Float[Array, ""]], Any]
    kick: Callable[..., Any]
    scale: Callable[[Any], Float[Array, " d"]]
    law: BiasLaw
    decay: Float[Array, ""] | float


class _Inputs(NamedTuple):
    """What each update of a draw gets: its key, step size and number."""

    key: Key[Array, " *update"]
    eps: Float[Array, " *update"]
    t: Float[Array, " *update"]


class Chain(NamedTuple):
    """A particle, and its companion at twice the step size (None where no bias is measured)."""

    fine: Any
    coarse: Any


class State(NamedTuple):
    """The chains (chain axis first), the updates that each has taken, warm-up included, the step size, and the pilot
    that chooses it (None where it was given)."""

    chains: Chain
    updates: Int[Array, ""]
    step_size: Float[Array, ""]
    pilot: Pilot | None


Step = Callable[[Key[Array, ""], State], tuple[State, StepInfo]]


def still(particle: Any, eps: Float[Array, ""]) -> Any:
    """The drift of a dynamics without momentum."""
    del eps
    return particle


def coast(particle: Any, eps: Float[Array, ""]) -> Any:
    """The drift of a dynamics with a ``momentum`` of unit variance, over a time sqrt(eps)."""
    return particle._replace(position=particle.position + jnp.sqrt(eps) * particle.momentum)


def unscaled(particle: Any) -> Float[Array, " d"]:
    """The factors of a dynamics without preconditioner."""
    return jnp.ones_like(particle.position)


def momentum_law(friction: Float[Array, ""] | float) -> BiasLaw:
    """The bias of a dynamics with momentum, which loses the share ``friction`` of it in an update."""
    return BiasLaw(1.0 / (4.0 - 2.0 * friction), 0.5 / friction)


def stochastic_traits(batch_size: int, noise_gain: float = 0.0) -> Traits:
    """What a stochastic-gradient sampler declares."""
    return Traits(batch_size, True, "sampler.step_size (auto: sampler.target_bias)", noise_gain)


def stochastic_kernel(
    sampler: Stochastic,
    posterior: Posterior,
    num_chains: int,
    phases: tuple[Dynamics, Dynamics],
    freeze: Callable[[Chain, Int[Array, ""]], Chain] = lambda chains, _: chains,
) -> Kernel:
    """The kernel of a stochastic-gradient sampler.

    Args:
        sampler: Its schema object.
        posterior: Where it samples.
        num_chains: Chains.
        phases: Its dynamics in warm-up, and in sampling.
        freeze: Given all chains and their number of updates, what sampling starts from.
    """
    check_batch(sampler.batch_size, posterior.num_data)
    is_auto = isinstance(sampler.step_size, str)
    warm, draw = (_draw(sampler, posterior, num_chains, dynamics) for dynamics in phases)

    def init(key: Key[Array, ""], u0: Float[Array, "chain d"]) -> tuple[State, StepInfo]:
        fine = per_chain(phases[0].start, num_chains, posterior.dim, in_pairs=True)(key, u0)
        chains = Chain(fine, fine if sampler.measure_bias else None)
        pilot = step_size.start(u0) if is_auto else None
        eps = step_size.smallest(posterior) if is_auto else jnp.asarray(sampler.step_size, u0.dtype)
        return State(chains, jnp.zeros((), jnp.int32), eps, pilot), _info(posterior, chains, 0)

    def finish(state: State) -> State:
        return state._replace(chains=freeze(state.chains, state.updates))

    adapt = _tuned(sampler, posterior, num_chains, phases[0], warm) if is_auto else warm
    return Kernel(init, adapt, finish, draw)


def _info(posterior: Posterior, chains: Chain, num_gradients: int, **known: Array) -> StepInfo:
    # One chain after another: side by side, the full loss holds all rows' activations once for every chain.
    loss = jax.lax.map(posterior.loss, chains.fine.position)
    if chains.coarse is not None:
        coarse = jax.lax.map(posterior.loss, chains.coarse.position)
        # Not NaN, which says that there is no companion.
        known["coarse_loss"] = jnp.where(jnp.isfinite(coarse), coarse, jnp.inf)
    return step_info(loss, num_gradients, diverged=~jnp.isfinite(loss), **known)


def _draw(sampler: Stochastic, posterior: Posterior, num_chains: int, dynamics: Dynamics) -> Step:
    """One draw of all chains."""
    updates = per_chain(_updates(sampler, posterior, dynamics), num_chains, posterior.dim, in_pairs=True)
    gradients = sampler.steps_per_draw + (sampler.steps_per_draw // 2 if sampler.measure_bias else 0)

    def draw(key: Key[Array, ""], state: State) -> tuple[State, StepInfo]:
        chains, virials = updates(key, state.chains, state.updates, state.step_size)
        state = state._replace(chains=chains, updates=state.updates + sampler.steps_per_draw)
        return state, _info(posterior, chains, gradients, **virials)

    return draw


def _tuned(sampler: Stochastic, posterior: Posterior, num_chains: int, dynamics: Dynamics, warm: Step) -> Step:
    """A warm-up draw that chooses its step size first: before the chains move, for it must not be longer than the
    loss bears where they are."""
    measurement = step_size.measurement(sampler.batch_size, posterior, dynamics.scale)
    measure = per_chain(measurement, num_chains, posterior.dim, in_pairs=True)

    def adapt(key: Key[Array, ""], state: State) -> tuple[State, StepInfo]:
        pilot_key, key = jax.random.split(key)
        fine, pilot = state.chains.fine, state.pilot
        assert pilot is not None
        found = measure(pilot_key, (fine, pilot.direction), state.step_size)
        # All but the directions: each chain keeps its own.
        found = pooled(found._replace(direction=None))._replace(direction=found.direction)
        eps, pilot = step_size.choose(state.step_size, pilot, found, dynamics.law, sampler.target_bias)
        state, info = warm(key, state._replace(step_size=eps, pilot=pilot))
        return state, info._replace(gradients=info.gradients + step_size.GRADIENTS)

    return adapt


def _updates(sampler: Stochastic, posterior: Posterior, dynamics: Dynamics) -> Callable[..., tuple[Chain, Any]]:
    """One draw of one chain, after ``done`` earlier updates: the new chain and the mean virials."""

    def move(particle: Any, batch_key: Key[Array, ""], noise: Array, eps: Array, t: Array) -> tuple[Any, Array]:
        particle = dynamics.drift(particle, eps)
        u = particle.position
        grad = posterior.minibatch_grad(batch_key, u, sampler.batch_size)
        virial = jnp.dot(u, posterior.nbeta * grad + posterior.gamma * u)
        return dynamics.kick(particle, grad, noise, eps, t), virial

    def single(chain: Chain, inputs: _Inputs) -> tuple[Chain, dict[str, Array]]:
        fine, virial = move(chain.fine, *_randomness(inputs.key, chain), inputs.eps, inputs.t)
        return Chain(fine, None), {"virial": virial}

    def pair(chain: Chain, inputs: _Inputs) -> tuple[Chain, dict[str, Array]]:
        (first, second), eps, (t, later) = inputs
        batch, noise = _randomness(first, chain)
        batch_later, noise_later = _randomness(second, chain)
        fine, virial = move(chain.fine, batch, noise, eps[0], t)
        fine, virial_later = move(fine, batch_later, noise_later, eps[1], later)
        coarse, coarse_virial = move(chain.coarse, batch, (noise + noise_later) * 0.5**0.5, 2.0 * eps[0], 0.5 * later)
        return Chain(fine, coarse), {"virial": 0.5 * (virial + virial_later), "coarse_virial": coarse_virial}

    def updates(key: Key[Array, ""], chain: Chain, done: Int[Array, ""], eps: Array) -> tuple[Chain, dict[str, Array]]:
        # t is the same for all chains, so it stays unbatched under vmap.
        t = (done + 1 + jnp.arange(sampler.steps_per_draw, dtype=jnp.int32)).astype(eps.dtype)
        inputs = _Inputs(jax.random.split(key, sampler.steps_per_draw), eps * t**-dynamics.decay, t)
        if sampler.measure_bias:
            chain, virials = jax.lax.scan(pair, chain, jax.tree.map(lambda leaf: leaf.reshape(-1, 2), inputs))
        else:
            chain, virials = jax.lax.scan(single, chain, inputs)
        return chain, jax.tree.map(jnp.mean, virials)

    return updates


def _randomness(key: Key[Array, ""], chain: Chain) -> tuple[Key[Array, ""], Float[Array, " d"]]:
    """The key of an update's minibatch, and its noise."""
    batch_key, noise_key = jax.random.split(key)
    return batch_key, draw_normals(noise_key, chain.fine.position)
