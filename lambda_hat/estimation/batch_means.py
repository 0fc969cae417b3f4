"""A mean and its error from batch means: numpy only, so that a progress line can afford it."""

import math

import numpy as np
from jaxtyping import Float, Int

Draws = Float[np.ndarray, "chain draw"]

# Few batches bear long autocorrelation (up to draws / 20) and still give the error to within a tenth.
_BATCHES_PER_CHAIN = 20
# Chains whose means spread over this many times what their batches explain, in variance, are taken to disagree.
_DISAGREEMENT = 4.0


def running_llc(
    x: Draws, draws: Int[np.ndarray, " point"]
) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """The LLC from the first ``draws[i]`` draws of every chain, and its error by batch means, for every i.

    Each chain is cut into at most 20 batches; the error is that of the mean of all batches, or, where the chains'
    own means spread over much more than their batches explain, that of the mean of the chains. numpy only.

    Args:
        x: What :func:`lambda_hat.estimation.statistics.llc_draws` returns.
        draws: Counts of draws, each from 0 to the length of ``x``.
    """
    with np.errstate(all="ignore"):  # a diverged draw makes every later point NaN, which is what it should show
        sums = running_sums(x)
        points = [batch_means(sums[:, : int(count) + 1]) for count in draws]
    return np.array([llc for llc, _ in points]), np.array([mcse for _, mcse in points])


def running_sums(x: Draws) -> Float[np.ndarray, "chain draw_plus_1"]:
    """Those of each chain, from 0 on."""
    return np.concatenate([np.zeros((x.shape[0], 1)), np.cumsum(x, axis=1)], axis=1)


def batch_means(
    sums: Float[np.ndarray, "chain draw_plus_1"], batches_per_chain: int = _BATCHES_PER_CHAIN
) -> tuple[float, float]:
    """Mean and error from the running sums of each chain, which start at 0."""
    num_chains, count = sums.shape[0], sums.shape[1] - 1
    if count == 0:
        return math.nan, math.nan
    chain_means = sums[:, -1] / count
    llc = float(chain_means.mean())
    num_batches = min(batches_per_chain, count)
    length = count // num_batches
    # The newest draws are batched; a remainder of less than one batch is left out at the start.
    edges = count - length * np.arange(num_batches, -1, -1)
    batches = np.diff(sums[:, edges], axis=1) / length
    within = float(batches.var(axis=1, ddof=1).mean()) / num_batches if num_batches > 1 else math.nan
    between = float(chain_means.var(ddof=1)) if num_chains > 1 else math.nan
    variance = between if math.isnan(within) or between > _DISAGREEMENT * within else within
    return llc, math.sqrt(variance / num_chains)
