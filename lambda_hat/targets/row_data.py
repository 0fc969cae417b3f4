"""The kinds of data set that have rows, and the loss of a prediction in each."""

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
