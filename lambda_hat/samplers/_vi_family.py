"""The variational family: q(z) = sum_k pi_k N(mu_k, Sigma_k), and the natural-gradient step that fits it.

    Sigma_k^-1 = D^(-1/2) (I + V_k diag(a_k) V_k') D^(-1/2),    V_k'V_k = I,    a_k >= 0

D is diagonal and shared, V_k is d x r: a component costs O(d r), never O(d^2). These are factor analysers
(Ghahramani & Hinton 1996) of the precision: a localised posterior is as wide as its localiser everywhere but along
some stiff directions, which a covariance D + U U' of low rank cannot say.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

# D needs directions of its own: where V is all of space, the two only undo each other.
_LARGEST_SHARE = 4


class Components(NamedTuple):
    """mu_k, V_k and a_k of all components, or of one without the leading axis."""

    mean: Float[Array, "*component d"]
    directions: Float[Array, "*component d rank"]
    stiffness: Float[Array, "*component rank"]


class Mixture(NamedTuple):
    """pi = softmax(``logits``), D = exp(2 ``log_widths``)."""

    logits: Float[Array, " component"]
    log_widths: Float[Array, " d"]
    components: Components


class Pairs(NamedTuple):
    """Scores s(z) = grad (log pi - log q)(z) at z = mu_k +- Sigma_k^(1/2) e, a pair for each chain and component.

    ``noise`` is e; ``even`` and ``odd`` are half the sum and half the difference of the two scores; ``value`` is the
    mean of log pi - log q at both.
    """

    noise: Float[Array, "*chain component d"]
    even: Float[Array, "*chain component d"]
    odd: Float[Array, "*chain component d"]
    value: Float[Array, "*chain component"]


def start(key: Key[Array, ""], num_components: int, rank: int, like: Float[Array, " d"]) -> Mixture:
    """Components of unit width about a unit apart near the origin, their directions (at most d / 4) random and of no
    effect yet."""
    mean_key, direction_key = jax.random.split(key)
    d, dtype = like.shape[0], like.dtype
    rank = min(rank, d // _LARGEST_SHARE)
    directions = jax.random.normal(direction_key, (num_components, d, rank), dtype)
    return Mixture(
        logits=jnp.zeros(num_components, dtype),
        log_widths=jnp.zeros(d, dtype),
        components=Components(
            mean=d**-0.5 * jax.random.normal(mean_key, (num_components, d), dtype),
            directions=jnp.linalg.qr(directions)[0],
            stiffness=jnp.zeros((num_components, rank), dtype),
        ),
    )


def spread(q: Mixture, component: Components, noise: Float[Array, " d"]) -> Float[Array, " d"]:
    """Sigma_k^(1/2) e = D^(1/2) (I + V diag((1 + a)^(-1/2) - 1) V') e, of covariance Sigma_k if that of e is I."""
    V, shrink = component.directions, (1 + component.stiffness) ** -0.5 - 1
    return jnp.exp(q.log_widths) * (noise + V @ (shrink * (V.T @ noise)))


def draw(q: Mixture, key: Key[Array, ""]) -> Float[Array, " d"]:
    """A draw from q."""
    choice_key, key = jax.random.split(key)
    chosen = jax.random.categorical(choice_key, q.logits)
    component = jax.tree.map(lambda leaf: leaf[chosen], q.components)
    return component.mean + spread(q, component, jax.random.normal(key, q.log_widths.shape, q.log_widths.dtype))


def log_density(q: Mixture, z: Float[Array, " d"]) -> Float[Array, ""]:
    """log q(z)."""

    def normal(component: Components) -> Float[Array, ""]:
        y = jnp.exp(-q.log_widths) * (z - component.mean)
        square = jnp.dot(y, y) + jnp.dot(component.stiffness, (component.directions.T @ y) ** 2)
        return 0.5 * (jnp.sum(jnp.log1p(component.stiffness)) - square)

    constant = jnp.sum(q.log_widths) + 0.5 * z.shape[0] * jnp.log(2 * jnp.pi).astype(z.dtype)
    return jax.nn.logsumexp(jax.nn.log_softmax(q.logits) + jax.vmap(normal)(q.components)) - constant


def climb(q: Mixture, pairs: Pairs, rate: Float[Array, ""]) -> Mixture:
    """One step up the natural gradient of E_q[log pi - log q], from scores alone.

    With E over component k's noise, the step on its mean and precision is (Khan & Rue 2023; mixtures: Lin, Khan &
    Schmidt 2019)

        mu_k += rate Sigma_k E[s],    Sigma_k^-1 -= rate E[grad s],    E[grad s] = E[s e'] Sigma_k^(-1/2) (Stein)

    so that on a quadratic the precision closes a share ``rate`` of its distance a step, whatever the scale. The mean
    takes the even part of the scores and the precision the odd one: neither disturbs the other, and both vanish, noise
    and all, as q reaches pi. The step of the precision is projected on the family: what it does to the directions, by a
    power iteration, and the diagonal of what it does across them.

    Args:
        q: The fit so far.
        pairs: Scores at it, of every chain and component.
        rate: In (0, 1].
    """
    by_component = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), pairs)
    shares, value = jax.nn.softmax(q.logits), jnp.mean(pairs.value, 0)
    change = rate * (shares @ jax.vmap(_diagonal, (None, 0, 0))(q, q.components, by_component))
    # A precision may grow by any factor at once. It falls by no more than it would to become 0: a larger fall is noise,
    # and what D has become too wide by, V would make up for with all the directions that it has.
    change = jnp.maximum(change, -rate)
    log_stretch = -0.5 * jnp.sign(change) * jnp.log1p(jnp.abs(change))

    def step(component: Components, pairs: Pairs) -> Components:
        mean = _move(q, component, jnp.mean(pairs.even, 0), rate)
        return Components(mean, *_turn(q, component, pairs, rate, jnp.exp(log_stretch)))

    return Mixture(
        logits=q.logits + jnp.clip(rate * (value - jnp.dot(shares, value)), -1.0, 1.0),
        log_widths=q.log_widths + log_stretch,
        components=jax.vmap(step)(q.components, by_component),
    )


def _move(q: Mixture, component: Components, score: Float[Array, " d"], rate: Float[Array, ""]) -> Float[Array, " d"]:
    """mu + rate Sigma s, but no further than one of q's own widths: far off, scores tell little."""
    widths, V, a = jnp.exp(q.log_widths), component.directions, component.stiffness
    pull = widths * score
    natural = pull - V @ (a / (1 + a) * (V.T @ pull))
    length = rate * jnp.sqrt(jnp.maximum(jnp.dot(natural, pull), 0.0))
    return component.mean + rate / jnp.maximum(length, 1.0) * widths * natural


def _diagonal(q: Mixture, component: Components, pairs: Pairs) -> Float[Array, " d"]:
    """The diagonal of -(I - W) G (I - W), W = V diag(a / (1 + a)) V', G = D^(1/2) E[grad s] D^(1/2): the relative
    change of D^-1. V hides a direction from D as far as it holds it: were it hidden where a = 0, a D^-1 that is too
    large there would stay so for ever, for V can make no direction wider."""
    V, held = component.directions, component.stiffness / (1 + component.stiffness)
    scores, noise = jnp.exp(q.log_widths) * pairs.odd, pairs.noise
    # Sigma_k^(-1/2) does little to what is left.
    return -jnp.mean((scores - scores @ V * held @ V.T) * (noise - noise @ V * held @ V.T), 0)


def _turn(
    q: Mixture, component: Components, pairs: Pairs, rate: Float[Array, ""], stretch: Float[Array, " d"]
) -> tuple[Float[Array, "d rank"], Float[Array, " rank"]]:
    """The leading eigenpairs of R (V diag(a) V' - rate G) R, by one power iteration: the matrix is seen through its
    product with V alone, and so never formed. R = diag(``stretch``) keeps the stiff directions what they were while D
    changes."""
    V, a = component.directions, component.stiffness
    scores = jnp.exp(q.log_widths) * pairs.odd
    # Not symmetrised: V'G' would need the noise outside V, which has sqrt(d) times the length.
    GV = scores.T @ (pairs.noise @ V) / len(scores) * jnp.sqrt(1 + a)
    basis, triangle = jnp.linalg.qr(stretch[:, None] * (V * a - rate * GV))
    projected = triangle @ (V.T @ (stretch[:, None] * basis))
    values, rotation = jnp.linalg.eigh((projected + projected.T) / 2)
    # Never wider than D: the noise of a step would make such a direction endlessly wide.
    return basis @ rotation, jnp.maximum(values, 0.0)
