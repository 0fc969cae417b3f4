"""Pictures of studies, from the metrics of their trials."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from lambda_hat.config.schema import Document
from lambda_hat.launch.tuning.schema import Dimension, Objective
from lambda_hat.store.layout import atomic_path

_STATES = {"COMPLETE": "C0", "PRUNED": "C1", "FAIL": "C3"}
# With fewer trials a field explains the objective by chance.
_FEWEST_FOR_IMPORTANCE = 10
_PANELS_A_ROW = 4
_TITLE_CHARACTERS_AN_INCH = 13
_LONGEST_WORD = 12
_CHARACTERS_A_PANEL = 18
_FEW_DECADES = 100
_FAR = 6.0  # times the median distance

Spaces = Mapping[str, Mapping[str, Dimension]]  # by method and field


def draw(rows: Sequence[Document], folder: Path, titles: Mapping[str, str], spaces: Spaces) -> list[Path]:
    """Draw history, importance and slices of each study, and a comparison of the methods on each problem.

    Args:
        rows: The metrics of all trials.
        folder: Where.
        titles: What to call each problem.
        spaces: The search spaces.
    """
    studies: dict[tuple[str, str], list[Document]] = {}
    for row in rows:
        studies.setdefault((row["problem"], row["method"]), []).append(row)
    drawn: list[Path] = []
    for (problem, method), own in studies.items():
        title, stem = f"{titles.get(problem, problem)}: {method}", f"{problem}-{method}"
        drawn.append(_save(_history(own, title), folder / f"{stem}-history.png"))
        # The first trial is the preset, which may lie outside the space.
        tried = [row for row in own if row["value"] is not None and not row["preset"]]
        names = _varied(tried)
        if names and any(map(_is_scored, tried)):
            drawn.append(_save(_slices(tried, names, title, spaces.get(method, {})), folder / f"{stem}-slice.png"))
        if names and len(tried) >= _FEWEST_FOR_IMPORTANCE:
            drawn.append(_save(_importance(tried, names, title), folder / f"{stem}-importance.png"))
    for problem in dict.fromkeys(problem for problem, _ in studies):
        by_method = {method: own for (where, method), own in studies.items() if where == problem}
        drawn.append(_save(_comparison(by_method, titles.get(problem, problem)), folder / f"{problem}-methods.png"))
    return drawn


def _is_scored(row: Document) -> bool:
    """Whether the trial has an objective that is no penalty."""
    return row["value"] is not None and row["value"] < Objective.PENALTY


def _varied(rows: Sequence[Document]) -> list[str]:
    """The fields that have more than one value."""
    names = rows[0]["params"] if rows else {}
    return [name for name in names if len({str(row["params"][name]) for row in rows}) > 1]


def _figure(width: float, height: float, count: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels, each of that size."""
    columns = min(count, _PANELS_A_ROW)
    lines = -(-count // columns)
    figure = Figure(figsize=(max(width * columns, 5.0), height * lines + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(lines, columns, index + 1) for index in range(count)]


def _entitle(figure: Figure, title: str) -> None:
    characters = int(figure.get_figwidth() * _TITLE_CHARACTERS_AN_INCH)
    figure.suptitle("\n".join(textwrap.wrap(title, characters)), fontsize="medium")


def _save(figure: Figure, path: Path) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return path


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="small")


def _scale_objective(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis where the objectives allow one: an exact hit has the objective 0."""
    if not values:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no trial has a value", ha="center", transform=axes.transAxes)
    elif min(values) > 0:
        axes.set_yscale("log")


def _mark_missing(axes: Axes, places: Sequence[Any], label: str) -> None:
    """A cross at the upper edge for each trial without a value, since nothing else of it can be drawn."""
    if places:
        axes.plot(
            places, [1.0] * len(places), "x", transform=axes.get_xaxis_transform(), label=label,
            ms=6, color="C3", clip_on=False, zorder=3,
        )  # fmt: skip


def _history(rows: Sequence[Document], title: str) -> Figure:
    """The objective of each trial, of the preset, and the best so far."""
    figure, (axes,) = _figure(6, 3.5)
    scored = [row for row in rows if _is_scored(row)]
    for state, colour in _STATES.items():
        own = [row for row in scored if row["state"] == state]
        if own:
            numbers, values = [row["number"] for row in own], [row["value"] for row in own]
            axes.plot(numbers, values, "o", color=colour, ms=4, label=state.lower())
    complete = [row for row in scored if row["state"] == "COMPLETE"]
    if complete:
        best = np.minimum.accumulate([row["value"] for row in complete])
        axes.step([row["number"] for row in complete], best, where="post", color="0.3", label="best")
    for row in complete:
        if row["preset"]:
            axes.axhline(row["value"], color="0.3", lw=1.2, ls=":", label="preset")
    _mark_missing(axes, [row["number"] for row in rows if not _is_scored(row)], "no value")
    _scale_objective(axes, [row["value"] for row in scored])
    axes.set(xlabel="trial", ylabel="objective")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    _entitle(figure, title)
    _legend(axes)
    return figure


def _importance(rows: Sequence[Document], names: Sequence[str], title: str) -> Figure:
    """How much of the objective's rank each field alone explains: squared correlation of ranks, or of group means."""
    values = _ranks(np.array([row["value"] for row in rows]))
    shares = [_explained([row["params"][name] for row in rows], values) for name in names]
    order = np.argsort(shares)
    figure, (axes,) = _figure(6, 1 + 0.35 * len(names))
    axes.barh([names[index] for index in order], [shares[index] for index in order])
    axes.set_xlim(0, 1)
    figure.supxlabel(
        f"share of the objective's rank that the field alone explains ({len(rows)} trials)", fontsize="small"
    )
    _entitle(figure, title)
    return figure


def _explained(values: Sequence[Any], ranks: np.ndarray) -> float:
    if np.ptp(ranks) == 0:
        return 0.0
    if _are_numbers(values):
        return float(np.corrcoef(_ranks(np.array(values, float)), ranks)[0, 1] ** 2)
    words = np.array([str(value) for value in values])
    means = np.array([ranks[words == word].mean() for word in words])
    return float(means.var() / ranks.var())


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def _slices(rows: Sequence[Document], names: Sequence[str], title: str, space: Mapping[str, Dimension]) -> Figure:
    """The objective against each field, on the field's own scale; later trials are brighter."""
    figure, panels = _figure(2.6, 2.7, len(names))
    for index, (axes, name) in enumerate(zip(panels, names, strict=True)):
        _slice(axes, rows, name, space.get(name))
        if index % _PANELS_A_ROW == 0:
            axes.set_ylabel("objective")
    _entitle(figure, title)
    return figure


def _slice(axes: Axes, rows: Sequence[Document], name: str, dimension: Dimension | None) -> None:
    values = [row["params"][name] for row in rows]
    if dimension is None or dimension.choices is not None or not _are_numbers(values):
        choices = sorted(set(values)) if _are_numbers(values) else sorted(set(map(str, values)))
        places = [choices.index(value if _are_numbers(values) else str(value)) for value in values]
        axes.set_xticks(range(len(choices)))
        labels = [_shortened(str(choice)) for choice in choices]
        is_long = max(map(len, labels)) * len(labels) > _CHARACTERS_A_PANEL
        axes.set_xticklabels(labels, rotation=45 if is_long else 0, ha="right" if is_long else "center")
        axes.set_xlim(-0.5, len(choices) - 0.5)
    else:
        places = values
        _scale_field(axes, dimension)
    is_scored = [_is_scored(row) for row in rows]
    scored = [row for row in rows if _is_scored(row)]
    axes.scatter(
        [place for place, is_one in zip(places, is_scored, strict=True) if is_one],
        [row["value"] for row in scored], c=[row["number"] for row in scored], s=14, cmap="viridis",
    )  # fmt: skip
    _mark_missing(axes, [place for place, is_one in zip(places, is_scored, strict=True) if not is_one], "no value")
    _scale_objective(axes, [row["value"] for row in scored])
    axes.set_xlabel(name)


def _scale_field(axes: Axes, dimension: Dimension) -> None:
    """The scale on which the field is searched, from end to end, with few ticks, since panels are narrow."""
    low, high = dimension.ends()
    if dimension.log:
        axes.set_xscale("log")
        axes.set_xlim(low * (low / high) ** 0.05, high * (high / low) ** 0.05)
        axes.xaxis.set_minor_formatter(NullFormatter())
        if high / low < _FEW_DECADES:
            axes.set_xticks(np.geomspace(low, high, 3), minor=False)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    else:
        axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        axes.locator_params(axis="x", nbins=3)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _shortened(word: str) -> str:
    return word if len(word) <= _LONGEST_WORD else f"{word[: _LONGEST_WORD - 1]}…"


def _comparison(by_method: Mapping[str, Sequence[Document]], title: str) -> Figure:
    """Each method within the same budget: the LLC of every trial, and the best objective so far."""
    figure, (left, right) = _figure(4.5, 3.5, 2)
    reference = next(iter(by_method.values()))[0]["ref"]
    objectives: list[float] = []
    places: list[tuple[int, Document, float]] = []
    for index, (method, rows) in enumerate(by_method.items()):
        complete = [row for row in rows if row["state"] == "COMPLETE" and row["llc"] is not None]
        spread = np.linspace(-0.25, 0.25, len(rows)) if len(rows) > 1 else np.zeros(1)
        place = {row["number"]: index + shift for row, shift in zip(rows, spread, strict=True)}
        places += [(index, row, place[row["number"]]) for row in complete]
        left.errorbar(
            [place[row["number"]] for row in complete], [row["llc"] for row in complete],
            [row["mcse"] or 0.0 for row in complete], fmt="o", ms=3, lw=0.8, color=f"C{index}",
        )  # fmt: skip
        _mark_missing(left, [place[row["number"]] for row in rows if row["llc"] is None], "")
        scored = [row for row in complete if _is_scored(row)]
        if scored:
            best = np.minimum.accumulate([row["value"] for row in scored])
            right.step(
                [row["number"] for row in scored], best, "o-", where="post", ms=2, label=method, color=f"C{index}"
            )
            objectives += list(best)
    left.axhline(reference, color="0.3", lw=1)
    low, high = _limits(reference, [row["llc"] for rows in by_method.values() for row in rows])
    _mark_beyond(left, places, low, high)
    left.set(title="LLC of each trial, and the reference\n(arrow: beyond the axis, ×: none)", ylim=(low, high))
    left.set_xlim(-0.5, len(by_method) - 0.5)
    left.ticklabel_format(axis="y", useOffset=False)
    left.set_xticks(range(len(by_method)))
    is_crowded = sum(map(len, by_method)) > 30
    left.set_xticklabels(list(by_method), rotation=30 if is_crowded else 0, ha="right" if is_crowded else "center")
    right.set(title="best objective so far", xlabel="trial, all of the same budget")
    right.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    _scale_objective(right, objectives)
    _legend(right)
    for axes in (left, right):
        axes.title.set_fontsize("small")
    _entitle(figure, title)
    return figure


def _mark_beyond(axes: Axes, places: Sequence[tuple[int, Document, float]], low: float, high: float) -> None:
    """An arrow for each LLC that is off the axis, (colour, trial, x)."""
    for colour, row, x in places:
        if not low <= row["llc"] <= high:
            edge, marker = (0.97, "^") if row["llc"] > high else (0.03, "v")
            axes.plot([x], [edge], marker, ms=5, color=f"C{colour}", transform=axes.get_xaxis_transform())


def _limits(reference: float, llcs: Sequence[float | None]) -> tuple[float, float]:
    """An axis that holds the reference and all LLCs except those far beyond the typical distance from it."""
    known = [llc for llc in llcs if llc is not None]
    distances = [abs(llc - reference) for llc in known]
    far = _FAR * float(np.median(distances)) if known else 0.0
    shown = [reference, *(llc for llc, distance in zip(known, distances, strict=True) if distance <= far)]
    width = max(shown) - min(shown) or 0.1 * abs(reference) or 1.0
    return min(shown) - 0.15 * width, max(shown) + 0.15 * width
