"""A square loss that is linear in x, from the second moments of its rows alone.

L_n(W) = 1/2 ||(W - B) C||_F^2 + residual, B the least squares solution, C C' = X'X / (n sigma^2): centred on least
squares, so that nothing cancels. It costs p^2 where rows cost n p: 40 to 110 times less at n = 1e4
(docs/benchmark.md).
"""

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from lambda_hat.config.schema import Document
from lambda_hat.targets.base import Rows
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


def quadratic_form(data: LinearRegression, product: np.ndarray) -> Document:
    """The loss of a single linear layer as what :func:`exact.quadratic_llc` takes, in JSON types."""
    directions, scales, _ = np.linalg.svd(data.factor)
    curvatures = np.zeros(len(directions))
    curvatures[: len(scales)] = scales**2
    offsets = np.linalg.norm((product - data.least_squares) @ directions, axis=0)
    return {"curvatures": curvatures.tolist(), "offsets": offsets.tolist(), "copies": len(product)}
