"""The local backend: the same elements as on SLURM, in processes here, through the same events."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from lambda_hat.store.lease import newest_lease
from tests.hang import HANG
from tests.jobs import HMC, SGLD
from tests.launch.user import LONG, TOY, Trace, User, assert_same_trace, kill, trace_of

SHORT = {"sampler": {**HMC, "num_warmup": 5}, "budget": {"draws": 10}}


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path / "runs")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """The trace of the long run without any event."""
    user = User(tmp_path_factory.mktemp("unbroken"))
    user.submit(LONG)
    return trace_of(user.job(**LONG), user.store)


def owner_of(user: User, **changes: object) -> int:
    """The process that makes a run."""
    job = user.job(**changes)
    seen = newest_lease(user.store.run_dir(job.target_id, job.run_id))
    assert seen is not None
    assert seen.owner is not None
    return seen.owner.pid


def test_one_failure_hides_no_other_and_a_failed_target_fails_its_runs(user: User) -> None:
    fails, raises = {"model": {**TOY, "build_fails": True}}, {"model": {**TOY, "loss_is_nan": True}}
    conditions = user.submit(fails, raises, SHORT, {**SHORT, "sampler": SGLD})
    failed, raised = conditions[user.job(**fails).run_id], conditions[user.job(**raises).run_id]
    assert (failed.state, raised.state) == ("failed", "failed")
    assert "training diverged" in failed.reason
    assert "finite" in raised.reason
    assert sorted(condition.state for condition in conditions.values()) == ["failed", "failed", "finished", "finished"]

    code, out, _ = user.command("why", "s")
    assert code == 0
    assert out.count("training diverged") == 1
    code, out, _ = user.command("logs", "s", user.job(**raises).run_id)
    assert code == 0
    assert "Traceback" in out
    code, out, _ = user.command("collect")
    assert code == 0
    table = pd.read_parquet(user.root / "tables" / "llc_runs.parquet").set_index("run")
    assert sorted(table["state"]) == ["failed", "failed", "finished", "finished"]
    assert len(table.dropna(subset=["llc"])) == 2
    assert "diverged" in table.loc[user.job(**fails).run_id, "error"]


def test_a_killed_element_is_blamed_alone_and_retry_resumes_it(user: User, unbroken: Trace) -> None:
    """A process makes one element after another; its death costs the run at work, not what is packed with it."""
    quick = {**SHORT, "model": LONG["model"]}
    jobs = [quick, {**quick, "seed": 1}, LONG, {**quick, "seed": 2}, {**quick, "seed": 3}]
    driver = user.start(*jobs, launcher={"runs_per_element": 2, "array_parallelism": 1})
    user.until_committed(user.job(**LONG))
    killed = owner_of(user, **LONG)
    kill(killed)
    conditions = user.finish(driver)
    before, beside, long, packed, after = (user.job(**job) for job in jobs)
    assert conditions[long.run_id].state == "failed"
    assert "SIGKILL" in conditions[long.run_id].reason
    assert {conditions[job.run_id].state for job in (before, beside, packed, after)} == {"finished"}
    assert [user.status(job)["pid"] for job in (before, beside)] == [killed, killed]
    assert killed not in [user.status(job)["pid"] for job in (packed, after)]

    code, out, err = user.command("retry", "s")
    assert code == 0, out + err + user.evidence()
    assert_same_trace(trace_of(long, user.store), unbroken)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_same_command_goes_on_after_a_driver_that_was_stopped_and_one_that_was_killed(
    user: User, unbroken: Trace, number: signal.Signals
) -> None:
    """A signal has the elements commit and end; kill -9 leaves them to finish."""
    driver = user.start(LONG)
    user.until_committed(user.job(**LONG))
    driver.send_signal(number)
    _, err = driver.communicate(timeout=HANG)
    assert driver.returncode != 0
    assert "the same command goes on" in err
    assert user.conditions()[user.job(**LONG).run_id].state == "interrupted"

    driver = user.start(LONG)
    user.until_committed(user.job(**LONG))
    pid = owner_of(user, **LONG)
    driver.kill()
    driver.communicate()
    (condition,) = user.submit(LONG).values()
    assert condition.state == "finished"
    assert owner_of(user, **LONG) == pid, "the third driver's element took the run over instead of waiting"
    assert_same_trace(trace_of(user.job(**LONG), user.store), unbroken)


def test_cancel_ends_the_driver_and_its_elements(user: User) -> None:
    driver = user.start(LONG, {**LONG, "seed": 1}, launcher={"array_parallelism": 1})
    user.until_committed(user.job(**LONG))
    code, out, _ = user.command("cancel", "s")
    assert (code, out) == (0, "s: 2 runs were cancelled\n")
    driver.communicate(timeout=HANG)
    assert not {condition.state for condition in user.conditions().values()} & {"running", "queued", "finished"}


def test_a_run_of_few_parameters_gets_one_core_and_is_made_once(user: User) -> None:
    """Sees it given all that are idle, on which it takes 1.4 times as long, and made again though it is finished."""
    driver, cores = user.start(SHORT), set[int]()
    while driver.poll() is None:
        for pid in _elements(user, driver.pid):
            with contextlib.suppress(ProcessLookupError):
                cores.add(len(os.sched_getaffinity(pid)))
    assert {condition.state for condition in user.finish(driver).values()} == {"finished"}
    assert min(cores) == 1

    made = user.status(user.job(**SHORT))
    user.submit(SHORT)
    assert user.status(user.job(**SHORT)) == made


@pytest.mark.parametrize(("num_runs", "at_once"), [(4, 2), pytest.param(60, None, marks=pytest.mark.slow)])
def test_processes_are_bounded_and_share_the_cores(user: User, num_runs: int, at_once: int | None) -> None:
    """Never more than was said, or than there are cores."""
    jobs = [{**SHORT, "seed": seed} for seed in range(num_runs)]
    driver = user.start(*jobs, launcher={"array_parallelism": at_once})
    available = len(os.sched_getaffinity(0))
    most, cores = 0, {available}
    while driver.poll() is None:
        # One look may see an element that has just ended, and the one that took its place.
        elements = set(_elements(user, driver.pid)) & set(_elements(user, driver.pid))
        most = max(most, len(elements))
        for pid in elements:
            with contextlib.suppress(ProcessLookupError):
                cores.add(len(os.sched_getaffinity(pid)))
    assert {condition.state for condition in user.finish(driver).values()} == {"finished"}
    at_once = at_once or available
    assert most == at_once
    assert min(cores) == max(1, available // at_once)


def _elements(user: User, driver: int) -> Iterator[int]:
    """A driver's own children: what they start for a moment (git, say) looks like them until it has begun."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_text().split("\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if (
                parent == driver
                and "lambda_hat.launch.local.worker" in command
                and any(str(user.root) in word for word in command)
            ):
                yield int(folder.name)


def test_an_element_reads_what_was_frozen_and_neither_conf_nor_hydra() -> None:
    """With Hydra out of reach, an edit of conf/ cannot leak into what is queued."""
    modules = "sys, lambda_hat.launch.element, lambda_hat.launch.local.pool"
    code = f"import {modules}; print([m for m in ('hydra', 'jax', 'omegaconf') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
