"""The variational family: a mixture of factor analysers, q(z) = sum_k pi_k N(mu_k, D + U_k U_k').

D is diagonal and shared, U_k is d x r: a component costs O(d r), never O(d^2). Ghahramani & Hinton 1996.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


class Mixture(NamedTuple):
    """pi = softmax(``logits``), mu = ``means``, D = exp(2 ``log_widths``), U = ``factors``."""

    logits: Float[Array, " component"]
    means: Float[Array, "component d"]
    log_widths: Float[Array, " d"]
    factors: Float[Array, "component d rank"]


def start(key: Key[Array, ""], num_components: int, rank: int, like: Float[Array, " d"]) -> Mixture:
    """Components of unit width near the origin, apart by a tenth; small random factors, since at U = 0 the gradient
    of U is zero."""
    mean_key, factor_key = jax.random.split(key)
    d, dtype = like.shape[0], like.dtype
    return Mixture(
        logits=jnp.zeros(num_components, dtype),
        means=0.1 * jax.random.normal(mean_key, (num_components, d), dtype),
        log_widths=jnp.zeros(d, dtype),
        factors=0.1 * d**-0.5 * jax.random.normal(factor_key, (num_components, d, rank), dtype),
    )


def draw_component(q: Mixture, key: Key[Array, ""], component: Int[Array, ""]) -> Float[Array, " d"]:
    """z = mu_k + D^(1/2) e + U_k x with e, x standard normal: a draw of component k, differentiable in q."""
    wide_key, factor_key = jax.random.split(key)
    noise = jax.random.normal(wide_key, q.log_widths.shape, q.means.dtype)
    coordinates = jax.random.normal(factor_key, (q.factors.shape[-1],), q.means.dtype)
    return q.means[component] + jnp.exp(q.log_widths) * noise + q.factors[component] @ coordinates


def draw(q: Mixture, key: Key[Array, ""]) -> Float[Array, " d"]:
    """A draw from q."""
    component_key, key = jax.random.split(key)
    return draw_component(q, key, jax.random.categorical(component_key, q.logits))


def log_density(q: Mixture, z: Float[Array, " d"]) -> Float[Array, ""]:
    """log q(z). With A = D^(-1/2) U and C = I + A'A, Woodbury gives the quadratic form y'y - (A'y)' C^-1 (A'y) in
    y = D^(-1/2) (z - mu), and the determinant |D| |C|."""

    def component(mean: Float[Array, " d"], factor: Float[Array, "d rank"]) -> Float[Array, ""]:
        inverse_widths = jnp.exp(-q.log_widths)
        y = inverse_widths * (z - mean)
        A = inverse_widths[:, None] * factor
        lower = jnp.linalg.cholesky(jnp.eye(A.shape[1], dtype=A.dtype) + A.T @ A)
        projected = jax.scipy.linalg.solve_triangular(lower, A.T @ y, lower=True)
        half_log_det = jnp.sum(q.log_widths) + jnp.sum(jnp.log(jnp.diag(lower)))
        return -0.5 * (jnp.dot(y, y) - jnp.dot(projected, projected)) - half_log_det

    constant = 0.5 * z.shape[0] * jnp.log(2 * jnp.pi).astype(z.dtype)
    terms = jax.nn.log_softmax(q.logits) + jax.vmap(component)(q.means, q.factors)
    return jax.nn.logsumexp(terms) - constant
