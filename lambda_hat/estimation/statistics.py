"""The numbers of an estimate: pure functions of a trace and its :class:`Setting`. No file, no clock, no JAX.

Everything is computed from the columns of the trace (:mod:`lambda_hat.estimation.trace`) and from the draws of

    x = nbeta (L_n(w) - L_n(w0)),    so that    E1 = E[x],    E3 = Var[x]    (docs/estimator.md)

Where a sampler tells E[L_n] under the laws that its draws were made from, E1 is the mean of that instead, y: the same
expectation with less noise. How well chains have mixed is then asked of both, and E3 of the draws alone.

ArviZ's array layer does the diagnostics (Vehtari et al. 2021, arXiv 1903.08008; PSIS: arXiv 1507.02646), and not code
of ours. It is imported where it is used: a tenth of a second, which a progress line must not pay.
"""

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float

from lambda_hat.estimation.shift import Shift
from lambda_hat.estimation.standard_error import LLC, MIN_DRAWS, arviz, interval90, mean_with_error, running_llc
from lambda_hat.estimation.step_bias import Bias, Virial, from_companions, from_work, virial_of
from lambda_hat.estimation.trace import Draws, Trace, averaged_loss

# PSIS fits its law to the largest fifth of the weights, and to no fewer than five.
_MIN_WEIGHTS = 25
# Largest weights whose logs differ by less are as good as equal: what smoothing does to them moves E1 by less than a
# third of its error. Where q is the posterior, vi's differ by up to log(32/29): 3 of a draw's 32 candidates are the
# localiser's, and seldom fall where the posterior is. k-hat would be 2 then.
_ALL_BUT_EQUAL = 0.1
# Largest weights that must differ for their tail to have a shape, and where a weight beside the largest is 0.
_MIN_DISTINCT, _LOG_UNDERFLOW = 20, math.log(np.finfo(np.float64).tiny)
# Roundings of a loss that one draw's may be off.
_ROUNDING = 16.0


class Displaced(NamedTuple):
    """What is known of a w0 that is no minimum.

    shift: of the LLC; None: not looked at. groups: what the gradient comes from, each with its ``sentence``.
    """

    shift: Shift | None
    groups: tuple[Mapping[str, Any], ...]

    @property
    def lowering(self) -> float | None:
        """By how much the LLC is lowered, at most; None where that is not known to first order."""
        return None if self.shift is None else self.shift.lowering

    @classmethod
    def of(cls, shift: Mapping[str, Any] | None, groups: Iterable[Mapping[str, Any]]) -> Self:
        """Of these documents."""
        return cls(None if shift is None else Shift(**shift), tuple(groups))


@dataclass(frozen=True)
class Setting:
    """What a trace alone does not know.

    Args:
        nbeta: n * beta of the posterior.
        gamma: Strength of its localiser.
        dim: d, the number of parameters.
        num_data: n.
        loss_at_w0: L_n(w0) over the full data, in the sampling dtype.
        report: What w0 is: ``Built.report`` (``gradient_norm``, ``hessian_min``, ``hessian_max``, ``warnings``).
        num_warmup: The sampler's warm-up draws; None: unknown.
        batch_size: Rows of its gradients; None: all rows.
        bias_knob: What lowers the bias of its step, as a sentence names it; None: unknown.
        noise_gain: c, if the noise of its minibatches raises the virial by at least c Var[nbeta grad L_batch]; 0:
            unknown.
        columns: Those of the trace that the sampler always fills, so that NaN in every draw is a failure there.
        displaced: What is known of a w0 that is no minimum; None: nothing that matters here.
        quantity: What is estimated (:mod:`lambda_hat.estimation.quantity`).
    """

    nbeta: float
    gamma: float
    dim: int
    num_data: int
    loss_at_w0: float
    report: Mapping[str, Any]
    num_warmup: int | None = None
    batch_size: int | None = None
    bias_knob: str | None = None
    noise_gain: float = 0.0
    columns: frozenset[str] = frozenset()
    displaced: Displaced | None = None
    quantity: str = "llc"

    @classmethod
    def of_analysis(cls, analysis: Mapping[str, Any]) -> Self:
        """What analysis.json keeps of it, which is all that the numbers of an estimate need."""
        names = ("nbeta", "gamma", "dim", "num_data", "loss_at_w0")
        shift, groups = analysis.get("shift"), analysis.get("gradient_groups")
        return cls(
            **{name: analysis[name] for name in names},
            report=analysis["target_report"],
            quantity=analysis.get("quantity") or "llc",
            displaced=None if shift is groups is None else Displaced.of(shift, groups or ()),
        )


class Importance(NamedTuple):
    """E1 corrected by Pareto-smoothed weights pi / q; ``z`` is how many errors of that shift it moved E1."""

    llc: float
    mcse: float
    khat: float
    ess: float
    z: float


@dataclass(frozen=True)
class Statistics:
    """Every number of an estimate; docs/estimator.md says what each one is. NaN means "cannot be had"."""

    llc: float
    llc_mcse: float
    llc_interval90: tuple[float, float]
    llc_variance: float
    llc_variance_mcse: float
    e1_minus_e3: float
    e1_minus_e3_mcse: float
    wbic: float
    ess_bulk: float
    ess_tail: float
    rhat: float
    acceptance: float
    divergences: int
    virial: Virial
    importance: Importance | None
    bias: Bias | None
    num_draws: int
    num_chains: int


def llc_draws(loss: Draws, nbeta: float, loss_at_w0: float) -> Float[np.ndarray, "chain draw"]:
    """x = nbeta (L_n(w) - L_n(w0)) of every draw, in float64."""
    with np.errstate(over="ignore", invalid="ignore"):  # the verdict tells what is not finite
        return nbeta * (np.asarray(loss, dtype=np.float64) - loss_at_w0)


def measure(trace: Trace, setting: Setting) -> Statistics:
    """The numbers of :class:`Statistics`."""
    with np.errstate(all="ignore"):
        x = llc_draws(trace["loss"], setting.nbeta, setting.loss_at_w0)
        num_chains, num_draws = x.shape
        # A sampler without accept or reject goes on with the momentum that it has.
        is_reversible = bool(np.isnan(_column(trace, "work")).all())
        mean = functools.partial(mean_with_error, is_reversible=is_reversible)
        y, least_mcse = _averaged(x, trace, setting)
        plain = mean(x)
        llc, mcse = plain if y is x else mean(y)
        mcse = mcse if mcse > least_mcse else mcse + least_mcse  # NaN stays NaN
        # Var[x] by its mean square about the grand mean: its own trace, and so its own error.
        square = (x - plain.llc) ** 2 * (x.size / max(x.size - 1, 1))
        variance, variance_mcse = mean(square)
        difference, difference_mcse = mean(y - square)
        diverged = trace.get("diverged")
        rhat, ess_bulk, ess_tail = _convergence(x, y, least_mcse)
        return Statistics(
            llc=llc,
            llc_mcse=mcse,
            llc_interval90=interval90(llc, mcse),
            llc_variance=variance,
            llc_variance_mcse=variance_mcse,
            e1_minus_e3=difference,
            e1_minus_e3_mcse=difference_mcse,
            wbic=_wbic(llc, setting),
            ess_bulk=ess_bulk,
            ess_tail=ess_tail,
            rhat=rhat,
            acceptance=_finite_mean(trace.get("acceptance")),
            divergences=0 if diverged is None else int(np.count_nonzero(diverged)),
            virial=virial_of(_column(trace, "virial"), setting.dim, is_reversible=is_reversible),
            importance=_importance(x, trace.get("log_weight")),
            bias=_bias(x, trace, setting, ess_bulk),
            num_draws=num_draws,
            num_chains=num_chains,
        )


def _finite_mean(values: Draws | None) -> float:
    """The mean over the draws that have a value: a diverged step may have no acceptance probability."""
    finite = np.empty(0) if values is None else values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if finite.size else math.nan


def _averaged(x: Draws, trace: Trace, setting: Setting) -> tuple[Draws, float]:
    """The draws whose mean is the LLC, and the least error that it can have."""
    loss = averaged_loss(trace)
    if loss is trace["loss"]:
        return x, 0.0
    # Where the law that each draw was made from is the posterior itself, all are one number, up to rounding.
    unit = float(np.spacing(np.fmax(np.abs(loss).max(), loss.dtype.type(abs(setting.loss_at_w0)))))
    return llc_draws(loss, setting.nbeta, setting.loss_at_w0), _ROUNDING * setting.nbeta * unit


def _convergence(x: Draws, y: Draws, rounding: float) -> tuple[float, float, float]:
    """Rank-normalised split R-hat, bulk ESS and tail ESS (5 % and 95 % quantiles), as ArviZ defines them.

    R-hat and bulk ESS are the worse ones of x and y: y has less noise, under which chains that differ could hide. Where
    y differs by its rounding alone it tells nothing.
    """
    if x.shape[1] < MIN_DRAWS or not np.isfinite(x).all() or not np.isfinite(y).all():
        return math.nan, math.nan, math.nan
    columns = [x] if y is x or np.ptp(y) <= rounding else [x, y]
    rhat = max(float(arviz("rhat", values, method="rank")) for values in columns) if x.shape[0] > 1 else math.nan
    bulk = min(float(arviz("ess", values, method="bulk")) for values in columns)
    tail = arviz("ess", x, method="tail", prob=(0.05, 0.95))
    return rhat, bulk, float(tail)


def _wbic(llc: float, setting: Setting) -> float:
    """n E[L_n], which is the WBIC only at beta = 1 / log n (Watanabe 2013)."""
    n = setting.num_data
    if n < 2 or not math.isclose(setting.nbeta, n / math.log(n), rel_tol=1e-6):
        return math.nan
    return n * (setting.loss_at_w0 + llc / setting.nbeta)


def _importance(x: Draws, log_weight: Draws | None) -> Importance | None:
    """E_pi[x] from independent draws of q: self-normalised, weights smoothed by PSIS."""
    if log_weight is None or np.isnan(log_weight).all():
        return None
    if x.size < _MIN_WEIGHTS or not np.isfinite(x).all():
        return Importance(math.nan, math.nan, math.nan, math.nan, math.nan)
    if not np.isfinite(log_weight).all():
        return Importance(math.nan, math.nan, math.inf, 0.0, math.nan)
    log_smooth, khat = _smoothed(np.asarray(log_weight, dtype=np.float64).ravel())
    weights = np.exp(log_smooth - np.max(log_smooth))
    weights /= weights.sum()
    values = x.ravel()
    llc = float(weights @ values)
    influence = weights * (values - llc)
    mcse = float(np.linalg.norm(influence))
    # Both means come from the same draws, so the error of their difference is not the two errors' sum.
    shift_mcse = float(np.linalg.norm(influence - (values - values.mean()) / values.size))
    # With equal weights the shift and its error are rounding.
    z = (llc - float(values.mean())) / shift_mcse if shift_mcse > 1e-9 * mcse else 0.0
    return Importance(llc, mcse, khat, float(1.0 / np.sum(weights**2)), z)


def _column(trace: Trace, name: str) -> Draws:
    """In float64; NaN where it is missing."""
    values = trace.get(name)
    return np.full(trace["loss"].shape, math.nan) if values is None else np.asarray(values, np.float64)


def is_recorded(trace: Trace, setting: Setting, name: str) -> bool:
    """Whether the sampler fills the column: it says so, or some draw has a value."""
    return name in setting.columns or (name in trace and not bool(np.isnan(trace[name]).all()))


def _bias(x: Draws, trace: Trace, setting: Setting, ess: float) -> Bias | None:
    virial, coarse_loss, work = (_column(trace, name) for name in ("virial", "coarse_loss", "work"))
    if not np.isnan(coarse_loss).all():
        coarse = llc_draws(coarse_loss, setting.nbeta, setting.loss_at_w0), _column(trace, "coarse_virial")
        return from_companions(x, virial, coarse, setting.dim)
    # A run that was begun before work was recorded does not know that of its first draws; any other gap is a failure.
    begun = np.flatnonzero(~np.isnan(work).any(axis=0))
    is_known = begun.size > 0 and (begun[0] == 0 or bool(np.isnan(work[:, begun[0] :]).any()))
    return from_work(x, virial, work, ess, setting.dim) if is_known else None


def _smoothed(log_weight: Float[np.ndarray, " draw"]) -> tuple[Float[np.ndarray, " draw"], float]:
    """Log weights whose largest were replaced by quantiles of the Pareto law fitted to them, and its shape k-hat.

    As they are, and NaN, where too few of the largest are distinct for a fit.
    """
    # k-hat knows the shape of the tail, whatever its size. A tail of all but equal weights has nothing to smooth (ArviZ
    # fails on it where they are equal): q is the posterior, or chains stand still.
    ordered = np.sort(log_weight)
    largest = ordered[-math.ceil(3 * math.sqrt(ordered.size)) :]
    if ordered[-1] - ordered[0] < _ALL_BUT_EQUAL:
        return log_weight, 0.0
    # Of weights that underflow beside the largest, or that tie, no tail can be fitted.
    is_even = largest[-1] - largest[0] < _ALL_BUT_EQUAL
    seen = ordered if is_even else largest
    if np.unique(seen[seen > ordered[-1] + _LOG_UNDERFLOW]).size < min(_MIN_DISTINCT, largest.size // 2):
        return log_weight, math.nan
    if is_even:
        return log_weight, 0.0
    # ArviZ takes log likelihoods, whose weights are their inverse.
    log_smooth, khat = arviz("psislw", -log_weight)
    if not (np.isfinite(khat) and np.isfinite(np.exp(log_smooth - np.max(log_smooth))).all()):
        return log_weight, math.nan
    return log_smooth, float(khat)


def quick_llc(loss: Draws, setting: Setting) -> LLC:
    """The LLC of all draws and its error by batch means: for progress lines, without ArviZ.

    Args:
        loss: What :func:`lambda_hat.estimation.trace.averaged_loss` gives of the trace.
    """
    x = llc_draws(loss, setting.nbeta, setting.loss_at_w0)
    llc, mcse = running_llc(x, np.array([x.shape[1]]))
    return LLC(float(llc[0]), float(mcse[0]))
