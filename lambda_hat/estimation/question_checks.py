"""Checks of the question: whether the posterior exists, w0 is a minimum, and the loss decides how far the draws go."""

import math
from collections.abc import Iterator

import numpy as np

from lambda_hat.estimation.bounds import HESSIAN_PRECISION, REPORT_NAMES, gradient_bias_bound, has_failed, measured
from lambda_hat.estimation.reason import MAX_Z, Evidence, Reason, question, sampling
from lambda_hat.estimation.standard_error import MIN_DRAWS

# A finding that the build of a target states too, at another nbeta and gamma.
NO_MINIMUM = "w0 is no minimum"
# Curvature of the posterior's negative log density that w0 may lose, in units of gamma, before it is a saddle.
_SADDLE = 0.1
# In a quadratic E1 - E3 = sum r (1 - r) / 2 against E1 = sum r / 2, r = t h / (t h + gamma): above this share, the
# localiser holds more than the loss in the directions that make the LLC.
_HELD = 0.5
# An LLC above d/2 by this share of it, and by so many errors, is no smooth minimum's.
_EXCESS, _EXCESS_ERRORS = 0.2, 5.0
# Rounding of a loss that is the same everywhere, in units of its last digit.
_ROUNDING = 8.0


def no_posterior(found: Evidence) -> Iterator[Reason]:
    """Without a localiser only curvature holds the draws; known before the first of them."""
    least, greatest = (measured(found.setting, name) for name in ("hessian_min", "hessian_max"))
    if found.setting.gamma == 0 and least is not None and least <= HESSIAN_PRECISION * abs(greatest or 0.0):
        yield question(
            f"no posterior is known to exist: posterior.gamma is 0 and the Hessian at w0 is not positive definite (its "
            f"least eigenvalue is {least:.2g}), so nothing holds the draws along its flat directions; set "
            f"posterior.gamma above 0"
        )


def constant_loss(found: Evidence) -> Iterator[Reason]:
    """A loss that all chains find the same wherever they go, and not a chain that goes nowhere."""
    x, curvature = found.x, measured(found.setting, "hessian_max")
    # Without a Hessian, rounding cannot be told from a loss that the dtype does not resolve.
    allowed = 0.0 if curvature is None else _ROUNDING * found.last_digit
    if x.shape[1] < MIN_DRAWS or not np.isfinite(x).all() or np.ptp(x) > allowed:
        return
    is_curved = curvature is not None and found.setting.nbeta * curvature > HESSIAN_PRECISION * found.setting.gamma
    if not is_curved and _moves(found):
        yield question(
            f"the loss does not depend on w near w0: all draws have the loss {found.trace['loss'].flat[0]:.4g}, so the "
            f"LLC is 0; look at the data and the loss, or at which weights are free"
        )


def _moves(found: Evidence) -> bool:
    """Whether the chains move at all: by their acceptance, or by their virial, which the localiser changes."""
    virial = found.trace.get("virial")
    if not math.isnan(found.statistics.acceptance):
        return found.statistics.acceptance > 0
    if virial is not None and np.isfinite(virial).any():
        return float(np.nanmax(virial) - np.nanmin(virial)) > 0
    return found.statistics.num_chains > 1  # stuck chains differ, since they start apart


def negative(found: Evidence) -> Iterator[Reason]:
    statistics = found.statistics
    if not statistics.llc < 0:
        return
    value = f"the LLC is negative, {statistics.llc:.4g} +- {statistics.llc_mcse:.2g}"
    below = float(np.mean(found.x < 0))
    if statistics.llc > -3 * statistics.llc_mcse:
        yield sampling(f"{value}: within its error of 0, so only noise is known of it; draw more")
    else:
        yield question(
            f"{value}; {below:.0%} of the draws have a loss below L_n(w0): w0 is not a minimum of this loss (train "
            f"longer or polish it), or L_n(w0) is of other data. llc_variance = {statistics.llc_variance:.4g} "
            f"does not use L_n(w0)"
        )


def above_regular(found: Evidence) -> Iterator[Reason]:
    """The LLC of a smooth minimum is at most d/2, that of a regular model."""
    statistics, regular = found.statistics, found.setting.dim / 2
    excess = statistics.llc - regular
    if excess > _EXCESS * regular and excess > _EXCESS_ERRORS * statistics.llc_mcse:
        # The virial knows equilibrium whatever the loss; where it is right, the posterior itself is to blame.
        reason = question if abs(statistics.virial.z) <= MAX_Z else sampling
        yield reason(
            f"the LLC is {statistics.llc:.4g} +- {statistics.llc_mcse:.2g}, more than the d/2 = {regular:g} that a "
            f"smooth minimum can give: the loss has kinks at w0, the draws are in another basin, or the chains are not "
            f"in equilibrium; raise posterior.gamma, lengthen sampler.num_warmup, or compare with sampler=hmc"
        )


def centre(found: Evidence) -> Iterator[Reason]:
    """Whether w0 is a minimum, as far as it matters at this nbeta and gamma."""
    setting = found.setting
    lost = [words for name, words in REPORT_NAMES.items() if has_failed(setting, name)]
    if lost:
        yield question(
            f"{' and '.join(lost)} {'are' if len(lost) > 1 else 'is'} not finite: w0 cannot be examined; look for a "
            f"kink, a division by zero or a square root of zero in the loss at w0"
        )
    yield from _gradient(found)
    lowest, highest = (measured(setting, name) or 0.0 for name in ("hessian_min", "hessian_max"))
    allowed = max(_SADDLE * setting.gamma, HESSIAN_PRECISION * setting.nbeta * abs(highest))
    if setting.nbeta * lowest < -allowed:
        yield question(
            f"w0 is a saddle point: the smallest eigenvalue of the Hessian is {lowest:.2g}, so that nbeta times it, "
            f"{setting.nbeta * lowest:.2g}, outweighs a tenth of gamma = {setting.gamma:g}; train longer, or raise "
            f"posterior.gamma"
        )


def _gradient(found: Evidence) -> Iterator[Reason]:
    """By its estimated shift where its first order is enough, and else by the bound."""
    setting, displaced = found.setting, found.setting.displaced
    most = gradient_bias_bound(setting)
    lowers = f"can lower the LLC by up to {most:.2g} at this nbeta and gamma"
    if displaced is not None and displaced.shift is not None and displaced.lowering is not None:
        most = displaced.lowering
        lowers = f"lowers the LLC by {-(displaced.shift.value or 0.0):.2g} at this nbeta and gamma, to first order"
    if most > found.tolerated_bias:
        causes = "".join(f"; {group['sentence']}" for group in displaced.groups) if displaced else ""
        yield question(
            f"{NO_MINIMUM}: the gradient there has norm {measured(setting, 'gradient_norm'):.2g}, which {lowers}"
            f"{causes}; train longer or polish w0, or raise posterior.gamma"
        )


def localiser(found: Evidence) -> Iterator[Reason]:
    """Whether the localiser, and not the loss, decides how far the draws go."""
    statistics = found.statistics
    if statistics.importance is not None:  # draws of q: E1 - E3 is no derivative
        return
    excess = statistics.e1_minus_e3 - _HELD * statistics.llc
    if statistics.llc > 0 and excess > MAX_Z * math.hypot(statistics.e1_minus_e3_mcse, _HELD * statistics.llc_mcse):
        share = statistics.e1_minus_e3 / statistics.llc
        yield question(
            f"gamma dominates: E1 - E3 is {share:.0%} of the LLC, so that a typical direction is held by the localiser "
            f"more than by the loss and the LLC is mostly gamma's; lower posterior.gamma, or raise posterior.nbeta"
        )
