"""Pictures of studies, from the metrics of their trials."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lambda_hat.config.schema import Document
from lambda_hat.store.layout import atomic_path

_STATES = {"COMPLETE": "C0", "PRUNED": "C1", "FAIL": "C3"}
_MAX_RELATIVE = 1e3  # penalties are left out


def draw(rows: Sequence[Document], folder: Path) -> list[Path]:
    """Draw history, importance and slices of each study, and a comparison of the methods on each problem."""
    studies: dict[tuple[str, str], list[Document]] = {}
    for row in rows:
        studies.setdefault((row["problem"], row["method"]), []).append(row)
    drawn: list[Path] = []
    for (problem, method), own in studies.items():
        scored = [row for row in own if row["value"] is not None and row["value"] < _MAX_RELATIVE]
        if scored:
            title = f"{problem}: {method}"
            # The first trial is the preset, which may lie outside the space.
            tried = [row for row in scored if not row["preset"]]
            names = _varied(tried)
            drawn += [
                _save(_history(own, title), folder / f"{problem}-{method}-history.png"),
            ]
            if names:
                drawn += [
                    _save(_importance(tried, names, title), folder / f"{problem}-{method}-importance.png"),
                    _save(_slices(tried, names, title), folder / f"{problem}-{method}-slice.png"),
                ]
    for problem in {problem for problem, _ in studies}:
        by_method = {method: own for (where, method), own in studies.items() if where == problem}
        drawn.append(_save(_comparison(by_method, problem), folder / f"{problem}-methods.png"))
    return drawn


def _varied(rows: Sequence[Document]) -> list[str]:
    """The fields that have more than one value."""
    names = rows[0]["params"] if rows else {}
    return [name for name in names if len({str(row["params"][name]) for row in rows}) > 1]


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, columns, column + 1) for column in range(columns)]


def _save(figure: Figure, path: Path) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return path


def _history(rows: Sequence[Document], title: str) -> Figure:
    """The objective of each trial, of the preset, and the best so far."""
    figure, (axes,) = _figure(6, 3.5)
    for state, colour in _STATES.items():
        own = [
            row for row in rows if row["state"] == state and row["value"] is not None and row["value"] < _MAX_RELATIVE
        ]
        if own:
            axes.plot(
                [row["number"] for row in own], [row["value"] for row in own], "o", color=colour, ms=4, label=state
            )
    complete = [row for row in rows if row["state"] == "COMPLETE"]
    best = np.minimum.accumulate([row["value"] for row in complete]) if complete else np.empty(0)
    keep = best < _MAX_RELATIVE
    axes.step(np.array([row["number"] for row in complete])[keep], best[keep], where="post", color="0.3", label="best")
    for row in rows:
        if row["preset"] and row["state"] == "COMPLETE" and row["value"] < _MAX_RELATIVE:
            axes.axhline(row["value"], color="0.3", lw=1.2, ls=":", label="preset")
    axes.set(xlabel="trial", ylabel="objective", title=title, yscale="log")
    axes.legend(frameon=False)
    return figure


def _importance(rows: Sequence[Document], names: Sequence[str], title: str) -> Figure:
    """How much of the objective's rank each field alone explains: squared correlation of ranks, or of group means."""
    values = _ranks(np.array([row["value"] for row in rows]))
    shares = [_explained([row["params"][name] for row in rows], values) for name in names]
    order = np.argsort(shares)
    figure, (axes,) = _figure(6, 1 + 0.35 * len(names))
    axes.barh([names[index] for index in order], [shares[index] for index in order])
    axes.set(xlabel="share of the objective's rank that the field alone explains", title=title, xlim=(0, 1))
    return figure


def _explained(values: Sequence[Any], ranks: np.ndarray) -> float:
    if np.ptp(ranks) == 0:
        return 0.0
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return float(np.corrcoef(_ranks(np.array(values, float)), ranks)[0, 1] ** 2)
    words = np.array([str(value) for value in values])
    means = np.array([ranks[words == word].mean() for word in words])
    return float(means.var() / ranks.var())


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def _slices(rows: Sequence[Document], names: Sequence[str], title: str) -> Figure:
    """The objective against each field."""
    figure, panels = _figure(2.6 * len(names), 3, len(names))
    for axes, name in zip(panels, names, strict=True):
        values = [row["params"][name] for row in rows]
        is_number = all(isinstance(value, int | float) for value in values)
        shown = values if is_number else [str(value) for value in values]
        axes.scatter(shown, [row["value"] for row in rows], c=[row["number"] for row in rows], s=14, cmap="viridis")
        positive = [value for value in values if is_number and value > 0]
        if len(positive) == len(values) and max(positive) / min(positive) > 50:
            axes.set_xscale("log")
        axes.set(xlabel=name, yscale="log")
    panels[0].set_ylabel("objective")
    figure.suptitle(title)
    return figure


def _comparison(by_method: Mapping[str, Sequence[Document]], problem: str) -> Figure:
    """Each method within the same budget: the LLC of every trial, and the best objective so far."""
    figure, (left, right) = _figure(9, 3.5, 2)
    reference = next(iter(by_method.values()))[0]
    for index, (method, rows) in enumerate(by_method.items()):
        complete = [row for row in rows if row["state"] == "COMPLETE" and row["llc"] is not None]
        if not complete:
            continue
        left.errorbar(
            np.full(len(complete), index) + np.linspace(-0.25, 0.25, len(complete)), [row["llc"] for row in complete],
            [row["mcse"] or 0.0 for row in complete], fmt="o", ms=3, lw=0.8,
        )  # fmt: skip
        best = np.minimum.accumulate([row["value"] for row in complete])
        right.step([row["number"] for row in complete], best, where="post", label=method)
    left.axhline(reference["ref"], color="0.3", lw=1)
    near = abs(reference["ref"])
    left.set(
        title="LLC of each trial, and the reference",
        xticks=range(len(by_method)),
        ylim=(-0.5 * near, 2.5 * near),
    )
    left.set_xticklabels(list(by_method))
    right.set(title="best objective so far", xlabel="trial, all of the same budget", yscale="log")
    right.legend(frameon=False)
    figure.suptitle(problem)
    return figure
