"""What the step of an unadjusted sampler adds to the LLC, and the virial, which sees it too.

A trace tells it in one of two ways. Stochastic-gradient samplers have companion chains at twice the step size, coupled
to their own. A sampler whose integrator knows its error, and does not undo it by a Metropolis step, tells the ``work``:
the sum W of the energy errors of its steps. If z_0 is drawn from pi, then E[f(z_k) exp(-W)] = E_pi[f] whatever f, W
being that of the k steps between (Jarzynski 1997; Sivak, Chodera & Crooks 2013, arXiv 1107.2967), and to first order

    E[f(z_k)] - E_pi[f] = Cov(f(z_k), W)

which is the bias as soon as k steps forget z_0. That chains start from their own law, not from pi, is of second order.
"""

import math
from typing import NamedTuple

import numpy as np

from lambda_hat.estimation.standard_error import interval90, mean_with_error, running_sums
from lambda_hat.estimation.trace import Draws

# The work counts that was done within so many times what draws remember (draws / ESS): older work is forgotten.
_MEMORIES = 5.0
# A bias above this share of the LLC is not small: what the first order leaves is then a tenth of the LLC.
_FIRST_ORDER = 0.2


class Virial(NamedTuple):
    """E[(w - w0) . grad U(w)] against d, its value under the posterior; NaN where a sampler does not tell it."""

    value: float
    expected: int
    mcse: float
    z: float


class Bias(NamedTuple):
    """What the step size adds to E1, to first order in it.

    value: the bias, with ``mcse`` and ``z`` = value / mcse. llc, llc_mcse, interval90: E1 without it, its error, and
    the 90 % interval around it. virial: the check of equilibrium, likewise without the step's bias. first_order:
    whether the bias is small enough to be subtracted.
    """

    value: float
    mcse: float
    z: float
    llc: float
    llc_mcse: float
    interval90: tuple[float, float]
    virial: Virial
    first_order: bool


def virial_of(draws: Draws, dim: int, *, is_reversible: bool) -> Virial:
    """The mean of the virial's draws, and how many errors it is off ``dim``."""
    value, mcse = mean_with_error(draws, is_reversible=is_reversible)
    return Virial(value, dim, mcse, _in_errors(value - dim, mcse))


def _in_errors(difference: float, error: float) -> float:
    """Infinite for a difference without error, which constant draws have; NaN where one of them is not finite."""
    if not (math.isfinite(difference) and math.isfinite(error)):
        return math.nan
    if error > 0:
        return difference / error
    return math.copysign(math.inf, difference) if difference != 0 else 0.0


def from_companions(x: Draws, virial: Draws, coarse: tuple[Draws, Draws], dim: int) -> Bias:
    """Richardson: ``coarse`` are x and virial of the companions, whose law is that of twice the step size.

    Chain and companion share their noise, so that each mean is taken of their difference, draw by draw.
    """
    coarse_x, coarse_virial = coarse
    return _bias(x, coarse_x - x, 2.0 * virial - coarse_virial, dim, is_reversible=True)


def from_work(x: Draws, virial: Draws, work: Draws, ess: float, dim: int) -> Bias:
    """From the ``work`` of each draw; ``ess`` is that of x.

    Each draw stands for its share of the covariance, so that errors are those of the difference here too.
    """
    num_draws = x.shape[1]
    memory = x.size / ess if ess > 0 else 1.0
    window = min(math.ceil(_MEMORIES * memory), max(num_draws // 2, 1))
    sums = running_sums(work)
    recent = sums[:, window:] - sums[:, :-window]  # of every draw that has so many before it, itself among them
    recent = (recent - recent.mean()) * (num_draws / recent.shape[1])

    def excess(values: Draws) -> Draws:
        known = values[:, window - 1 :]
        return np.concatenate([np.zeros_like(values[:, : window - 1]), (known - known.mean()) * recent], axis=1)

    return _bias(x, excess(x), virial - excess(virial), dim, is_reversible=False)


def _bias(x: Draws, excess: Draws, virial: Draws, dim: int, *, is_reversible: bool) -> Bias:
    value, mcse = mean_with_error(excess, is_reversible=is_reversible)
    biased, biased_mcse = mean_with_error(x, is_reversible=is_reversible)
    llc, own_mcse = mean_with_error(x - excess, is_reversible=is_reversible)
    # Subtracting a noisy bias cannot make the LLC better known than it or the bias is.
    llc_mcse = math.hypot(max(own_mcse, biased_mcse, mcse), _second_order(value, biased)) if math.isfinite(llc) else llc
    return Bias(
        value=value,
        mcse=mcse,
        z=_in_errors(value, mcse),
        llc=llc,
        llc_mcse=llc_mcse,
        interval90=interval90(llc, llc_mcse),
        virial=virial_of(virial, dim, is_reversible=is_reversible),
        first_order=llc > 0 and abs(value) <= _FIRST_ORDER * min(abs(biased), llc),
    )


def _second_order(value: float, llc: float) -> float:
    """What the first order leaves: on a quadratic, twice the share of the bias of it."""
    return 2.0 * value**2 / abs(llc) if llc != 0 else math.inf
