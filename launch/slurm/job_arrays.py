"""Submits job arrays to SLURM: as large as it allows, each waiting for its own targets only."""

import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lambda_hat.config.job import Job
from lambda_hat.config.schema import ConfigError
from lambda_hat.launch.backend import Backend
from lambda_hat.launch.condition import Condition
from lambda_hat.launch.manifest import SETTLED, Array, Kind, Manifest, Submission, status_since_submission
from lambda_hat.launch.plan import Plan
from lambda_hat.launch.slurm import cluster, refusal
from lambda_hat.launch.slurm.sbatch import Refused, Sender
from lambda_hat.launch.tracker import Tracker
from lambda_hat.run.progress import Reporter
from lambda_hat.store.layout import Store

_SECONDS_BETWEEN_TRIES = 5.0
# Room may also appear when somebody else's jobs end, as under a limit of the whole account.
_LOOKS_BEFORE_A_TRY = 12
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
        self._sender = Sender(manifest, backend, store, reporter)
        self._limits: cluster.Limits
        self._left, self._room = 0, 0

    def submit(self, plan: Plan, packs: list[list[Job]], *, wait: bool) -> None:
        """Submit what is missing of ``plan`` and not queued yet.

        If a submit limit has room for a part only, the rest follows as room appears (``wait``). Without ``wait`` all is
        refused before anything is submitted if the limit is known, else what it does not take is.

        Raises:
            ConfigError: ``wait`` is needed.
            lambda_hat.launch.slurm.cluster.ClusterError: SLURM refused, in its own words; the manifest keeps them.
        """
        try:
            self._submit(plan, packs, wait=wait)
        except (ConfigError, cluster.ClusterError) as error:
            self._note(str(error))
            raise
        self._note("")

    def _submit(self, plan: Plan, packs: list[list[Job]], *, wait: bool) -> None:
        self._limits = cluster.patiently(cluster.limits, self._reporter.line)
        self._recover()
        groups = self._groups(plan, packs)
        self._left = sum(len(group.elements) for group in groups)
        self._room = self._limits.jobs - self._queued_elements()
        if self._left > self._room and not wait:
            raise ConfigError(
                [
                    f"wait: needs to be true, since {self._left} elements are to be submitted and SLURM takes "
                    f"{max(self._room, 0)} more of yours now; or raise hydra.launcher.runs_per_element"
                ]
            )
        for group in groups:
            self._send_all(group, wait=wait)

    def _note(self, refused: str) -> None:
        """Keep why nothing more was submitted, for whoever asks later."""
        if self._manifest.refused != refused:
            self._manifest.refused = refused
            self._manifest.save(self._store)

    def _recover(self) -> None:
        """Record the ids of arrays that a driver submitted just before it died, and end those it could not finish."""
        for array in self._manifest.arrays:
            if array.job is None and array.is_slurm and array.name:
                array.job = cluster.patiently(lambda name=array.name: cluster.job_named(name), self._reporter.line)
                if array.job is not None and not self._sender.is_whole(array):
                    self._sender.withdraw([array.name])
                    array.job, array.name = None, ""  # SLURM still knows the name; nobody should ask for it
        self._manifest.save(self._store)

    def _queued_elements(self) -> int:
        return cluster.patiently(cluster.queued_elements, self._reporter.line)

    def _groups(self, plan: Plan, packs: list[list[Job]]) -> list[_Group]:
        """Targets first, then runs whose target is built, then runs grouped by the targets they wait for."""
        queued = self._queued(plan)
        packs = [kept for pack in packs if (kept := [job for job in pack if job.run_id not in queued])]
        needed = {pack[0].target_id for pack in packs}
        unbuilt = [job.target_id for job in plan.built_first if job.target_id in needed]
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
        conditions = cluster.patiently(lambda: self._known(waiting), self._reporter.line)
        live = {folder for folder, condition in conditions.items() if condition.state in ("queued", "running", "held")}
        queued = {identifier for identifier, folder in folders.items() if folder in live}
        if queued:
            self._reporter.line(f"{len(queued)} are queued or running already and not submitted again")
        return queued

    def _known(self, submissions: dict[Path, Submission]) -> dict[Path, Condition]:
        conditions = Tracker(self._store).conditions(submissions)
        unknown = [condition.reason for condition in conditions.values() if condition.state == "unknown"]
        if unknown:
            kind = cluster.Unanswered if refusal.is_silence(unknown[0]) else cluster.ClusterError
            raise kind(f"cannot tell which runs are queued already: {unknown[0]}")
        return conditions

    def _send_all(self, group: _Group, *, wait: bool) -> None:
        """Submit a group in arrays as large as SLURM takes them.

        Its limits are not all known beforehand (a QOS, an account, a site's own rules), so a size that was refused is
        halved, and doubled again once one was taken.
        """
        most = self._limits.array_size
        while group.elements:
            size = min(self._room, most, len(group.elements))
            refused = self._send(group, size) if size > 0 else None
            if size > 0 and refused is None:
                self._left, self._room = self._left - size, self._room - size
                most = min(2 * most, self._limits.array_size)
            elif size > 1:
                most = size // 2
            else:
                self._wait_for_room(refused, wait=wait)

    def _send(self, group: _Group, size: int) -> Refused | None:
        """Submit the next ``size`` elements of a group as one array; why not, if fewer or later might be taken."""
        after = self._dependencies(group.targets)
        elements = [group.elements.popleft() for _ in range(size)]
        array = Array(group.kind, elements, group.targets, is_slurm=True, cluster=self._limits.cluster)
        number = self._manifest.enter(array, self._store)
        try:
            array.job = self._sender.send(array, number, after)
        except Refused as refused:
            self._manifest.take_back(self._store)
            if not refused.is_limit and (size == 1 or refusal.field_at_fault(refused.words) is not None):
                raise
            group.elements.extendleft(reversed(elements))
            return refused
        self._manifest.save(self._store)
        self._reporter.line(f"submitted array {array.job}: {size} elements ({group.kind})")
        return None

    def _wait_for_room(self, refused: Refused | None, *, wait: bool) -> None:
        """Return when it is worth trying again: some of this user's elements have ended, or a minute has passed.

        Raises:
            ClusterError: without ``wait``, or if none of this user's elements is queued whose end could make room.
        """
        words = f"your submit limit is {self._limits.jobs}" if refused is None else refusal.sentence(refused.words)
        queued = before = self._queued_elements()
        if not wait or not queued:
            way_out = (
                "give the same command later, or set wait=true" if queued else "none of yours is queued to wait for"
            )
            raise cluster.ClusterError(
                f"SLURM takes no more: {words}; {self._left} elements are not submitted, {way_out}"
            )
        for _ in range(_LOOKS_BEFORE_A_TRY):
            self._reporter.status(f"{self._left} elements wait for room: {words}")
            time.sleep(_SECONDS_BETWEEN_TRIES)
            queued = self._queued_elements()
            if queued < before:
                break
        self._room = self._limits.jobs - queued

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


def _elements(packs: list[list[Job]], targets: Iterable[str]) -> deque[list[str]]:
    wanted = set(targets)
    return deque([job.run_id for job in pack] for pack in packs if pack[0].target_id in wanted)
