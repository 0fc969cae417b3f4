"""Sends one array to SLURM through submitit, whatever the driver's environment and the controller's mood."""

import contextlib
import io
from collections.abc import Iterable
from pathlib import Path

from submitit import AutoExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from lambda_hat.launch.backend import Backend
from lambda_hat.launch.element import Element
from lambda_hat.launch.manifest import Array, Manifest
from lambda_hat.launch.slurm import cluster, refusal
from lambda_hat.launch.slurm.environment import outside_allocation
from lambda_hat.run.progress import Reporter
from lambda_hat.store.layout import Store


class Refused(cluster.ClusterError):
    """SLURM does not take an array.

    Args:
        size: How many elements it has.
        words: SLURM's words.
    """

    def __init__(self, size: int, words: str):
        super().__init__(f"sbatch refused an array of {size}: {refusal.sentence(words)}")
        self.words = words

    @property
    def is_limit(self) -> bool:
        """Whether fewer elements, or the same ones later, may be taken."""
        return refusal.is_limit(self.words)


class Sender:
    """Sends arrays that are entered in the manifest.

    Args:
        manifest: The sweep's.
        backend: What each element asks for.
        store: Where it all lives.
        reporter: Gets a line when SLURM does not answer.
    """

    def __init__(self, manifest: Manifest, backend: Backend, store: Store, reporter: Reporter):
        self._manifest, self._backend, self._store, self._reporter = manifest, backend, store, reporter

    def send(self, array: Array, number: int, after: list[str]) -> str:
        """Submit an array; returns SLURM's id of it.

        If the controller does not answer, it may have taken the array all the same, whose elements would then find no
        files to start from. So the array is asked for by its name, ended, and sent again under another.

        Raises:
            Refused: SLURM's answer was no.
            lambda_hat.launch.slurm.cluster.Unanswered: it did not answer for minutes.
        """
        abandoned: list[str] = []

        def once() -> str:
            self.withdraw(abandoned)
            try:
                return self._sbatch(array, number, after)
            except (FailedJobError, FailedSubmissionError) as error:
                words = str(error).strip()
                if not refusal.is_silence(words):
                    raise Refused(len(array.elements), words) from error
                abandoned.append(array.name)
                self._manifest.rename(number, self._store)
                raise cluster.Unanswered(f"sbatch: {refusal.sentence(words)}") from error

        job = cluster.patiently(once, self._reporter.line)
        self.withdraw(abandoned)  # a slow controller may have taken one since
        return job

    def withdraw(self, names: Iterable[str]) -> None:
        """End what SLURM has under ``names``."""
        for name in names:
            job = cluster.job_named(name)
            if job is not None:
                cluster.cancel({job: name})

    def is_whole(self, array: Array) -> bool:
        """Whether every element of a submitted array has the file it starts from."""
        jobs = [array.job_id(index) for index in range(len(array.elements))]
        return all(job is not None and (self._folder(job) / f"{job}_submitted.pkl").exists() for job in jobs)

    def _folder(self, job: str) -> Path:
        return Path(str(self._backend.folder(self._store.sweep_dir(self._manifest.name))).replace("%j", job))

    def _sbatch(self, array: Array, number: int, after: list[str]) -> str:
        sweep_dir = self._store.sweep_dir(self._manifest.name)
        folder = self._backend.folder(sweep_dir)
        executor = AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=self._backend.max_num_timeout)
        executor.update_parameters(**self._backend.submitit_parameters(), name=array.name)
        if after:
            executor.update_parameters(slurm_dependency="afterany:" + ":".join(after))
        elements = [Element(str(sweep_dir), number, index) for index in range(len(array.elements))]
        # submitit prints SLURM's words before it raises them.
        with outside_allocation(), contextlib.redirect_stderr(io.StringIO()):
            return executor.submit_array(elements)[0].job_id.partition("_")[0]
