"""What a sweep would do. Pure planning over jobs and the store: it submits nothing and writes nothing."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lambda_hat.config.job import CheckpointedModel, Job, canonical
from lambda_hat.config.schema import NAMES, ConfigError, is_name
from lambda_hat.store.layout import Store
from lambda_hat.store.records import config_fields, model_and_data, varying, words
from lambda_hat.store.runs import finished


@dataclass(frozen=True)
class Plan:
    """The runs of one sweep, and which of them are still to do.

    Args:
        name: The sweep's name: the same runs under the same experiment give the same name.
        jobs: Every distinct run, in the order in which it was asked for.
        found: Run id -> analysis.json of the finished runs, which are not repeated.
        duplicates: How many of the jobs asked for a run that ``jobs`` holds already.
        unbuilt: One job for each target that a missing run needs and the store lacks.
    """

    name: str
    jobs: tuple[Job, ...]
    found: Mapping[str, Path] = field(default_factory=dict)
    duplicates: int = 0
    unbuilt: tuple[Job, ...] = ()

    @property
    def missing(self) -> tuple[Job, ...]:
        """The runs still to do, in groups of one target each."""
        missing = [job for job in self.jobs if job.run_id not in self.found]
        order = {target_id: index for index, target_id in enumerate(dict.fromkeys(job.target_id for job in missing))}
        return tuple(sorted(missing, key=lambda job: order[job.target_id]))

    @property
    def built_first(self) -> tuple[Job, ...]:
        """Those of ``unbuilt`` that elements of their own build; at a checkpoint, where nothing is trained, runs do."""
        return tuple(job for job in self.unbuilt if program_of(job) is None)

    @property
    def experiment(self) -> str:
        return self.jobs[0].store.experiment


def plan_jobs(jobs: Iterable[Job], store: Store, name: str | None = None) -> Plan:
    """Remove duplicates from ``jobs``, and look up which runs and targets the store has.

    Args:
        jobs: Validated jobs, in the order in which results are listed.
        store: Where results live.
        name: The sweep's name; None: it is derived from the run ids.

    Raises:
        ConfigError: there is no job, one run is asked for with two budgets, or the name is no valid folder name.
    """
    jobs = list(jobs)
    if not jobs:
        raise ConfigError(["sweep: needs at least one run, got none"])
    distinct = _distinct(jobs)
    found: dict[str, Path] = {}
    unbuilt: dict[str, Job] = {}
    for run_id, job in distinct.items():
        analysis = None if job.rerun else finished(store, job.target_id, job.run_id, job.budget)
        if analysis is not None:
            found[run_id] = analysis
        elif job.target_id not in unbuilt and store.read_meta(job.target_id) is None:
            unbuilt[job.target_id] = job
    name = name or f"{jobs[0].store.experiment}-{_digest(distinct)}"
    if not is_name(name):
        raise ConfigError([f"store.experiment: {NAMES}, got {jobs[0].store.experiment!r}"])
    return Plan(name, tuple(distinct.values()), found, len(jobs) - len(distinct), tuple(unbuilt.values()))


def program_of(job: Job) -> str | None:
    """What a run at a checkpoint shares with those at all others; None for any other run."""
    return job.model.program if isinstance(job.model, CheckpointedModel) else None


def label(job: Job) -> str:
    """A run's short name in tables and job names: ``mlp-digits-hmc-0``. It never holds ``--``."""
    return _words(target_label(job), job.sampler_name, str(job.seed))


def target_label(job: Job) -> str:
    """A target's short name: ``mlp-digits``."""
    return _words(*model_and_data({"model": canonical(job.model), "data": canonical(job.data)}))


def _words(*words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def settings(jobs: Sequence[Job]) -> list[str]:
    """The fields in which each run differs from others of its kind: ``step_size=0.001 seed=1``.

    A field counts if it differs among runs whose node has the same class. The defaults of HMC and SGLD differ anyway,
    and tables have a column for the sampler.
    """
    flat = [config_fields(job.to_dict()) for job in jobs]
    keys = {key for key in varying(flat) if (key[0], key[2]) != ("sampler", "")}
    return [words(fields, keys) for fields in flat]


def _distinct(jobs: list[Job]) -> dict[str, Job]:
    """The first job of each run id. A second budget for one run is refused, because one of the two would be ignored."""
    distinct: dict[str, Job] = {}
    clashes: dict[str, str] = {}
    for job in jobs:
        first = distinct.setdefault(job.run_id, job)
        if first.budget != job.budget:
            clashes[job.run_id] = f"{first.budget} and {job.budget}"
    if clashes:
        raise ConfigError(
            [
                f"budget: {run_id} is asked for with {budgets}; the budget is no part of a run, so ask for the "
                "larger one only: it continues the same run"
                for run_id, budgets in clashes.items()
            ]
        )
    return distinct


def _digest(run_ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(run_ids)).encode()).hexdigest()[:12]
