"""Finds out where submitted runs and targets are now."""

from collections.abc import Mapping
from pathlib import Path

from lambda_hat.launch.condition import Condition
from lambda_hat.launch.manifest import Array, Manifest, Submission, status_since_submission
from lambda_hat.launch.slurm import cluster
from lambda_hat.launch.slurm.outcome import WAITS_FOR_ITS_TARGET, condition, why_pending
from lambda_hat.launch.slurm.refusal import is_for_ever
from lambda_hat.store.layout import Store
from lambda_hat.store.lease import is_held

_NEVER_SENT = Condition("missing", "it never reached SLURM")


class Tracker:
    """Finds out where submitted runs and targets are now, whatever sweep and backend they belong to."""

    def __init__(self, store: Store):
        self._store = store
        self._manifests: dict[str, Manifest] = {}

    def job(self, submission: Submission) -> str | None:
        """SLURM's id of the element; None on the local backend, and if it was never submitted."""
        array = self._array(submission)
        if array is None:
            return None
        if array.job is None and array.is_slurm and array.name:
            # The driver died between sbatch and noting the id; the name is unique.
            array.job = cluster.job_named(array.name)
        return array.job_id(submission.index)

    def names(self, submission: Submission) -> dict[str, str]:
        """The unique name of the array it is part of, by SLURM's id of that; empty if it was never submitted."""
        job, array = self.job(submission), self._array(submission)
        return {} if job is None or array is None else {job.partition("_")[0]: array.name}

    def cluster_of(self, submission: Submission) -> str | None:
        """The name of the cluster it was submitted to; None on the local backend, or if that was not recorded."""
        array = self._array(submission)
        return None if array is None else array.cluster

    def conditions(self, submissions: Mapping[Path, Submission]) -> dict[Path, Condition]:
        """The condition of each folder's last submission; for folders whose own status does not settle it."""
        found: dict[Path, Condition] = {}
        on_slurm: dict[Path, Submission] = {}
        for folder, submission in submissions.items():
            array = self._array(submission)
            if array is None:
                found[folder] = _NEVER_SENT
            elif array.is_slurm:
                on_slurm[folder] = submission
            else:
                found[folder] = self._here(folder, submission)
        if on_slurm:
            try:
                found |= self._on_slurm(on_slurm)
            except cluster.ClusterError as error:
                for folder, submission in on_slurm.items():
                    name = self.cluster_of(submission)
                    where = "" if name is None else f"submitted to {name}: "
                    found[folder] = Condition("unknown", f"{where}{error}")
        return {folder: found[folder] for folder in submissions}

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

    def _on_slurm(self, submissions: Mapping[Path, Submission]) -> dict[Path, Condition]:
        here = cluster.cluster_name()
        found: dict[Path, Condition] = {}
        mine: dict[Path, Submission] = {}
        for folder, submission in submissions.items():
            name = self.cluster_of(submission)
            if name in (None, here):
                mine[folder] = submission
            else:
                found[folder] = Condition("unknown", f"submitted to {name}, and this is {here}: ask there")
        targets = self._unbuilt_targets(mine)
        arrays: dict[str, str] = {}
        for submission in (*mine.values(), *targets.values()):
            arrays |= self.names(submission)
        states = cluster.job_states(arrays)
        for folder, submission in mine.items():
            job = self.job(submission)
            if job is None:
                found[folder] = _NEVER_SENT
                continue
            manifest = self._manifest(submission.sweep)
            status = status_since_submission(folder, submission)
            sweep_dir = self._store.sweep_dir(submission.sweep)
            state = condition(job, states.get(job), status, manifest.backend, sweep_dir)
            if state == Condition("queued", WAITS_FOR_ITS_TARGET) and folder.parent in targets:
                state = self._waiting(folder.parent, targets[folder.parent], states)
            found[folder] = state
        return found

    def _unbuilt_targets(self, submissions: Mapping[Path, Submission]) -> dict[Path, Submission]:
        """The last submissions of the targets that runs among ``submissions`` wait for, by the target's folder."""
        folders: set[Path] = set()
        for folder, submission in submissions.items():
            array = self._array(submission)
            if array is not None and array.kind == "runs" and array.after:
                folders.add(folder.parent)
        unbuilt = [folder for folder in folders if self._store.read_meta(folder.name) is None]
        return {folder: target for folder in unbuilt if (target := Submission.read(folder)) is not None}

    def _waiting(self, target: Path, submission: Submission, states: Mapping[str, cluster.JobState]) -> Condition:
        """A run waits for its target: how that is getting on, as SLURM has it."""
        job = self.job(submission)
        state = None if job is None else states.get(job)
        if state is None:
            return Condition("queued", f"waits for its target {target.name}")
        why = f" ({why_pending(state.reason)})" if state.state == "PENDING" else ""
        never = state.state == "PENDING" and is_for_ever(state.reason)
        return Condition("queued", f"waits for its target {target.name}: job {job} is {state.state}{why}", never)

    def _array(self, submission: Submission) -> Array | None:
        """The array of a submission; None for one whose driver died before it could take the submission back."""
        arrays = self._manifest(submission.sweep).arrays
        return arrays[submission.array] if submission.array < len(arrays) else None

    def _manifest(self, sweep: str) -> Manifest:
        if sweep not in self._manifests:
            self._manifests[sweep] = Manifest.load(self._store.sweep_dir(sweep))
        return self._manifests[sweep]
