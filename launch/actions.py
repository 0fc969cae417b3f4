"""Actions on a submitted sweep: find its failures and logs, retry it, cancel it."""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lambda_hat.config.foreign_code import refuse_foreign_code
from lambda_hat.config.job import Job, parse_job
from lambda_hat.launch.backend import backend_from
from lambda_hat.launch.local.worker import element_log
from lambda_hat.launch.manifest import Submission
from lambda_hat.launch.plan import plan_jobs
from lambda_hat.launch.slurm import cluster
from lambda_hat.launch.slurm.logs import element_logs
from lambda_hat.launch.submit import submit
from lambda_hat.launch.sweep import OVER, RunState, Sweep
from lambda_hat.store.files import adopt_config
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
        is_bad = state.condition.state in (OVER - {"finished"}) | {"held"}
        if is_bad or state.condition.never_starts:
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
    job = manifest.arrays[place.array].job_id(place.index)
    logs = [] if job is None else element_logs(manifest.backend, sweep.directory, job)
    return logs[-1] if logs else None


def retry(sweep: Sweep, *, finished: bool = False, wait: bool = True, trust_code: bool = False) -> Sweep:
    """Resubmit the runs that failed, were cancelled, lost, stopped or never submitted, on the backend they had.

    Args:
        sweep: What to complete.
        finished: Repeat the finished runs too; their old files move to the store's .trash.
        wait: Return when all runs are over.
        trust_code: Run the modules that its configs name, though another user wrote these.

    Raises:
        ConfigError: another user's configs name modules of theirs.
        ClusterError: it was submitted to another cluster.
    """
    states = sweep.states()
    _refuse_elsewhere(sweep, states, "retry")
    sweep.record(states)
    again = [
        state for state in states if state.condition.state in OVER and (finished or state.condition.state != "finished")
    ]
    if not again:
        return sweep
    jobs = [_frozen(sweep.store, state, trust_code=trust_code) for state in again]
    if finished:
        for job in jobs:
            archive(sweep.store, job.target_id, job.run_id)
    plan = plan_jobs(jobs, sweep.store, sweep.name)
    return submit(plan, backend_from(sweep.manifest().backend), sweep.store, wait)


def _frozen(store: Store, state: RunState, *, trust_code: bool) -> Job:
    folder = store.run_dir(state.run.target, state.run_id)
    config = read_config(folder)
    if config is None:
        raise StoreError(f"cannot read {folder / 'config.yaml'}: it was never written; give the sweep's command again")
    if trust_code:  # its element, which asks whose it is, runs for this user
        adopt_config(folder)
    else:
        refuse_foreign_code(folder / "config.yaml", config, way_out="add --trust-code if you trust it")
    return dataclasses.replace(parse_job(config), rerun=False)


def _refuse_elsewhere(sweep: Sweep, states: Iterable[RunState], command: str) -> None:
    """Refuse if a run that is not finished was last submitted to another cluster, whose words are not known here.

    Raises:
        ClusterError: which one.
    """
    manifest = sweep.manifest()
    places = manifest.places()
    unfinished = [state.run_id for state in states if state.condition.state != "finished" and state.run_id in places]
    names = {manifest.arrays[places[run_id].array].cluster for run_id in unfinished} - {None}
    if not names:
        return
    here = cluster.cluster_name()
    for name in names - {here}:
        raise cluster.ClusterError(
            f"{command}: {sweep.name} was submitted to the cluster {name}, and this is {here}; give the command there"
        )


def cancel(sweep: Sweep) -> list[str]:
    """End the elements of this sweep only; returns the ids of the runs that this stopped.

    Their committed draws stay, and ``retry`` continues from there.

    Raises:
        ClusterError: it was submitted to another cluster.
    """
    live = [state for state in sweep.states() if state.condition.state not in OVER]
    _refuse_elsewhere(sweep, live, "cancel")
    _stop(sweep.directory)  # a driver that is still submitting
    manifest = sweep.manifest()
    for array in manifest.arrays:
        if array.is_slurm and array.job is None and array.name:
            array.job = cluster.job_named(array.name)
    jobs = manifest.jobs()
    ended = cluster.cancel(jobs) if jobs else []
    mine = [state for state in live if _is_of(sweep, state) and (state.job is None or state.job in ended)]
    for state in mine:
        folder = sweep.store.run_dir(state.run.target, state.run_id)
        if state.job is None:
            _stop(folder)
        if state.condition.state in ("queued", "held"):
            write_status(folder, state="cancelled", error="cancelled before it started", told_by="observer")
    return [state.run_id for state in mine]


def _is_of(sweep: Sweep, state: RunState) -> bool:
    """Whether a run was last submitted in this sweep; another one may have it in hand."""
    submission = Submission.read(sweep.store.run_dir(state.run.target, state.run_id))
    return submission is None or submission.sweep == sweep.name


def _stop(folder: Path) -> None:
    """Send SIGTERM to the process of this machine that works in ``folder``: a driver, or a local element."""
    pid = process_here(folder)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
