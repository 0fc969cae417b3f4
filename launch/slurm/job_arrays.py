"""Submits job arrays to SLURM: as large as it allows, each waiting for its own targets only."""

import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from submitit import AutoExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from lambda_hat.config.job import Job
from lambda_hat.config.schema import ConfigError
from lambda_hat.launch.backend import Backend
from lambda_hat.launch.element import Element
from lambda_hat.launch.manifest import SETTLED, Array, Kind, Manifest, Submission, status_since_submission
from lambda_hat.launch.plan import Plan
from lambda_hat.launch.slurm import cluster
from lambda_hat.launch.sweep import Tracker
from lambda_hat.run.progress import Reporter
from lambda_hat.store.layout import Store

_SECONDS_BETWEEN_TRIES = 5.0
# Each unbuilt target's runs get an array; beyond this many, targets share arrays, because sbatch is slow.
_MAX_GROUPS = 64


class _Group(NamedTuple):
    """Elements that may start once all of ``targets`` are built or have failed."""

    kind: Kind
    elements: deque[list[str]]
    targets: list[str]


class Submitter:
    """Submits the arrays of a sweep, and records them in its manifest.

    Args:
        manifest: The sweep's, whose lease the caller holds.
        backend: What each element asks for.
        store: Where it all lives.
        reporter: Gets progress and warnings.
    """

    def __init__(self, manifest: Manifest, backend: Backend, store: Store, reporter: Reporter):
        self._manifest, self._backend, self._store, self._reporter = manifest, backend, store, reporter
        self._limits = cluster.limits()

    def submit(self, plan: Plan, packs: list[list[Job]], *, wait: bool) -> None:
        """Submit what is missing of ``plan`` and not queued yet.

        If the submit limit has room for a part only, the rest follows as room appears (``wait``); without ``wait`` all
        is refused before anything is submitted.
        """
        self._recover()
        groups = self._groups(plan, packs)
        left = sum(len(group.elements) for group in groups)
        room = self._room()
        if left > room and not wait:
            raise ConfigError(
                [
                    f"wait: needs to be true, since {left} elements are to be submitted and SLURM takes {room} more of "
                    "yours now; or raise hydra.launcher.runs_per_element"
                ]
            )
        for group in groups:
            while group.elements:
                size = min(room, self._limits.array_size, len(group.elements))
                if size > 0 and self._send(group, size):
                    left, room = left - size, room - size
                else:
                    self._reporter.status(f"{left} elements wait for room under the submit limit")
                    time.sleep(_SECONDS_BETWEEN_TRIES)
                    room = self._room()

    def _recover(self) -> None:
        """Record the ids of arrays that a driver submitted just before it died."""
        for array in self._manifest.arrays:
            if array.job is None and array.is_slurm:
                array.job = cluster.job_named(array.name)
        self._manifest.save(self._store)

    def _room(self) -> int:
        return self._limits.jobs - cluster.queued_elements()

    def _groups(self, plan: Plan, packs: list[list[Job]]) -> list[_Group]:
        """Targets first, then runs whose target is built, then runs grouped by the targets they wait for."""
        queued = self._queued(plan)
        packs = [kept for pack in packs if (kept := [job for job in pack if job.run_id not in queued])]
        needed = {pack[0].target_id for pack in packs}
        unbuilt = [job.target_id for job in plan.unbuilt if job.target_id in needed]
        fresh = [target_id for target_id in unbuilt if target_id not in queued]
        groups = [
            _Group("targets", deque([target_id] for target_id in fresh), []),
            _Group("runs", _elements(packs, needed.difference(unbuilt)), []),
        ]
        share = -(-len(unbuilt) // _MAX_GROUPS)
        for start in range(0, len(unbuilt), share or 1):
            targets = unbuilt[start : start + share]
            groups.append(_Group("runs", _elements(packs, targets), targets))
        return groups

    def _queued(self, plan: Plan) -> set[str]:
        """Ids of runs and targets, missing in the store, that an element of any sweep is to make."""
        folders = {job.run_id: self._store.run_dir(job.target_id, job.run_id) for job in plan.missing}
        folders |= {job.target_id: self._store.target_dir(job.target_id) for job in plan.unbuilt}
        waiting: dict[Path, Submission] = {}
        for folder in folders.values():
            submission = Submission.read(folder)
            status = status_since_submission(folder, submission)
            if submission is not None and (status is None or status["state"] not in SETTLED):
                waiting[folder] = submission
        conditions = Tracker(self._store).conditions(waiting)
        unknown = [condition.reason for condition in conditions.values() if condition.state == "unknown"]
        if unknown:
            raise cluster.ClusterError(f"cannot tell which runs are queued already: {unknown[0]}")
        live = {folder for folder, condition in conditions.items() if condition.state in ("queued", "running", "held")}
        queued = {identifier for identifier, folder in folders.items() if folder in live}
        if queued:
            self._reporter.line(f"{len(queued)} are queued or running already and not submitted again")
        return queued

    def _send(self, group: _Group, size: int) -> bool:
        """Submit the next ``size`` elements of a group as one array; False if SLURM had no room."""
        after = self._dependencies(group.targets)
        elements = [group.elements.popleft() for _ in range(size)]
        array = Array(group.kind, elements, group.targets, is_slurm=True)
        number = self._manifest.enter(array, self._store)
        try:
            array.job = self._sbatch(array, number, after)
        except (FailedJobError, FailedSubmissionError) as error:
            # The array stays in the manifest without a job; its runs' folders point to it until they are resubmitted.
            if "SubmitJob" not in str(error) and "SubmitLimit" not in str(error):
                raise cluster.ClusterError(f"sbatch refused an array of {size}: {str(error).strip()}") from error
            group.elements.extendleft(reversed(elements))
            return False
        self._manifest.save(self._store)
        self._reporter.line(f"submitted array {array.job}: {size} elements ({group.kind})")
        return True

    def _dependencies(self, targets: Iterable[str]) -> list[str]:
        """Jobs that build those of ``targets`` that are neither built nor have failed."""
        places = self._manifest.places()
        tracker = Tracker(self._store)
        jobs: list[str | None] = []
        for target_id in targets:
            folder = self._store.target_dir(target_id)
            submission = Submission.read(folder)
            status = status_since_submission(folder, submission)
            if self._store.read_meta(target_id) is not None or (status and status["state"] in SETTLED):
                continue
            if target_id in places:
                place = places[target_id]
                jobs.append(self._manifest.arrays[place.array].job_id(place.index))
            elif submission is not None:  # queued by another sweep
                jobs.append(tracker.job(submission))
        return [job for job in jobs if job is not None]

    def _sbatch(self, array: Array, number: int, after: list[str]) -> str:
        folder = self._backend.folder(self._store.sweep_dir(self._manifest.name))
        executor = AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=self._backend.max_num_timeout)
        executor.update_parameters(**self._backend.submitit_parameters(), name=array.name)
        if after:
            executor.update_parameters(slurm_dependency="afterany:" + ":".join(after))
        sweep_dir = str(self._store.sweep_dir(self._manifest.name))
        elements = [Element(sweep_dir, number, index) for index in range(len(array.elements))]
        return executor.submit_array(elements)[0].job_id.partition("_")[0]


def _elements(packs: list[list[Job]], targets: Iterable[str]) -> deque[list[str]]:
    wanted = set(targets)
    return deque([job.run_id for job in pack] for pack in packs if pack[0].target_id in wanted)
