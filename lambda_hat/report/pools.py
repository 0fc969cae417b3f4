"""Runs put together: problems (one target and posterior each), pools of sampling seeds, families of training seeds."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lambda_hat.config.job import digest, identity_of
from lambda_hat.config.schema import Document, Node
from lambda_hat.estimation.estimate import LLC, agreement
from lambda_hat.estimation.quantity import name_of
from lambda_hat.store.records import Field, Record, config_fields, model_and_data, varying, words

_TARGET = ("model", "data", "teacher", "training")
_TRAINING_SEED: Field = ("training", "Training", "seed")
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)")
# A table of more settings against each other than this cannot be read; each is held against the reference only.
_MOST_COMPARED = 10


@dataclass(frozen=True)
class Pool:
    """The runs of one problem that differ in their sampling seed alone, and what they say together.

    Args:
        sampler: Their sampler's name.
        setting: What sets them apart from the sampler's other runs of the page.
        key: Identifies the sampler's whole configuration.
        runs: Their places in the list of all runs.
        num_estimates: How many of them have an LLC with an error.
        num_reliable: How many of these have no reason against them.
        llc: Mean of the estimates; NaN without one.
        error: Standard error of ``llc``: from the runs' MCSEs, or from their spread where that says more.
        mcse: Root mean square of the runs' MCSEs.
        spread: Standard deviation between the seeds' estimates; NaN for fewer than two.
        work, time: Means of the runs' work- and time-normalised variances.
        is_exact: Whether the sampler accepts or rejects, which leaves the posterior invariant.
    """

    sampler: str
    setting: str
    key: str
    runs: tuple[int, ...]
    num_estimates: int
    num_reliable: int
    llc: float
    error: float
    mcse: float
    spread: float
    work: float
    time: float
    is_exact: bool

    @property
    def name(self) -> str:
        return f"{self.sampler} {self.setting}".strip()


class Reference(NamedTuple):
    """What the estimates of a problem are held against: the exact value, or the best of them, which ``pool`` names."""

    llc: float
    error: float
    name: str
    pool: int | None


@dataclass(frozen=True)
class Problem:
    """One target and posterior, and all that was run on it.

    Args:
        target_id: The target.
        name: Its model and data.
        setting: What sets it apart from the page's other problems.
        family: Identifies what it is but for its training seed.
        training_seed: That seed.
        facts: Numbers of target and posterior, from any analysis.
        pools: The samplers' settings.
        reference: None where nothing can stand for the truth.
    """

    target_id: str
    name: str
    setting: str
    family: str
    training_seed: str
    facts: Mapping[str, Any]
    pools: tuple[Pool, ...]
    reference: Reference | None

    def comparisons(self) -> list[tuple[int, int, float, float]]:
        """(first, second, difference, z) of every two pools with an estimate; none where they are too many."""
        values = {str(place): LLC(pool.llc, pool.error) for place, pool in enumerate(self.pools) if _is_sound(pool)}
        if len(values) > _MOST_COMPARED:
            return []
        return [(int(pair.first), int(pair.second), pair.difference, pair.z) for pair in agreement(values)]

    def z(self, place: int) -> float:
        """How many combined errors the pool lies from the reference; NaN if it is the reference or has no error."""
        pool, reference = self.pools[place], self.reference
        if reference is None or reference.pool == place or not _is_sound(pool):
            return math.nan
        (pair,) = agreement({"pool": LLC(pool.llc, pool.error), "": LLC(reference.llc, reference.error)})
        return pair.z


class Family(NamedTuple):
    """One sampler's setting on targets that differ in their training seed alone.

    Args:
        problem: The first of its problems.
        pool: The pool there.
        llcs: The LLC of every training seed, by seed.
        mcse: Root mean square of their errors.
    """

    problem: int
    pool: int
    llcs: Mapping[str, float]
    mcse: float

    @property
    def spread(self) -> float:
        return float(np.std(list(self.llcs.values()), ddof=1))


def problems(records: Sequence[Record]) -> list[Problem]:
    """The records by target and posterior, by name and setting."""
    targets = [config_fields(record.config, (*_TARGET, "posterior")) for record in records]
    samplers = [config_fields(record.config, ("sampler", "num_chains")) for record in records]
    names = [" · ".join(model_and_data(record.config)) if record.config else record.ref.target_id for record in records]
    told_samplers = varying(samplers) - {("sampler", "", "")}
    # What sets a target apart from others of its name; the name says the classes of model and data.
    told_targets = {
        name: varying(fields for fields, other in zip(targets, names, strict=True) if other == name)
        for name in dict.fromkeys(names)
    }
    groups: dict[tuple[str, str], list[int]] = {}
    for index, record in enumerate(records):
        posterior = digest("posterior", identity_of("posterior", record.config.get("posterior")))
        groups.setdefault((record.ref.target_id, posterior), []).append(index)
    found: list[Problem] = []
    for members in groups.values():
        first, fields = records[members[0]], targets[members[0]]
        pools = _pools(records, members, samplers, told_samplers)
        facts = _facts([records[index] for index in members])
        found.append(
            Problem(
                target_id=first.ref.target_id,
                name=names[members[0]],
                setting=words(fields, told_targets[names[members[0]]]),
                family=digest("family", [[*key, text] for key, text in fields.items() if key != _TRAINING_SEED]),
                training_seed=fields.get(_TRAINING_SEED, ""),
                facts=facts,
                pools=pools,
                reference=_reference(pools, facts),
            )
        )
    return sorted(found, key=lambda problem: (problem.name, _natural(problem.setting)))


def families(found: Sequence[Problem]) -> list[Family]:
    """Settings that were run on several training seeds of one target."""
    groups: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
    for place, problem in enumerate(found):
        for at, pool in enumerate(problem.pools):
            if _is_sound(pool):
                groups.setdefault((problem.family, pool.key), {})[problem.training_seed] = (place, at)
    result: list[Family] = []
    for seeds in groups.values():
        if len(seeds) > 1:
            members = {seed: found[place].pools[at] for seed, (place, at) in seeds.items()}
            place, at = next(iter(seeds.values()))
            llcs = {seed: pool.llc for seed, pool in members.items()}
            result.append(Family(place, at, llcs, _rms([pool.error for pool in members.values()])))
    return result


def _pools(
    records: Sequence[Record], members: Sequence[int], samplers: Sequence[Mapping[Field, str]], shown: set[Field]
) -> tuple[Pool, ...]:
    groups: dict[str, list[int]] = {}
    for index in members:
        key = digest("setting", [[*field, text] for field, text in samplers[index].items()])
        groups.setdefault(f"{records[index].sampler} {key}", []).append(index)
    pools = [_pool(records, runs, key, words(samplers[runs[0]], shown)) for key, runs in groups.items()]
    return tuple(sorted(pools, key=lambda pool: (pool.sampler, _natural(pool.setting))))


def _natural(text: str) -> list[tuple[float, str]]:
    """A key by which ``step_size=1e-05`` comes before ``step_size=0.001``, and 9 before 10."""
    parts = _NUMBER.split(text)
    return [(float(part), "") if place % 2 else (0.0, part) for place, part in enumerate(parts)]


def _pool(records: Sequence[Record], runs: Sequence[int], key: str, setting: str) -> Pool:
    analyses = [found for index in runs if (found := records[index].analysis) is not None]
    sound = [found for found in analyses if found["llc"] is not None and found["llc_mcse"] is not None]
    llcs = [found["llc"] for found in sound]
    mcse = _rms([found["llc_mcse"] for found in sound])
    spread = float(np.std(llcs, ddof=1)) if len(llcs) > 1 else math.nan
    return Pool(
        sampler=records[runs[0]].sampler,
        setting=setting,
        key=key,
        runs=tuple(runs),
        num_estimates=len(sound),
        num_reliable=sum(bool(found["verdict"]["reliable"]) for found in sound),
        llc=_mean(llcs),
        error=max(mcse, spread if len(llcs) > 1 else 0.0) / math.sqrt(len(llcs)) if llcs else math.nan,
        mcse=mcse,
        spread=spread,
        work=_mean([found["work_normalised_variance"] for found in sound]),
        time=_mean([found["time_normalised_variance"] for found in sound]),
        is_exact=any(found["acceptance"] is not None for found in sound),
    )


def _reference(pools: Sequence[Pool], facts: Node) -> Reference | None:
    """The exact value; else the most precise among reliable pools of a sampler that accepts or rejects."""
    if facts.get("exact_llc") is not None:
        return Reference(facts["exact_llc"], 0.0, "exact", None)
    able = [
        (pool.error, place)
        for place, pool in enumerate(pools)
        if pool.is_exact and pool.num_reliable == pool.num_estimates and _is_sound(pool)
    ]
    if not able:
        return None
    _, place = min(able)
    return Reference(pools[place].llc, pools[place].error, pools[place].name, place)


def _facts(records: Sequence[Record]) -> Document:
    """What any of the runs knows of the target and the posterior that they share."""
    names = ("nbeta", "gamma", "dim", "num_data", "exact_llc", "known_lambda", "known_multiplicity")
    found = next((record.analysis for record in records if record.analysis is not None), None)
    if found is None:
        return {}
    return {
        **{name: found[name] for name in names},
        "estimate": name_of(found),
        "warnings": found["target_report"].get("warnings", []),
    }


def _is_sound(pool: Pool) -> bool:
    return math.isfinite(pool.llc) and math.isfinite(pool.error)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else math.nan


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values)) if values else math.nan
