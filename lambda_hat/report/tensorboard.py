"""Runs as TensorBoard event files: the running LLC, the loss and the acceptance against draws."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lambda_hat.config.schema import ConfigError, Document
from lambda_hat.estimation.standard_error import running_interval
from lambda_hat.estimation.statistics import llc_draws
from lambda_hat.estimation.trace import averaged_loss
from lambda_hat.store import trace_file
from lambda_hat.store.files import explained
from lambda_hat.store.layout import RunRef, Store, read_status

# A curve of more points would only cost time.
_MOST_POINTS = 500
# How the names of TensorBoard's event files begin.
_EVENTS = "events.out.tfevents."


def write_events(store: Store, runs: Sequence[RunRef], logdir: Path) -> list[Path]:
    """Write a folder of events for each of ``runs`` that has a result, below ``logdir``.

    Args:
        store: Where the runs are.
        runs: Which.
        logdir: Where to; event files of the same runs are replaced, and nothing else there is touched.

    Returns:
        The folders.

    Raises:
        ConfigError: ``logdir`` is a folder of the store that holds something else than events.
    """
    written: list[Path] = []
    for ref in runs:
        _refuse_the_stores_own(store, logdir / ref.target_id / ref.run_id)
    for ref in runs:
        analysis = store.read_analysis(ref.target_id, ref.run_id)
        if analysis is not None:
            folder = logdir / ref.target_id / ref.run_id
            with explained("write events to", folder):
                _remove_events(folder)
                _write(folder, ref, analysis)
            written.append(folder)
    return written


def _refuse_the_stores_own(store: Store, folder: Path) -> None:
    """Links are followed, because events are written where they lead."""
    root, place = store.root.resolve(), folder.resolve()
    if place.is_relative_to(root) and not place.is_relative_to(root / "tensorboard"):
        raise ConfigError(
            [
                f"--logdir: needs a folder outside the store, or below {store.root / 'tensorboard'}, got one that "
                f"leads to {place}"
            ]
        )
    targets = (root / "targets").resolve()
    if place.is_relative_to(targets) or targets.is_relative_to(place):
        raise ConfigError([f"--logdir: needs a folder without runs of the store, got one that leads to {place}"])


def _remove_events(folder: Path) -> None:
    """Remove what an earlier call wrote there, because TensorBoard would show old events beside the new."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_EVENTS) and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)  # noqa: PTH108 - as os.scandir gives it


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
    quantity = analysis.get("quantity") or "llc"
    columns = {f"{quantity}/running": llc, f"{quantity}/mcse": mcse}
    columns |= {name: _stretches(trace[name], points) for name in ("loss", "acceptance")}
    for tag, values in columns.items():
        for point, value in zip(points, values, strict=True):
            if np.isfinite(value):
                yield tag, int(point), float(value)


def _stretches(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The mean over chains of the draws from one point to the next."""
    means = values[:, : points[-1]].mean(axis=0, dtype=np.float64)
    return np.add.reduceat(means, [0, *points[:-1]]) / np.diff(points, prepend=0)
