"""A sweep's manifest.json: its runs, and the element and array that each was submitted in.

Only the sweep's driver writes it, under the lease of the sweep's folder, always whole and by rename. An array is
entered *before* it is submitted, under a unique job name. If the driver dies between ``sbatch`` and recording the
job's id, the next driver finds the job by that name.
"""

import dataclasses
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lambda_hat.config.schema import Document
from lambda_hat.store.layout import Store, read_json, read_status, write_json
from lambda_hat.store.sweeps import SweepRun, read_manifest

SCHEMA = 1
# States of a status.json after which a submission is over.
SETTLED = ("finished", "failed", "cancelled")
Kind = Literal["targets", "runs"]


@dataclass
class Array:
    """Elements that were submitted together.

    Args:
        kind: Whether its elements build targets or make runs.
        elements: The ids (of targets, or of runs) of each element; the index is that of the array's task.
        after: Ids of the targets that must be built, or have failed, before an element may start.
        name: Its job name; unique.
        is_slurm: Whether SLURM runs it.
        job: SLURM's id of the array; null before it is known, and on the local backend.
        cluster: SLURM's name of the cluster; null on the local backend, and in manifests of older versions.
    """

    kind: Kind
    elements: list[list[str]]
    after: list[str] = field(default_factory=list)
    name: str = ""
    is_slurm: bool = False
    job: str | None = None
    cluster: str | None = None

    def job_id(self, index: int) -> str | None:
        """SLURM's id of one element. submitit submits a single element as a plain job."""
        if self.job is None or len(self.elements) == 1:
            return self.job
        return f"{self.job}_{index}"


class Place(NamedTuple):
    """Which element of which array holds a run or a target."""

    array: int
    index: int


class Submission(NamedTuple):
    """The last submission of a run or a target, kept in its own folder as ``submitted.json``.

    Only submitters write it and only owners write status.json, so neither overwrites the other's record. ``before``,
    the time of the status at submission, shows whether a later status is newer.
    """

    sweep: str
    array: int
    index: int
    before: float | None

    @classmethod
    def read(cls, folder: Path) -> "Submission | None":
        document = read_json(folder / "submitted.json")
        return None if document is None else cls(**document)

    def write(self, folder: Path) -> None:
        write_json(folder / "submitted.json", self._asdict())


def status_since_submission(folder: Path, submission: Submission | None = None) -> Document | None:
    """The status of a run or a target if its owner wrote it after the last submission, else None."""
    submission = submission or Submission.read(folder)
    status = read_status(folder)
    return None if status is None or submission is None or status["time"] == submission.before else status


class Task(NamedTuple):
    """One id of an element: a target to build (``run_id`` None), or a run to make.

    Args:
        folder: Where it lives, with its status.json and submitted.json.
        config_folder: The folder whose config.yaml describes it; for a target, the folder of one of its runs.
    """

    target_id: str
    run_id: str | None
    folder: Path
    config_folder: Path


@dataclass
class Manifest:
    """The content of manifest.json.

    Args:
        refused: Why the last submission was refused; empty if it was not.
    """

    name: str
    experiment: str
    backend: dict[str, Any]
    runs: dict[str, SweepRun] = field(default_factory=dict)
    arrays: list[Array] = field(default_factory=list)
    refused: str = ""
    _before: dict[Path, Submission | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def load(cls, sweep_dir: Path) -> "Manifest":
        """Read it.

        Raises:
            StoreError: there is no such sweep.
        """
        read = read_manifest(sweep_dir)
        arrays = [Array(**array) for array in read.arrays]
        return cls(read.name, read.experiment, read.backend, read.runs, arrays, read.refused)

    def save(self, store: Store) -> None:
        document = {
            "schema": SCHEMA,
            "name": self.name,
            "experiment": self.experiment,
            "backend": self.backend,
            "runs": {run_id: run._asdict() for run_id, run in self.runs.items()},
            "arrays": [dataclasses.asdict(array) for array in self.arrays],
            "refused": self.refused,
        }
        directory = store.sweep_dir(self.name)
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "manifest.json", document)

    def enter(self, array: Array, store: Store) -> int:
        """Record an array before it is submitted, here and in the folder of each id; returns its number."""
        number = len(self.arrays)
        self.arrays.append(array)
        self.rename(number, store)
        for folder, index in self._folders(store, array):
            status = read_status(folder)
            self._before[folder] = Submission.read(folder)
            Submission(self.name, number, index, None if status is None else status["time"]).write(folder)
        return number

    def rename(self, number: int, store: Store) -> None:
        """Give an entered array a new unique job name."""
        prefix = f"{self.backend['name']}." if self.backend.get("name") else ""
        self.arrays[number].name = f"{prefix}{self.name}.{number}.{uuid.uuid4().hex[:8]}"
        self.save(store)

    def take_back(self, store: Store) -> None:
        """Remove the last array, which was refused, and restore what its folders said before it was entered."""
        array = self.arrays[-1]
        for folder, _ in self._folders(store, array):
            before = self._before.pop(folder, None)
            if before is None:
                (folder / "submitted.json").unlink(missing_ok=True)
            else:
                before.write(folder)
        del self.arrays[-1]
        self.save(store)

    def _folders(self, store: Store, array: Array) -> Iterator[tuple[Path, int]]:
        for index, element in enumerate(array.elements):
            for identifier in element:
                yield self.task(store, array.kind, identifier).folder, index

    def places(self) -> dict[str, Place]:
        """Where each id was last submitted."""
        return {
            identifier: Place(number, index)
            for number, array in enumerate(self.arrays)
            for index, element in enumerate(array.elements)
            for identifier in element
        }

    def jobs(self) -> dict[str, str]:
        """The name of each array that SLURM runs, by its id."""
        return {array.job: array.name for array in self.arrays if array.is_slurm and array.job is not None}

    def tasks(self, store: Store, number: int, index: int) -> list[Task]:
        """The tasks of one element, in order."""
        array = self.arrays[number]
        return [self.task(store, array.kind, identifier) for identifier in array.elements[index]]

    def task(self, store: Store, kind: Kind, identifier: str) -> Task:
        """A target or a run of this sweep."""
        if kind == "runs":
            target_id = self.runs[identifier].target
            folder = store.run_dir(target_id, identifier)
            return Task(target_id, identifier, folder, folder)
        run_id = next(run_id for run_id, run in self.runs.items() if run.target == identifier)
        return Task(identifier, None, store.target_dir(identifier), store.run_dir(identifier, run_id))
