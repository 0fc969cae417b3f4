"""Variational inference: a mixture of factor analysers fitted to pi, then drawn from."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic.dataclasses import dataclass

from lambda_hat.config import STRICT, Dtype, NonNegativeInt, PositiveFloat, PositiveInt
from lambda_hat.samplers.base import Kernel, StepInfo, check_batch, per_chain, step_info

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key
    from optax import GradientTransformation

    from lambda_hat.posterior import Posterior
    from lambda_hat.samplers.vi_family import Mixture

_NUM_PROBES = 32  # gradients a chain spends on the whitening
_WIDEST = 100.0  # times the width along a unit curvature


class State(NamedTuple):
    """One fit, shared by the chains: q over z, its optimiser, the whitening u = scale * z, the fit steps taken."""

    q: "Mixture"
    optimiser: Any
    scale: "Float[Array, ' d']"
    updates: "Int[Array, '']"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VI:
    r"""q(z) = sum_k pi_k N(mu_k, D + U_k U_k') over whitened offsets z = u / s maximises E_q[log pi - log q].

    A fit step draws, for each chain, one z of every component and follows the path gradient (sticking the landing,
    Roeder et al. 2017: log q is differentiated through z alone, which vanishes as q reaches pi) by Adam, its rate
    falling to 0 along a cosine. A draw is an independent one from q, with log weight log pi(u) - log q(u).

    Does **not** leave pi invariant: E1 has the bias of q, which the importance weights reveal (PSIS k-hat) and, when
    k-hat is small, remove. Exact on a quadratic of diagonal curvature. Cost: num_components gradients a chain and fit
    step; draws cost none.

    Args:
        num_components: M, the components of the mixture.
        rank: r, the columns of each U_k.
        learning_rate: Adam's, in units of the whitened posterior's width.
        whitening: ``none``: s is the width along a unit curvature, 1/sqrt(nbeta + gamma). ``rmsprop``: curvatures
            from the second moments of gradients at random offsets. ``adam``: from their variances, which a w0 off the
            minimum does not disturb.
        batch_size: Rows of a minibatch of a fit step; null: all rows.
        num_warmup: Fit steps.
        steps_per_draw: Draws are independent: only 1 makes sense.
    """

    OLDER_NAMES: ClassVar[dict[str, str]] = {
        "M": "sampler.num_components",
        "r": "sampler.rank",
        "lr": "sampler.learning_rate",
        "whitening_mode": "sampler.whitening",
        "steps": "sampler.num_warmup",
        "warmup": "sampler.num_warmup",
        "batch": "sampler.batch_size",
    }

    num_components: PositiveInt = 2
    rank: PositiveInt = 8
    learning_rate: PositiveFloat = 0.02
    whitening: Literal["none", "rmsprop", "adam"] = "adam"
    batch_size: PositiveInt | None = None
    num_warmup: NonNegativeInt = 1000
    steps_per_draw: Literal[1] = 1
    dtype: Dtype = "float32"

    def build(self, posterior: "Posterior", num_chains: int) -> Kernel:
        import jax
        import jax.numpy as jnp
        import optax

        from lambda_hat.samplers import vi_family

        check_batch(self.batch_size, posterior.num_data)
        adam = optax.scale_by_adam()
        samples = per_chain(self._sample(posterior), num_chains)

        def init(key: "Key[Array, '']", u0: "Float[Array, 'chain d']") -> tuple[State, StepInfo]:
            start_key, probe_key = jax.random.split(key)
            q = vi_family.start(start_key, self.num_components, self.rank, u0[0])
            scale, num_gradients = self._whitening(probe_key, posterior, num_chains)
            state = State(q, adam.init(q), scale, jnp.zeros((), jnp.int32))
            return state, step_info(jax.vmap(posterior.loss)(u0), num_gradients)

        def step(key: "Key[Array, '']", state: State) -> tuple[State, StepInfo]:
            loss, log_weight = samples(key, jnp.arange(num_chains), state)
            return state, step_info(loss, 0, log_weight=log_weight, diverged=~jnp.isfinite(log_weight))

        return Kernel(init, self._fit_step(posterior, num_chains, adam), lambda state: state, step)

    def _fit_step(self, posterior: "Posterior", num_chains: int, adam: "GradientTransformation"):
        import jax
        import jax.numpy as jnp
        import optax

        elbos = per_chain(self._elbo(posterior), num_chains)
        schedule = optax.cosine_decay_schedule(1.0, max(self.num_warmup, 1))

        def adapt(key: "Key[Array, '']", state: State) -> tuple[State, StepInfo]:
            def objective(q: "Mixture"):
                values, excess = elbos(key, jnp.arange(num_chains), q, state.scale)
                return -jnp.mean(values), (values, excess)

            grads, (values, excess) = jax.grad(objective, has_aux=True)(state.q)
            directions, optimiser = adam.update(grads, state.optimiser)
            rate = (self.learning_rate * schedule(state.updates)).astype(values.dtype)
            q = jax.tree.map(lambda x, direction: x - rate * direction, state.q, directions)
            # One overflow must not destroy the fit: such a step is flagged and not taken.
            is_sound = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads)]).all()
            fitted = state._replace(q=q, optimiser=optimiser)
            state = jax.tree.map(lambda new, old: jnp.where(is_sound, new, old), fitted, state)
            info = step_info(
                posterior.loss_at_w0 + excess,
                self.num_components,
                log_weight=values + jnp.sum(jnp.log(state.scale)),
                diverged=~jnp.isfinite(values) | ~is_sound,
            )
            return state._replace(updates=state.updates + 1), info

        return adapt

    def _elbo(self, posterior: "Posterior"):
        """One chain's stratified estimate sum_k pi_k (log pi - log q)(z_k), and of the mean of L_n - L_n(w0)."""
        import jax
        import jax.numpy as jnp

        from lambda_hat.samplers import vi_family

        def elbo(key: "Key[Array, '']", chain: "Int[Array, '']", q: "Mixture", scale: "Float[Array, ' d']"):
            del chain
            batch_key, key = jax.random.split(key)
            excess_loss = self._excess_loss(batch_key, posterior)
            fixed = jax.lax.stop_gradient(q)

            def value(key: "Key[Array, '']", component: "Int[Array, '']"):
                z = vi_family.draw_component(q, key, component)
                excess = excess_loss(scale * z)
                return _log_pi(posterior, scale * z, excess) - vi_family.log_density(fixed, z), excess

            keys = jax.random.split(key, self.num_components)
            values, excess = jax.vmap(value)(keys, jnp.arange(self.num_components))
            shares = jax.nn.softmax(q.logits)
            return jnp.dot(shares, values), jnp.dot(shares, excess)

        return elbo

    def _sample(self, posterior: "Posterior"):
        """A draw from q: its loss, and log pi(u) - log q(u), q's density being that of u, not of z."""
        import jax.numpy as jnp

        from lambda_hat.samplers import vi_family

        def sample(key: "Key[Array, '']", chain: "Int[Array, '']", state: State):
            del chain
            z = vi_family.draw(state.q, key)
            loss = posterior.loss(state.scale * z)
            log_pi = _log_pi(posterior, state.scale * z, loss - posterior.loss_at_w0)
            return loss, log_pi - vi_family.log_density(state.q, z) + jnp.sum(jnp.log(state.scale))

        return sample

    def _excess_loss(self, key: "Key[Array, '']", posterior: "Posterior"):
        """L_n(w0 + u) - L_n(w0) as a function of u, over all rows or over one minibatch."""
        if self.batch_size is None:
            return lambda u: posterior.loss(u) - posterior.loss_at_w0
        target = posterior.target
        batch = target.minibatch(key, self.batch_size)
        at_w0 = target.minibatch_loss(target.w0, batch)
        return lambda u: target.minibatch_loss(target.w0 + u, batch) - at_w0

    def _whitening(self, key: "Key[Array, '']", posterior: "Posterior", num_chains: int):
        """The scale s of u = s * z, and the gradients a chain spent on it.

        At offsets of the width sigma of a unit curvature, in random directions, a quadratic's gradient has
        variance (h_i sigma)^2: hence a curvature h_i for every parameter, and s_i = 1 / sqrt(nbeta h_i + gamma).
        """
        import jax
        import jax.numpy as jnp

        w0 = posterior.target.w0
        unit = posterior.nbeta + posterior.gamma
        if self.whitening == "none":
            return jnp.full_like(w0, unit**-0.5), 0

        def probe(key: "Key[Array, '']", sums: "Float[Array, '2 d']"):
            offset_key, batch_key = jax.random.split(key)
            u = unit**-0.5 * jax.random.normal(offset_key, w0.shape, w0.dtype)
            grad = jax.grad(self._excess_loss(batch_key, posterior))(u)
            return sums + jnp.stack([grad, grad**2])

        probes = per_chain(probe, num_chains)
        nothing = jnp.zeros((num_chains, 2, *w0.shape), w0.dtype)
        keys = jax.random.split(key, _NUM_PROBES)
        sums, _ = jax.lax.scan(lambda sums, key: (probes(key, sums), None), nothing, keys)
        mean, square = jnp.sum(sums, 0) / (num_chains * _NUM_PROBES)
        moment = square - mean**2 if self.whitening == "adam" else square
        curvature = jnp.sqrt(jnp.maximum(moment, 0.0) * unit)
        precision = posterior.nbeta * curvature + posterior.gamma
        return jnp.maximum(precision, unit / _WIDEST**2) ** -0.5, _NUM_PROBES


def _log_pi(posterior: "Posterior", u: "Float[Array, ' d']", excess: "Float[Array, '']") -> "Float[Array, '']":
    """log pi(u) - log pi(0), from L_n(w0 + u) - L_n(w0)."""
    import jax.numpy as jnp

    return -posterior.nbeta * excess - 0.5 * posterior.gamma * jnp.dot(u, u)
