"""Runs as TensorBoard event files: the running LLC, the loss and the acceptance against draws."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lambda_hat.config.schema import Document
from lambda_hat.estimation.standard_error import running_interval
from lambda_hat.estimation.statistics import llc_draws
from lambda_hat.estimation.trace import averaged_loss
from lambda_hat.store import trace_file
from lambda_hat.store.layout import RunRef, Store, read_status

# A curve of more points would only cost time.
_MOST_POINTS = 500


def write_events(store: Store, runs: Sequence[RunRef], logdir: Path) -> list[Path]:
    """Write a folder of events for each of ``runs`` that has a result, below ``logdir``.

    Args:
        store: Where the runs are.
        runs: Which.
        logdir: Where to; folders of the same runs are replaced.

    Returns:
        The folders.
    """
    written: list[Path] = []
    for ref in runs:
        analysis = store.read_analysis(ref.target_id, ref.run_id)
        if analysis is not None:
            folder = logdir / ref.target_id / ref.run_id
            shutil.rmtree(folder, ignore_errors=True)  # TensorBoard would show old events beside the new
            _write(folder, ref, analysis)
            written.append(folder)
    return written


def _write(folder: Path, ref: RunRef, analysis: Document) -> None:
    from tensorboardX import SummaryWriter

    when = float((read_status(ref.folder) or {}).get("time") or 0.0)
    with SummaryWriter(str(folder)) as writer:
        for tag, draw, value in _curves(ref.folder, analysis):
            writer.add_scalar(tag, value, draw, walltime=when)
        verdict = analysis["verdict"]
        words = "reliable" if verdict["reliable"] else "unreliable:  \n" + "  \n".join(verdict["reasons"])
        writer.add_text("verdict", words, walltime=when)


def _curves(folder: Path, analysis: Document) -> Iterator[tuple[str, int, float]]:
    """(tag, number of draws, value): means over chains of all draws so far, and of the draws since the last point."""
    trace = trace_file.read_trace_file(folder / "trace.nc").trace
    num_draws = min(trace["loss"].shape[1], analysis["progress"]["draws"])
    points = np.unique(np.linspace(min(4, num_draws), num_draws, _MOST_POINTS).astype(int))
    points = points[points > 0]
    if not points.size:
        return
    x = llc_draws(averaged_loss(trace)[:, :num_draws], analysis["nbeta"], analysis["loss_at_w0"])
    found = analysis.get("llc_mcse")
    llc, mcse = running_interval(x, points, np.nan if found is None else found)
    columns = {"llc/running": llc, "llc/mcse": mcse}
    columns |= {name: _stretches(trace[name], points) for name in ("loss", "acceptance")}
    for tag, values in columns.items():
        for point, value in zip(points, values, strict=True):
            if np.isfinite(value):
                yield tag, int(point), float(value)


def _stretches(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The mean over chains of the draws from one point to the next."""
    means = values[:, : points[-1]].mean(axis=0, dtype=np.float64)
    return np.add.reduceat(means, [0, *points[:-1]]) / np.diff(points, prepend=0)
