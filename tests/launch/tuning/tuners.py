"""Drivers of tuning sessions whose runs are made by a stub, in processes that die at a step of one's choice.

All else is as it is: studies, databases, files. Imported by a fork server: whatever is slow is imported at the top.
"""

import functools
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import alembic.config
import alembic.script
import h5netcdf
import optuna
import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from lambda_hat.config.job import parse_job
from lambda_hat.launch.backend import Backend
from lambda_hat.launch.tuning import loop, study
from lambda_hat.launch.tuning.database import Database
from lambda_hat.launch.tuning.driver import tuned_problems
from lambda_hat.launch.tuning.loop import TunedProblem, Tuner
from lambda_hat.launch.tuning.parse import parse_tuning
from lambda_hat.launch.tuning.problems import Case, Method
from lambda_hat.launch.tuning.record import make_identity, studies_dir
from lambda_hat.launch.tuning.schema import Tuning
from lambda_hat.launch.tuning.session import Session
from lambda_hat.launch.tuning.url import database_url
from lambda_hat.run.progress import PlainReporter
from lambda_hat.store.layout import read_json
from tests.hang import HANG
from tests.jobs import SGLD, job_config
from tests.launch.stub_runs import NUM_DRAWS, Kind, StubRuns

_PRELOADED = (alembic.config, alembic.script, h5netcdf, sqlalchemy.dialects.postgresql, sqlalchemy.dialects.sqlite)

SPACE = {
    "step_size": {"dist": "float", "low": 1e-6, "high": 1e-2, "log": True},
    "batch_size": {"dist": "categorical", "choices": [16, 32]},
}


def config(root: Path, **changes: Any) -> dict[str, Any]:
    """A session of one problem and one method; ``changes`` are dotted keys with ``__`` for the dot."""
    document: dict[str, Any] = {
        "problems": [{"model": "quadratic"}],
        "methods": ["sgld"],
        "optuna": {
            "max_trials_per_method": 6,
            "concurrency": {"batch_size": 2},
            "sampler": {"type": "tpe", "seed": 1, "n_startup_trials": 4},
            "pruner": {"type": "median", "n_startup_trials": 1, "n_warmup_steps": 0},
            "storage": None,
        },
        "search_space": {"sgld": dict(SPACE)},
        "execution": {"budget": {"trial_sec": None, "trial_gradients": 10000}, "max_retries": 1},
        "store": {"root": str(root), "namespace": "test"},
    }
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = document
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    if "draws" not in document["search_space"]["sgld"]:
        document["search_space"]["sgld"]["draws"] = {"dist": "categorical", "choices": [NUM_DRAWS]}
    return document


def session(document: dict[str, Any]) -> Session:
    """The session of ``document``, without the second that composing takes."""
    tuning: Tuning = parse_tuning(document)
    root = Path(tuning.store.root)
    store = {"root": str(root), "experiment": "tune", "plots": "none"}
    base = job_config(root, store=store)
    cases: list[Case] = []
    for problem in tuning.problems:
        node = {**base, "seed": problem.seed}
        reference = parse_job({**node, "budget": {"seconds": 10.0}})
        trial = {"gradients": tuning.execution.budget.trial_gradients, "seconds": tuning.execution.budget.trial_sec}
        method = Method("sgld", {**node, "sampler": SGLD, "budget": trial}, tuning.search_space["sgld"])
        cases.append(Case(f"quadratic-{reference.run_id[-8:]}", reference, [method], title="quadratic"))
    return Session(tuning, Backend(kind="local"), cases)


def drive(document: dict[str, Any], kinds: Sequence[Kind] = ("good",), looks: int = 1, pause: float = 0.01) -> StubRuns:
    """A driver, to its end; ``pause`` seconds between its looks."""
    loop._SECONDS_BETWEEN_LOOKS = loop._SECONDS_BETWEEN_STEPS = pause
    loop._SECONDS_BETWEEN_QUESTIONS = 0.0
    loop._SECONDS_BETWEEN_ROUNDS = 0.2
    study._HEARTBEAT_S = 0.2
    here = session(document)
    store = here.store
    make_identity(store)
    runs = StubRuns(store, kinds, looks)
    database = Database(database_url(here.tuning.optuna.storage, _folder(here)), PlainReporter())
    try:
        Tuner(here.tuning, store, tuned_problems(here, database), runs, PlainReporter()).run()
    finally:
        database.close()
    return runs


def _folder(here: Session) -> Path:
    folder = studies_dir(here.store, here.tuning.store.namespace)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def trials(document: dict[str, Any]) -> list[FrozenTrial]:
    """What the database says of the namespace's only study."""
    here = session(document)
    storage = RDBStorage(database_url(here.tuning.optuna.storage, _folder(here)))
    try:
        prefix = f"{here.tuning.store.namespace}/"
        (only,) = [study for study in storage.get_all_studies() if study.study_name.startswith(prefix)]
        return storage.get_all_trials(only._study_id)
    finally:
        storage.engine.dispose()


def assert_settled(document: dict[str, Any], told: Sequence[str] | None = None) -> list[FrozenTrial]:
    """Nothing lost, nothing doubled: as many trials as were asked for, each told, with its metrics and its own run."""
    found = trials(document)
    retried = {trial.user_attrs.get("retry_of") for trial in found}
    final = [trial for trial in found if trial.number not in retried]
    assert [trial.number for trial in found] == list(range(len(found)))
    assert all(trial.state.is_finished() for trial in found), [trial.state for trial in found]
    assert len(final) == document["optuna"]["max_trials_per_method"]
    retries = [trial.user_attrs["retry_of"] for trial in found if "retry_of" in trial.user_attrs]
    assert len(retries) == len(set(retries)), "a trial was retried twice"
    for trial in found:
        metrics = read_json(_metrics(document, trial.number))
        assert metrics is not None
        assert (metrics["state"], metrics["value"]) == (trial.state.name, trial.value)
        assert metrics["run_id"] == trial.user_attrs["run"]
        assert metrics["params"] == trial.params
    if told is not None:
        assert sorted(trial.state.name for trial in final) == sorted(told)
    return found


def _metrics(document: dict[str, Any], number: int) -> Path:
    here = session(document)
    return _folder(here) / here.cases[0].name / "sgld" / f"trial-{number:05d}" / "metrics.json"


# Where a driver can die: before and after each of these.
STEPS: dict[str, tuple[Any, str]] = {
    "create study": (RDBStorage, "create_new_study"),
    "describe study": (RDBStorage, "set_study_user_attr"),
    "create trial": (RDBStorage, "_create_new_trial"),
    "write attribute": (RDBStorage, "set_trial_user_attr"),
    "report": (RDBStorage, "set_trial_intermediate_value"),
    "tell": (RDBStorage, "set_trial_state_values"),
    "write reference": (loop, "write_reference"),
    "write metrics": (loop, "write_metrics"),
    "send": (StubRuns, "send"),
    "end": (StubRuns, "end"),
}


def _counting(events: list[str], on_event: Callable[[str], None]) -> None:
    for name, (owner, attribute) in STEPS.items():
        original = getattr(owner, attribute)

        @functools.wraps(original)
        def wrapped(*args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            label = _name
            if _name == "write attribute":
                label = f"write {next((word for word in (*args, *kwargs.values()) if isinstance(word, str)), '')}"
            if _name == "tell":
                label = f"tell {next(word.name for word in (*args, *kwargs.values()) if isinstance(word, TrialState))}"
            on_event(f"before {label}")
            result = _original(*args, **kwargs)
            on_event(f"after {label}")
            return result

        setattr(owner, attribute, wrapped)


def _child(
    document: dict[str, Any], kinds: Sequence[Kind], looks: int, kill_at: tuple[str, int] | None, out: str
) -> None:
    events: list[str] = []

    def on_event(label: str) -> None:
        events.append(label)
        if kill_at is not None and label == kill_at[0] and events.count(label) == kill_at[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    with Path(out).with_suffix(".log").open("a") as log:
        os.dup2(log.fileno(), 2)
    _counting(events, on_event)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    runs = drive(document, kinds, looks)
    Path(out).write_text(json.dumps({"events": events, "most": runs.most}))


_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.launch.tuning.tuners"])


def start(
    document: dict[str, Any],
    out: Path,
    *,
    kinds: Sequence[Kind] = ("good",),
    looks: int = 1,
    kill_at: tuple[str, int] | None = None,
) -> Any:
    """A driver in a process of its own; killed at the n-th time of an event.

    Afterwards ``out`` holds its events, and the file beside it that ends in ``.log`` what it said.
    """
    process = _SERVER.Process(target=_child, args=(document, kinds, looks, kill_at, str(out)))
    process.start()
    return process


def finish(process: Any, seconds: float = HANG) -> int:
    """The exit code."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"waited {seconds:g} s in vain for a driver")
    return process.exitcode


__all__ = ["TunedProblem", "assert_settled", "config", "drive", "finish", "session", "start", "time", "trials"]
