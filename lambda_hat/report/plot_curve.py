"""The picture of a curve: the LLC with its 90 % band over the training step, above the loss and one's own metrics."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from lambda_hat.estimation.change_points import ChangePoints
from lambda_hat.report.curve_table import QUANTITIES, Line, Point, changes, counted, lines
from lambda_hat.report.plot_result import Picture
from lambda_hat.report.plots import COLOURS, INK, MUTED, STYLE, legend

# More lines than this are not told apart by the eye.
_MOST_COLOURED = 6
# Markers and error bars of more points than this would cover one another.
_FEW = 60
# A point is off the axis where it is so many ranges (or sizes) of the others away from them, and only a few are.
_FAR_REFUSED, _FAR_RELIABLE, _FEW_ARE_OFF = 4.0, 40.0, 0.1
# Share of many series that a step needs for its mean; of few, all.
_MOST_SERIES = 0.75
_DECADES = 100
# Steps whose middle one is below this share of the last are spaced by factors rather than evenly.
_EARLY = 0.2
_LABELS = {"llc": "LLC", "llc_self": "llc_self (own labels)", "control": "control (localiser alone)"}


class _Values(NamedTuple):
    """One quantity along a line; NaN where a point has none. ``unshifted``: without what the gradient at w0 does to
    it, where that is known and more than the error."""

    steps: Float[np.ndarray, " point"]
    value: Float[np.ndarray, " point"]
    low: Float[np.ndarray, " point"]
    high: Float[np.ndarray, " point"]
    unshifted: Float[np.ndarray, " point"]
    reliable: Bool[np.ndarray, " point"]


class _Style(NamedTuple):
    """is_faint: One of many lines, whose bands and marks would cover one another."""

    colour: str
    label: str | None
    is_faint: bool = False


def plot_curve(points: Sequence[Point]) -> Picture:
    """Every line of points, a panel for each quantity, for the loss unless it is that of own labels, and each metric.

    Args:
        points: In the order of their steps.
    """
    own = lines(points)
    quantities = [name for name in QUANTITIES if any(name in line.quantities for line in own)] or ["llc"]
    # The loss of own labels is 0 at each w0.
    loss = [] if quantities == ["llc_self"] else ["loss_at_w0"]
    metrics = [*loss, *dict.fromkeys(name for point in points for name in point.metrics)]
    with mpl.rc_context(STYLE):
        heights = [3.2] * len(quantities) + [1.1] * len(metrics)
        figure = Picture(figsize=(8.4, 1.3 + sum(heights)))
        panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        styles = _styles(own)
        _step_axis(panels[-1], [point.step for point in points])
        for axes, quantity in zip(panels, quantities, strict=False):
            _draw_quantity(axes, own, styles, quantity)
        for axes, name in zip(panels[len(quantities) :], metrics, strict=True):
            _draw_metric(axes, own, styles, name)
        panels[0].set_title(_title(points), loc="left", fontsize=10, color=INK, wrap=True)
        figure.align_ylabels()
        legend(figure, ncols=2)
    return figure


def _title(points: Sequence[Point]) -> str:
    """What all points have in common, and what became of them."""
    documents = [point.document for point in points if point.error is None]
    texts = [
        {str(document["sampler"]) for document in documents},
        {f"nbeta = {document['nbeta']:.4g}" for document in documents},
        {f"gamma = {document['gamma']:.4g}" for document in documents},
    ]
    common = ", ".join(next(iter(text)) for text in texts if len(text) == 1)
    return f"{common}\n{counted(points)}" if common else counted(points)


def _styles(own: Sequence[Line]) -> list[_Style]:
    if len(own) > _MOST_COLOURED:
        return [_Style(MUTED, f"{len(own)} lines" if place == 0 else None, True) for place in range(len(own))]
    return [_Style(colour, line.label or None) for colour, line in zip(COLOURS, own, strict=False)]


def _values(line: Line, quantity: str) -> _Values:
    found = [point for point in line.points if point.error is None and point.quantity == quantity]
    rows = [
        (point.step, point.document["llc"], *point.document["llc_interval90"], _unshifted(point)) for point in found
    ]
    steps, value, low, high, unshifted = np.array(rows, dtype=float).reshape(-1, 5).T
    return _Values(
        steps, value, low, high, unshifted, np.array([point.document["verdict"]["reliable"] for point in found], bool)
    )


def _unshifted(point: Point) -> float | None:
    without, mcse, shift = point.llc_less_shift, point.document["llc_mcse"], point.shift
    if without is None or mcse is None or shift is None or abs(shift) <= mcse:
        return None
    return without


def _draw_quantity(axes: Axes, own: Sequence[Line], styles: Sequence[_Style], quantity: str) -> None:
    drawn = [_values(line, quantity) for line in own]
    low, high = _limits(drawn)
    for values, style in zip(drawn, styles, strict=True):
        if values.steps.size:
            _draw_line(axes, values, style, (low, high))
    _draw_spread(axes, own, quantity)
    if len(own) <= _MOST_COLOURED:
        for line, style in zip(own, styles, strict=True):
            _draw_changes(axes, changes(line, quantity), style.colour)
    if low < 0 < high:
        axes.axhline(0.0, color=MUTED, lw=0.8, zorder=0)
    band = "" if any(style.is_faint for style in styles) else ", 90 % band"
    axes.set(ylabel=f"{_LABELS[quantity]}{band}", ylim=(low, high))
    if any(not values.reliable.all() for values in drawn):
        axes.plot([], [], "o", color=MUTED, mfc="white", ms=4.5, label="refused by the verdict")
    without = sorted({point.step for line in own for point in line.points if point.error is not None})
    if without:
        foot = axes.get_xaxis_transform()
        axes.plot(without, [0.02] * len(without), "x", ms=4, color=INK, transform=foot, label="without a result")


def _draw_line(axes: Axes, values: _Values, style: _Style, limits: tuple[float, float]) -> None:
    steps, value = values.steps, values.value
    is_on = (value >= limits[0]) & (value <= limits[1])
    seen = np.where(is_on, value, np.nan)
    low, high = (np.where(is_on, edge, np.nan) for edge in (values.low, values.high))
    few = value.size <= _FEW and not style.is_faint
    if not style.is_faint:
        axes.fill_between(steps, low, high, color=style.colour, alpha=0.18, lw=0)
    if few:
        axes.vlines(steps, low, high, color=style.colour, lw=1.0, alpha=0.7)
    axes.plot(steps, seen, lw=1.0 if few else 0.7, color=style.colour, alpha=0.6)
    size = 4.5 if few else 1.2 if style.is_faint or value.size > 10 * _FEW else 2.5
    marks: Any = {"ls": "", "ms": size, "color": style.colour, "mew": 0.9 if few else 0.5}
    solid, hollow = is_on & values.reliable, is_on & ~values.reliable
    axes.plot(steps[solid], value[solid], "o", label=style.label, **marks)
    label = None if solid.any() else style.label
    axes.plot(steps[hollow], value[hollow], "o", mfc="white", label=label, **marks)
    if np.isfinite(values.unshifted[is_on]).any():
        axes.plot(steps[is_on], values.unshifted[is_on], "+", **marks, label="less its shift")
    for beyond, edge, mark in ((value > limits[1], limits[1], "^"), (value < limits[0], limits[0], "v")):
        _draw_beyond(axes, values, beyond, edge, mark, style.colour)


def _draw_beyond(
    axes: Axes, values: _Values, beyond: Bool[np.ndarray, " point"], edge: float, mark: str, colour: str
) -> None:
    """Points off the axis, at its edge, with their values."""
    for step, value, reliable in zip(values.steps[beyond], values.value[beyond], values.reliable[beyond], strict=True):
        axes.plot(step, edge, mark, ms=7, color=colour, mfc=colour if reliable else "white", clip_on=False, zorder=4)
        place = -10 if mark == "^" else 10
        axes.annotate(
            f"{value:.3g}", (step, edge), xytext=(0, place), textcoords="offset points", ha="center", va="center",
            fontsize=7, color=colour,
        )  # fmt: skip


def _limits(drawn: Sequence[_Values]) -> tuple[float, float]:
    """An axis for all values and their bands, but for the few that are far from all others."""
    value, *edges, reliable = (np.concatenate([getattr(v, name) for v in drawn]) for name in _Values._fields[1:])
    finite = np.isfinite(value)
    value, reliable = value[finite], reliable[finite]
    if not value.size:
        return 0.0, 1.0
    is_on = _on_axis(value, reliable)
    least, most = float(value[is_on].min()), float(value[is_on].max())
    # A wide band may double the axis, no more.
    room = most - least or 0.1 * abs(most) or 1.0
    ends = np.concatenate([*(edge[finite][is_on] for edge in edges), [least, most]])
    ends = np.clip(ends[np.isfinite(ends)], least - room, most + room)
    margin = 0.06 * (ends.max() - ends.min()) or 0.1 * abs(most) or 1.0
    return float(ends.min() - margin), float(ends.max() + margin)


def _on_axis(value: Float[np.ndarray, " point"], reliable: Bool[np.ndarray, " point"]) -> Bool[np.ndarray, " point"]:
    """All but at most a tenth of the points (or one) that are many ranges of the others away from these."""
    is_on = np.ones(value.size, bool)
    distance = np.abs(value - np.median(value))
    for place in np.argsort(-distance, kind="stable")[: max(1, int(_FEW_ARE_OFF * value.size))]:
        others = is_on.copy()
        others[place] = False
        rest = value[others]
        if rest.size < 2:
            break
        span = float(max(rest.max() - rest.min(), np.abs(rest).max())) or 1.0
        away = max(rest.min() - value[place], value[place] - rest.max())
        if away <= (_FAR_RELIABLE if reliable[place] else _FAR_REFUSED) * span:
            break
        is_on = others
    return is_on


def _draw_spread(axes: Axes, own: Sequence[Line], quantity: str) -> None:
    """The mean and the range of the reliable values of several series, at the steps that they have in common."""
    for setting in dict.fromkeys(line.setting for line in own):
        group = [_values(line, quantity) for line in own if line.setting == setting]
        group = [values for values in group if values.steps.size]
        if len(group) < 2:
            continue
        steps = functools.reduce(np.intersect1d, (values.steps for values in group))
        # Where few have a value to trust the mean has a gap: without the others it would be another mean.
        seen = np.ma.masked_invalid([_trusted_at(values, steps) for values in group])
        seen[:, seen.count(0) < max(2, math.ceil(_MOST_SERIES * len(group)))] = np.ma.masked
        if not seen.count():
            continue
        label = f"mean and range of {len(group)} series {setting}".strip()
        least, mean, most = (np.ma.filled(edge, np.nan) for edge in (seen.min(0), seen.mean(0), seen.max(0)))
        axes.fill_between(steps, least, most, color=INK, alpha=0.1, lw=0)
        axes.plot(steps, mean, "-", lw=1.8, color=INK, alpha=0.8, label=label)


def _trusted_at(values: _Values, steps: Float[np.ndarray, " step"]) -> Float[np.ndarray, " step"]:
    """The reliable values at these steps; NaN elsewhere."""
    known = dict(zip(values.steps[values.reliable], values.value[values.reliable], strict=True))
    return np.array([known.get(step, np.nan) for step in steps])


def _draw_changes(axes: Axes, found: ChangePoints, colour: str) -> None:
    """A vertical line between the two levels' steps, and the interval of the change."""
    to_axis = axes.transData
    for change in found.points:
        # Midway on the axis, be it logarithmic.
        ends = to_axis.transform([(change.before, 1.0), (change.after, 1.0)])
        place = float(to_axis.inverted().transform([ends.mean(0)])[0, 0])
        axes.axvline(place, color=colour, lw=1.0, ls=":", zorder=0, label="change point, 90 % interval")
        axes.axvspan(change.low, change.high, color=colour, alpha=0.1, lw=0, zorder=0)


def _draw_metric(axes: Axes, own: Sequence[Line], styles: Sequence[_Style], name: str) -> None:
    """One number of each checkpoint, logarithmic where it is positive and spans decades."""
    every: list[float] = []
    for line, style in zip(own, styles, strict=True):
        rows = [(p.step, p.document.get(name) if name == "loss_at_w0" else p.metrics.get(name)) for p in line.points]
        steps, values = np.array(rows, dtype=float).reshape(-1, 2).T
        mark = "." if values.size <= _FEW else ""
        axes.plot(steps, np.where(np.isfinite(values), values, np.nan), f"{mark}-", lw=1.0, color=style.colour)
        every += values[np.isfinite(values)].tolist()
    if every and min(every) > 0 and max(every) > _DECADES * min(every):
        axes.set_yscale("log")
    axes.set_ylabel(r"$L_n(w_0)$" if name == "loss_at_w0" else name)


def _step_axis(axes: Axes, steps: Sequence[int]) -> None:
    """Logarithmic where the steps span decades and most are early; step 0 then stands before them."""
    positive = [step for step in steps if step > 0]
    axes.set_xlabel("training step")
    is_wide = bool(positive) and min(steps) >= 0 and max(positive) > _DECADES * min(positive)
    if is_wide and float(np.median(steps)) < _EARLY * max(steps):
        if len(positive) == len(steps):
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=min(positive))
        return
    axes.locator_params(axis="x", nbins=6)
    if steps and max(map(abs, steps)) >= 10_000:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
