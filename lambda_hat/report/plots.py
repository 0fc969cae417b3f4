"""Pictures of one run, from its trace and its analysis.json, by matplotlib alone and without a display.

Figures are made without pyplot, so there is no backend to choose and no global state. A long trace is drawn at the
resolution of the picture: every chain's mean over each stretch, and the range of all draws there, so that neither a
drift nor an excursion is lost.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import EngFormatter

from lambda_hat.config.schema import Document, Node
from lambda_hat.estimation.quantity import name_of
from lambda_hat.estimation.reason import rhat_in_words
from lambda_hat.estimation.standard_error import INTERVAL_90
from lambda_hat.estimation.trace import Draws, Trace, WarmupTrace
from lambda_hat.report.drawn_run import POINTS, Run
from lambda_hat.run.summary import contradicted, with_error
from lambda_hat.store.files import atomic_path

# Okabe and Ito's colours, told apart by colour-blind readers; their yellow is too pale for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
INK, MUTED, _SHADE = "#222222", "#6e6e6e", "#f0f0f0"
STYLE: Any = {
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 120,
    "font.size": 9,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}
# A trace of more draws than a picture has columns for is drawn as this many stretches.
_MOST_DRAWS, _STRETCHES, _MOST_CHAINS_IN_LEGEND = 4000, 250, 8


class _Cost(NamedTuple):
    """One way to count how far a run has come: its axis, its value at every point, and what warm-up took of it."""

    label: str
    values: Float[np.ndarray, " point"]
    warmup: float


def draw_diagnostics(trace: Trace, warmup: WarmupTrace, analysis: Node, directory: Path) -> list[Path]:
    """Draw what the trace allows of trace, rank, energy, running_llc and llc_convergence_combined (.png).

    Args:
        trace: Arrays (chain, draw) of the sampling phase; of the COLUMNS, ``loss`` is required.
        warmup: The same of warm-up; may be empty.
        analysis: The document analysis.json (docs/estimator.md and docs/store.md).
        directory: Where to; it must exist. Pictures of the same name are replaced.

    Returns:
        The files written: none for a run without draws.
    """
    run = Run.of(trace, warmup, analysis)
    x = run.x
    if not np.isfinite(x).any():
        return []
    pictures: dict[str, Callable[[Run, Figure], None]] = {"trace": draw_trace}
    if x.shape[0] > 1 and np.isfinite(x).all():
        pictures["rank"] = _draw_rank
    # A diverged draw is drawn as a gap, without a word: the verdict has said it.
    with np.errstate(all="ignore"):
        if "energy" in trace and np.isfinite(np.diff(trace["energy"])).any():
            pictures["energy"] = _draw_energy
        pictures |= {"running_llc": draw_running, "llc_convergence_combined": _draw_convergence}
        return [_save(run, draw, directory / f"{name}.png") for name, draw in pictures.items()]


def _save(run: Run, draw: "Callable[[Run, Figure], None]", path: Path) -> Path:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 4.4))
        draw(run, figure)
        llc = with_error(run.analysis["llc"], run.analysis["llc_mcse"])
        # Its second, empty line keeps room for the facts, which are in smaller type.
        title = f"{run.analysis['sampler']} on {run.analysis['target_id']}:  {name_of(run.analysis)} = {llc}\n"
        figure.suptitle(title, x=0.012, ha="left", fontsize=11, color=INK)
        figure.text(0.012, 0.93, facts(run), fontsize=8, color=MUTED, va="center")
        legend(figure)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png")
    return path


def facts(run: Run) -> str:
    chains, draws = run.x.shape
    verdict = run.analysis["verdict"]
    if words := contradicted(run.analysis):
        return f"exact LLC {run.number('exact_llc'):.5g}: {words}"
    # A reason is a finding, a colon, its cause: the finding is enough here.
    judged = "reliable" if verdict["reliable"] else f"not reliable: {verdict['reasons'][0].partition(':')[0]}"
    size = f"{chains} chain{'s' if chains > 1 else ''} × {draws} draws"
    return f"{size},  R-hat {rhat_in_words(run.number('rhat'))},  bulk ESS {run.number('ess_bulk'):.0f},  {judged}"


def legend(figure: Figure | SubFigure, ncols: int = 8) -> None:
    """One legend for all panels, under them, where no data can lie beneath it."""
    named = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    box = figure.legend(
        named.values(), named.keys(), loc="outside lower center", ncols=ncols, fontsize=8, frameon=False,
        columnspacing=1.2, handlelength=1.5,
    )  # fmt: skip
    for line in box.get_lines():
        line.set(linewidth=1.6, alpha=1.0)


def draw_trace(run: Run, figure: Figure | SubFigure) -> None:
    """Every chain's draws with the end of warm-up before them, and their distribution beside them."""
    axes, side = figure.subplots(1, 2, width_ratios=[4, 1], sharey=True)
    num_warmup, num_draws = run.warmup_x.shape[1], run.x.shape[1]
    low, high = _span(run.x)
    if num_warmup:
        _draw_chains(run, axes, run.warmup_x, -num_warmup)
        _shade_warmup(axes, -float(num_warmup), 0.0)
    _draw_chains(run, axes, run.x, 0)
    bins = np.linspace(low, high, 61)
    for chain, draws in enumerate(run.x):
        counts, _ = np.histogram(draws[np.isfinite(draws)], bins)
        side.stairs(counts, bins, orientation="horizontal", lw=1.0, color=_chain_style(run, chain)["color"])
    for panel in (axes, side):
        panel.axhline(run.number("llc"), color=INK, lw=1.0, ls="--", label=name_of(run.analysis))
    axes.set(xlabel="draw (sampling starts at 0)", xlim=(-num_warmup, num_draws), ylim=(low, high))
    axes.set_ylabel(r"$n\beta\,(L_n(w) - L_n(w_0))$")
    side.set(xlabel="draws", xticks=[])
    _count_axis(axes)


def _draw_chains(run: Run, axes: Axes, x: Draws, start: int) -> None:
    """The draws of every chain from draw ``start`` on; of a long trace, means and range over equal stretches."""
    length = 1 if x.shape[1] <= _MOST_DRAWS else x.shape[1] // _STRETCHES
    stretches = x[:, : x.shape[1] // length * length].reshape(x.shape[0], -1, length)
    where = start + (np.arange(stretches.shape[1]) + 0.5) * length
    if length > 1:
        low, high = stretches.min(axis=(0, 2)), stretches.max(axis=(0, 2))
        axes.fill_between(where, low, high, color=MUTED, alpha=0.2, lw=0, label="range of draws")
    for chain, means in enumerate(stretches.mean(axis=2)):
        axes.plot(where, means, lw=0.7, alpha=0.8 if start == 0 else 0.45, **_chain_style(run, chain))


def _draw_rank(run: Run, figure: Figure) -> None:
    """Each chain's distribution function of pooled ranks, minus the uniform one: flat when the chains agree."""
    axes = figure.subplots()
    p = np.linspace(0.0, 1.0, POINTS)
    pooled = np.quantile(run.x, p)
    for chain, draws in enumerate(run.x):
        share = np.searchsorted(np.sort(draws), pooled, side="right") / draws.size
        axes.plot(p[1:-1], (share - p)[1:-1], lw=1.2, **_chain_style(run, chain))
    band = 3.0 * np.sqrt(p * (1 - p) * (run.x.shape[0] - 1) / run.number("ess_bulk"))
    axes.fill_between(p, -band, band, color=MUTED, alpha=0.18, lw=0, label="3 sd if all chains agree")
    axes.axhline(0.0, color=MUTED, lw=0.8)
    axes.set(xlabel="rank of the draw's loss among all chains' (as a share)", ylabel="ECDF − uniform", xlim=(0, 1))


def _draw_energy(run: Run, figure: Figure) -> None:
    """Energies against their change in one draw: momenta that change the energy too little explore slowly."""
    axes = figure.subplots()
    energy = np.where(np.isfinite(run.trace["energy"]), run.trace["energy"], np.nan).astype(np.float64)
    change = np.diff(energy, axis=1)
    fraction = np.mean(change**2, axis=1) / np.var(energy, axis=1, ddof=1)
    for values, colour, label in (
        (energy - np.nanmean(energy), COLOURS[0], "energy − its mean"),
        (change, COLOURS[1], "change of energy in a draw"),
    ):
        finite = values[np.isfinite(values)]
        axes.hist(finite, bins=80, range=_span(finite), density=True, color=colour, alpha=0.35, label=label)
        axes.hist(finite, bins=80, range=_span(finite), density=True, color=colour, histtype="step")
    note = f"BFMI of the chains {fraction.min():.2f} to {fraction.max():.2f}\n(below 0.3 is poor)"
    axes.text(0.99, 0.97, note, ha="right", va="top", transform=axes.transAxes, color=MUTED)
    axes.set(xlabel="energy (nats)", ylabel="density", yticks=[])


def draw_running(run: Run, figure: Figure | SubFigure) -> None:
    """The LLC by number of draws: every chain, and all of them with a 90 % band."""
    axes = figure.subplots()
    means = np.cumsum(run.averaged, axis=1)[:, run.points - 1] / run.points
    for chain, running in enumerate(means):
        axes.plot(run.points, running, lw=0.9, alpha=0.8, **_chain_style(run, chain))
    _draw_band(run, axes, run.points)
    axes.set(xlabel="draw", ylabel=f"running {name_of(run.analysis)}", xlim=(0, run.x.shape[1]))
    _count_axis(axes)
    _draw_references(run, axes)


def _draw_convergence(run: Run, figure: Figure) -> None:
    """The running LLC against draws, full-gradient evaluations and seconds, warm-up's share shaded."""
    costs = _costs(run)
    panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axes, cost in zip(panels, costs, strict=True):
        _draw_band(run, axes, cost.values)
        axes.set(xlabel=cost.label, xlim=(0, cost.values[-1]))
        _count_axis(axes)
        if cost.warmup > 0:
            _shade_warmup(axes, 0.0, cost.warmup)
        _draw_references(run, axes)
    panels[0].set_ylabel(f"running {name_of(run.analysis)}")


def _costs(run: Run) -> list[_Cost]:
    """The axes along which this run's progress is known."""
    costs = [_Cost("draws per chain", run.points.astype(float), 0.0)]
    if "gradients" in run.trace:
        spent = np.cumsum(run.trace["gradients"].sum(axis=0, dtype=np.int64))
        before = run.analysis["gradients"] - int(spent[-1])
        fge = (before + spent[run.points - 1]) / run.analysis["num_data"]
        costs.append(_Cost("full-gradient evaluations, all chains", fge, before / run.analysis["num_data"]))
    if history := run.analysis["history"]:
        warmup = float(run.analysis["seconds"]["warmup"])
        draws, _, seconds = np.array([(0, 0, warmup), *history], dtype=float).T
        costs.append(_Cost("seconds of computation", np.interp(run.points, draws, seconds), warmup))
    return costs


def _draw_band(run: Run, axes: Axes, where: Float[np.ndarray, " point"] | Int[np.ndarray, " point"]) -> None:
    llc, mcse = run.running
    band = INTERVAL_90 * np.nan_to_num(mcse)
    axes.fill_between(where, llc - band, llc + band, color=INK, alpha=0.15, lw=0, label="90 % interval")
    axes.plot(where, llc, color=INK, lw=1.6, label="all chains")
    # The first draws would set the scale for all the others: the axis follows the later nine tenths, if it can.
    edges = np.stack([llc - band, llc + band])
    for seen in (edges, edges[:, llc.size // 10 :]):
        if np.isfinite(seen).any():
            axes.set_ylim(_span(seen))


def _draw_references(run: Run, axes: Axes) -> None:
    """The exact value and the asymptotic lambda, if known; one that would squeeze the curve is named only."""
    low, high = axes.get_ylim()
    for name, label, line in (("exact_llc", "exact value", "--"), ("known_lambda", "asymptotic λ", ":")):
        if math.isnan(value := run.number(name)):
            continue
        is_near = low - (high - low) < value < high + (high - low)
        text = f"{label} {value:.4g}{'' if is_near else ' (off scale)'}"
        if is_near:
            low, high = min(low, value - 0.05 * (high - low)), max(high, value + 0.05 * (high - low))
        axes.axhline(value, color=COLOURS[1], lw=1.2, ls=line, label=text)
    axes.set_ylim(low, high)


def _chain_style(run: Run, chain: int) -> Document:
    style = {"color": COLOURS[chain % len(COLOURS)]}
    return style | {"label": f"chain {chain}"} if run.x.shape[0] <= _MOST_CHAINS_IN_LEGEND else style


def _shade_warmup(axes: Axes, start: float, stop: float) -> None:
    axes.axvspan(start, stop, color=_SHADE, lw=0, zorder=0)
    axes.text(start, 0.02, " warm-up", transform=axes.get_xaxis_transform(), color=MUTED, fontsize=8)


def _count_axis(axes: Axes) -> None:
    """Few ticks, and 200k for 200000: panels are narrow."""
    axes.locator_params(axis="x", nbins=5)
    if axes.get_xlim()[1] >= 10_000:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _span(values: Float[np.ndarray, "..."]) -> tuple[float, float]:
    """Limits that hold all but the most extreme of the finite values, with a margin."""
    low, high = np.quantile(values[np.isfinite(values)], [0.001, 0.999])
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return float(low - margin), float(high + margin)
