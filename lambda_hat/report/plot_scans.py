"""Pictures of many runs at once: the LLC against temperature, and over a grid of step sizes and posteriors."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lambda_hat.config.schema import Node
from lambda_hat.estimation.plateau import Cell, Plateau, find_plateau, posteriors
from lambda_hat.estimation.quantity import told_of
from lambda_hat.estimation.standard_error import INTERVAL_90
from lambda_hat.report.plots import COLOURS, INK, MUTED, STYLE
from lambda_hat.run.summary import with_error
from lambda_hat.store.files import atomic_path


def draw_temperatures(curves: Sequence[Node], path: Path) -> None:
    """E1 and E3 of each curve against nbeta, the fitted lambda as a band, the known one as a line.

    Args:
        curves: The ``curves`` of temperatures.json.
        path: The picture; replaced if it is there.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.6 * len(curves)))
        panels = figure.subplots(len(curves), 1, squeeze=False)[:, 0]
        for axes, curve in zip(panels, curves, strict=True):
            _draw_curve(axes, curve)
        _save(figure, path)


def _draw_curve(axes: Axes, curve: Node) -> None:
    points = sorted(curve["points"], key=lambda point: point["nbeta"])
    nbeta = [point["nbeta"] for point in points]
    for name, label, colour in (
        ("e1", told_of(curve["quantity"], "E1, the LLC"), COLOURS[0]),
        ("e3", "E3, the variance", COLOURS[1]),
    ):
        values, errors = ([point[key] for point in points] for key in (name, f"{name}_mcse"))
        axes.errorbar(nbeta, values, [INTERVAL_90 * e for e in errors], fmt="o-", ms=4, lw=1, color=colour, label=label)
    found = curve["asymptotics"]
    if found is not None:
        low, high = found["lambda_interval90"]
        axes.axhspan(low, high, color=COLOURS[2], alpha=0.2, lw=0, label="fitted λ, 90 % interval")
        axes.axhline(found["lambda"], color=COLOURS[2], lw=1.2)
    if curve["known_lambda"] is not None:
        axes.axhline(curve["known_lambda"], color=INK, lw=1.0, ls=":", label="known λ")
    axes.set(xscale="log", xlabel=r"$n\beta$", title=curve["label"])
    axes.legend(fontsize=8, labelcolor=MUTED, frameon=False)


def draw_calibration(cells: Sequence[Cell], plateau: Plateau | None, path: Path, name: str = "LLC") -> None:
    """A panel for each nbeta: gamma by step size, coloured by the estimate, pale where the run is not to be trusted.

    Every plateau is framed, the best one boldly, and its recommended step bears a star.
    """
    nbetas = sorted({cell.nbeta for cell in cells})
    num_gammas = len({cell.gamma for cell in cells})
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, len(nbetas) * (1.4 + 0.55 * num_gammas)))
        panels = figure.subplots(len(nbetas), 1, squeeze=False)[:, 0]
        for axes, nbeta in zip(panels, nbetas, strict=True):
            _draw_grid(axes, [cell for cell in cells if cell.nbeta == nbeta], plateau)
            axes.set_title(f"{name} at nbeta = {nbeta:.6g}; plateaus are framed")
        _save(figure, path)


def _draw_grid(axes: Axes, cells: Sequence[Cell], best: Plateau | None) -> None:
    steps, gammas = sorted({cell.step_size for cell in cells}), sorted({cell.gamma for cell in cells})
    values = np.full((len(gammas), len(steps)), np.nan)
    for cell in cells:
        where = gammas.index(cell.gamma), steps.index(cell.step_size)
        values[where] = cell.llc
        doubt = "" if cell.is_sound else "\nno result" if np.isnan(cell.llc) else "\nunreliable"
        star = "★ " if best is not None and cell == best.recommended else ""
        text = star + ("" if np.isnan(cell.llc) else with_error(cell.llc, cell.mcse)) + doubt
        axes.text(where[1], where[0], text.strip(), ha="center", va="center", fontsize=6.5, color=INK)
    sound = [cell.llc for cell in cells if cell.is_sound] or [0.0, 1.0]
    axes.imshow(values, cmap="cividis_r", vmin=min(sound), vmax=max(sound), alpha=0.45, aspect="auto")
    for (_, gamma), group in posteriors(cells).items():
        plateau = find_plateau(group)
        if plateau is not None:
            _frame(axes, steps.index(plateau.cells[0].step_size), gammas.index(gamma), plateau, plateau == best)
    axes.set_xticks(range(len(steps)), [f"{step:g}" for step in steps])
    axes.set_yticks(range(len(gammas)), [f"{gamma:g}" for gamma in gammas])
    axes.set(xlabel="step_size", ylabel="gamma")


def _frame(axes: Axes, left: int, row: int, plateau: Plateau, is_best: bool) -> None:
    corner, width = (left - 0.47, row - 0.45), len(plateau.cells) - 0.06
    axes.add_patch(Rectangle(corner, width, 0.9, fill=False, ec=COLOURS[1], lw=2.4 if is_best else 1.0))


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
