"""The configuration of a tuning session: its keys, their defaults and ranges."""

import math
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from lambda_hat.config.presets import presets_of
from lambda_hat.config.schema import (
    NAMES,
    STRICT,
    Float,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    is_name,
    near_miss,
)

EXACT = "exact"  # the reference that is no sampler


def _refuse_name(text: str) -> str:
    if not is_name(text):
        raise ValueError(NAMES)
    return text


# The name of a folder.
Name = Annotated[str, AfterValidator(_refuse_name)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Problem:
    """A target and its posterior, on which methods are tuned.

    Args:
        model: Preset of ``conf/model``.
        data: Preset of ``conf/data``; null: the model's own default.
        teacher: Preset of ``conf/teacher``; null: the student's own architecture.
        seed: The seed of the reference and of every trial.
        overrides: Any other key of a run, nested or dotted, except the sampler's and the budget's.
    """

    model: str
    data: str | None = None
    teacher: str | None = None
    seed: Seed = 0
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Dimension:
    """The range of one hyperparameter.

    Args:
        dist: ``float`` and ``int`` have ``low`` and ``high``, ``categorical`` has ``choices``.
        low: The smallest value.
        high: The largest value.
        log: Whether its logarithm is uniform; needs ``low`` > 0 and no ``step``.
        step: Distance between neighbouring values.
        choices: The values.
    """

    dist: Literal["float", "int", "categorical"]
    low: Float | None = None
    high: Float | None = None
    log: bool = False
    step: PositiveFloat | None = None
    choices: list[Any] | None = None

    def __post_init__(self) -> None:
        if self.dist == "categorical":
            if not self.choices or {self.low, self.high, self.step, self.log} != {None, False}:
                raise ValueError("categorical needs choices, and nothing else")
            if not all(choice is None or isinstance(choice, bool | int | float | str) for choice in self.choices):
                raise ValueError("categorical needs choices that are numbers, words, true, false or null")
            return
        if self.choices is not None or self.low is None or self.high is None:
            raise ValueError(f"{self.dist} needs low and high, and no choices")
        if self.low > self.high:
            raise ValueError(f"needs low <= high, got {self.low:g} > {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low > 0 and no step")
        if self.dist == "int" and any(x is not None and x != int(x) for x in (self.low, self.high, self.step)):
            raise ValueError("int needs whole numbers")

    def ends(self) -> list[Any]:
        """The extreme values; if they are valid, so are the others."""
        if self.choices is not None:
            return self.choices
        kind = int if self.dist == "int" else float
        return [kind(self.low or 0), kind(self.high or 0)]

    def largest(self) -> Any:
        """The largest value, of whole numbers."""
        if self.choices is not None:
            return max(self.choices)
        low, high = self.ends()
        return high - (high - low) % int(self.step or 1)

    def holds(self, value: Any) -> bool:
        """Whether ``value`` lies in the range."""
        if self.choices is not None:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int if self.dist == "int" else int | float):
            return False
        low, high = self.ends()
        steps = 0.0 if self.step is None else (value - low) / self.step
        return low <= value <= high and math.isclose(steps, round(steps), abs_tol=1e-9)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Objective:
    r"""rho(sqrt((llc - ref)^2 + mcse^2) / max(1, |ref|)), so that bias and noise both cost.

    Args:
        type: rho: ``abs``, or ``huber``: x^2 / 2 up to ``delta``, then linear.
        delta: Where Huber's function turns linear.
    """

    type: Literal["abs", "huber"] = "abs"
    delta: PositiveFloat = 0.1

    PENALTY: ClassVar[float] = 1e6  # larger than the objective of any finite trial

    def value(self, llc: float | None, mcse: float | None, reference: float) -> float:
        """The value to minimise; :attr:`PENALTY` if the estimate or its error is not finite."""
        if llc is None or mcse is None or not math.isfinite(llc) or not math.isfinite(mcse):
            return self.PENALTY
        error = math.hypot(llc - reference, mcse) / max(1.0, abs(reference))
        if self.type == "abs":
            return error
        return error**2 / 2 if error <= self.delta else self.delta * (error - self.delta / 2)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Concurrency:
    """How many trials of a study one driver has in flight at once.

    Args:
        batch_size: Trials of each study that are submitted and have not ended.
    """

    batch_size: PositiveInt = 16


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Search:
    """Optuna's sampler.

    Args:
        type: ``tpe``, ``random``, or ``cmaes`` (needs the extra of that name).
        seed: Together with the trial's number and the trials so far it determines the proposal.
        n_startup_trials: Random trials before the sampler learns (tpe).
    """

    type: Literal["tpe", "random", "cmaes"] = "tpe"
    seed: Seed = 42
    n_startup_trials: NonNegativeInt = 20


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pruner:
    """Stops trials early that are worse than the median after one fifth, two fifths, ... of their budget.

    Args:
        type: ``median`` or ``none``.
        n_startup_trials: Trials that must end before any is stopped.
        n_warmup_steps: Fifths of the budget before any is stopped.
    """

    type: Literal["median", "none"] = "median"
    n_startup_trials: NonNegativeInt = 10
    n_warmup_steps: NonNegativeInt = 1


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Optuna:
    """Settings of the studies.

    Args:
        objective: The function to minimise.
        max_trials_per_method: Trials of each study, all drivers together; retries do not count.
        concurrency: Trials at once.
        sampler: Proposes parameters.
        pruner: Stops trials.
        storage: A PostgreSQL URL, for several drivers at once; null: an SQLite file in the store, for one driver.
    """

    objective: Objective = field(default_factory=Objective)
    max_trials_per_method: PositiveInt = 100
    concurrency: Concurrency = field(default_factory=Concurrency)
    sampler: Search = field(default_factory=Search)
    pruner: Pruner = field(default_factory=Pruner)
    storage: str | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Budgets:
    """How far runs go, warm-up included, compilation not. A trial has seconds or gradients, not both: what is compared
    must have cost the same.

    Args:
        hmc_sec: Seconds of a reference.
        hmc_gradients: Per-row gradients of a reference, over all its chains.
        hmc_mcse: A reference ends earlier once its error is this fraction of its LLC; null: it does not.
        trial_sec: Seconds of a trial.
        trial_gradients: Per-row gradients of a trial, over all its chains, which no machine's noise touches.
    """

    hmc_sec: PositiveFloat | None = 7200.0
    hmc_gradients: PositiveInt | None = None
    hmc_mcse: PositiveFloat | None = 0.002
    trial_sec: PositiveFloat | None = 600.0
    trial_gradients: PositiveInt | None = None

    def __post_init__(self) -> None:
        if self.hmc_sec is self.hmc_gradients is None:
            raise ValueError("needs hmc_sec or hmc_gradients, both are null")
        if (self.trial_sec is None) == (self.trial_gradients is None):
            raise ValueError("needs trial_sec or trial_gradients, and the other null")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Execution:
    """How runs are made.

    Args:
        reference: The sampler of the references, an exact one: ``reference``, ``hmc``, ``nuts``, or another preset;
            ``exact``: no sampler, but the value that the model knows. It replaces an estimate wherever there is one.
        budget: How far runs go.
        max_retries: How often a trial whose process was killed is tried again, each time from its last commit.
    """

    reference: str = "reference"
    budget: Budgets = field(default_factory=Budgets)
    max_retries: NonNegativeInt = 2


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StudyStore:
    """Where the studies are kept.

    Args:
        root: The store.
        namespace: Folder of the studies, ``studies/NAMESPACE``; another one begins anew.
        ttl_days: Recorded with the studies, for who tidies up. `lambda-hat artifacts gc` keeps their runs in any case.
    """

    root: str = "runs"
    namespace: Name = "optuna"
    ttl_days: PositiveInt = 30


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Tuning:
    """A tuning session: every method on every problem is one study.

    Args:
        problems: Targets with their posteriors.
        methods: Presets of ``conf/sampler``.
        optuna: The search.
        search_space: Of each method, where each field of its sampler may lie. ``draws`` is ``budget.draws``: trials
            that differ in it only share one run.
        execution: How runs are made.
        store: Where the studies are kept.
    """

    problems: list[Problem]
    methods: list[str] = field(default_factory=lambda: ["sgld", "vi", "mclmc"])
    optuna: Optuna = field(default_factory=Optuna)
    search_space: dict[str, dict[str, Dimension]]
    execution: Execution = field(default_factory=Execution)
    store: StudyStore = field(default_factory=StudyStore)

    def faults(self) -> list[str]:
        """What no single node can see."""
        faults = ["problems: needs at least one"] if not self.problems else []
        if not self.methods or len(set(self.methods)) < len(self.methods):
            faults.append(f"methods: needs one or more, each once, got {self.methods}")
        for method in self.methods:
            space = self.search_space.get(method, {})
            known = presets_of("sampler")
            if not space and method not in known:
                faults.append(f"methods: no such sampler: {method}{near_miss(method, {*known, *self.search_space})}")
            elif not space:
                others = ", ".join(name for name in self.search_space if name not in self.methods)
                has = f"; search_space has {others}" if others else ""
                faults.append(f"search_space.{method}: needs at least one field, got none{has}")
            elif self.execution.budget.trial_gradients is not None and "draws" not in space:
                faults.append(
                    f"search_space.{method}.draws: is needed where the budget is gradients, since draws may cost none "
                    "(fix it: {dist: categorical, choices: [1000]})"
                )
        return faults
