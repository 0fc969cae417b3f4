"""The runs of a session: the reference of each problem, and the run of a trial's parameters."""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from lambda_hat.config.compose import Composer, Config
from lambda_hat.config.job import Job, canonical, digest, parse_job
from lambda_hat.config.override_values import override_text
from lambda_hat.config.presets import presets_of
from lambda_hat.config.schema import ConfigError, Document, near_miss
from lambda_hat.config.yaml_file import ask_about_own_models, flatten
from lambda_hat.launch.plan import settings, target_label
from lambda_hat.launch.tuning.schema import EXACT, Budgets, Dimension, Problem, Tuning

DRAWS = "draws"  # the one field of a search space that is not the sampler's
_OLDER_LENGTHS = ("length", "budget.draws")
# Overrides that a problem may not set, and the key to use instead.
_TAKEN = {
    "model": "problems[].model", "data": "problems[].data", "teacher": "problems[].teacher", "seed": "problems[].seed",
    "sampler": "methods and search_space", "budget": "execution.budget", "store": "store",
}  # fmt: skip

Params = Mapping[str, Any]
_LONGEST_TITLE = 60


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
        reference: The run that its trials are compared with; if ``is_exact``, the first trial, which builds the target.
        methods: The methods to tune on it.
        is_exact: Trials are compared with the value that the model knows.
        title: Its name for people: the model, the data, and in what it differs from the other problems.
    """

    name: str
    reference: Job
    methods: list[Method]
    is_exact: bool = False
    title: str = ""


def compose_cases(composer: Composer, tuning: Tuning) -> list[Case]:
    """Every problem with every method.

    Raises:
        ConfigError: every distinct fault of a problem or a search space; nothing has run.
    """
    cases: list[Case] = []
    faults: list[str] = []
    ask_about_own_models(composer, (_arguments(problem) for problem in tuning.problems))
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
    return _titled(cases)


def _titled(cases: Sequence[Case]) -> list[Case]:
    differences = settings([case.reference for case in cases])
    titles = [f"{target_label(case.reference)} {words}".strip() for case, words in zip(cases, differences, strict=True)]
    short = [title if len(title) <= _LONGEST_TITLE else f"{title[: _LONGEST_TITLE - 3]}..." for title in titles]
    return [
        replace(case, title=title if short.count(title) == 1 else f"{title} ({case.name[-8:]})")
        for case, title in zip(cases, short, strict=True)
    ]


def _case(composer: Composer, tuning: Tuning, problem: Problem) -> Case:
    arguments = list(_arguments(problem))
    budgets, reference_sampler = tuning.execution.budget, tuning.execution.reference
    is_exact = reference_sampler == EXACT
    first = _Choice("methods", tuning.methods[0]) if is_exact else _Choice("execution.reference", reference_sampler)
    reference = parse_job(_config(composer, tuning, arguments, first, _trial(budgets) if is_exact else _hmc(budgets)))
    methods: list[Method] = []
    faults: list[str] = []
    for name in tuning.methods:
        config = _config(composer, tuning, arguments, _Choice("methods", name), _trial(budgets))
        method = Method(name, config, tuning.search_space[name])
        faults += _faults(method)
        methods.append(method)
    if faults:
        raise ConfigError(faults)
    identity = reference.run_id
    if is_exact:
        reference = methods[0].job(methods[0].preset())
        of_posterior = {"posterior": canonical(reference.posterior), "num_chains": reference.num_chains}
        identity = digest(EXACT, {**of_posterior, "seed": reference.seed}, [reference.target_id])
    return Case(f"{target_label(reference)}-{identity[-8:]}", reference, methods, is_exact)


class _Choice(NamedTuple):
    """A preset of ``conf/sampler``, and the key that chose it."""

    key: str
    preset: str


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


def _config(composer: Composer, tuning: Tuning, arguments: list[str], choice: _Choice, budget: Document) -> Config:
    (overrides,) = composer.expand([*arguments, override_text("sampler", choice.preset)])
    try:
        config = composer.config(overrides)
    except ConfigError as error:
        raise ConfigError([_of_choice(fault, choice) for fault in error.faults]) from error
    config["budget"] = budget
    config["store"] = {"root": tuning.store.root, "experiment": f"tune-{tuning.store.namespace}", "plots": "none"}
    return config


def _of_choice(fault: str, choice: _Choice) -> str:
    """``fault`` under the key by which the session chose the sampler."""
    if not fault.startswith("sampler: needs one of"):
        return fault
    known = [*presets_of("sampler"), *([EXACT] if choice.key == "execution.reference" else [])]
    return f"{choice.key}: no such sampler: {choice.preset}{near_miss(choice.preset, known)}"


def _hmc(budgets: Budgets) -> Document:
    return {"seconds": budgets.hmc_sec, "gradients": budgets.hmc_gradients, "mcse": budgets.hmc_mcse}


def _trial(budgets: Budgets) -> Document:
    return {"seconds": budgets.trial_sec, "gradients": budgets.trial_gradients}


def _faults(method: Method) -> list[str]:
    """Faults of a search space, by the sampler's own schema at both ends of every dimension."""
    faults: list[str] = []
    older = _older_names(method)
    for name in method.space:
        if name in older and name != DRAWS:
            new = older[name].replace("sampler.", "").replace("budget.", "")
            faults.append(f"search_space.{method.name}.{name}: is an older name; use {new}")
            continue
        unknown = no_such_field(method.name, name, method.config["sampler"])
        faults += [] if unknown is None else [unknown]
    corner = {name: dimension.ends()[0] for name, dimension in method.space.items()}
    faults = faults or _judged(method, corner)
    if not faults:
        for name, dimension in method.space.items():
            for value in dimension.ends():
                faults += _judged(method, {**corner, name: value}) or _converted(method, name, {**corner, name: value})
    return faults


def no_such_field(method: str, name: str, fields: Iterable[str]) -> str | None:
    """Why the search space of ``method``, a sampler with ``fields``, cannot have ``name``; None if it can."""
    has = [*(field for field in fields if field != "_target_"), DRAWS]
    if name in has:
        return None
    return (
        f"search_space.{method}.{name}: {method} has no such field{near_miss(name, has)}; "
        f"it has {', '.join(has[:-1])}, and {DRAWS} (its length)"
    )


def _converted(method: Method, name: str, params: Params) -> list[str]:
    """Why a value that the schemas take for another one, such as the text 300 for the number, cannot be searched."""
    job = method.job(params)
    taken = job.budget.draws if name == DRAWS else canonical(job.sampler)[name]
    if taken == params[name]:
        return []
    return [f"search_space.{method.name}.{name}: needs {taken!r} as it is, without quotes, got {params[name]!r}"]


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
