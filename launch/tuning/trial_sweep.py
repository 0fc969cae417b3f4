"""The sweep in which the trials of one driver run, on SLURM or in a pool here; runs are added as others end.

It submits like :mod:`lambda_hat.launch.submit`, with two differences: it never waits, and it keeps the sweep's lease
(and on the local backend the pool) for as long as the driver lives.
"""

import contextlib
import itertools
import os
import signal
from collections.abc import Iterable, Sequence
from typing import Self

from lambda_hat.config.job import Job
from lambda_hat.launch.backend import Backend
from lambda_hat.launch.local.pool import Pool, in_order
from lambda_hat.launch.manifest import Manifest, Submission
from lambda_hat.launch.plan import Plan, plan_jobs
from lambda_hat.launch.slurm import cluster
from lambda_hat.launch.submit import enter_here, freeze, manifest_of, pack
from lambda_hat.launch.sweep import Condition, RunState, Sweep
from lambda_hat.launch.tracker import Tracker
from lambda_hat.run.progress import Reporter
from lambda_hat.store.layout import Store
from lambda_hat.store.lease import Lease, LeaseHeld, Owner, is_held, process_here

_MAX_DRIVERS = 100


class TrialSweep:
    """A sweep that this driver holds. Use it as a context manager.

    Args:
        store: The store.
        backend: The backend of its runs.
        name: The sweep's name; if another driver holds that sweep, a number is added.
        reporter: Gets progress and warnings.
    """

    def __init__(self, store: Store, backend: Backend, name: str, reporter: Reporter):
        self._store, self._backend, self._reporter = Store(store.root.absolute()), backend, reporter
        self.name, self._lease = _claim(self._store, name)
        self._pool: Pool | None = None
        self._has_sent = False
        self._contexts = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as contexts:
            contexts.enter_context(self._lease)
            if self._backend.kind == "local":
                empty = Manifest(self.name, self.name, {})
                self._pool = Pool(empty, self._store, self._backend, [], self._reporter)
                contexts.enter_context(self._pool.listening())
            self._contexts = contexts.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if self._pool is not None and self._pool.stopped_by is not None:
                self._pool.drain()
        finally:
            self._contexts.close()

    @property
    def is_stopped(self) -> bool:
        """Whether a signal asked this driver to stop; on SLURM KeyboardInterrupt is raised instead."""
        return self._pool is not None and self._pool.stopped_by is not None

    def step(self) -> None:
        """Start the elements that can start now. Call it often."""
        if self._pool is not None:
            self._pool.step(start=True)

    def send(self, jobs: Sequence[Job]) -> None:
        """Submit the ``jobs`` that are missing and neither queued nor running, as one array of each kind.

        Raises:
            ClusterError: SLURM refused the first submission; later ones are tried again.
        """
        plan = plan_jobs(_longest(jobs), self._store, self.name)
        manifest = manifest_of(plan, self._backend, self._store)
        if self._pool is None:
            self._submit(plan, manifest)
            return
        self._pool.manifest = manifest
        # Elements that a killed driver left running continue by themselves.
        idle = [job for job in plan.missing if not is_held(self._store.run_dir(job.target_id, job.run_id))]
        if idle:
            plan = plan_jobs(idle, self._store, self.name)
            freeze(plan, self._store)
            packs = pack(plan.missing, self._backend.runs_per_element)
            self._pool.add(in_order(manifest, *enter_here(manifest, plan, packs, self._store)))
            self.step()

    def _submit(self, plan: Plan, manifest: Manifest) -> None:
        from lambda_hat.launch.slurm.job_arrays import (
            Submitter,  # submitit, which takes 0.15 s and a local session spares
        )

        try:
            room = cluster.limits().jobs - cluster.queued_elements() - len(plan.unbuilt)
            if room < len(plan.missing):
                self._reporter.line(f"SLURM takes {max(room, 0)} more elements now, the other runs are sent later")
                if room <= 0:
                    return
                plan = plan_jobs(plan.missing[:room], self._store, self.name)
            freeze(plan, self._store)
            packs = pack(plan.missing, self._backend.runs_per_element)
            Submitter(manifest, self._backend, self._store, self._reporter).submit(plan, packs, wait=False)
            self._has_sent = True
        except cluster.ClusterError as error:
            if not self._has_sent:
                raise
            self._reporter.line(f"not submitted yet: {str(error).splitlines()[0]}")

    def look(self, jobs: Iterable[Job], *, ask: bool = True) -> dict[str, RunState]:
        """The states of submitted runs; without ``ask``, as far as the store alone shows them."""
        folders = {job.run_id: self._store.run_dir(job.target_id, job.run_id) for job in jobs}
        if not folders:
            return {}
        states = {state.run_id: state for state in Sweep(self._store, self.name).states(folders, ask=ask)}
        if self._pool is not None:
            mine = self._in_pool()
            for run_id, state in states.items():
                if (
                    state.condition.state in ("queued", "running", "unknown")
                    and run_id not in mine
                    and not is_held(folders[run_id])
                ):
                    states[run_id] = state._replace(condition=Condition("lost", "its process ended without a word"))
        return states

    def _in_pool(self) -> set[str]:
        assert self._pool is not None
        arrays = self._pool.manifest.arrays
        return {identifier for array, index in self._pool.unended() for identifier in arrays[array].elements[index]}

    def end(self, job: Job) -> None:
        """Stop a run, unless its element has others to make. Its committed draws stay."""
        folder = self._store.run_dir(job.target_id, job.run_id)
        submission = Submission.read(folder)
        if submission is None:
            return
        manifest = Manifest.load(self._store.sweep_dir(submission.sweep))
        array = manifest.arrays[submission.array]
        if len(array.elements[submission.index]) > 1:
            return
        if array.is_slurm:
            element = Tracker(self._store).job(submission)
            if element is not None:
                cluster.cancel({element.partition("_")[0]: array.name}, element)
            return
        if self._pool is not None and submission.sweep == self.name:
            for place in self._pool.unended():
                if place == (submission.array, submission.index):
                    self._pool.end(place)
        pid = process_here(folder)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def ended(self, jobs: Iterable[Job]) -> set[str]:
        """Ids of those runs whose elements have ended, with or without a result."""
        jobs = list(jobs)
        if self._pool is not None:
            mine = self._in_pool()
            return {
                job.run_id
                for job in jobs
                if job.run_id not in mine and not is_held(self._store.run_dir(job.target_id, job.run_id))
            }
        tracker = Tracker(self._store)
        elements: dict[str, str | None] = {}
        arrays: dict[str, str] = {}
        try:
            for job in jobs:
                submission = Submission.read(self._store.run_dir(job.target_id, job.run_id))
                elements[job.run_id] = None if submission is None else tracker.job(submission)
                arrays |= {} if submission is None else tracker.names(submission)
            states = cluster.job_states(arrays)
        except cluster.ClusterError:
            return set()
        return {
            run_id
            for run_id, element in elements.items()
            if element is None or element not in states or not states[element].is_live
        }


def _claim(store: Store, name: str) -> tuple[str, Lease]:
    """The first sweep of that name, or of one with a number, that no living driver holds."""
    for number in itertools.count(1):
        candidate = name if number == 1 else f"{name}-{number}"
        try:
            return candidate, Lease.claim(store.sweep_dir(candidate), Owner.current())
        except LeaseHeld:
            if number == _MAX_DRIVERS:
                raise
    raise AssertionError


def _longest(jobs: Iterable[Job]) -> list[Job]:
    """One job a run: of the trials that share it, the longest."""
    longest: dict[str, Job] = {}
    for job in jobs:
        known = longest.get(job.run_id)
        if known is None or (job.budget.draws or float("inf")) > (known.budget.draws or float("inf")):
            longest[job.run_id] = job
    return list(longest.values())
