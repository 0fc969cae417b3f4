"""The driver of a tuning session: opens the database and the studies, runs the loop, and shows what came out."""

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import yaml

from lambda_hat.config.schema import ConfigError
from lambda_hat.launch.submit import SweepStopped
from lambda_hat.launch.tuning import results
from lambda_hat.launch.tuning.database import Database, has_studies
from lambda_hat.launch.tuning.definition import definition
from lambda_hat.launch.tuning.loop import TunedProblem, Tuner
from lambda_hat.launch.tuning.problems import Case, Method
from lambda_hat.launch.tuning.record import RESOLVED, make_identity, store_identity, studies_dir
from lambda_hat.launch.tuning.session import Session
from lambda_hat.launch.tuning.study import Study
from lambda_hat.launch.tuning.trial_sweep import TrialSweep
from lambda_hat.launch.tuning.url import database_url, masked
from lambda_hat.run.progress import Reporter, terminal_reporter
from lambda_hat.store.layout import write_bytes
from lambda_hat.store.lease import Lease, LeaseHeld, Owner, is_held, newest_lease


class TuningFailed(RuntimeError):
    """Some problem has no reference, and so no trials, or no trial of some study has ended well; the others have."""


def drive(session: Session) -> None:
    """Run the session to its end and print its results.

    Raises:
        ConfigError: a study was begun with other settings or is missing, or the database cannot be opened.
        SweepStopped: a signal ended the driver.
        TuningFailed: a reference could not be made, or no trial of a study has ended well.
    """
    store, folder = session.store, studies_dir(session.store, session.tuning.store.namespace)
    make_identity(store)
    with terminal_reporter() as reporter, _database(session, reporter) as database:
        problems = tuned_problems(session, database)
        _raise_faults(problems, must_exist=session.resume)
        _write_resolved(session, database.url)
        with TrialSweep(store, session.backend, session.sweep_name, reporter) as runs:
            status = f"lambda-hat status {runs.name} --store {shlex.quote(str(store.root))}"
            reporter.line(f"sweep {runs.name}: `{status}` follows its runs")
            tuner = Tuner(session.tuning, store, problems, runs, reporter)
            try:
                tuner.run()
            except KeyboardInterrupt as interrupt:
                raise SweepStopped(_words_of_stop(runs.name)) from interrupt
        if runs.is_stopped:
            raise SweepStopped(_words_of_stop(runs.name))
        reporter.status("tables, presets and plots")
        found = results.gather(store, session.tuning.store.namespace, problems)
    results.show(found, folder, database.url)
    failures = [f"{tuned.case.title}: {tuned.failure}" for tuned in problems if tuned.failure is not None]
    failures += found.failures
    if failures:
        raise TuningFailed("; ".join(failures))


def check(session: Session) -> None:
    """Every check of :func:`drive` that needs the studies. It changes nothing, for a dry run.

    Raises:
        ConfigError: naming every fault.
    """
    folder = studies_dir(session.store, session.tuning.store.namespace)
    url = database_url(session.tuning.optuna.storage, folder)
    seen = newest_lease(folder) if url.startswith("sqlite") and is_held(folder) else None
    if seen is not None:
        raise _held(session, seen.owner)
    if not has_studies(url):
        if session.resume:
            raise ConfigError([f"--resume: needs the studies of {masked(url)}, which do not exist; leave --resume out"])
        return
    with terminal_reporter() as reporter, contextlib.closing(Database(url, reporter)) as database:
        _raise_faults(tuned_problems(session, database), must_exist=session.resume)


def _raise_faults(problems: Sequence[TunedProblem], *, must_exist: bool) -> None:
    faults = [fault for tuned in problems for study in tuned.studies for fault in study.faults(must_exist)]
    if faults:
        raise ConfigError(faults)


def _held(session: Session, owner: Owner | None) -> ConfigError:
    return ConfigError(
        [
            f"store.namespace: {session.tuning.store.namespace} is being tuned by {owner}, and SQLite takes one "
            "driver; wait for it, choose another namespace, or let several drivers share PostgreSQL with "
            "optuna.storage=postgresql://USER@HOST/DATABASE"
        ]
    )


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
                raise _held(session, held.owner) from held
        database = Database(url, reporter)
        contexts.callback(database.close)
        yield database


def tuned_problems(session: Session, database: Database) -> list[TunedProblem]:
    """The problems with their studies, not opened yet."""
    folder, settings = studies_dir(session.store, session.tuning.store.namespace), session.tuning.optuna
    problems: list[TunedProblem] = []
    for case in session.cases:
        studies = [
            Study(
                database,
                study_name(session, case, method),
                method,
                settings,
                definition(session.tuning, case, method),
                store_identity(session.store),
            )
            for method in case.methods
        ]
        problems.append(TunedProblem(case, folder / case.name, studies))
    return problems


def study_name(session: Session, case: Case, method: Method) -> str:
    return f"{session.tuning.store.namespace}/{case.name}/{method.name}"


def _write_resolved(session: Session, url: str) -> None:
    """The configuration with every default, so that a study says what it was."""
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
