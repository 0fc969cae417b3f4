"""Checks of the draws: whether there are enough, whether they are finite, and whether the chains have mixed."""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from lambda_hat.estimation.reason import MAX_RHAT, MIN_ESS, Evidence, Reason, question, rhat_in_words, sampling
from lambda_hat.estimation.standard_error import MIN_DRAWS
from lambda_hat.estimation.trace import Draws

# A diverged step is a rejected one, which leaves pi invariant. On singular models a few per thousand are the rule
# and E1 is right all the same; at 2 % NUTS was measured to be off by 4 errors (docs/estimator.md).
_MAX_DIVERGED = 0.01
# A chain that repeats one loss for this share of its draws, and for at least so many draws, is stuck.
_STUCK_SHARE, _STUCK_DRAWS = 0.2, 20
# A start is forgotten after a few times the stretch over which draws remember each other.
_MEMORIES = 3.0


def size(found: Evidence) -> Iterator[Reason]:
    statistics = found.statistics
    if statistics.num_chains < 2:
        yield sampling(
            "one chain: nothing shows whether it has found all of the posterior, and R-hat needs two; set num_chains=4"
        )
    if statistics.num_draws < MIN_DRAWS:
        yield sampling(
            f"{statistics.num_draws} draws a chain: an error, R-hat and ESS need at least {MIN_DRAWS}; raise the budget"
        )


def finite_losses(found: Evidence) -> Iterator[Reason]:
    setting = found.setting
    posterior = {"nbeta": setting.nbeta, "gamma": setting.gamma, "L_n(w0)": setting.loss_at_w0}
    lost = [f"{name} = {value}" for name, value in posterior.items() if not math.isfinite(value)]
    if lost:
        yield question(f"the posterior is not defined: {', '.join(lost)} needs to be finite; look at the loss at w0")
        return
    bad = ~np.isfinite(found.x)
    if bad.any():
        lost = np.flatnonzero(bad.any(axis=1))
        chains = f"chain{'s' if lost.size > 1 else ''} {', '.join(str(chain) for chain in lost)}"
        first = int(np.flatnonzero(bad.any(axis=0))[0])
        yield sampling(
            f"the loss is not finite in {np.count_nonzero(bad)} of {found.x.size} draws ({chains}, first at draw "
            f"{first}): the sampler has left the region where the loss is defined; lower sampler.step_size, or "
            f"raise posterior.gamma"
        )


def computable(found: Evidence) -> Iterator[Reason]:
    """Whether the numbers that every sound trace has are there; what else explains their absence is said already."""
    statistics = found.statistics
    if statistics.num_draws < MIN_DRAWS or not np.isfinite(found.x).all():
        return
    names = (
        "llc", "llc_mcse", "llc_variance", "llc_variance_mcse", "e1_minus_e3", "e1_minus_e3_mcse", "ess_bulk",
        "ess_tail",
    )  # fmt: skip
    lost = [name for name in names if not math.isfinite(getattr(statistics, name))]
    # An infinite R-hat is one that is too large.
    lost += ["rhat"] if statistics.num_chains > 1 and not statistics.rhat > 0 else []
    if lost:
        yield sampling(
            f"{', '.join(lost)} cannot be computed: the draws of the LLC range from {found.x.min():.3g} to "
            f"{found.x.max():.3g}, beyond what float64 can square, or do not vary; look at trace.png"
        )


def stuck(found: Evidence) -> Iterator[Reason]:
    num_draws = found.x.shape[1]
    for chain, draws in enumerate(found.x):
        longest = _longest_repeat(draws)
        if longest >= max(_STUCK_DRAWS, _STUCK_SHARE * num_draws):
            yield sampling(
                f"chain {chain} is stuck: it repeats one loss for {longest} of its {num_draws} draws, so every "
                f"proposal was rejected there; lower sampler.step_size, or lengthen sampler.num_warmup"
            )


def _longest_repeat(draws: Float[np.ndarray, " draw"]) -> int:
    """Length of the longest stretch of equal neighbours; NaN equals nothing."""
    starts = np.flatnonzero(np.concatenate([[True], draws[1:] != draws[:-1], [True]]))
    return int(np.diff(starts).max())


def mixing(found: Evidence) -> Iterator[Reason]:
    statistics = found.statistics
    if statistics.rhat > MAX_RHAT:
        yield sampling(f"R-hat is {rhat_in_words(statistics.rhat)}, above {MAX_RHAT}: {_why_rhat(found.x)}")
    low = {name: ess for name, ess in (("bulk", statistics.ess_bulk), ("tail", statistics.ess_tail)) if ess < MIN_ESS}
    if low:
        values = " and ".join(f"{name} ESS {ess:.0f}" for name, ess in low.items())
        needed = statistics.num_draws * 1.2 * MIN_ESS / max(min(low.values()), 1.0)
        yield sampling(
            f"{values} below {MIN_ESS:.0f}: too few independent draws for the error to be trusted; "
            f"about {needed:.2g} draws a chain would do (budget.draws), or a sampler that mixes faster"
            f"{_short_warmup(found)}"
        )


def _short_warmup(found: Evidence) -> str:
    """A clause for warm-ups over which a chain cannot have forgotten where it began."""
    statistics, warmup = found.statistics, found.setting.num_warmup
    memory = statistics.num_draws * statistics.num_chains / max(statistics.ess_bulk, 1.0)
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


def divergences(found: Evidence) -> Iterator[Reason]:
    statistics = found.statistics
    total = statistics.num_draws * statistics.num_chains
    if statistics.divergences > _MAX_DIVERGED * total:
        yield sampling(
            f"{statistics.divergences} of {total} draws diverged: the step is too long for the sharpest directions, "
            f"which are then left out; lower sampler.step_size or raise sampler.target_acceptance"
        )


def precision(found: Evidence) -> Iterator[Reason]:
    """Whether the dtype of the losses can tell L_n(w) from L_n(w0)."""
    if found.last_digit > found.tolerated_bias:
        dtype = found.trace["loss"].dtype
        wider = "set sampler.dtype=float64, or " if dtype.itemsize < 8 else ""
        yield sampling(
            f"{dtype} cannot resolve the loss: next to L_n(w0) = {found.setting.loss_at_w0:.4g} its last digit is "
            f"worth {found.last_digit:.2g} of LLC; {wider}subtract a constant from the loss"
        )
