"""A tuning session before anything runs: every check, and the plan. Loads no Optuna."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec

from lambda_hat.config.compose import Composer
from lambda_hat.config.schema import ConfigError
from lambda_hat.launch import table
from lambda_hat.launch.backend import Backend
from lambda_hat.launch.tuning.problems import Case, compose_cases
from lambda_hat.launch.tuning.record import studies_dir
from lambda_hat.launch.tuning.schema import Tuning
from lambda_hat.launch.tuning.url import FILE, masked
from lambda_hat.store.layout import Store
from lambda_hat.store.runs import finished


@dataclass(frozen=True)
class Session:
    """What a driver needs to know.

    Args:
        tuning: The configuration.
        backend: Where runs run.
        cases: The problems, composed.
        resume: Studies must exist already.
    """

    tuning: Tuning
    backend: Backend
    cases: list[Case] = field(default_factory=list)
    resume: bool = False

    @property
    def store(self) -> Store:
        return Store(Store(self.tuning.store.root).root.absolute())

    @property
    def sweep_name(self) -> str:
        return f"tune-{self.tuning.store.namespace}"


def prepare(tuning: Tuning, backend: Backend, composer: Composer, *, resume: bool = False) -> Session:
    """Check everything that can be checked before anything runs.

    Raises:
        ConfigError: naming every fault.
    """
    faults = _walltime_faults(tuning, backend)
    if tuning.optuna.sampler.type == "cmaes" and find_spec("cmaes") is None:
        faults.append("optuna.sampler.type: cmaes needs the package of that name: pip install 'lambda-hat[cmaes]'")
    if faults:
        raise ConfigError(faults)
    return Session(tuning, backend, compose_cases(composer, tuning), resume)


def _walltime_faults(tuning: Tuning, backend: Backend) -> list[str]:
    seconds = tuning.execution.budget.trial_sec
    if backend.kind == "local" or seconds is None:
        return []
    needed, has = seconds * backend.runs_per_element + backend.margin_s, backend.timeout_min * 60
    if needed <= has:
        return []
    return [
        f"execution.budget.trial_sec: needs to end within the backend's walltime, got {seconds:g} s"
        f"{f' x {backend.runs_per_element} runs an element' if backend.runs_per_element > 1 else ''} + "
        f"{backend.margin_s} s margin = {needed:g} s against {has} s; lower it, or raise the walltime with "
        f"hydra.launcher.timeout_min={-(-int(needed) // 60)}"
    ]


def _cost(session: Session) -> Iterator[str]:
    """What the session takes at most, in what its budgets are in."""
    tuning = session.tuning
    budget, at_once = tuning.execution.budget, tuning.optuna.concurrency.batch_size
    trials = len(session.cases) * len(tuning.methods) * tuning.optuna.max_trials_per_method
    yield f"{at_once} trials of a study at once on {session.backend.kind}"
    yield f"at most {trials} trials x {_limits(budget.trial_sec, budget.trial_gradients, trials)}"
    references = sum(not case.is_exact for case in session.cases)
    if references:
        yield f"at most {references} references x {_limits(budget.hmc_sec, budget.hmc_gradients, references)}"


def _limits(seconds: float | None, gradients: int | None, count: int) -> str:
    """The limits of one run, and of ``count`` of them."""
    each = [f"{seconds:g} s"] if seconds is not None else []
    each += [f"{gradients:,} row gradients"] if gradients is not None else []
    total = [f"{seconds * count / 3600:.3g} h of computation"] if seconds is not None else []
    total += [f"{gradients * count:,} row gradients"] if gradients is not None else []
    return f"{' or '.join(each)} = {' or '.join(total)}"


def print_plan(session: Session) -> None:
    """What would run (``dry_run``)."""
    tuning, store = session.tuning, session.store
    table.show(f"Plan of {tuning.store.namespace}: {len(session.cases)} problems x {len(tuning.methods)} methods")
    for case in session.cases:
        is_found = finished(store, case.reference.target_id, case.reference.run_id, case.reference.budget) is not None
        condition = "is found" if is_found else "is to be made"
        if case.is_exact:
            table.show(f"{case.title} (folder {case.name}): its reference is the value that the model knows")
        else:
            table.show(f"{case.title} (folder {case.name}): its reference {case.reference.run_id} {condition}")
        for method in case.methods:
            told = len(list((studies_dir(store, tuning.store.namespace) / case.name / method.name).glob("trial-*")))
            fields = ", ".join(method.space)
            table.show(
                f"  {method.name}: {told} of {tuning.optuna.max_trials_per_method} trials have ended; tunes {fields}"
            )
    for line in _cost(session):
        table.show(line)
    where = (
        masked(tuning.optuna.storage)
        if tuning.optuna.storage
        else str(studies_dir(store, tuning.store.namespace) / FILE)
    )
    table.show(f"studies: {where}")
    table.show("nothing was submitted (dry run)")
