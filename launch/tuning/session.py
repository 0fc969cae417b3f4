"""A tuning session from its configuration to its results: check all, then drive, then tell."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.util import find_spec
from typing import Any

from lambda_hat.config.compose import Composer
from lambda_hat.config.job import ConfigError
from lambda_hat.launch import table
from lambda_hat.launch.backend import Backend
from lambda_hat.launch.submit import SweepStopped
from lambda_hat.launch.tuning.database import FILE, Database, database_url, masked
from lambda_hat.launch.tuning.definition import definition
from lambda_hat.launch.tuning.problems import Case, Method, compose_cases
from lambda_hat.launch.tuning.record import RESOLVED, studies_dir
from lambda_hat.launch.tuning.schema import Tuning
from lambda_hat.run.progress import Reporter, terminal_reporter
from lambda_hat.store.layout import Store, write_bytes
from lambda_hat.store.lease import Lease, LeaseHeld, Owner
from lambda_hat.store.runs import finished


class TuningFailed(RuntimeError):
    """Some problem has no reference, and so no trials; the others do."""


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


def drive(session: Session) -> None:
    """Run the session to its end and print its results.

    Raises:
        ConfigError: a study was begun with other settings or is missing, or the database cannot be opened.
        SweepStopped: a signal ended the driver.
        TuningFailed: a reference could not be made.
    """
    from lambda_hat.launch.tuning import results
    from lambda_hat.launch.tuning.loop import Tuner
    from lambda_hat.launch.tuning.trial_sweep import TrialSweep

    store, folder = session.store, studies_dir(session.store, session.tuning.store.namespace)
    with terminal_reporter() as reporter, _database(session, reporter) as database:
        problems = tuned_problems(session, database)
        faults = [fault for tuned in problems for study in tuned.studies for fault in study.faults(session.resume)]
        if faults:
            raise ConfigError(faults)
        _write_resolved(session, database.url)
        with TrialSweep(store, session.backend, session.sweep_name, reporter) as runs:
            reporter.line(f"sweep {runs.name}: `lambda-hat status {runs.name} --store {store.root}` follows its runs")
            tuner = Tuner(session.tuning, store, problems, runs, reporter)
            try:
                tuner.run()
            except KeyboardInterrupt as interrupt:
                raise SweepStopped(_words_of_stop(runs.name)) from interrupt
        if runs.is_stopped:
            raise SweepStopped(_words_of_stop(runs.name))
        reporter.status("tables, presets and plots")
        found = results.gather(session, problems)
    results.show(found, folder, database.url)
    failures = [f"{tuned.case.name}: {tuned.failure}" for tuned in problems if tuned.failure is not None]
    if failures:
        raise TuningFailed("; ".join(failures))


def _words_of_stop(name: str) -> str:
    return f"stopped; the same command goes on, `lambda-hat cancel {name}` ends what is still queued or running"


@contextlib.contextmanager
def _database(session: Session, reporter: Reporter) -> Iterator[Database]:
    """The studies' database; with SQLite under a lease, since two writers would spoil each other's trials."""
    folder = studies_dir(session.store, session.tuning.store.namespace)
    url = database_url(session.tuning.optuna.storage, folder)
    with contextlib.ExitStack() as contexts:
        if url.startswith("sqlite"):
            try:
                contexts.enter_context(Lease.claim(folder, Owner.current()))
            except LeaseHeld as held:
                raise ConfigError(
                    [
                        f"store.namespace: {session.tuning.store.namespace} is being tuned by {held.owner}, and SQLite "
                        "takes one driver; wait for it, choose another namespace, or let several drivers share "
                        "PostgreSQL with optuna.storage=postgresql://USER@HOST/DATABASE"
                    ]
                ) from held
        database = Database(url, reporter)
        contexts.callback(database.close)
        yield database


def tuned_problems(session: Session, database: Database) -> "list[Any]":
    """The problems with their studies, not opened yet."""
    from lambda_hat.launch.tuning.loop import TunedProblem
    from lambda_hat.launch.tuning.study import Study

    folder, settings = studies_dir(session.store, session.tuning.store.namespace), session.tuning.optuna
    problems: list[TunedProblem] = []
    for case in session.cases:
        studies = [
            Study(
                database, study_name(session, case, method), method, settings, definition(session.tuning, case, method)
            )
            for method in case.methods
        ]
        problems.append(TunedProblem(case, folder / case.name, studies))
    return problems


def study_name(session: Session, case: Case, method: Method) -> str:
    return f"{session.tuning.store.namespace}/{case.name}/{method.name}"


def _write_resolved(session: Session, url: str) -> None:
    """The configuration with every default, so that a study says what it was."""
    import yaml

    document = plain(session.tuning)
    document["optuna"]["storage"] = masked(url)
    document["hydra"] = {"launcher": dict(session.backend.config)}
    path = studies_dir(session.store, session.tuning.store.namespace) / RESOLVED
    write_bytes(path, yaml.safe_dump(document, sort_keys=False).encode())


def plain(node: Any) -> Any:
    """A schema object as the plain mapping that makes it again."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(value) for value in node]
    if is_dataclass(node):
        return {one.name: plain(getattr(node, one.name)) for one in fields(node)}
    return node


def print_plan(session: Session) -> None:
    """What would run (``dry_run``)."""
    tuning, store = session.tuning, session.store
    table.show(f"Plan of {tuning.store.namespace}: {len(session.cases)} problems x {len(tuning.methods)} methods")
    for case in session.cases:
        is_found = finished(store, case.reference.target_id, case.reference.run_id, case.reference.budget) is not None
        condition = "is found" if is_found else "is to be made"
        table.show(f"{case.name}: its reference {case.reference.run_id} {condition}")
        for method in case.methods:
            told = len(list((studies_dir(store, tuning.store.namespace) / case.name / method.name).glob("trial-*")))
            fields = ", ".join(method.space)
            table.show(f"  {method.name}: {told} of {tuning.optuna.max_trials_per_method} trials told; tunes {fields}")
    budget = tuning.execution.budget
    cost = f"{budget.trial_sec:g} s" if budget.trial_sec is not None else f"{budget.trial_gradients:,} row gradients"
    at_once = tuning.optuna.concurrency.batch_size
    table.show(f"a trial has {cost}; {at_once} trials of a study at once on {session.backend.kind}")
    where = (
        masked(tuning.optuna.storage)
        if tuning.optuna.storage
        else str(studies_dir(store, tuning.store.namespace) / FILE)
    )
    table.show(f"studies: {where}")
    table.show("nothing was submitted (dry run)")
