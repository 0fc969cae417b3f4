"""Actions on a submitted sweep: find its failures and logs, retry it, cancel it."""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lambda_hat.config.job import Job, parse_job
from lambda_hat.launch.backend import backend_from
from lambda_hat.launch.local.worker import element_log
from lambda_hat.launch.manifest import Place
from lambda_hat.launch.plan import plan_jobs
from lambda_hat.launch.slurm import cluster
from lambda_hat.launch.submit import submit
from lambda_hat.launch.sweep import OVER, RunState, Sweep
from lambda_hat.store.layout import Store, StoreError, read_config, write_status
from lambda_hat.store.lease import process_here
from lambda_hat.store.runs import archive


class Failure(NamedTuple):
    """One cause, and all runs that it ended."""

    state: str
    reason: str
    runs: list[str]
    log: Path | None


def failures(sweep: Sweep, states: Sequence[RunState]) -> list[Failure]:
    """Every distinct bad end once, the most frequent first."""
    groups: dict[tuple[str, str], list[RunState]] = {}
    for state in states:
        if state.condition.state in OVER - {"finished"} or state.condition.state == "held":
            # One cause appears with different ids.
            reason = state.condition.reason.replace(state.run_id, "RUN").replace(state.job or "\0", "JOB")
            groups.setdefault((state.condition.state, reason), []).append(state)
    found = [
        Failure(kind, group[0].condition.reason, [state.run_id for state in group], log_of(sweep, group[0]))
        for (kind, _), group in groups.items()
    ]
    return sorted(found, key=lambda failure: -len(failure.runs))


def log_of(sweep: Sweep, state: RunState) -> Path | None:
    """The output of the element that last ran it; None while there is none."""
    manifest = sweep.manifest()
    place = manifest.places().get(state.run_id)
    if place is None:
        return None
    if not manifest.arrays[place.array].is_slurm:
        path = element_log(sweep.directory, place)
        return path if path.exists() else None
    return _slurm_log(sweep, place)


def _slurm_log(sweep: Sweep, place: Place) -> Path | None:
    manifest = sweep.manifest()
    job = manifest.arrays[place.array].job_id(place.index)
    folder = backend_from(manifest.backend).folder(sweep.directory)
    paths = [] if job is None else sorted(Path(str(folder).replace("%j", job)).glob(f"{job}_*_log.*"))
    written = [path for path in paths if path.stat().st_size]
    return max(written, key=lambda path: path.stat().st_mtime) if written else None


def retry(sweep: Sweep, *, finished: bool = False, wait: bool = True) -> Sweep:
    """Resubmit the runs that failed, were cancelled, lost, stopped or never submitted, on the backend they had.

    Args:
        sweep: What to complete.
        finished: Repeat the finished runs too; their old files move to the store's .trash.
        wait: Return when all runs are over.
    """
    states = sweep.states()
    sweep.record(states)
    again = [
        state for state in states if state.condition.state in OVER and (finished or state.condition.state != "finished")
    ]
    if not again:
        return sweep
    jobs = [_frozen(sweep.store, state) for state in again]
    if finished:
        for job in jobs:
            archive(sweep.store, job.target_id, job.run_id)
    plan = plan_jobs(jobs, sweep.store, sweep.name)
    return submit(plan, backend_from(sweep.manifest().backend), sweep.store, wait)


def _frozen(store: Store, state: RunState) -> Job:
    folder = store.run_dir(state.run.target, state.run_id)
    config = read_config(folder)
    if config is None:
        raise StoreError(f"cannot read {folder / 'config.yaml'}: it was never written; give the sweep's command again")
    return dataclasses.replace(parse_job(config), rerun=False)


def cancel(sweep: Sweep) -> list[str]:
    """End the elements of this sweep only; returns the ids of the runs that this stopped.

    Their committed draws stay, and ``retry`` continues from there.
    """
    manifest = sweep.manifest()
    live = [state for state in sweep.states() if state.condition.state not in OVER]
    jobs = [array.job for array in manifest.arrays if array.job is not None]
    mine = {
        array.job_id(index)
        for array in manifest.arrays
        if array.is_slurm and array.job is not None
        for index in range(len(array.elements))
    }
    cluster.cancel(job for job, state in cluster.job_states(jobs).items() if state.is_live and job in mine)
    _stop_processes(sweep, live)
    for state in live:
        if state.condition.state in ("queued", "held") and (state.job is None or state.job in mine):
            folder = sweep.store.run_dir(state.run.target, state.run_id)
            write_status(folder, state="cancelled", error="cancelled before it started", told_by="observer")
    return [state.run_id for state in live]


def _stop_processes(sweep: Sweep, live: Iterable[RunState]) -> None:
    """Send SIGTERM to this sweep's driver and local elements on this machine."""
    local = [state for state in live if state.job is None]
    folders = [sweep.directory, *(sweep.store.run_dir(state.run.target, state.run_id) for state in local)]
    for folder in folders:
        pid = process_here(folder)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
