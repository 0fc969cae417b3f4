"""Checks of the law that the draws follow: the virial, the bias of a step, the weights of a fitted q."""

import math
from collections.abc import Iterator

import numpy as np

from lambda_hat.estimation.bounds import noise_virial
from lambda_hat.estimation.reason import MAX_Z, MIN_ESS, Evidence, Reason, sampling
from lambda_hat.estimation.standard_error import MIN_DRAWS
from lambda_hat.estimation.statistics import Importance, is_recorded
from lambda_hat.estimation.step_bias import Bias, Virial

_MAX_KHAT = 0.7
# Weights that leave half of the draws that an error needs cannot show how far q is off.
_MIN_IMPORTANCE_ESS = MIN_ESS / 2
# Where the known part of the gradients' noise makes half of a virial's excess, noise is its cause.
_NOISE_SHARE = 0.5
_BETTER_FIT = "fit longer, raise sampler.num_components or sampler.rank, or use an MCMC sampler"


def virial(found: Evidence) -> Iterator[Reason]:
    statistics = found.statistics
    if statistics.num_draws == 0 or not is_recorded(found.trace, found.setting, "virial"):
        return
    raw, bias = statistics.virial, statistics.bias
    values = found.trace.get("virial")
    lost = found.x.size if values is None else int(np.count_nonzero(~np.isfinite(values)))
    if lost or (statistics.num_draws >= MIN_DRAWS and not _is_known(raw)):
        where = f"in {lost} draws" if lost else "in its mean or its error"
        yield sampling(
            f"the virial is not finite {where}: gradients overflow there, or the loss has none; lower "
            f"sampler.step_size, or look for kinks in the loss"
        )
    elif bias is None or not math.isfinite(bias.value):  # a bias that is lost is told by itself
        yield from _off(raw, "", found)
    elif statistics.num_draws >= MIN_DRAWS and not _is_known(bias.virial):
        yield sampling(
            f"the virial without the bias of the step is not finite: whether the chains are in equilibrium is not "
            f"known; lower {_knob(found)}"
        )
    elif _explains(raw, bias.virial):
        if abs(bias.virial.value - bias.virial.expected) > _second_order(raw, bias.virial):
            yield from _off(bias.virial, ", without the bias of the step,", found)
    else:
        yield from _off(raw, ", which the bias of the step does not explain,", found)


def _is_known(virial: Virial) -> bool:
    """Whether there is a value and an error; constant draws have an error of 0, and any offset is then infinite."""
    return math.isfinite(virial.value) and math.isfinite(virial.mcse) and not math.isnan(virial.z)


def _explains(raw: Virial, corrected: Virial) -> bool:
    """Whether the correction accounts for a raw virial that is off: it is known, and of that size.

    A correction within its own error only hides the offset behind noise.
    """
    if abs(raw.z) <= MAX_Z:
        return True
    moved, left = raw.value - corrected.value, corrected.value - corrected.expected
    noise = math.sqrt(max(corrected.mcse**2 - raw.mcse**2, 0.0))
    is_partial = abs(raw.value - raw.expected) > abs(moved) and abs(left) > MAX_Z * raw.mcse
    return abs(moved) > MAX_Z * noise and not is_partial


def _second_order(raw: Virial, corrected: Virial) -> float:
    """What a correction to first order leaves, beyond three errors: on a quadratic, twice its share of the virial."""
    return MAX_Z * corrected.mcse + 2.0 * (raw.value - corrected.value) ** 2 / corrected.expected


def _off(virial: Virial, words: str, found: Evidence) -> Iterator[Reason]:
    if abs(virial.z) > MAX_Z:
        offset = virial.value - virial.expected
        # In a quadratic, each unit of the virial that a direction is off moves the LLC by at most one half.
        yield sampling(
            f"the virial E[(w - w0) . grad U]{words} is {virial.value:.4g} +- {virial.mcse:.2g} and needs to be d = "
            f"{virial.expected} ({virial.z:+.1f} errors; on a quadratic the LLC is then off by up to "
            f"{abs(offset) / 2:.2g}): {_why_off(offset, found)}"
        )


def _why_off(offset: float, found: Evidence) -> str:
    if offset < 0:
        return (
            "the chains have not spread over the posterior yet, or the sampler is biased; lengthen "
            "sampler.num_warmup, or lower sampler.step_size"
        )
    noise = noise_virial(found.setting)
    if noise > _NOISE_SHARE * offset:
        return (
            f"the minibatches' gradients are too noisy, which adds {noise:.2g} at least; raise sampler.batch_size, or "
            "lower sampler.step_size"
        )
    return "the sampler's step is biased, or the chains are still coming in; lower sampler.step_size, or warm up longer"


def step_bias(found: Evidence) -> Iterator[Reason]:
    bias = found.statistics.bias
    if bias is None or not math.isfinite(found.statistics.llc) or found.statistics.num_draws < MIN_DRAWS:
        return
    if not all(map(math.isfinite, (bias.value, bias.mcse, bias.llc, bias.llc_mcse))) or math.isnan(bias.z):
        has_companions = is_recorded(found.trace, found.setting, "coarse_loss")
        lost = (
            "the companion chains, whose step is twice as large, have left the region where the loss is finite"
            if has_companions
            else "the energy errors of the integrator are not finite"
        )
        yield sampling(
            f"{lost}: the step is close to unstable and its bias unknown; lower {_knob(found)}"
            f"{', or set it to auto' if has_companions else ''}"
        )
    elif abs(bias.z) > MAX_Z and abs(bias.value) > found.tolerated_step_bias:
        yield sampling(
            f"the step size adds {bias.value:.3g} +- {bias.mcse:.2g} to the LLC ({bias.z:+.1f} errors)"
            f"{_way_out(bias, found)}"
        )
    elif bias.mcse > found.tolerated_step_bias:
        yield sampling(
            f"the bias of the step is not known: it is {bias.value:.3g} +- {bias.mcse:.2g}, where up to "
            f"{found.tolerated_step_bias:.2g} would be tolerated; draw more, or lower {_knob(found)}"
        )


def _way_out(bias: Bias, found: Evidence) -> str:
    offset = found.statistics.virial.value - found.statistics.virial.expected
    is_noise = noise_virial(found.setting) > _NOISE_SHARE * offset > 0
    cause = ", mostly because the minibatches' gradients are noisy: raise sampler.batch_size, or" if is_noise else ":"
    if not bias.first_order:
        return f"{cause} lower {_knob(found)}; it is too large to be subtracted, which is right to first order only"
    value = f"bias.llc = {bias.llc:.4g} +- {bias.llc_mcse:.2g}"
    return f"{cause} lower {_knob(found)}, or take the value without it, {value}, which is right to first order"


def _knob(found: Evidence) -> str:
    return found.setting.bias_knob or "sampler.step_size"


def importance(found: Evidence) -> Iterator[Reason]:
    statistics = found.statistics
    weighted, total = statistics.importance, statistics.num_draws * statistics.num_chains
    if weighted is None:
        if statistics.num_draws > 0 and is_recorded(found.trace, found.setting, "log_weight"):
            yield sampling(
                f"the importance weights are not finite in {total} draws: q or the loss overflows; {_BETTER_FIT}"
            )
    elif weighted.khat > _MAX_KHAT:
        yield sampling(
            f"k-hat is {weighted.khat:.2f}, above {_MAX_KHAT}: the fitted q misses part of the posterior (importance "
            f"ESS {weighted.ess:.0f} of {total}), so neither the LLC under q nor its correction is to be trusted; "
            f"{_BETTER_FIT}"
        )
    elif not all(map(math.isfinite, weighted)):
        yield sampling(
            f"the importance weights cannot be judged: too few of the largest differ for a k-hat, or they are not "
            f"finite, so how far q is from the posterior is not known; {_BETTER_FIT}"
        )
    elif weighted.ess < _MIN_IMPORTANCE_ESS:
        yield sampling(
            f"the importance ESS is {weighted.ess:.3g} of {total}, below {_MIN_IMPORTANCE_ESS:.0f}: a few draws carry "
            f"all the weight, so how far q is from the posterior is not known; {_BETTER_FIT}"
        )
    elif _is_shifted(weighted, found):
        yield sampling(
            f"importance weights move the LLC from {statistics.llc:.4g} to {weighted.llc:.4g} +- "
            f"{weighted.mcse:.2g} ({weighted.z:+.1f} errors of that shift): the fitted q is biased; "
            f"take the corrected value, importance.llc"
        )


def _is_shifted(weighted: Importance, found: Evidence) -> bool:
    return abs(weighted.z) > MAX_Z and abs(weighted.llc - found.statistics.llc) > found.tolerated_bias
