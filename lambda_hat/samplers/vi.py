"""Variational inference: a mixture of Gaussians fitted to pi, then drawn from in proportion to pi / q."""

import math
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from lambda_hat.config.schema import Dtype, NonNegativeInt, PositiveFloat, PositiveInt, schema
from lambda_hat.posterior import Posterior
from lambda_hat.samplers import _vi_family as vi_family
from lambda_hat.samplers.base import Kernel, StepInfo, Traits, check_batch, per_chain, pooled, step_info

_NUM_PROBES = 32  # gradients a chain spends on the whitening
_WIDEST = 100.0  # times the width along a unit curvature
_DEFENCE = 10  # one candidate in so many is the localiser's


class State(NamedTuple):
    """One fit, shared by the chains: q over z, the whitening u = scale * z, the fit steps taken."""

    q: vi_family.Mixture
    scale: Float[Array, " d"]
    updates: Int[Array, ""]


@schema("lambda_hat.samplers.vi.VI")
class VI:
    r"""q(z) = sum_k pi_k N(mu_k, Sigma_k) over whitened offsets z = u / s maximises E_q[log pi - log q]; Sigma_k^-1 is
    a diagonal plus r directions (:mod:`lambda_hat.samplers._vi_family`).

    A fit step draws, for each chain, an antithetic pair of every component and follows the natural gradient, its rate
    falling to 0 along a cosine. log q is differentiated through z alone (sticking the landing, Roeder et al. 2017), so
    that the noise vanishes as q reaches pi.

    A draw is one of K = ``steps_per_draw`` independent candidates from q, chosen in proportion to w = pi / q: a law
    between q (K = 1) and pi (large K), known as importance-weighted VI (Domke & Sheldon 2018). Its log weight is the
    log of the K candidates' mean w, which corrects what is left. One candidate in ten is from the localiser
    N(0, I / gamma) instead, and w counts with it: so w is bounded, whatever the tails of the fit (defensive mixture,
    Hesterberg 1995).

    Does **not** leave pi invariant: E1 has the bias of that law, which the weights reveal (PSIS k-hat) and, when k-hat
    is small, remove. Exact on a quadratic whose curvature is that of the axes and of r directions across them. Cost:
    2 num_components gradients a chain and fit step; draws cost no gradient, but K losses.

    Args:
        num_components: M, the components of the mixture.
        rank: r, the directions of each component; at most d / 4 are used.
        learning_rate: The natural gradient's: the share of its distance to the optimum that q closes in a step.
        whitening: The widths s at which the fit starts. ``none``: the width along a unit curvature,
            1/sqrt(nbeta + gamma). ``rmsprop``: curvatures from the second moments of gradients at random offsets.
            ``adam``: from their variances, which a w0 off the minimum does not disturb.
        batch_size: Rows of a minibatch of a fit step; null: all rows.
        num_warmup: Fit steps.
        steps_per_draw: K, the candidates of which a draw is chosen; 1: draws from q itself.
    """

    kernel_version: ClassVar[int] = 1
    OLDER_NAMES: ClassVar[dict[str, str]] = {
        "M": "sampler.num_components",
        "r": "sampler.rank",
        "lr": "sampler.learning_rate",
        "whitening_mode": "sampler.whitening",
        "steps": "sampler.num_warmup",
        "warmup": "sampler.num_warmup",
        "batch": "sampler.batch_size",
    }

    num_components: PositiveInt = 1
    rank: PositiveInt = 32
    learning_rate: PositiveFloat = 0.05
    whitening: Literal["none", "rmsprop", "adam"] = "adam"
    batch_size: PositiveInt | None = None
    num_warmup: NonNegativeInt = 1000
    steps_per_draw: PositiveInt = 32
    dtype: Dtype = "float32"

    @property
    def traits(self) -> Traits:
        return Traits(self.batch_size, in_pairs=True, columns=frozenset({"log_weight"}))

    def build(self, posterior: Posterior, num_chains: int) -> Kernel:
        check_batch(self.batch_size, posterior.num_data)
        samples = per_chain(self._sample(posterior), num_chains, posterior.dim, in_pairs=True)

        def init(key: Key[Array, ""], u0: Float[Array, "chain d"]) -> tuple[State, StepInfo]:
            start_key, probe_key = jax.random.split(key)
            q = vi_family.start(start_key, self.num_components, self.rank, u0[0])
            scale, num_gradients = self._whitening(probe_key, posterior, num_chains)
            state = State(q, scale, jnp.zeros((), jnp.int32))
            return state, step_info(jax.vmap(posterior.loss)(u0), num_gradients)

        def step(key: Key[Array, ""], state: State) -> tuple[State, StepInfo]:
            loss, log_weight = samples(key, jnp.arange(num_chains), state)
            return state, step_info(loss, 0, log_weight=log_weight, diverged=~jnp.isfinite(log_weight))

        return Kernel(init, self._fit_step(posterior, num_chains), lambda state: state, step)

    def tuned(self, state: State) -> dict[str, Array]:
        del state
        return {}

    def _fit_step(self, posterior: Posterior, num_chains: int):
        look = per_chain(self._pairs(posterior), num_chains, posterior.dim, in_pairs=True)

        def adapt(key: Key[Array, ""], state: State) -> tuple[State, StepInfo]:
            pairs, excess = look(key, jnp.arange(num_chains), state)
            progress = jnp.minimum(state.updates / max(self.num_warmup, 1), 1.0)
            rate = self.learning_rate * 0.5 * (1 + jnp.cos(math.pi * progress))
            everyones = pooled(pairs)
            fitted = vi_family.climb(state.q, everyones, rate.astype(excess.dtype))
            # One overflow must not destroy the fit: such a step is flagged and not taken.
            is_sound = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((fitted, everyones))]).all()
            q = jax.tree.map(lambda new, old: jnp.where(is_sound, new, old), fitted, state.q)
            shares = jax.nn.softmax(state.q.logits)
            values = pairs.value @ shares
            info = step_info(
                posterior.loss_at_w0 + excess @ shares,
                2 * self.num_components,
                log_weight=values + jnp.sum(jnp.log(state.scale)),
                diverged=~jnp.isfinite(values) | ~is_sound,
            )
            return State(q, state.scale, state.updates + 1), info

        return adapt

    def _pairs(self, posterior: Posterior):
        """One chain's antithetic pair of every component, and the pairs' mean of L_n - L_n(w0)."""

        def pairs(key: Key[Array, ""], chain: Int[Array, ""], state: State):
            del chain
            batch_key, key = jax.random.split(key)
            excess_loss = self._excess_loss(batch_key, posterior)

            def gap(z: Float[Array, " d"]):
                excess = excess_loss(state.scale * z)
                return _log_pi(posterior, state.scale * z, excess) - vi_family.log_density(state.q, z), excess

            def pair(noise: Float[Array, " d"], component: vi_family.Components):
                offset = vi_family.spread(state.q, component, noise)
                ends = component.mean + jnp.stack([offset, -offset])
                (values, excess), scores = jax.vmap(jax.value_and_grad(gap, has_aux=True))(ends)
                odd = (scores[0] - scores[1]) / 2
                return vi_family.Pairs(noise, jnp.mean(scores, 0), odd, jnp.mean(values)), jnp.mean(excess)

            components = state.q.components
            noise = jax.random.normal(key, components.mean.shape, state.scale.dtype)
            return jax.vmap(pair)(noise, components)

        return pairs

    def _sample(self, posterior: Posterior):
        """The loss of one of the candidates, chosen in proportion to its weight, and the log of their mean weight."""
        candidate = self._candidate(posterior)
        is_wide = jnp.arange(self.steps_per_draw) < self._num_wide

        def sample(key: Key[Array, ""], chain: Int[Array, ""], state: State):
            del chain
            choice_key, key = jax.random.split(key)
            # One after another: side by side they would need steps_per_draw times the memory.
            keys = jax.random.split(key, self.steps_per_draw)
            losses, log_weights = jax.lax.map(lambda pair: candidate(state, *pair), (keys, is_wide))
            chosen = jax.random.categorical(choice_key, log_weights)
            return losses[chosen], jax.nn.logsumexp(log_weights) - math.log(self.steps_per_draw)

        return sample

    @property
    def _num_wide(self) -> int:
        return self.steps_per_draw // _DEFENCE

    def _candidate(self, posterior: Posterior):
        """A draw of u, from the fit or from the localiser: its loss, and log pi(u) less the log density of u under the
        two together, each by its share of the candidates."""
        has_localiser = posterior.gamma > 0
        gamma = jnp.where(has_localiser, posterior.gamma, 1.0)
        share = jnp.where(has_localiser, self._num_wide / self.steps_per_draw, 0.0).astype(gamma.dtype)

        def candidate(state: State, key: Key[Array, ""], is_wide: Bool[Array, ""]):
            fit_key, wide_key = jax.random.split(key)
            wide = gamma**-0.5 * jax.random.normal(wide_key, state.scale.shape, state.scale.dtype)
            u = jnp.where(is_wide & has_localiser, wide, state.scale * vi_family.draw(state.q, fit_key))
            loss = posterior.loss(u)
            log_q = vi_family.log_density(state.q, u / state.scale) - jnp.sum(jnp.log(state.scale))
            log_localiser = 0.5 * (u.size * jnp.log(gamma / (2 * math.pi)) - gamma * jnp.dot(u, u))
            log_proposal = jnp.logaddexp(jnp.log1p(-share) + log_q, jnp.log(share) + log_localiser)
            return loss, _log_pi(posterior, u, loss - posterior.loss_at_w0) - log_proposal

        return candidate

    def _excess_loss(self, key: Key[Array, ""], posterior: Posterior):
        """L_n(w0 + u) - L_n(w0) as a function of u, over all rows or over one minibatch."""
        if self.batch_size is None:
            return lambda u: posterior.loss(u) - posterior.loss_at_w0
        target = posterior.target
        batch = target.minibatch(key, self.batch_size)
        at_w0 = target.minibatch_loss(target.w0, batch)
        return lambda u: target.minibatch_loss(target.w0 + u, batch) - at_w0

    def _whitening(self, key: Key[Array, ""], posterior: Posterior, num_chains: int):
        """The scale s of u = s * z, and the gradients a chain spent on it.

        At offsets of the width sigma of a unit curvature, in random directions, a quadratic's gradient has
        variance (h_i sigma)^2: hence a curvature h_i for every parameter, and s_i = 1 / sqrt(nbeta h_i + gamma).
        """
        w0 = posterior.target.w0
        unit = posterior.nbeta + posterior.gamma
        if self.whitening == "none":
            return jnp.full_like(w0, unit**-0.5), 0

        def probe(key: Key[Array, ""], sums: Float[Array, "2 d"]):
            offset_key, batch_key = jax.random.split(key)
            u = unit**-0.5 * jax.random.normal(offset_key, w0.shape, w0.dtype)
            grad = jax.grad(self._excess_loss(batch_key, posterior))(u)
            return sums + jnp.stack([grad, grad**2])

        probes = per_chain(probe, num_chains, posterior.dim, in_pairs=True)
        nothing = jnp.zeros((num_chains, 2, *w0.shape), w0.dtype)
        keys = jax.random.split(key, _NUM_PROBES)
        sums, _ = jax.lax.scan(lambda sums, key: (probes(key, sums), None), nothing, keys)
        mean, square = jnp.sum(sums, 0) / (num_chains * _NUM_PROBES)
        moment = square - mean**2 if self.whitening == "adam" else square
        curvature = jnp.sqrt(jnp.maximum(moment, 0.0) * unit)
        precision = posterior.nbeta * curvature + posterior.gamma
        return jnp.maximum(precision, unit / _WIDEST**2) ** -0.5, _NUM_PROBES


def _log_pi(posterior: Posterior, u: Float[Array, " d"], excess: Float[Array, ""]) -> Float[Array, ""]:
    """log pi(u) - log pi(0), from L_n(w0 + u) - L_n(w0)."""
    return -posterior.nbeta * excess - 0.5 * posterior.gamma * jnp.dot(u, u)
