"""A sweep seen from outside: the state of each run, from the store first and from SLURM where the store does not say.

It works with or without a living driver.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lambda_hat.config.schema import Document
from lambda_hat.launch.condition import OVER, Condition
from lambda_hat.launch.manifest import SETTLED, Manifest, Submission, status_since_submission
from lambda_hat.launch.tracker import Tracker
from lambda_hat.run.progress import Reporter
from lambda_hat.store.layout import Store, StoreError, write_status
from lambda_hat.store.lease import Owner, is_held, newest_lease
from lambda_hat.store.runs import finished, read_frozen_config
from lambda_hat.store.sweeps import SweepRun

_SECONDS_BETWEEN_LOOKS = 2.0
_FIRST_PAUSE_S, _LAST_PAUSE_S = 5.0, 30.0  # between questions to SLURM
_TO_COME = Condition("queued", "its sweep is still being submitted")


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
        # Before anything is read: what they submit meanwhile is seen.
        missing = _TO_COME if self._is_in_other_hands() else None
        manifest = self.manifest()
        runs = manifest.runs
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
            if condition.state == "missing":
                condition = missing or condition._replace(reason=manifest.refused or condition.reason)
            job = tracker.job(entry.submission) if ask and entry.submission and condition.state != "unknown" else None
            states.append(RunState(run_id, runs[run_id], condition, entry.status, job))
        return states

    def _is_in_other_hands(self) -> bool:
        """Whether another living process submits this sweep, or runs it."""
        lease = newest_lease(self.directory)
        return lease is not None and lease.owner != Owner.current() and is_held(self.directory)

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
        while not (self.directory / "manifest.json").exists() and self._is_in_other_hands():
            time.sleep(_SECONDS_BETWEEN_LOOKS)  # whoever claimed it a moment ago has yet to write
        latest = {state.run_id: state for state in self.states(ask=False)}
        suspects: set[str] = set()
        told: set[str] = set()
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
                _tell(latest.values(), told, reporter)
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


def _tell(states: Iterable[RunState], told: set[str], reporter: Reporter) -> None:
    """Say once why runs wait that will never start."""
    for state in states:
        if state.condition.never_starts and state.condition.reason not in told:
            told.add(state.condition.reason)
            reporter.line(f"warning: {state.run_id} will never start: {state.condition.reason}")


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
