"""A mean over the draws of all chains and its Monte Carlo standard error: by ArviZ's ESS, and by batch means, which
need NumPy only and so suit a progress line."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from lambda_hat.estimation.diagnostics import array_stats
from lambda_hat.estimation.trace import Draws

# Split R-hat and ESS halve each chain; a half needs two draws to have a variance.
MIN_DRAWS = 4
# Half the width of a 90 % interval, in standard errors.
INTERVAL_90 = 1.6448536269514722
# Few batches bear long autocorrelation (up to draws / 20) and still give the error to within a tenth.
_BATCHES_PER_CHAIN = 20
# Chains whose means spread over this many times what their batches explain, in variance, are taken to disagree.
_DISAGREEMENT = 4.0
# Batches a chain for errors that the ESS cannot see: longer than those of running errors.
_LONG_BATCHES = 10
# The shortest batches of a chain that is not reversible, in autocorrelation times.
_MEMORIES = 10.0


class LLC(NamedTuple):
    """A value of the LLC and the Monte Carlo standard error of it."""

    llc: float
    mcse: float


def mean_with_error(values: Draws, *, is_reversible: bool = True) -> LLC:
    """The mean over all draws and its Monte Carlo standard error.

    The error is sd / sqrt(ESS of the mean), or that of long batches if it is larger: a small slow component is lost in
    the noise of the autocorrelations that the ESS sums, and still adds to the error.
    A chain that carries its momentum from draw to draw is not reversible. Its autocorrelations may be negative, which
    the ESS leaves out, so there the error uses batch means of ten autocorrelation times instead.
    NaN for both if any value is not finite; NaN for the error below four draws.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        return LLC(math.nan, math.nan)
    mean = float(values.mean())
    if values.shape[1] < MIN_DRAWS:
        return LLC(mean, math.nan)
    sums = running_sums(values)
    mcse = float(arviz("mcse", values, method="mean")) if is_reversible else _carried(values, sums)
    return LLC(mean, max(mcse, batch_means(sums, _LONG_BATCHES)[1]))


def _carried(values: Draws, sums: Float[np.ndarray, "chain draw_plus_1"]) -> float:
    """The error by the shortest batches allowed."""
    ess = float(arviz("ess", values, method="mean"))
    length = math.ceil(_MEMORIES * max(values.size / ess, 1.0)) if ess > 0 else values.shape[1]
    return batch_means(sums, max(values.shape[1] // length, _LONG_BATCHES))[1]


def interval90(mean: float, mcse: float) -> tuple[float, float]:
    return mean - INTERVAL_90 * mcse, mean + INTERVAL_90 * mcse


def arviz(function: str, values: Shaped[np.ndarray, "..."], **options: Any) -> Any:
    """A function of ArviZ's array layer."""
    return getattr(array_stats(), function)(values, **options)


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


def running_interval(
    x: Draws, draws: Int[np.ndarray, " point"], mcse: float
) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """:func:`running_llc` with its errors scaled so that the last is ``mcse``, the error of the estimate.

    Batch means know the error's course but may miss half of its size. NaN where ``mcse`` is: no error, no interval.

    Args:
        x, draws: As for :func:`running_llc`; the last count is that of the estimate.
        mcse: The error that is published.
    """
    llc, quick = running_llc(x, draws)
    if not draws.size:
        return llc, quick
    if quick[-1] > 0:
        return llc, quick * (mcse / quick[-1])
    return llc, np.where(np.arange(draws.size) == draws.size - 1, mcse, math.nan)


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
