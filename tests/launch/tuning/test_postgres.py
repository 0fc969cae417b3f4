"""Several drivers on one PostgreSQL study, and a database that goes away: on a real server."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from lambda_hat.config.schema import ConfigError
from lambda_hat.launch.tuning.database import Database
from lambda_hat.launch.tuning.driver import check, drive, tuned_problems
from lambda_hat.launch.tuning.url import database_url
from lambda_hat.run.progress import PlainReporter
from tests.hang import HANG
from tests.launch.tuning import tuners
from tests.postgres import Postgres
from tests.slurm.lab import LabError

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    postgres = Postgres()
    try:
        postgres.create()
        postgres.start()
    except LabError as error:
        postgres.remove()
        # At home PostgreSQL may be out of reach; in CI a skipped server is a hole nobody sees.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    yield postgres
    postgres.remove()


def shared(server: Postgres, root: Path, namespace: str, max_trials: int, **changes: object) -> dict[str, object]:
    return tuners.config(
        root,
        optuna__storage=server.url,
        store__namespace=namespace,
        optuna__max_trials_per_method=max_trials,
        **changes,
    )


def drivers(document: dict[str, object]) -> Counter[int]:
    """How many trials each process has told."""
    return Counter(trial.user_attrs["driver"]["pid"] for trial in tuners.trials(document))


def test_two_drivers_share_a_study(server: Postgres, tmp_path: Path) -> None:
    """No trial is lost or doubled, and max_trials is kept; one may be done before the other has started."""
    document = shared(server, tmp_path / "runs", "two", 12)
    processes = [tuners.start(document, tmp_path / f"{number}.json", looks=5) for number in range(2)]
    assert [tuners.finish(process) for process in processes] == [0, 0]
    found = tuners.assert_settled(document)
    assert len(found) == 12
    assert len({trial.user_attrs["run"] for trial in found}) == 12, "two trials have the same parameters"
    assert set(drivers(document)) <= {process.pid for process in processes}


def test_a_drivers_trials_are_taken_over_when_it_dies(server: Postgres, tmp_path: Path) -> None:
    """Killed with a trial told and another not; the other driver, there since before, brings the study to its end."""
    document = shared(server, tmp_path / "runs", "dies", 12)
    kill_at = ("before write result", 2)
    # Its two trials are its own before the other driver, which is the faster, can take them all.
    dies = tuners.start(document, tmp_path / "dies.json", looks=100, kill_at=kill_at)
    deadline = time.monotonic() + HANG
    while len(list((tmp_path / "runs").glob("targets/*/run_sgld_*/sent.json"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stays = tuners.start(document, tmp_path / "stays.json", looks=5)
    assert tuners.finish(dies) == -9
    assert tuners.finish(stays) == 0
    assert len(tuners.assert_settled(document)) == 12


@pytest.mark.parametrize("seconds", [3.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_a_database_that_goes_away_is_survived(server: Postgres, tmp_path: Path, seconds: float) -> None:
    document = shared(server, tmp_path / "runs", f"away-{seconds:g}", 12)
    processes = [tuners.start(document, tmp_path / f"{number}.json", looks=10) for number in range(2)]
    runs = tmp_path / "runs"
    deadline = time.monotonic() + HANG
    while len(list(runs.glob("studies/*/*/*/trial-*/metrics.json"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.stop()
    time.sleep(seconds)
    server.start()
    codes = [tuners.finish(process) for process in processes]
    told = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert codes == [0, 0], told
    assert len(tuners.assert_settled(document)) == 12
    assert "the database does not answer" in told
    assert "the database answers again" in told


def test_a_trial_whose_birth_was_not_answered_is_taken_back_at_once(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sees a driver that takes its own forgotten trials for those of another that lives, and waits for it."""
    document = shared(server, tmp_path / "runs", "unanswered", 4)
    opened = Database(database_url(server.url, tmp_path), PlainReporter())
    (tuned,) = tuned_problems(tuners.session(document), opened)
    (study,) = tuned.studies
    study.open()
    begin, begun = opened.storage.create_new_trial, list[int]()

    def begins(*arguments: Any, **named: Any) -> int:
        begun.append(begin(*arguments, **named))
        if len(begun) == 2:
            raise OperationalError("INSERT", {}, Exception("server closed the connection unexpectedly"))
        return begun[-1]

    monkeypatch.setattr(opened.storage, "create_new_trial", begins)
    assert sorted(live.number for live in study.refill(2)) == [0, 1]
    assert len(begun) == len(tuners.trials(document)) == 2
    opened.close()


def test_a_second_store_on_the_same_database_is_told_whose_the_studies_are(server: Postgres, tmp_path: Path) -> None:
    tuners.drive(shared(server, tmp_path / "one", "both", 2))
    document = shared(server, tmp_path / "two", "both", 2)
    for door in (check, drive):
        with pytest.raises(ConfigError, match=rf"belongs to another store, {tmp_path / 'one'} on "):
            door(tuners.session(document))
    assert not list((tmp_path / "two").glob("targets/*"))
