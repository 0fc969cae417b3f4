"""The kinds of data set that have rows, and the loss of a prediction in each."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lambda_hat.targets.base import Leaf, Rows, data_set_kind


@data_set_kind
class Regression:
    """Numbers to predict. ``precision`` is 1 / sigma^2; ``columns`` are the inputs in blocks, transposed, where a
    posterior keeps them (:mod:`lambda_hat.targets.mean_over_rows`)."""

    has_rows: ClassVar[bool] = True
    inputs: Float[Leaf, "n p"]
    outputs: Float[Leaf, "n q"]
    precision: Float[Leaf, ""]
    columns: Float[Array, "block p size"] | None = None

    @property
    def num_outputs(self) -> int:
        return self.outputs.shape[1]

    def mean_loss(self, predictions: Float[Array, "m q"], outputs: Float[Leaf, "m q"]) -> Float[Array, ""]:
        """The mean over rows of 0.5 ||y - f(x)||^2 / sigma^2."""
        return 0.5 * jnp.asarray(self.precision) * ((predictions - jnp.asarray(outputs)) ** 2).sum(-1).mean()


@data_set_kind
class LinearRegression(Regression):
    """A regression whose model is linear in x: with its rows come the second moments that give L_n exactly
    (:mod:`lambda_hat.targets.second_moments`)."""

    least_squares: Float[Leaf, "q features"]
    factor: Float[Leaf, "features rank"]
    residual: Float[Leaf, ""]


@data_set_kind
class Classification:
    """Labels to predict, from 0; ``classes`` are all of them, so that compiled code knows their number."""

    has_rows: ClassVar[bool] = True
    inputs: Float[Leaf, "n p"]
    outputs: Int[Leaf, " n"]
    classes: Int[Leaf, " q"]
    columns: Float[Array, "block p size"] | None = None

    @property
    def num_outputs(self) -> int:
        return self.classes.size

    def mean_loss(self, predictions: Float[Array, "m q"], outputs: Int[Leaf, " m"]) -> Float[Array, ""]:
        """The mean over rows of -log softmax(f(x))[label]. A mask, not a gather: its gradient needs no scatter."""
        chosen = jnp.where(outputs[:, None] == self.classes, predictions, 0).sum(-1)
        return (jax.nn.logsumexp(predictions, -1) - chosen).mean()


RowData = Regression | Classification


def regression(rows: Rows) -> Regression:
    """The rows of a regression as a data set."""
    return Regression(inputs=rows.inputs, outputs=rows.outputs, precision=np.array(rows.sigma**-2))


# Below it, e^x - 1 - x is a series: (x^2 / 2) (1 + x/3 + ...), whose first omitted term is beyond float64.
_SMALL, _TERMS = 0.1, 9
# Beyond it, e^x is near the end of float32.
_LARGE = 60.0


def kl(logits: Float[Array, "*rows c"], of: Float[Array, "*rows c"]) -> Float[Array, "*rows"]:
    """sum_c p0_c log(p0_c / p_c) for the logits ``of`` p0 and ``logits`` of p, over the last axis.

    Near p0 it is of second order in the logits' move, and differences of logarithms would leave rounding of first
    order. With the move x centred, sum_c p0_c x_c = 0, it is log(1 + sum_c p0_c (e^x_c - 1 - x_c)): no term is negative
    and nothing cancels.
    """
    log_p0 = jax.nn.log_softmax(of)
    p0 = jnp.exp(log_p0)
    moved = logits - of
    moved = moved - (p0 * moved).sum(-1, keepdims=True)
    is_large = moved.max(-1, keepdims=True) > _LARGE
    found = jnp.log1p((p0 * _above_tangent(jnp.where(is_large, 0, moved))).sum(-1))
    return jnp.where(is_large[..., 0], jax.nn.logsumexp(log_p0 + jnp.where(is_large, moved, 0), -1), found)


def _above_tangent(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """e^x - 1 - x, to the last digits."""
    series = jnp.zeros_like(x)
    for power in reversed(range(_TERMS)):
        series = series * x + 1 / math.factorial(power + 2)
    return jnp.where(jnp.abs(x) < _SMALL, series * x**2, jnp.expm1(x) - x)


def square(outputs: Float[Array, "*rows q"], of: Float[Array, "*rows q"]) -> Float[Array, "*rows"]:
    """1/2 ||f - f0||^2 over the last axis."""
    return 0.5 * ((outputs - of) ** 2).sum(-1)
