"""What a sweep would do: pure planning over jobs and the store. Submits nothing, writes nothing, needs no JAX."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lambda_hat.config.job import ConfigError, Job, canonical
from lambda_hat.store.layout import Store
from lambda_hat.store.records import config_fields, model_and_data, varying, words
from lambda_hat.store.runs import finished


@dataclass(frozen=True)
class Plan:
    """The runs of one sweep, and what is left to do for them.

    Args:
        name: The sweep's name: the same runs under the same experiment give the same name.
        jobs: Every distinct run, in the order in which it was asked for.
        found: Run id -> analysis.json of the runs that are finished and so are not run again.
        duplicates: How many jobs repeated a run that is in ``jobs`` already.
        unbuilt: One job for each target that a missing run needs and that the store does not have.
    """

    name: str
    jobs: tuple[Job, ...]
    found: Mapping[str, Path] = field(default_factory=dict)
    duplicates: int = 0
    unbuilt: tuple[Job, ...] = ()

    @property
    def missing(self) -> tuple[Job, ...]:
        """The runs that are to be made, grouped by target so that each target's are neighbours."""
        missing = [job for job in self.jobs if job.run_id not in self.found]
        order = {target_id: index for index, target_id in enumerate(dict.fromkeys(job.target_id for job in missing))}
        return tuple(sorted(missing, key=lambda job: order[job.target_id]))

    @property
    def experiment(self) -> str:
        return self.jobs[0].store.experiment


def plan_jobs(jobs: Iterable[Job], store: Store, name: str | None = None) -> Plan:
    """Dedupe ``jobs``, look up which of them the store has, and which targets must be built first.

    Args:
        jobs: Validated jobs, in the order in which results shall be listed.
        store: Where results live.
        name: The sweep's name, where the caller has one; by default it is made from the run ids.

    Raises:
        ConfigError: there is no job, one run is asked for with two budgets, or the name cannot be a folder's.
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
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError([f"store.experiment: needs letters, digits, '.', '_' and '-' only, got {name!r}"])
    return Plan(name, tuple(distinct.values()), found, len(jobs) - len(distinct), tuple(unbuilt.values()))


def label(job: Job) -> str:
    """A short name of what a run is, for people and for job names: ``mlp-digits-hmc-0``; never holds ``--``."""
    return _words(target_label(job), job.sampler_name, str(job.seed))


def target_label(job: Job) -> str:
    """A short name of what a target is: ``mlp-digits``."""
    return _words(*model_and_data({"model": canonical(job.model), "data": canonical(job.data)}))


def _words(*words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def settings(jobs: Sequence[Job]) -> list[str]:
    """What sets each run apart from the others of its kind: ``step_size=0.001 seed=1``.

    A field counts if it differs among the runs whose node is of the same class: that HMC and SGLD have other
    defaults is no news, and a table has a column for the sampler.
    """
    flat = [config_fields(job.to_dict()) for job in jobs]
    keys = {key for key in varying(flat) if (key[0], key[2]) != ("sampler", "")}
    return [words(fields, keys) for fields in flat]


def _distinct(jobs: list[Job]) -> dict[str, Job]:
    """The first job of each run id; a run's second budget would be dropped in silence, so it is refused."""
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
