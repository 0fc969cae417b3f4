"""`lambda-hat workflow llc`: N targets by M samplers out of a file. Submission is replaced by a fake, but where it is
the point: a workflow that is killed."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from typer.testing import CliRunner

from lambda_hat.cli.__main__ import app
from lambda_hat.config.job import Job
from lambda_hat.launch.backend import Backend
from lambda_hat.launch.plan import Plan
from lambda_hat.launch.submit import SweepStopped
from lambda_hat.launch.workflows import llc as workflow
from lambda_hat.store.layout import Store, write_config, write_status
from tests.hang import HANG
from tests.launch.user import User
from tests.launch.workflows.documents import DOCUMENT, written
from tests.shelf import finish


class Cluster:
    """Stands for ``submit``: every run is there at once, unless the test has said what becomes of it."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.backends: list[Backend] = []
        self.fails: Callable[[Job], bool] = lambda job: False
        self.stops_after: int | None = None

    def submit(self, plan: Plan, backend: Backend, store: Store) -> Any:
        self.plans.append(plan)
        self.backends.append(backend)
        conditions: list[Any] = []
        for number, job in enumerate(plan.missing):
            if number == self.stops_after:
                raise SweepStopped("stopped")
            folder = store.run_dir(job.target_id, job.run_id)
            if self.fails(job):
                write_config(folder, job.to_dict())
                write_status(folder, state="failed", error="it broke")
            else:
                finish(job, store)
            condition = type(
                "Condition", (), {"state": "failed" if self.fails(job) else "finished", "reason": "it broke"}
            )
            conditions.append(type("RunState", (), {"run_id": job.run_id, "condition": condition}))
        return type("Sweep", (), {"states": lambda self: conditions})()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    fake = Cluster()
    monkeypatch.setattr("lambda_hat.launch.workflows.llc.submit", fake.submit)
    return fake


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Llc = Callable[..., Ended]


@pytest.fixture
def llc(tmp_path: Path, store_root: Path) -> Llc:
    """``llc(document, *options)``: the command in this process."""

    def run(document: dict[str, Any], *options: str) -> Ended:
        path = written(tmp_path, {"store_root": str(store_root), **document})
        done = CliRunner().invoke(app, ["workflow", "llc", "--config", str(path), *options])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Ended(done.exit_code, done.stdout, done.stderr)

    return run


def test_a_typo_is_refused_before_anything_is_submitted(llc: Llc, cluster: Cluster) -> None:
    ended = llc({**DOCUMENT, "targets": [{"model": "quadratic", "overrides": {"xyz": 1}}]})
    assert ended.code == 1
    assert ended.err.startswith("error: targets[0].overrides.xyz: no such key")
    assert not cluster.plans


def test_a_dry_run_prints_the_plan_and_submits_nothing(llc: Llc, cluster: Cluster, store_root: Path) -> None:
    ended = llc(DOCUMENT, "--dry-run")
    assert ended.code == 0
    assert "6 runs: 6 to make, 0 found, 0 repeated; targets to build: 2" in ended.out
    assert not cluster.plans
    assert not store_root.exists()


def test_the_end_is_a_table_and_failures_are_rows_and_the_exit_code(
    llc: Llc, cluster: Cluster, store_root: Path
) -> None:
    cluster.fails = lambda job: job.sampler_name == "sgld"
    ended = llc(DOCUMENT)
    assert ended.code == 1
    assert "2 of 6 runs have no result" in ended.err
    table = pd.read_parquet(store_root / "tables" / "llc_runs.parquet")
    assert sorted(table["state"]) == ["failed"] * 2 + ["finished"] * 4
    assert set(table["experiment"].dropna()) == {"tour"}


def test_killed_between_the_stages_the_same_command_goes_on(
    llc: Llc, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, store_root: Path
) -> None:
    """After stage B is half done, and before stage C."""
    cluster.stops_after = 2
    assert llc(DOCUMENT, "--promote").code == 1
    cluster.stops_after = None
    with monkeypatch.context() as patch:
        patch.setattr(workflow, "collect", lambda store: 1 / 0)
        with contextlib.suppress(AssertionError):
            llc(DOCUMENT, "--promote")
    gallery = store_root / "promotion" / "tour" / "gallery.md"
    assert not gallery.exists()
    monkeypatch.setattr("lambda_hat.report.promote.draw_pictures", _scribble)
    ended = llc(DOCUMENT, "--promote", "--promote-plots", "trace.png")
    assert ended.code == 0, ended.err
    assert [len(plan.missing) for plan in cluster.plans] == [6, 4, 0]
    assert len({plan.name for plan in cluster.plans}) == 1
    page = gallery.read_text()
    for job in cluster.plans[0].jobs:
        assert f"]({job.run_id}_trace.png)" in page
        assert (gallery.parent / f"{job.run_id}_trace.png").read_bytes() == job.run_id.encode()


def _scribble(folder: Path) -> None:
    """Stands for drawing, which takes a second a run."""
    (folder / "diagnostics").mkdir(exist_ok=True)
    (folder / "diagnostics" / "trace.png").write_bytes(folder.name.encode())


def test_a_picture_that_no_run_draws_is_refused_before_anything_runs(llc: Llc, cluster: Cluster) -> None:
    assert "plots: needs some of" in llc(DOCUMENT, "--promote", "--promote-plots", "trace.pgn").err
    assert "--promote-plots: needs --promote" in llc(DOCUMENT, "--promote-plots", "trace.png").err
    assert not cluster.plans


@pytest.mark.slow
def test_a_workflow_killed_goes_on_by_the_same_command(tmp_path: Path) -> None:
    """The real thing, as a process: SIGKILL to the driver, once the first run has ended."""
    user = User(tmp_path / "runs")
    document = {**DOCUMENT, "targets": DOCUMENT["targets"][:1], "samplers": DOCUMENT["samplers"][:2]}
    path = written(tmp_path, {**document, "store_root": str(user.root)})
    (tmp_path / "runs").mkdir()
    first = user.popen(
        "-m", "lambda_hat.launch.workflows.llc", "--config", str(path), "--set", "hydra.launcher.array_parallelism=1"
    )
    user.until(lambda: list(user.root.glob("targets/*/run_*/analysis.json")))
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    (done,) = user.root.glob("targets/*/run_*/analysis.json")
    made = done.stat().st_mtime_ns
    again = subprocess.run(
        [sys.executable, "-m", "lambda_hat.launch.workflows.llc", "--config", str(path)],
        cwd=user.checkout, env={**os.environ, **user.environment}, capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    assert done.stat().st_mtime_ns == made
    table = pd.read_parquet(user.root / "tables" / "llc_runs.parquet")
    assert table["state"].tolist() == ["finished"] * 2
