"""The picture of a result in memory."""

import io

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from lambda_hat.config.schema import Node
from lambda_hat.estimation.quantity import name_of
from lambda_hat.estimation.trace import Trace, WarmupTrace
from lambda_hat.report.drawn_run import Run
from lambda_hat.report.plots import INK, MUTED, STYLE, draw_running, draw_trace, facts, legend
from lambda_hat.run.summary import with_error


class Picture(Figure):
    """A figure that a notebook shows, though nothing has imported pyplot."""

    def _repr_png_(self) -> bytes:
        image = io.BytesIO()
        self.savefig(image, format="png")
        return image.getvalue()


def plot_result(trace: Trace, warmup: WarmupTrace, analysis: Node) -> Picture:
    """The running LLC above the draws of every chain.

    Args:
        trace: Arrays (chain, draw) of the sampling phase.
        warmup: The same of warm-up.
        analysis: The result's document.
    """
    run = Run.of(trace, warmup, analysis)
    with mpl.rc_context(STYLE), np.errstate(all="ignore"):
        figure = Picture(figsize=(8.4, 7.2))
        llc = with_error(analysis["llc"], analysis["llc_mcse"])
        figure.suptitle(
            f"{analysis['sampler']}:  {name_of(analysis)} = {llc}\n", x=0.012, ha="left", fontsize=11, color=INK
        )
        figure.text(0.012, 0.955, facts(run), fontsize=8, color=MUTED, va="center")
        if np.isfinite(run.x).any():
            for panel, draw in zip(figure.subfigures(2, 1), (draw_running, draw_trace), strict=True):
                draw(run, panel)
            legend(figure)
    return figure
