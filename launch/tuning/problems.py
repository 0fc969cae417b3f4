"""The runs of a session: the reference of each problem, and the run of a trial's parameters."""

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lambda_hat.config.compose import Composer, Config
from lambda_hat.config.job import Job, parse_job
from lambda_hat.config.schema import ConfigError, Document
from lambda_hat.config.yaml_file import flatten, override_text
from lambda_hat.launch.plan import target_label
from lambda_hat.launch.tuning.schema import Budgets, Dimension, Problem, Tuning

DRAWS = "draws"  # the one field of a search space that is not the sampler's
_OLDER_LENGTHS = ("length", "budget.draws")
# Overrides that a problem may not set, and the key to use instead.
_TAKEN = {
    "model": "problems[].model", "data": "problems[].data", "teacher": "problems[].teacher", "seed": "problems[].seed",
    "sampler": "methods and search_space", "budget": "execution.budget", "store": "store",
}  # fmt: skip

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """One sampler on one problem, and its search space.

    Args:
        name: The preset in conf/sampler.
        config: The plain config of its runs, with the preset's values.
        space: Dimension by field.
    """

    name: str
    config: Config
    space: Mapping[str, Dimension]
    _shared: dict[str, Any] = field(default_factory=dict)

    def preset(self) -> Document:
        """The preset as a trial: its values that lie in the space, with the largest number of draws.

        :meth:`job` takes the other values from the preset.
        """
        values = self.config["sampler"]
        return {
            name: dimension.largest() if name == DRAWS else values[name]
            for name, dimension in self.space.items()
            if name == DRAWS or dimension.holds(values[name])
        }

    def job(self, params: Params) -> Job:
        """The run with ``params``.

        Raises:
            ConfigError: the run is not valid.
        """
        config = copy.deepcopy(self.config)
        for name, value in params.items():
            config["budget" if name == DRAWS else "sampler"][name] = value
        return parse_job(config, self._shared)


@dataclass(frozen=True)
class Case:
    """A composed problem.

    Args:
        name: The name of its folder, derived from target, posterior, chains, seed and reference.
        reference: The run that its trials are compared with.
        methods: The methods to tune on it.
    """

    name: str
    reference: Job
    methods: list[Method]


def compose_cases(composer: Composer, tuning: Tuning) -> list[Case]:
    """Every problem with every method.

    Raises:
        ConfigError: every distinct fault of a problem or a search space; nothing has run.
    """
    cases: list[Case] = []
    faults: list[str] = []
    for index, problem in enumerate(tuning.problems):
        where = f"problems[{index}]"
        try:
            cases.append(_case(composer, tuning, problem))
        except ConfigError as error:
            faults += [fault if fault.startswith("search_space") else f"{where}: {fault}" for fault in error.faults]
    names = [case.name for case in cases]
    faults += [f"problems: needs distinct ones, got {name} twice" for name in set(names) if names.count(name) > 1]
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return cases


def _case(composer: Composer, tuning: Tuning, problem: Problem) -> Case:
    arguments = list(_arguments(problem))
    budgets = tuning.execution.budget
    reference = parse_job(
        _config(composer, tuning, [*arguments, f"sampler={tuning.execution.reference}"], _hmc(budgets))
    )
    methods: list[Method] = []
    faults: list[str] = []
    for name in tuning.methods:
        config = _config(composer, tuning, [*arguments, f"sampler={name}"], _trial(budgets))
        method = Method(name, config, tuning.search_space[name])
        faults += _faults(method)
        methods.append(method)
    if faults:
        raise ConfigError(faults)
    return Case(f"{target_label(reference)}-{reference.run_id[-8:]}", reference, methods)


def _arguments(problem: Problem) -> Iterator[str]:
    """``problem`` as arguments of lambda_hat.sample."""
    yield override_text("model", problem.model)
    for key in ("data", "teacher"):
        if getattr(problem, key) is not None:
            yield override_text(key, getattr(problem, key))
    yield override_text("seed", problem.seed)
    for key, value in flatten(problem.overrides):
        taken = _TAKEN.get(key if key in ("model", "data", "teacher", "seed") else key.partition(".")[0])
        if taken is not None and not key.startswith(("model.", "data.", "teacher.")):
            raise ConfigError([f"overrides.{key}: is set elsewhere; use {taken}"])
        yield override_text(key, value)


def _config(composer: Composer, tuning: Tuning, arguments: list[str], budget: Document) -> Config:
    (overrides,) = composer.expand(arguments)
    config = composer.config(overrides)
    config["budget"] = budget
    config["store"] = {"root": tuning.store.root, "experiment": f"tune-{tuning.store.namespace}", "plots": "none"}
    return config


def _hmc(budgets: Budgets) -> Document:
    return {"seconds": budgets.hmc_sec, "gradients": budgets.hmc_gradients, "mcse": budgets.hmc_mcse}


def _trial(budgets: Budgets) -> Document:
    return {"seconds": budgets.trial_sec, "gradients": budgets.trial_gradients}


def _faults(method: Method) -> list[str]:
    """Faults of a search space, by the sampler's own schema at both ends of every dimension."""
    faults: list[str] = []
    older = _older_names(method)
    sampler = [name for name in method.config["sampler"] if name != "_target_"]
    for name in method.space:
        where = f"search_space.{method.name}.{name}"
        if name in older and name != DRAWS:
            new = older[name].replace("sampler.", "").replace("budget.", "")
            faults.append(f"{where}: is an older name; use {new}")
        elif name not in sampler and name != DRAWS:
            has = ", ".join(sampler)
            faults.append(f"{where}: {method.name} has no such field; it has {has}, and draws (its length)")
    corner = {name: dimension.ends()[0] for name, dimension in method.space.items()}
    faults = faults or _judged(method, corner)
    if not faults:
        for name, dimension in method.space.items():
            for value in dimension.ends():
                faults += _judged(method, {**corner, name: value})
    return faults


def _judged(method: Method, params: Params) -> list[str]:
    """Faults that the schemas find in a trial, each under the name of its dimension."""
    try:
        method.job(params)
    except ConfigError as error:
        where = f"search_space.{method.name}"
        names = [fault.partition(":")[0].rpartition(".")[2] for fault in error.faults]
        return [
            f"{where}.{name}: {fault}" if name in params else f"{where}: {fault} (for {json.dumps(dict(params))})"
            for name, fault in zip(names, error.faults, strict=True)
        ]
    return []


def _older_names(method: Method) -> dict[str, str]:
    schema = type(method.job({}).sampler)
    return {**dict.fromkeys(_OLDER_LENGTHS, "draws"), **getattr(schema, "OLDER_NAMES", {})}
