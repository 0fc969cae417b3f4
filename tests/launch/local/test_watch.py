"""A worker that hangs is noticed, ended and blamed; Ctrl-C says what it waits for. No process is started here."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from lambda_hat.launch.backend import Backend
from lambda_hat.launch.local import pool, watch
from lambda_hat.launch.manifest import Array, Manifest, Place
from lambda_hat.store.layout import Store, read_status, write_status
from lambda_hat.store.sweeps import SweepRun
from tests.shelf import Shelf


class Told:
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def status(self, text: str) -> None:
        del text


class Hanging:
    """A worker that does nothing until it is killed, and then commits what ``on_kill`` says."""

    def __init__(self, sweep_dir: Path, place: Place, cores: list[int], environment: Any):
        del environment
        self.place: Place | None = place
        self.cores, self.kinds, self.log = cores, set[Any](), sweep_dir / "logs" / f"{place.array}_{place.index}.log"
        self.signals: list[int] = []
        self.answers = os.pipe()[0]

    def has_answered(self) -> bool:
        return False

    def exit_code(self) -> int | None:
        return -signal.SIGKILL if signal.SIGKILL in self.signals else None

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def dismiss(self) -> None:
        os.close(self.answers)


@pytest.fixture
def made(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[pool.Pool, Told, Shelf]:
    """A pool of one run, whose clock can be turned; nothing waits."""
    shelf, told = Shelf(store_root), Told()
    monkeypatch.setattr(pool, "Worker", Hanging)
    monkeypatch.setattr(pool.Pool, "_pause", lambda self: None)
    job = shelf.jobs[0]
    manifest = Manifest("dev-0", "dev", {}, {job.run_id: SweepRun(job.target_id, "hmc", "toy")})
    manifest.enter(Array("runs", [[job.run_id]]), shelf.store)
    made = pool.Pool(manifest, Store(store_root), Backend(kind="local"), [Place(0, 0)], told)
    made.add(made.places)
    made.step(start=True)
    return made, told, shelf


def turn(monkeypatch: pytest.MonkeyPatch, made: pool.Pool, seconds: float) -> None:
    now = watch.time.monotonic()
    monkeypatch.setattr(watch.time, "monotonic", lambda: now + seconds)
    made.step()


def test_a_worker_that_commits_nothing_is_named_then_ended_and_blamed(
    made: tuple[pool.Pool, Told, Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    running, told, shelf = made
    turn(monkeypatch, running, 10.0)
    assert told.lines == []
    turn(monkeypatch, running, watch.QUIET_S)
    turn(monkeypatch, running, 10.0)
    assert [line.rpartition(": ")[2] for line in told.lines] == ["nothing committed for 5 min"]
    assert shelf.jobs[0].run_id in told.lines[0]
    write_status(shelf.folder(0), state="running")  # it goes on after all
    turn(monkeypatch, running, watch.HUNG_S)
    turn(monkeypatch, running, watch.QUIET_S)
    assert len(told.lines) == 2
    assert running.unended()
    turn(monkeypatch, running, watch.HUNG_S)
    status = read_status(shelf.folder(0)) or {}
    assert status["state"] == "failed"
    assert "it hung: its process committed nothing for 65 min, and was ended; its log: " in status["error"]
    assert not running.unended()


def test_a_heartbeat_is_no_commit(made: tuple[pool.Pool, Told, Shelf], monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is stuck in XLA goes on beating."""
    running, told, shelf = made
    for _ in range(3):
        (shelf.folder(0) / "lease-000001.json").touch()
        turn(monkeypatch, running, watch.QUIET_S / 2 + 1)
    assert len(told.lines) == 1


def test_a_first_signal_says_what_is_waited_for_and_what_a_second_does(
    made: tuple[pool.Pool, Told, Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    running, told, _ = made
    with running.listening():
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
            monkeypatch.setattr(Hanging, "exit_code", lambda self: None)
            running.step()
    (line,) = told.lines
    assert "waiting for 1 element to commit" in line
    assert "0_0.log" in line
    assert "a second SIGINT kills them" in line
