"""The loss of a network whose labels are its own outputs at w0, f0 = f(w0): it is 0 at w0, and so is its gradient.

    kl      sum_c p0_c log(p0_c / p_c) of the logits of p0 and p, over the last axis
    square  1/2 ||f - f0||^2 over the last axis (sigma = 1)

A row's loss is the mean of these over the axes between the rows and the last one, such as positions, so that it is on
the scale of a mean over positions. The Hessian at w0 is Gauss-Newton's: J' F J, with the softmax's F or the identity.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from lambda_hat.config.schema import Distance
from lambda_hat.targets.base import Batch, Leaf, Target, data_set_kind
from lambda_hat.targets.mean_over_rows import sum_of_parts
from lambda_hat.targets.problem.frozen_loss import FrozenOutputs, OwnRows, blocks
from lambda_hat.targets.problem.parameters import ProblemError
from lambda_hat.targets.problem.row_contract import all_outputs
from lambda_hat.targets.row_data import kl, square


@data_set_kind
class SelfRows:
    """What the outputs of a user's network read, and its outputs at w0."""

    has_rows: ClassVar[bool] = True
    rows: OwnRows
    labels: Float[Leaf, "n ..."]


@dataclass(frozen=True)
class SelfLoss:
    """The distance of a user's network from itself at w0. Rows and weights are those of its loss."""

    outputs: FrozenOutputs
    distance: Distance

    def loss(self, data: SelfRows, w: Float[Array, " d"]) -> Float[Array, ""]:
        return sum_of_parts(self, data, w)

    def minibatch(self, key: Key[Array, ""], target: Target, batch_size: int) -> Batch:
        return target.data.rows.draw(key, batch_size)

    def minibatch_loss(self, data: SelfRows, w: Float[Array, " d"], batch: Batch) -> Float[Array, ""]:
        outputs = self.outputs.drawn_results(data.rows, w, batch)[0]
        return self._of_rows(outputs, jnp.broadcast_to(jnp.asarray(data.labels)[batch], outputs.shape)).mean()

    def unravel(self, data: SelfRows, w: Float[Array, " d"]) -> PyTree:
        del data
        return self.outputs.traces.function.coordinates.unravel(w)

    def num_parts(self, data: SelfRows) -> int:
        return blocks(len(data.labels), "rows").count

    def part_loss(self, data: SelfRows, w: Float[Array, " d"], index: Array | int) -> Float[Array, ""]:
        """What one block of rows adds to L_n."""
        block = blocks(len(data.labels), "rows")
        outputs = self.outputs.block_results(data.rows, w, block, index)[0]
        labels = jax.lax.dynamic_slice_in_dim(jnp.asarray(data.labels), block.start(index), block.size)
        return data.rows.part_of_mean(self._of_rows(outputs, labels), block, index)

    def _of_rows(self, outputs: Float[Array, "m ..."], labels: Float[Array, "m ..."]) -> Float[Array, " m"]:
        if outputs.ndim == 1:
            outputs, labels = outputs[:, None], labels[:, None]
        found = kl(outputs, labels) if self.distance == "kl" else square(outputs, labels)
        return found.reshape(len(found), -1).mean(1)


def self_rows(outputs: FrozenOutputs, target: Target, data: OwnRows, distance: Distance) -> SelfRows:
    """The data of a target whose labels are its outputs at w0.

    Args:
        outputs: Of the network.
        target: Of the network's loss, in float64.
        data: What the outputs read, on the host, with the weights of the loss's rows.
        distance: From these labels.

    Raises:
        ProblemError: they are no logits.
    """
    on_device = replace(target, data=data).astype("float64")
    labels = all_outputs(outputs, on_device.data, target.w0)
    if distance == "kl" and (labels.ndim < 2 or labels.shape[-1] < 2):
        raise ProblemError(
            [
                f"posterior.self: kl needs logits of two classes or more, outputs (rows, ..., classes), got outputs of "
                f"shape {labels.shape}; return a logit for each class, or set self=square"
            ]
        )
    return SelfRows(rows=data, labels=labels.astype(np.float64))
