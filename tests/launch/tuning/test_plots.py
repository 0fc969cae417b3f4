"""Pictures of studies at their worst inputs: nothing is cut, hidden, or on the wrong scale."""

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from lambda_hat.launch.tuning import plots
from lambda_hat.launch.tuning.schema import Dimension, Objective

LONG = "deep-linear-small widths=[10,10,10,10,10,10] gamma=100 n=5000 seed=17"
SPACE = {
    "step_size": Dimension(dist="float", low=1e-6, high=1e-1, log=True),
    "energy_variance": Dimension(dist="float", low=1e-3, high=2e-3, log=True),
    "small": Dimension(dist="float", low=0.0, high=1e-5),
    "draws": Dimension(dist="int", low=5000, high=20000, step=1000),
    "batch_size": Dimension(dist="categorical", choices=[32, 128, 256]),
    "precond": Dimension(dist="categorical", choices=["none", "rmsprop", "a_long_preconditioner"]),
}


def row(number: int, llc: float | None, reference: float, *, state: str = "COMPLETE", mcse: float = 0.1) -> Any:
    value = Objective().value(llc, None if llc is None else mcse, reference) if state == "COMPLETE" else None
    params = {
        "step_size": 10.0 ** (-6 + number % 6), "energy_variance": 1e-3 * (1 + number % 7 / 7), "small": number * 1e-6,
        "draws": 5000 + 1000 * (number % 15), "batch_size": [32, 128, 256][number % 3],
        "precond": ["none", "rmsprop", "a_long_preconditioner"][number % 3],
    }  # fmt: skip
    return {
        "problem": "p", "method": "sgld", "number": number, "state": state, "llc": llc, "value": value,
        "ref": reference, "mcse": None if llc is None else mcse, "preset": number == 0, "params": params,
    }  # fmt: skip


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Draws trials; the figures by the last word of their names."""

    def draw(rows: list[Any], title: str = "p") -> dict[str, Figure]:
        figures: dict[str, Figure] = {}

        def keep(figure: Figure, path: Path) -> Path:
            figures[path.stem.rpartition("-")[2]] = figure
            return path

        monkeypatch.setattr(plots, "_save", keep)
        plots.draw(rows, tmp_path, {"p": title}, {"sgld": SPACE})
        for figure in figures.values():
            figure.draw_without_rendering()
        return figures

    return draw


def _visible(figure: Figure) -> Iterator[Any]:
    yield from figure.texts
    for axes in figure.axes:
        yield from (axes.title, axes.xaxis.label, axes.yaxis.label)


def _at_the_edge(axes: Any) -> dict[float, float]:
    """Markers that have no place on the axis: where they are in data coordinates of x, and in the axes' of y."""
    lines = [line for line in axes.lines if line.get_marker() in ("x", "^", "v")]
    return {x: y for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}


@pytest.mark.parametrize("reference", [-3.2, 0.0, 2.0, 1918.0])
def test_every_trial_is_seen_whatever_the_reference(drawn: Any, reference: float) -> None:
    rows = [row(number, reference + 0.3 * math.sin(number), reference) for number in range(12)]
    rows += [row(12, None, reference), row(13, None, reference, state="FAIL"), row(14, 4e5, reference)]
    figures = drawn(rows)
    left = figures["methods"].axes[0]
    low, high = left.get_ylim()
    assert low < reference < high
    assert all(low < one["llc"] < high for one in rows[:12])
    assert high - low < 3.0, "one far trial has flattened the others"
    place = np.linspace(-0.25, 0.25, len(rows))
    assert _at_the_edge(left) == {place[12]: 1.0, place[13]: 1.0, place[14]: 0.97}
    assert _at_the_edge(figures["history"].axes[0]) == {12: 1.0, 13: 1.0}
    assert sum(len(panel.lines) for panel in figures["slice"].axes) == len(SPACE), "the diverged trial is in each panel"


def test_fields_are_drawn_on_the_scale_of_their_search(drawn: Any) -> None:
    panels = {axes.get_xlabel(): axes for axes in drawn([row(number, 1.0, 2.0) for number in range(12)])["slice"].axes}
    logarithmic = {name for name, axes in panels.items() if axes.get_xscale() == "log"}
    assert logarithmic == {"step_size", "energy_variance"}
    for name, axes in panels.items():
        low, high = axes.get_xlim()
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_rotation() == 0]
        inside = sorted((box.x0, box.x1) for box in boxes if box.width > 0)
        assert all(before[1] < after[0] for before, after in pairwise(inside)), f"ticks of {name} overlap"
        assert low < high


def test_nothing_is_cut_off(drawn: Any) -> None:
    figures = drawn([row(number, 1.0, 2.0) for number in range(12)], LONG)
    assert len(figures) == 4
    for figure in figures.values():
        width, height = figure.get_size_inches() * figure.dpi
        assert figure.get_suptitle()
        for text in filter(lambda text: text.get_text(), _visible(figure)):
            box = text.get_window_extent()
            assert -1 <= box.x0 <= box.x1 <= width + 1, text.get_text()
            assert -1 <= box.y0 <= box.y1 <= height + 1, text.get_text()


def test_few_trials_have_no_importance(drawn: Any) -> None:
    assert "importance" not in drawn([row(number, 1.0 + number, 2.0) for number in range(3)])
    assert "importance" in drawn([row(number, 1.0 + number, 2.0) for number in range(11)])


@pytest.mark.parametrize(
    "rows",
    [
        [row(0, None, 2.0), row(1, None, 2.0, state="FAIL")],
        [row(0, 2.0, 2.0, mcse=0.0), row(1, 2.0, 2.0, mcse=0.0)],
        [row(0, -1e300, -2.0), row(1, 1e-300, -2.0)],
        [row(0, 2.0, 2.0)],
    ],
    ids=["none has a value", "exact hits", "extremes", "one"],
)
def test_the_fewest_trials_are_drawn_without_a_warning(tmp_path: Path, rows: list[Any]) -> None:
    assert all(path.stat().st_size for path in plots.draw(rows, tmp_path, {}, {"sgld": SPACE}))
