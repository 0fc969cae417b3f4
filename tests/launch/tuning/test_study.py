"""One study: its database, its first trial (the preset as it is, for the others to improve on), what it proposes."""

import contextlib
import dataclasses
import sqlite3
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lambda_hat.launch.tuning import database, results
from lambda_hat.launch.tuning.database import Database
from lambda_hat.launch.tuning.driver import tuned_problems
from lambda_hat.launch.tuning.parse import parse_tuning
from lambda_hat.launch.tuning.proposer import Proposer
from lambda_hat.launch.tuning.record import read_metrics
from lambda_hat.launch.tuning.schema import Dimension
from lambda_hat.launch.tuning.url import database_url
from lambda_hat.run.progress import PlainReporter
from tests.launch.stub_runs import NUM_DRAWS
from tests.launch.tuning import tuners

# The preset's step is 1e-4.
AWAY = {"dist": "float", "low": 1e-6, "high": 1e-5, "log": True}
WHERE = {"holds the preset": tuners.SPACE, "does not": {**tuners.SPACE, "step_size": AWAY}}


@pytest.mark.parametrize("space", WHERE.values(), ids=WHERE.keys())
@pytest.mark.parametrize("kind", ["good", "killed"])
def test_the_first_trial_is_the_preset(tmp_path: Path, space: dict[str, Any], kind: str) -> None:
    document = tuners.config(tmp_path / "runs", search_space__sgld=dict(space))
    tuners.drive(document, (kind, "good"))
    found = tuners.assert_settled(document)
    case = tuners.session(document).cases[0]
    (method,) = case.methods
    presets = [trial for trial in found if trial.user_attrs.get("preset")]
    assert len(presets) == (2 if kind == "killed" else 1)  # tried again as what it was
    assert {trial.user_attrs["run"] for trial in presets} == {method.job({}).run_id}
    assert ("step_size" in presets[0].params) == (space["step_size"] != AWAY)
    assert presets[0].params["draws"] == NUM_DRAWS
    assert all(trial.params.keys() == method.space.keys() for trial in found if trial not in presets)

    rows = read_metrics(tmp_path / "runs" / "studies")
    table = pd.read_parquet(results.write_table(tuners.session(document).store, rows))
    assert list(table["preset"]).count(True) == len(presets)
    best = results.best_of(rows)
    assert best is not None
    assert best["preset"], "the stub's optimum is the preset's step"


def test_the_preset_is_measured_to_its_end_whatever_the_pruner_says(tmp_path: Path) -> None:
    document = tuners.config(tmp_path / "runs")
    tuners.drive(document)
    document["optuna"]["max_trials_per_method"] = 7
    here = tuners.session(document)
    opened = Database(database_url(None, tmp_path / "runs" / "studies" / "test"), PlainReporter())
    (tuned,) = tuned_problems(here, opened)
    (study,) = tuned.studies
    study.open()
    (live,) = study.refill(1)
    assert study.report(live, 1, 1e3)
    assert not study.report(dataclasses.replace(live, is_preset=True), 1, 1e3)
    opened.close()


def test_a_driver_that_starts_anew_proposes_something_new_but_the_same_each_time(tmp_path: Path) -> None:
    tuning = parse_tuning(tuners.config(tmp_path))

    def first(number: int) -> dict[str, Any]:
        mirror = Proposer(tuning.search_space["sgld"], tuning.optuna.sampler, tuning.optuna.pruner)
        return mirror.propose(number, {}).params

    assert first(0) == first(0)
    assert first(0) != first(1)


def test_sqlite_writes_ahead_only_where_no_other_machine_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that was moved between filesystems follows."""
    kinds = [(database._LOCAL, "wal" if database._is_local(tmp_path) else "delete"), (set(), "delete")]
    for local, journal in [*kinds, kinds[0]]:
        monkeypatch.setattr(database, "_LOCAL", local)
        Database(database_url(None, tmp_path), PlainReporter()).close()
        with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == (journal,)


def test_a_sampler_learns_only_from_trials_that_have_all_fields(tmp_path: Path) -> None:
    """Else Optuna would propose fields one by one, without regard to each other."""
    document = tuners.config(tmp_path / "runs", search_space__sgld={**tuners.SPACE, "step_size": AWAY})
    tuners.drive(document)
    optuna = parse_tuning(document).optuna
    (method,) = tuners.session(document).cases[0].methods
    mirror = Proposer(method.space, optuna.sampler, optuna.pruner)
    mirror.update(tuners.trials(document))
    assert [trial.params.keys() for trial in mirror._study.trials] == [method.space.keys()] * 5


@pytest.mark.parametrize(
    ("dimension", "inside", "outside", "largest"),
    [
        ({"dist": "float", "low": 0.5, "high": 2.0}, [0.5, 1, 2.0], [0.4, 3.0, "auto", None, True], None),
        ({"dist": "int", "low": 3, "high": 7}, [3, 5, 7], [2, 5.0], 7),
        ({"dist": "int", "low": 10, "high": 45, "step": 10}, [10, 40], [15, 50, 20.0], 40),
        ({"dist": "categorical", "choices": ["none", "adam"]}, ["adam"], ["rmsprop", None], None),
        ({"dist": "categorical", "choices": [16, 32]}, [16], [8], 32),
    ],
)
def test_what_a_dimension_holds(dimension: dict[str, Any], inside: list[Any], outside: list[Any], largest: Any) -> None:
    node = Dimension(**dimension)
    assert all(map(node.holds, inside))
    assert not any(map(node.holds, outside))
    assert largest is None or node.largest() == largest
