"""A square loss that is linear in x, from the second moments of its rows alone.

L_n(W) = 1/2 ||(W - B) C||_F^2 + residual, B the least squares solution, C C' = X'X / (n sigma^2): centred on least
squares, so that nothing cancels. It costs p^2 where rows cost n p: 40 to 110 times less at n = 1e4
(docs/benchmark.md).
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lambda_hat.config.schema import Document
from lambda_hat.targets.base import Curvature, Rows
from lambda_hat.targets.row_data import LinearRegression, regression


def linear_regression(rows: Rows, features: np.ndarray) -> LinearRegression:
    """The rows, with the moments of a loss that is linear in ``features`` (n, p): the inputs, or those and a 1."""
    solution = np.linalg.lstsq(features, rows.outputs)[0].T
    factor = np.asarray(np.linalg.qr(features / np.sqrt(len(features)), mode="r")).T / rows.sigma
    residual = 0.5 * np.mean(np.sum((rows.outputs - features @ solution.T) ** 2, 1)) / rows.sigma**2
    moments: dict[str, Any] = {"least_squares": solution, "factor": factor, "residual": np.array(residual)}
    return LinearRegression(**vars(regression(rows)), **moments)


def moment_loss(data: LinearRegression, product: Float[Array, "q features"]) -> Float[Array, ""]:
    """L_n(W), at the cost of p^2."""
    return 0.5 * (((product - data.least_squares) @ data.factor) ** 2).sum() + data.residual


def layer_curvature(layers: Sequence[Array], index: int, factor: Array | None, *, bias: bool = False) -> Curvature:
    """The Hessian in W_i of 1/2 ||(W_L ... W_1 - B) C||_F^2: U'U (x) H C C' H', U = W_L ... W_(i+1) the map after the
    layer and H = W_(i-1) ... W_1 the one before.

    Args:
        index: i - 1.
        factor: C; None: the identity.
        bias: Whether the last column of each layer is its bias. H then acts on (x, 1) and keeps the 1.
    """
    before: Array | None = None
    for layer in layers[:index]:
        before = layer if before is None else layer @ before
        if bias:
            one = jnp.zeros((1, before.shape[1]), before.dtype).at[0, -1].set(1)
            before = jnp.concatenate([before, one])
    after: Array | None = None
    for layer in layers[:index:-1]:
        weight = layer[:, :-1] if bias else layer
        after = weight if after is None else after @ weight
    spread = before if factor is None else factor if before is None else before @ factor
    return Curvature(None if after is None else after.T @ after, None if spread is None else spread @ spread.T)


def quadratic_form(data: LinearRegression, product: np.ndarray) -> Document:
    """The loss of a single linear layer as what :func:`exact.quadratic_llc` takes, in JSON types."""
    directions, scales, _ = np.linalg.svd(data.factor)
    curvatures = np.zeros(len(directions))
    curvatures[: len(scales)] = scales**2
    offsets = np.linalg.norm((product - data.least_squares) @ directions, axis=0)
    return {"curvatures": curvatures.tolist(), "offsets": offsets.tolist(), "copies": len(product)}
