"""A sweep seen from outside: the state of each run, from the store first and from SLURM where the store does not say.

It works with or without a living driver.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from lambda_hat.config.schema import Document
from lambda_hat.launch.manifest import SETTLED, Array, Manifest, Submission, status_since_submission
from lambda_hat.launch.slurm import cluster
from lambda_hat.run.progress import Reporter
from lambda_hat.store.layout import Store, StoreError, write_status
from lambda_hat.store.lease import is_held
from lambda_hat.store.runs import finished, read_frozen_config
from lambda_hat.store.sweeps import SweepRun

State = Literal[
    "queued", "running", "held", "unknown",
    "finished", "failed", "cancelled", "lost", "interrupted", "missing",
]  # fmt: skip
OVER = frozenset({"finished", "failed", "cancelled", "lost", "interrupted", "missing"})
_SECONDS_BETWEEN_LOOKS = 2.0
_FIRST_PAUSE_S, _LAST_PAUSE_S = 5.0, 30.0  # between questions to SLURM
_NOT_STARTED = ("JobLaunchFailure", "0:53")  # in squeue's words and in sacct's


class Condition(NamedTuple):
    """The state of something that was submitted, and the reason in a few words."""

    state: State
    reason: str = ""


class RunState(NamedTuple):
    """One line of the status table."""

    run_id: str
    run: SweepRun
    condition: Condition
    status: Document
    job: str | None

    def to_dict(self) -> Document:
        return {
            "run": self.run_id, **self.run._asdict(), **self.condition._asdict(), "job": self.job,
            **{name: self.status.get(name) for name in ("phase", "step", "llc", "attempt", "host", "error")},
        }  # fmt: skip


class Tracker:
    """Finds out where submitted runs and targets are now, whatever sweep and backend they belong to."""

    def __init__(self, store: Store):
        self._store = store
        self._manifests: dict[str, Manifest] = {}

    def job(self, submission: Submission) -> str | None:
        """SLURM's id of the element; None on the local backend, and if it was never submitted."""
        array = self._array(submission)
        if array.job is None and array.is_slurm:
            # The driver died between sbatch and noting the id; the name is unique.
            array.job = cluster.job_named(array.name)
        return array.job_id(submission.index)

    def conditions(self, submissions: Mapping[Path, Submission]) -> dict[Path, Condition]:
        """The condition of each folder's last submission; for folders whose own status does not settle it."""
        try:
            jobs = {folder: self.job(submission) for folder, submission in submissions.items()}
            states = cluster.job_states(job.partition("_")[0] for job in jobs.values() if job is not None)
        except cluster.ClusterError as error:
            return {folder: Condition("unknown", str(error)) for folder in submissions}
        conditions: dict[Path, Condition] = {}
        for folder, submission in submissions.items():
            job = jobs[folder]
            if not self._array(submission).is_slurm:
                conditions[folder] = self._here(folder, submission)
            elif job is None:
                conditions[folder] = Condition("missing", "it never reached SLURM")
            else:
                conditions[folder] = _on_slurm(job, states.get(job), status_since_submission(folder, submission))
        return conditions

    def _here(self, folder: Path, submission: Submission) -> Condition:
        """On the local backend leases show which processes live: the run's own, and the driver's."""
        if is_held(folder):
            return Condition("running")
        status = status_since_submission(folder, submission)
        if status is not None and status["state"] == "interrupted":
            return Condition("interrupted", str(status.get("error")))
        if is_held(self._store.sweep_dir(submission.sweep)):
            return Condition("queued" if status is None else "running")
        if status is None:
            return Condition("lost", "its driver ended before it was started")
        return Condition("lost", "its process ended without a word: killed, or the machine went down")

    def _array(self, submission: Submission) -> Array:
        if submission.sweep not in self._manifests:
            self._manifests[submission.sweep] = Manifest.load(self._store.sweep_dir(submission.sweep))
        return self._manifests[submission.sweep].arrays[submission.array]


def _on_slurm(job: str, found: cluster.JobState | None, status: Document | None) -> Condition:
    if found is None:
        return Condition("lost", f"SLURM has forgotten job {job}, which left no result")
    if found.is_held:
        return Condition("held", f"needs release: scontrol release {job} ({found.reason})")
    if found.is_live:
        if found.state == "PENDING":
            again = "" if status is None else "starts again: "
            return Condition("queued", again + found.reason)
        return Condition("running", "" if found.state == "RUNNING" else found.state)
    if found.state == "CANCELLED":
        return Condition("cancelled", f"SLURM job {job} was cancelled")
    if found.state == "COMPLETED":
        return Condition("lost", f"SLURM says COMPLETED of job {job}, which left no result")
    if found.word:
        return Condition("failed", found.word)
    if found.reason in _NOT_STARTED:
        return Condition(
            "failed",
            f"SLURM could not start job {job} ({found.reason}), most often since its log cannot be written: is the "
            "store full, or read-only?",
        )
    return Condition(
        "failed", f"SLURM says {found.state} ({found.reason}) of job {job}: killed before it could say why"
    )


@dataclass(frozen=True)
class Sweep:
    """A submitted sweep.

    Args:
        store: Where it lives.
        name: Its name.
    """

    store: Store
    name: str

    @property
    def directory(self) -> Path:
        return self.store.sweep_dir(self.name)

    def manifest(self) -> Manifest:
        return Manifest.load(self.directory)

    def states(self, only: Iterable[str] | None = None, *, ask: bool = True) -> list[RunState]:
        """The state of every run, or of those whose ids are given.

        Without ``ask``, neither SLURM nor local processes are asked, and what the store does not say is unknown.
        """
        runs = self.manifest().runs
        wanted = list(runs) if only is None else list(only)
        entries = {run_id: _Entry.read(self.store.run_dir(runs[run_id].target, run_id)) for run_id in wanted}
        silent = {
            entry.folder: entry.submission for entry in entries.values() if entry.submission and not entry.condition
        }
        tracker = Tracker(self.store)
        conditions = tracker.conditions(silent) if ask else dict.fromkeys(silent, Condition("unknown"))
        states: list[RunState] = []
        for run_id, entry in entries.items():
            condition = entry.condition or self._checked(conditions[entry.folder], entry.folder)
            job = tracker.job(entry.submission) if ask and entry.submission and condition.state != "unknown" else None
            states.append(RunState(run_id, runs[run_id], condition, entry.status, job))
        return states

    def _checked(self, condition: Condition, folder: Path) -> Condition:
        """A process may be killed between its last two writes, so the result counts, not the status."""
        if condition.state in OVER:
            try:
                frozen = read_frozen_config(folder)
                if frozen is not None and finished(self.store, *frozen.ref[:2], frozen.budget) is not None:
                    return Condition("finished")
            except StoreError as error:  # one damaged run must not hide the others
                return Condition(condition.state, f"{condition.reason}; {error}" if condition.reason else str(error))
        return condition

    def wait(self, reporter: Reporter | None = None) -> list[RunState]:
        """Return when every run is over, whatever its end."""
        latest = {state.run_id: state for state in self.states(ask=False)}
        suspects: set[str] = set()
        pause, next_question = _FIRST_PAUSE_S, 0.0
        while waiting := [run_id for run_id, state in latest.items() if state.condition.state not in OVER]:
            ask = time.monotonic() >= next_question
            if ask:
                next_question, pause = time.monotonic() + pause, min(1.2 * pause, _LAST_PAUSE_S)
            for state in self.states(waiting, ask=ask):
                if not ask and state.condition.state == "unknown":
                    continue
                is_certain = state.status.get("state") in SETTLED or state.condition.state not in OVER
                # On a shared filesystem files may arrive after SLURM's answer, so a bad end is looked at twice.
                if is_certain or state.run_id in suspects:
                    latest[state.run_id] = state
                    suspects.discard(state.run_id)
                else:
                    suspects.add(state.run_id)
                    pause, next_question = _FIRST_PAUSE_S, min(next_question, time.monotonic() + _FIRST_PAUSE_S)
            if reporter is not None:
                reporter.status(f"{self.name}: {summary(latest.values())}")
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        with contextlib.suppress(StoreError):  # a full or read-only store must not hide the result from whoever waited
            self.record(latest.values())
        return list(latest.values())

    def record(self, states: Iterable[RunState]) -> None:
        """Write down the bad ends that no owner could record: SLURM forgets them after a few minutes."""
        for state in states:
            if (
                state.condition.state in ("failed", "cancelled", "lost")
                and state.status.get("state") != state.condition.state
            ):
                folder = self.store.run_dir(state.run.target, state.run_id)
                write_status(
                    folder, state=state.condition.state, error=state.condition.reason, job=state.job, told_by="observer"
                )


class _Entry(NamedTuple):
    """What the store alone says of a run; ``condition`` is None if that is not enough."""

    folder: Path
    submission: Submission | None
    status: Document
    condition: Condition | None

    @classmethod
    def read(cls, folder: Path) -> "_Entry":
        submission = Submission.read(folder)
        status = status_since_submission(folder, submission) or {}
        condition: Condition | None = None
        if status.get("state") in (*SETTLED, "lost"):
            condition = Condition(status["state"], str(status.get("error") or ""))
        elif submission is None:
            condition = Condition("finished" if (folder / "analysis.json").exists() else "missing")
        return cls(folder, submission, status, condition)


def summary(states: Iterable[RunState]) -> str:
    """``12 finished, 1 failed, 3 running``."""
    counts = Counter(state.condition.state for state in states)
    return ", ".join(f"{count} {state}" for state, count in counts.most_common())


def under_way(store: Store, folders: Sequence[Path]) -> dict[Path, str]:
    """Which ``folders`` (of runs, of targets) are still to be worked on, and what is known of each.

    Their element is queued, running, held or unknown. `gc` keeps them.
    """
    waiting: dict[Path, Submission] = {}
    for folder in folders:
        submission = Submission.read(folder)
        status = status_since_submission(folder, submission)
        is_settled = status is not None and status["state"] in SETTLED
        if submission is not None and not is_settled and (store.sweep_dir(submission.sweep) / "manifest.json").exists():
            waiting[folder] = submission
    conditions = Tracker(store).conditions(waiting)
    busy = ("queued", "running", "held", "unknown")
    return {
        folder: f"{condition.state} {condition.reason}".strip()
        for folder, condition in conditions.items()
        if condition.state in busy
    }
