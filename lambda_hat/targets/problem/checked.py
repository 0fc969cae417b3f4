"""A target whose loss has kept its contract: the weights of its rows, and a polish of its w0."""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lambda_hat.config.schema import Document
from lambda_hat.targets.base import DataSet, Target
from lambda_hat.targets.problem.frozen_loss import OwnData, OwnRows
from lambda_hat.targets.random_numbers import row_thresholds
from lambda_hat.targets.training import Training
from lambda_hat.targets.w0_report import norm, value_and_grad


class Checked(NamedTuple):
    """A target whose loss has kept its contract.

    target: in float64. data: its data set as given. num_masked: rows of weight 0. training: what the polish did; None
    without one.
    """

    target: Target
    data: DataSet
    num_masked: int = 0
    training: Document | None = None


def weighted(target: Target, data: OwnData, weights: Float[np.ndarray, " n"] | None) -> Checked:
    """The target whose rows count by their ``weights``; None: as they are.

    Args:
        target: In float64, its rows unweighted.
        data: Its data set as given.
        weights: Not negative, not all 0.
    """
    if weights is None or not isinstance(data, OwnRows):
        return Checked(target, data)
    shares = weights.astype(np.float64) / weights.sum(dtype=np.float64)
    data = replace(data, shares=shares, thresholds=row_thresholds(shares))
    return Checked(replace(target, data=data).astype("float64"), data, num_masked=int((weights == 0).sum()))


def polished(found: Checked) -> Checked:
    """The target at the minimum that L-BFGS finds from its w0."""
    # With it comes Optax, which nothing else of a problem needs.
    from lambda_hat.targets.descent import polish

    start = np.asarray(found.target.w0)
    loss, gradient = value_and_grad(found.target, start)
    w0, steps = polish(found.target, start, Training())
    target = replace(found.target, w0=jnp.asarray(w0))
    facts = {
        "steps": 0,
        "loss": float(loss),
        "gradient_norm": norm(gradient),
        "polish_steps": steps,
        "polished_gradient_norm": norm(value_and_grad(target, w0)[1]),
        "moved": float(np.linalg.norm(w0 - start)),
    }
    return found._replace(target=target, training=facts)
