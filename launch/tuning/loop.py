"""The driver's loop: check the runs, tell ended trials, prune, refill and submit, until every study is full.

A crash loses nothing: a trial's state is in the database, its run's state in the store, and its submission in the
run's folder and the sweep's manifest.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lambda_hat.config.job import Job
from lambda_hat.config.schema import Document
from lambda_hat.launch.sweep import OVER, RunState
from lambda_hat.launch.tuning.measure import Measured, Valued, measured, rung_reached, rungs
from lambda_hat.launch.tuning.problems import Case
from lambda_hat.launch.tuning.progress import progress_line
from lambda_hat.launch.tuning.record import (
    Reference,
    metrics_of,
    trial_folder,
    write_exact,
    write_metrics,
    write_reference,
)
from lambda_hat.launch.tuning.schema import Tuning
from lambda_hat.launch.tuning.study import Study
from lambda_hat.launch.tuning.trial import LiveTrial
from lambda_hat.run.progress import Reporter
from lambda_hat.store.layout import Store
from lambda_hat.store.runs import finished

_SECONDS_BETWEEN_STEPS = 0.1
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_QUESTIONS = 5.0  # to SLURM
_SECONDS_BETWEEN_ROUNDS = 10.0  # for trials that other drivers left behind


class Runs(Protocol):
    """Where runs are made: :class:`lambda_hat.launch.tuning.trial_sweep.TrialSweep`."""

    @property
    def is_stopped(self) -> bool: ...
    def step(self) -> None: ...
    def send(self, jobs: Sequence[Job]) -> None: ...
    def look(self, jobs: Iterable[Job], *, ask: bool = True) -> dict[str, RunState]: ...
    def end(self, job: Job) -> None: ...
    def ended(self, jobs: Iterable[Job]) -> set[str]: ...


@dataclass
class TunedProblem:
    """A problem that is being tuned.

    Args:
        case: The problem.
        folder: The folder of its ref.json and its trials.
        studies: One for each method.
        reference: The value that trials are compared with; None until its run has ended.
        failure: Why there is no reference.
        retries: How often the reference's process was killed.
    """

    case: Case
    folder: Path
    studies: list[Study]
    reference: Reference | None = None
    failure: str | None = None
    retries: int = 0


@dataclass
class Tuner:
    """One driver.

    Args:
        tuning: The configuration.
        store: The store of runs and studies.
        problems: The problems.
        runs: Where runs are made.
        reporter: Gets progress and warnings.
    """

    tuning: Tuning
    store: Store
    problems: list[TunedProblem]
    runs: Runs
    reporter: Reporter
    _unsent: dict[str, Job] = field(default_factory=dict)
    _suspects: set[str] = field(default_factory=set)
    _leaving: dict[str, dict[str, Job]] = field(default_factory=dict)
    _next_question: float = 0.0
    _next_round: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        """Return when every study is full or a signal asks to stop."""
        for tuned in self.problems:
            self._queue(tuned.case.reference)
        while not self.runs.is_stopped and not self._turn():
            until = time.monotonic() + _SECONDS_BETWEEN_LOOKS
            while time.monotonic() < until and not self.runs.is_stopped:
                self.runs.step()
                time.sleep(_SECONDS_BETWEEN_STEPS)

    def _turn(self) -> bool:
        """One round; whether all is done."""
        self._send()
        ask = time.monotonic() >= self._next_question
        if ask:
            self._next_question = time.monotonic() + _SECONDS_BETWEEN_QUESTIONS
        states = self.runs.look(self._in_flight(), ask=ask)
        for tuned in self.problems:
            if tuned.reference is None and tuned.failure is None:
                self._settle_reference(tuned, states.get(tuned.case.reference.run_id))
            if tuned.reference is not None:
                for study in tuned.studies:
                    self._advance(tuned, study, states, ask=ask)
        self._send()
        to_be_made = [tuned.reference is None and tuned.failure is None for tuned in self.problems]
        self.reporter.status(progress_line(to_be_made, self._studies(), self.tuning.optuna.max_trials_per_method))
        return all(tuned.failure is not None or self._is_full(tuned) for tuned in self.problems)

    def _studies(self) -> list[Study]:
        return [study for tuned in self.problems for study in tuned.studies]

    def _in_flight(self) -> list[Job]:
        references = [tuned.case.reference for tuned in self.problems if tuned.reference is None and not tuned.failure]
        return [*references, *(live.job for study in self._studies() for live in study.live)]

    def _is_full(self, tuned: TunedProblem) -> bool:
        return tuned.reference is not None and all(not study.live and study.is_done() for study in tuned.studies)

    def _queue(self, job: Job) -> None:
        known = self._unsent.get(job.run_id)
        if known is None or (job.budget.draws or 0) > (known.budget.draws or 0):
            self._unsent[job.run_id] = job

    def _send(self) -> None:
        """Submit everything that waits, as one batch."""
        if self._unsent:
            jobs = list(self._unsent.values())
            self.runs.send(jobs)
            self._unsent.clear()

    def _settle_reference(self, tuned: TunedProblem, state: RunState | None) -> None:
        job = tuned.case.reference
        if tuned.case.is_exact and (meta := self.store.read_meta(job.target_id)) is not None:
            self._know(tuned, meta)
        elif finished(self.store, job.target_id, job.run_id, job.budget) is not None:
            analysis = self.store.read_analysis(job.target_id, job.run_id) or {}
            tuned.reference = write_reference(tuned.folder, analysis)
            if tuned.reference is None:
                tuned.failure = f"its reference {job.run_id} has no finite LLC"
        elif state is not None and self._is_over(state):
            if _is_unbegun(state):
                self._queue(job)
            elif "traceback" not in state.status and tuned.retries < self.tuning.execution.max_retries:
                tuned.retries += 1
                self._queue(job)
            else:
                tuned.failure = f"its reference {job.run_id} {state.condition.state}: {state.condition.reason}"
        if tuned.reference is not None:
            for study in tuned.studies:
                study.open()
        if tuned.failure is not None:
            self.reporter.line(f"{tuned.case.title}: {tuned.failure}")

    def _know(self, tuned: TunedProblem, meta: Document) -> None:
        """Compare with the value that the model knows of its target, which ``meta`` describes."""
        job = tuned.case.reference
        nbeta, gamma = job.posterior.resolve_nbeta(meta["num_data"]), job.posterior.gamma
        value = job.exact_llc(nbeta, gamma, meta["report"])
        if value is None:
            tuned.failure = (
                f"execution.reference: exact needs a model that knows its LLC at nbeta = {nbeta:.6g} and gamma = "
                f"{gamma:g}, and this one does not; name a sampler, such as reference or hmc"
            )
        else:
            tuned.reference = write_exact(tuned.folder, job.target_id, value)

    def _advance(self, tuned: TunedProblem, study: Study, states: dict[str, RunState], *, ask: bool) -> None:
        """One study: tell, prune, refill."""
        study.beat()
        for live in list(study.live):
            self._settle(tuned, study, live, states.get(live.job.run_id))
        leaving = self._leaving.setdefault(study.name, {})
        if leaving and ask:
            for run_id in self.runs.ended(leaving.values()):
                del leaving[run_id]
        in_flight = len(study.live) + len(leaving.keys() - {live.job.run_id for live in study.live})
        room = self.tuning.optuna.concurrency.batch_size - in_flight
        # Deserted trials are taken over when there is room for them, and now and then in any case.
        if room > 0 or time.monotonic() >= self._next_round.get(study.name, 0.0):
            self._next_round[study.name] = time.monotonic() + _SECONDS_BETWEEN_ROUNDS
            for live in study.refill(room):
                self._queue(live.job)

    def _settle(self, tuned: TunedProblem, study: Study, live: LiveTrial, state: RunState | None) -> None:
        """Tell a trial that has ended, or judge it while it runs."""
        if live.is_pruned:
            self._leave_pruned(tuned, study, live, state)
        elif finished(self.store, live.job.target_id, live.job.run_id, live.job.budget) is not None:
            self._complete(tuned, study, live)
        elif state is None or not self._is_over(state):
            if state is not None:
                self._judge(tuned, study, live, state)
        elif state.status.get("error_type") == "NonFinite":
            live.failure = f"diverged: {_first_line(state)}"
            self._tell(tuned, study, live, "COMPLETE", None)
        elif state.condition.state == "finished" or _is_unbegun(state):
            self._queue(live.job)  # a longer trial of a run that is done, or one that was stopped on the way
        elif "traceback" in state.status or live.retries >= self.tuning.execution.max_retries:
            live.failure = f"{state.condition.state}: {_first_line(state)}"
            self.reporter.line(f"{_name(tuned, study, live)} {live.failure}")
            self._tell(tuned, study, live, "FAIL", None)
        else:
            live.failure = f"{state.condition.state}: {_first_line(state)}"
            self.reporter.line(f"{_name(tuned, study, live)} is tried again: {_first_line(state)}")
            metrics = self._record(tuned, study, live, "FAIL", None)
            study.retry(live, metrics)

    def _is_over(self, state: RunState) -> bool:
        """Whether a run has ended. On a shared filesystem files may come later than SLURM's news: a bad end of which
        the run itself does not tell is looked at twice."""
        if state.condition.state not in OVER:
            if state.condition.state != "unknown":  # SLURM was not asked this time
                self._suspects.discard(state.run_id)
            return False
        if state.status.get("ended") is not None or state.run_id in self._suspects:
            self._suspects.discard(state.run_id)
            return True
        self._suspects.add(state.run_id)
        return False

    def _complete(self, tuned: TunedProblem, study: Study, live: LiveTrial) -> None:
        job = live.job
        folder = self.store.run_dir(job.target_id, job.run_id)
        analysis = self.store.read_analysis(job.target_id, job.run_id) or {}
        found = measured(analysis, folder, job.budget)
        if self.tuning.optuna.pruner.type != "none":
            live.rungs |= rungs(analysis, folder, job.budget, self._valued(tuned))
        self._tell(tuned, study, live, "COMPLETE", found)
        self._leaving.setdefault(study.name, {})[job.run_id] = job

    def _tell(self, tuned: TunedProblem, study: Study, live: LiveTrial, state: str, found: Measured | None) -> None:
        metrics = self._record(tuned, study, live, state, found)
        study.tell(live, state, metrics["value"], metrics)

    def _record(
        self, tuned: TunedProblem, study: Study, live: LiveTrial, state: str, found: Measured | None
    ) -> Document:
        """Write the metrics.json of a trial that is about to end."""
        assert tuned.reference is not None
        value = None
        if state == "COMPLETE":
            value = self._valued(tuned).of(*((None, None) if found is None else (found.llc, found.mcse)))
        elif state == "PRUNED":
            value = live.rungs[max(live.rungs)]
        metrics = metrics_of(live, state, value, found, tuned.reference)
        write_metrics(trial_folder(tuned.folder / study.method.name, live.number), metrics)
        return metrics

    def _valued(self, tuned: TunedProblem) -> Valued:
        assert tuned.reference is not None
        return Valued(self.tuning.optuna.objective, tuned.reference.llc)

    def _judge(self, tuned: TunedProblem, study: Study, live: LiveTrial, state: RunState) -> None:
        """Report a trial under way at equal cost with the others, and prune it if it is worse than most."""
        step = rung_reached(live.job.budget, state.status)
        if self.tuning.optuna.pruner.type == "none" or step is None or step in live.rungs:
            return
        value = self._valued(tuned).of(state.status.get("llc"), state.status.get("llc_mcse"))
        if study.report(live, step, value):
            study.drop(live)
            self._leave_pruned(tuned, study, live, state)

    def _leave_pruned(self, tuned: TunedProblem, study: Study, live: LiveTrial, state: RunState | None) -> None:
        """End the element of a pruned trial, and tell the trial once it is gone: until then it is in flight."""
        others = [other for other in study.live if other is not live and other.job.run_id == live.job.run_id]
        if not others and not (state is not None and state.condition.state in OVER):
            self.runs.end(live.job)
            if live.job.run_id not in self.runs.ended([live.job]):
                return
        self._tell(tuned, study, live, "PRUNED", None)


def _name(tuned: TunedProblem, study: Study, live: LiveTrial) -> str:
    return f"{tuned.case.title}: {study.method.name} trial {live.number}"


def _is_unbegun(state: RunState) -> bool:
    """Whether a run was not killed but stopped, or never started: it is simply submitted again."""
    return state.condition.state in ("missing", "interrupted") or (state.condition.state == "lost" and not state.status)


def _first_line(state: RunState) -> str:
    return next(iter(state.condition.reason.strip().splitlines()), "no word why")
