"""What a page draws of one run's trace, thinned to the resolution of a small picture, as JSON types."""

import math

import numpy as np
from jaxtyping import Float, Int

from lambda_hat.config.schema import Document, Node
from lambda_hat.estimation.standard_error import running_interval
from lambda_hat.estimation.statistics import llc_draws
from lambda_hat.estimation.trace import Draws, Trace, averaged_loss

# More chains than this are not told apart by the eye: the first are drawn, all are counted.
_MOST_CHAINS = 8
_MIN_POINTS, _MOST_POINTS = 24, 72
# A page of 100 runs is drawn finely, one of thousands stays small enough to be mailed.
_POINTS_IN_ALL = 24_000
# Steps into which a curve's range is cut: more than a screen has pixels for it.
_RESOLUTION = 1500


def num_points(num_runs: int) -> int:
    """Points of each curve, where a page holds so many runs."""
    return min(_MOST_POINTS, max(_MIN_POINTS, _POINTS_IN_ALL // max(num_runs, 1)))


def curves(trace: Trace, analysis: Node, points: int) -> Document | None:
    """The curves of a run; None if it has no finite draw.

    Args:
        trace: Its draws: ``loss`` and ``gradients``.
        analysis: Its analysis.json.
        points: About how many points a curve has.

    Returns:
        ``running``: the LLC, its error and every chain's, by draws, FGE and seconds. ``trace``: each chain's mean
        over equal stretches of draws, and where nine tenths of all chains' draws lie. ``rank``: each chain's share of
        draws below the pooled quantiles, minus what it would be if chains agreed; None where it makes no sense.
    """
    x = llc_draws(trace["loss"], analysis["nbeta"], analysis["loss_at_w0"])
    if not np.isfinite(x).any():
        return None
    averaged = llc_draws(averaged_loss(trace), analysis["nbeta"], analysis["loss_at_w0"])
    with np.errstate(all="ignore"):  # a diverged draw is a gap in a curve; the verdict says it in words
        return {
            "running": _running(averaged, trace, analysis, points),
            "trace": _stretches(x, points),
            "rank": _ranks(x, analysis, points // 2) if x.shape[0] > 1 and np.isfinite(x).all() else None,
        }


def _running(x: Draws, trace: Trace, analysis: Node, points: int) -> Document:
    draws = _counts(x.shape[1], points)
    found = analysis.get("llc_mcse")
    llc, mcse = running_interval(x, draws, math.nan if found is None else found)
    chains = np.cumsum(x[:_MOST_CHAINS], axis=1)[:, draws - 1] / draws
    spent = np.cumsum(trace["gradients"].sum(axis=0, dtype=np.float64))
    before = analysis["gradients"] - spent[-1]
    warmup = float(analysis["seconds"]["warmup"])
    known, _, seconds = np.array([(0, 0, warmup), *analysis["history"]], dtype=float).T
    return {
        "draws": draws.tolist(),
        "llc": numbers(llc),
        "mcse": numbers(mcse),
        "chains": [numbers(chain) for chain in chains],
        "fge": numbers((before + spent[draws - 1]) / analysis["num_data"]),
        "seconds": numbers(np.interp(draws, known, seconds)),
        "warmup": {"draws": 0, "fge": before / analysis["num_data"], "seconds": warmup},
    }


def _counts(num_draws: int, points: int) -> Int[np.ndarray, " point"]:
    """Counts of draws: half of them evenly spaced, half by equal factors, so that the start is seen, too."""
    first = min(4, num_draws)
    even, fast = np.linspace(first, num_draws, points // 2), np.geomspace(first, num_draws, points // 2)
    return np.unique(np.concatenate([even, fast]).round().astype(int))


def _stretches(x: Draws, points: int) -> Document:
    length = max(1, x.shape[1] // points)
    cut = x[:, : x.shape[1] // length * length].reshape(x.shape[0], -1, length)
    # What is not finite is sorted to the end; np.nanquantile would go through the stretches one by one.
    ranked = np.sort(cut.transpose(1, 0, 2).reshape(cut.shape[1], -1), axis=1)
    low, high = (ranked[:, round(share * (ranked.shape[1] - 1))] for share in (0.05, 0.95))
    return {
        "length": length,
        "means": [numbers(chain) for chain in cut[:_MOST_CHAINS].mean(axis=2)],
        "low": numbers(low),
        "high": numbers(high),
    }


def _ranks(x: Draws, analysis: Node, points: int) -> Document | None:
    """The picture ``rank.png`` by numbers; ``band`` is three standard deviations of what chains that agree show."""
    if analysis["ess_bulk"] is None:
        return None
    p = np.linspace(0.0, 1.0, points + 2)[1:-1]
    pooled = np.quantile(x, p)
    shares = np.stack([np.searchsorted(np.sort(chain), pooled, side="right") / chain.size for chain in x])
    band = 3.0 * np.sqrt(p * (1 - p) * (x.shape[0] - 1) / analysis["ess_bulk"])
    return {"p": numbers(p), "chains": [numbers(chain - p) for chain in shares[:_MOST_CHAINS]], "band": numbers(band)}


def numbers(values: Float[np.ndarray, " point"]) -> list[float | int | None]:
    """A curve as JSON: null for what is not finite, digits as its range can show."""
    finite = values[np.isfinite(values)]
    span = float(finite.max() - finite.min()) if finite.size else 0.0
    scale = span / _RESOLUTION if span > 0 else 1e-6 * (abs(float(finite[0])) if finite.size else 1.0)
    decimals = -math.floor(math.log10(scale)) if scale > 0 else 6
    rounded = np.round(values, decimals)
    whole = decimals <= 0
    return [(int(item) if whole else item) if math.isfinite(item) else None for item in rounded.tolist()]
