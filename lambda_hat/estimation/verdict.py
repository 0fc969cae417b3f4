"""The verdict: every reason not to trust an estimate, one sentence each - the finding, its cause, the way out.

An estimate is reliable when there is no reason. The thresholds and why they are what they are: docs/estimator.md.
"""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from lambda_hat.estimation.bounds import curvatures, gradient_bias_bound, noise_virial
from lambda_hat.estimation.standard_error import MIN_DRAWS
from lambda_hat.estimation.statistics import Setting, Statistics, llc_draws
from lambda_hat.estimation.trace import Draws, Trace

MAX_RHAT = 1.01
MIN_ESS = 400.0
MAX_Z = 3.0
MAX_KHAT = 0.7
# A diverged step is a rejected one, which leaves pi invariant. On singular models a few per thousand are the rule
# and E1 is right all the same; at 2 % NUTS was measured to be off by 4 errors (docs/estimator.md).
MAX_DIVERGED = 0.01
# A chain that repeats one loss for this share of its draws, and for at least so many draws, is stuck.
_STUCK_SHARE, _STUCK_DRAWS = 0.2, 20
# A start is forgotten after a few times the stretch over which draws remember each other.
_MEMORIES = 3.0
# A bias below this share of the LLC, or below its error, is not held against an estimate.
_TOLERATED_BIAS = 0.01
# Curvature of the posterior's negative log density that w0 may lose, in units of gamma, before it is a saddle.
_SADDLE = 0.1
# Where the known part of the gradients' noise makes half of a virial's excess, noise is its cause.
_NOISE_SHARE = 0.5
# In a quadratic E1 - E3 = sum r (1 - r) / 2 against E1 = sum r / 2, r = t h / (t h + gamma): above this share, the
# localiser holds more than the loss in the directions that make the LLC.
_HELD = 0.5
# Eigenvalues of the Hessian are known to about this share of the largest.
_HESSIAN_PRECISION = 1e-9


def reasons(statistics: Statistics, trace: Trace, setting: Setting) -> list[str]:
    """Every reason not to trust ``statistics``, the most fundamental first; empty for a healthy run."""
    x = llc_draws(trace["loss"], setting.nbeta, setting.loss_at_w0)
    if statistics.num_draws == 0:
        return [
            "no draws: the budget was spent in warm-up; raise the budget, or lower sampler.num_warmup",
            *_centre(statistics, setting),
        ]
    return [
        *_size(statistics),
        *_not_finite(x),
        *_stuck(x),
        *_mixing(statistics, x, setting),
        *_divergences(statistics),
        *_virial(statistics, trace, setting),
        *_bias(statistics, setting),
        *_importance(statistics),
        *_negative(statistics, x),
        *_centre(statistics, setting),
        *_localiser(statistics),
        *_precision(statistics, trace, setting),
    ]


def _size(statistics: Statistics) -> Iterator[str]:
    if statistics.num_chains < 2:
        yield (
            "one chain: nothing shows whether it has found all of the posterior, and R-hat needs two; set num_chains=4"
        )
    if statistics.num_draws < MIN_DRAWS:
        yield (
            f"{statistics.num_draws} draws a chain: an error, R-hat and ESS need at least {MIN_DRAWS}; raise the budget"
        )


def _not_finite(x: Draws) -> Iterator[str]:
    bad = ~np.isfinite(x)
    if bad.any():
        lost = np.flatnonzero(bad.any(axis=1))
        chains = f"chain{'s' if lost.size > 1 else ''} {', '.join(str(chain) for chain in lost)}"
        first = int(np.flatnonzero(bad.any(axis=0))[0])
        yield (
            f"the loss is not finite in {np.count_nonzero(bad)} of {x.size} draws ({chains}, first at draw "
            f"{first}): the sampler has left the region where the loss is defined; lower sampler.step_size, or "
            f"raise posterior.gamma"
        )


def _stuck(x: Draws) -> Iterator[str]:
    num_draws = x.shape[1]
    for chain, draws in enumerate(x):
        longest = _longest_repeat(draws)
        if longest >= max(_STUCK_DRAWS, _STUCK_SHARE * num_draws):
            yield (
                f"chain {chain} is stuck: it repeats one loss for {longest} of its {num_draws} draws, so every "
                f"proposal was rejected there; lower sampler.step_size, or lengthen sampler.num_warmup"
            )


def _longest_repeat(draws: Float[np.ndarray, " draw"]) -> int:
    """Length of the longest stretch of equal neighbours; NaN equals nothing."""
    starts = np.flatnonzero(np.concatenate([[True], draws[1:] != draws[:-1], [True]]))
    return int(np.diff(starts).max())


def _mixing(statistics: Statistics, x: Draws, setting: Setting) -> Iterator[str]:
    if statistics.rhat > MAX_RHAT:
        yield f"R-hat is {statistics.rhat:.3f}, above {MAX_RHAT}: {_why_rhat(x)}"
    low = {name: ess for name, ess in (("bulk", statistics.ess_bulk), ("tail", statistics.ess_tail)) if ess < MIN_ESS}
    if low:
        found = " and ".join(f"{name} ESS {ess:.0f}" for name, ess in low.items())
        needed = statistics.num_draws * 1.2 * MIN_ESS / max(min(low.values()), 1.0)
        yield (
            f"{found} below {MIN_ESS:.0f}: too few independent draws for the error to be trusted; "
            f"about {needed:.2g} draws a chain would do (budget.draws), or a sampler that mixes faster"
            f"{_short_warmup(statistics, setting)}"
        )


def _short_warmup(statistics: Statistics, setting: Setting) -> str:
    """A clause for warm-ups over which a chain cannot have forgotten where it began."""
    memory = statistics.num_draws * statistics.num_chains / max(statistics.ess_bulk, 1.0)
    warmup = setting.num_warmup
    if warmup is None or warmup >= _MEMORIES * memory:
        return ""
    return (
        f"; warm-up was {warmup} draws long, and draws remember about {memory:.2g} others: lengthen sampler.num_warmup"
    )


def _why_rhat(x: Draws) -> str:
    """Whether the chains move together (not yet in equilibrium), disagree, or differ in spread only."""
    half = x.shape[1] // 2
    before, after = x[:, :half].mean(axis=1), x[:, -half:].mean(axis=1)
    drift = float((after - before).mean())
    scatter = float(x.mean(axis=1).std(ddof=1))
    together = bool((np.sign(after - before) == np.sign(drift)).all())
    if together and abs(drift) > scatter:
        direction = "falling" if drift < 0 else "rising"
        return (
            f"all chains are still {direction} (LLC {before.mean():.4g} in their first half, {after.mean():.4g} in "
            f"their second); lengthen sampler.num_warmup"
        )
    means = x.mean(axis=1)
    return (
        f"the chains do not agree (their LLCs range from {means.min():.4g} to {means.max():.4g}), so they have not "
        f"all seen the whole posterior; run longer, or raise posterior.gamma to keep them in one basin"
    )


def _divergences(statistics: Statistics) -> Iterator[str]:
    total = statistics.num_draws * statistics.num_chains
    if statistics.divergences > MAX_DIVERGED * total:
        yield (
            f"{statistics.divergences} of {total} draws diverged: the step is too long for the sharpest directions, "
            f"which are then left out; lower sampler.step_size or raise sampler.target_acceptance"
        )


def _virial(statistics: Statistics, trace: Trace, setting: Setting) -> Iterator[str]:
    # What the step adds to the virial is measured where there are companions, and judged by the bias of the LLC.
    bias = statistics.bias
    is_corrected = bias is not None and math.isfinite(bias.virial.z)
    virial = bias.virial if bias is not None and is_corrected else statistics.virial
    values = trace.get("virial")
    if values is not None and np.isfinite(values).any() and not np.isfinite(values).all():
        lost = int(np.count_nonzero(~np.isfinite(values)))
        yield f"the virial is not finite in {lost} draws: gradients overflow there; lower sampler.step_size"
    if abs(virial.z) > MAX_Z:
        offset = virial.value - virial.expected
        # In a quadratic, each unit of the virial that a direction is off moves the LLC by at most one half.
        words = ", without the bias of the step," if is_corrected else ""
        yield (
            f"the virial E[(w - w0) . grad U]{words} is {virial.value:.4g} +- {virial.mcse:.2g} and needs to be d = "
            f"{virial.expected} ({virial.z:+.1f} errors; on a quadratic the LLC is then off by up to "
            f"{abs(offset) / 2:.2g}): {_why_virial(offset, setting)}"
        )


def _bias(statistics: Statistics, setting: Setting) -> Iterator[str]:
    bias = statistics.bias
    if bias is None or not math.isfinite(statistics.llc):
        return
    if not math.isfinite(bias.value):
        yield (
            "the companion chains, whose step is twice as large, have left the region where the loss is finite: the "
            "step is close to unstable and its bias unknown; lower sampler.step_size, or set it to auto"
        )
    elif abs(bias.z) > MAX_Z and abs(bias.value) > _tolerated(statistics):
        offset = statistics.virial.value - statistics.virial.expected
        is_noise = noise_virial(setting) > _NOISE_SHARE * offset > 0
        cause = (
            ", mostly because the minibatches' gradients are noisy: raise sampler.batch_size, or" if is_noise else ":"
        )
        knob = setting.bias_knob or "sampler.step_size"
        yield (
            f"the step size adds {bias.value:.3g} +- {bias.mcse:.2g} to the LLC ({bias.z:+.1f} errors)"
            f"{cause} lower {knob}, or take the value without it, bias.llc = {bias.llc:.4g} +- {bias.llc_mcse:.2g}, "
            f"which is right to first order"
        )


def _why_virial(offset: float, setting: Setting) -> str:
    if offset < 0:
        return (
            "the chains have not spread over the posterior yet, or the sampler is biased; lengthen "
            "sampler.num_warmup, or lower sampler.step_size"
        )
    noise = noise_virial(setting)
    if noise > _NOISE_SHARE * offset:
        return (
            f"the minibatches' gradients are too noisy, which adds {noise:.2g} at least; raise sampler.batch_size, or "
            "lower sampler.step_size"
        )
    return "the sampler's step is biased, or the chains are still coming in; lower sampler.step_size, or warm up longer"


def _importance(statistics: Statistics) -> Iterator[str]:
    importance = statistics.importance
    if importance is None:
        return
    if importance.khat > MAX_KHAT:
        yield (
            f"k-hat is {importance.khat:.2f}, above {MAX_KHAT}: the fitted q misses part of the posterior (importance "
            f"ESS {importance.ess:.0f} of {statistics.num_draws * statistics.num_chains}), so neither the LLC under "
            f"q nor its correction is to be trusted; fit longer, raise sampler.num_components or sampler.rank, "
            f"or use an MCMC sampler"
        )
    elif abs(importance.z) > MAX_Z and abs(importance.llc - statistics.llc) > _tolerated(statistics):
        yield (
            f"importance weights move the LLC from {statistics.llc:.4g} to {importance.llc:.4g} +- "
            f"{importance.mcse:.2g} ({importance.z:+.1f} errors of that shift): the fitted q is biased; "
            f"take the corrected value, importance.llc"
        )


def _negative(statistics: Statistics, x: Draws) -> Iterator[str]:
    if not statistics.llc < 0:
        return
    value = f"the LLC is negative, {statistics.llc:.4g} +- {statistics.llc_mcse:.2g}"
    below = float(np.mean(x < 0))
    if statistics.llc > -3 * statistics.llc_mcse:
        yield f"{value}: within its error of 0, so only noise is known of it; draw more"
    else:
        yield (
            f"{value}; {below:.0%} of the draws have a loss below L_n(w0): w0 is not a minimum of this loss (train "
            f"longer or polish it), or L_n(w0) is of other data. llc_variance = {statistics.llc_variance:.4g} "
            f"does not use L_n(w0)"
        )


def _centre(statistics: Statistics, setting: Setting) -> Iterator[str]:
    """Whether w0 is a minimum, as far as it matters at this nbeta and gamma."""
    bound = gradient_bias_bound(setting)
    if bound > _tolerated(statistics):
        yield (
            f"w0 is no minimum: the gradient there has norm {setting.report['gradient_norm']:.2g}, which can lower the "
            f"LLC by up to {bound:.2g} at this nbeta and gamma; train longer or polish w0, or raise posterior.gamma"
        )
    lowest, highest = curvatures(setting)
    allowed = max(_SADDLE * setting.gamma, _HESSIAN_PRECISION * setting.nbeta * abs(highest))
    if setting.nbeta * lowest < -allowed:
        yield (
            f"w0 is a saddle point: the smallest eigenvalue of the Hessian is {lowest:.2g}, so that nbeta times it, "
            f"{setting.nbeta * lowest:.2g}, outweighs a tenth of gamma = {setting.gamma:g}; train longer, or raise "
            f"posterior.gamma"
        )


def _localiser(statistics: Statistics) -> Iterator[str]:
    """Whether the localiser, and not the loss, decides how far the draws go."""
    if statistics.importance is not None:  # draws of q: E1 - E3 is no derivative
        return
    excess = statistics.e1_minus_e3 - _HELD * statistics.llc
    if statistics.llc > 0 and excess > MAX_Z * math.hypot(statistics.e1_minus_e3_mcse, _HELD * statistics.llc_mcse):
        share = statistics.e1_minus_e3 / statistics.llc
        yield (
            f"gamma dominates: E1 - E3 is {share:.0%} of the LLC, so that a typical direction is held by the localiser "
            f"more than by the loss and the LLC is mostly gamma's; lower posterior.gamma, or raise posterior.nbeta"
        )


def _precision(statistics: Statistics, trace: Trace, setting: Setting) -> Iterator[str]:
    """Whether the dtype of the losses can tell L_n(w) from L_n(w0)."""
    loss = trace["loss"]
    if loss.dtype.kind != "f" or not np.isfinite(setting.loss_at_w0):
        return
    unit = setting.nbeta * float(np.spacing(np.abs(loss.dtype.type(setting.loss_at_w0))))
    if unit > _tolerated(statistics):
        yield (
            f"{loss.dtype} cannot resolve the loss: next to L_n(w0) = {setting.loss_at_w0:.4g} its last digit is worth "
            f"{unit:.2g} of LLC; set sampler.dtype=float64, or subtract a constant from the loss"
        )


def _tolerated(statistics: Statistics) -> float:
    """The largest bias that is not held against the LLC; NaN, which nothing exceeds, where there is none."""
    return float(np.fmax(_TOLERATED_BIAS * abs(statistics.llc), statistics.llc_mcse))
