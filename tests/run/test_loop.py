"""The host loop: resuming bit by bit, budgets, found runs, precision, and how a run ends."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lambda_hat.config.job import Job
from lambda_hat.run.loop import Interrupted, RunError, Stop, execute
from lambda_hat.store.layout import Store
from lambda_hat.store.trace_file import read_trace_file
from tests.hang import HANG
from tests.jobs import HMC, SGLD, job_config, make_job, warm_store


def run(job: Job) -> dict[str, Any]:
    """The analysis of ``job``, run in this process."""
    return json.loads(execute(job, Store(job.store.root)).analysis.read_text())


def trace_of(job: Job) -> dict[str, np.ndarray]:
    folder = Store(job.store.root).run_dir(job.target_id, job.run_id)
    stored = read_trace_file(folder / "trace.nc")
    warmup = {f"warmup_{name}": column for name, column in stored.warmup.items()}
    return {**stored.trace, **warmup}


def assert_same_trace(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


# A run in a process of its own that dies by SIGKILL just before or after the n-th call of one function: every
# place where a kill can fall in a commit, in warm-up, between and inside chunks.
_KILLED = textwrap.dedent(
    """
    import json, os, signal, sys
    from lambda_hat.store import checkpoint
    from lambda_hat.run import loop as run
    from lambda_hat.sampling.ensemble import Ensemble
    from lambda_hat.config.job import parse_job
    from lambda_hat.run.accounting import Pace
    from lambda_hat.store.layout import Store

    config, owner, name, nth, when = json.loads(sys.argv[1])
    owner = {"checkpoint": checkpoint, "Ensemble": Ensemble}[owner]
    original, calls = getattr(owner, name), 0

    def killing(*args, **kwargs):
        global calls
        calls += 1
        if calls == nth and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == nth and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, killing)
    Pace.next_length = lambda self, limits, capacity: min(int(limits["steps"]), 17)
    job = parse_job(config)
    run.execute(job, Store(job.store.root))
    """
)


_ALONE = textwrap.dedent(
    """
    import json, sys
    from lambda_hat.config.job import parse_job
    from lambda_hat.run.loop import execute
    from lambda_hat.store.layout import Store

    job = parse_job(json.loads(sys.argv[1]))
    execute(job, Store(job.store.root))
    """
)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    job = make_job(tmp_path_factory.mktemp("unbroken"))
    run(job)
    return trace_of(job)


@pytest.mark.parametrize(
    ("owner", "name", "nth", "when"),
    [
        ("checkpoint", "save_trace", 2, "after"),  # in warm-up, between trace and carry
        ("checkpoint", "save_carry", 1, "after"),  # in warm-up, just committed
        ("Ensemble", "finish", 1, "after"),  # between warm-up and sampling
        ("Ensemble", "advance", 9, "after"),  # inside a chunk of sampling: computed, not written
        ("checkpoint", "save_carry", 7, "before"),  # trace written, carry not
    ],
)
def test_killed_run_resumes_bit_identically(
    tmp_path: Path, unbroken: dict[str, np.ndarray], owner: str, name: str, nth: int, when: str
) -> None:
    """Sees a commit in the wrong order, a state that misses a leaf, keys that depend on the chunk, a second tuning."""
    config = job_config(tmp_path)
    arguments = json.dumps([config, owner, name, nth, when])
    done = subprocess.run([sys.executable, "-c", _KILLED, arguments], capture_output=True, text=True, timeout=HANG)
    assert done.returncode == -signal.SIGKILL, done.stderr
    job = make_job(tmp_path)
    analysis = run(job)
    assert_same_trace(trace_of(job), unbroken)
    assert analysis["progress"]["draws"] == 200


def test_larger_budget_continues_the_same_run(tmp_path: Path) -> None:
    """Twice the budget: the first half is the shorter run's, and the whole is what one long run would have been."""
    short = make_job(tmp_path / "a", budget={"draws": 100})
    first = run(short)
    half = trace_of(short)
    long = make_job(tmp_path / "a", budget={"draws": 200})
    assert long.run_id == short.run_id
    second = run(long)
    whole = trace_of(long)
    for name, column in half.items():
        np.testing.assert_array_equal(column, whole[name][:, : column.shape[1]], err_msg=name)
    at_once = make_job(tmp_path / "b", budget={"draws": 200})
    run(at_once)
    assert_same_trace(whole, trace_of(at_once))
    assert (first["draws_used"], second["draws_used"]) == ([0, 100], [0, 200])
    assert second["gradients"] > first["gradients"]


def test_finished_run_is_found_also_for_a_smaller_budget(tmp_path: Path) -> None:
    assert not execute(make_job(tmp_path), Store(tmp_path)).was_found
    assert execute(make_job(tmp_path), Store(tmp_path)).was_found
    assert execute(make_job(tmp_path, budget={"draws": 10}), Store(tmp_path)).was_found


def test_gradient_budget_is_kept_and_counted_over_phases(tmp_path: Path) -> None:
    """SGLD's count is exact: (warm-up + draws) x steps x batch x chains; the budget may be passed by one chunk only."""
    budget = 100_000
    analysis = run(make_job(tmp_path, sampler=SGLD, budget={"gradients": budget}))
    steps = SGLD["num_warmup"] + analysis["progress"]["draws"]
    assert analysis["gradients"] == steps * SGLD["steps_per_draw"] * SGLD["batch_size"] * 3
    assert budget <= analysis["gradients"] <= 1.1 * budget
    assert analysis["fge"] == pytest.approx(analysis["gradients"] / 5000)


def test_mcse_budget_stops_when_reached_and_checked(tmp_path: Path) -> None:
    analysis = run(make_job(tmp_path, budget={"mcse": 0.03, "draws": 100_000}))
    assert analysis["llc_mcse"] <= 0.03 * analysis["llc"]
    assert analysis["progress"]["draws"] < 100_000
    assert analysis["verdict"]["reliable"], analysis["verdict"]["reasons"]


def test_budget_spent_in_warmup_ends_unreliable(tmp_path: Path) -> None:
    analysis = run(make_job(tmp_path, budget={"gradients": 10}))
    assert analysis["llc"] is None
    assert "no draws" in analysis["verdict"]["reasons"][0]


@pytest.mark.slow
def test_one_process_can_do_both_precisions(tmp_path: Path) -> None:
    """float64, float32, float64 in one process are what three processes make: sees a dtype that leaks."""
    jobs = [
        make_job(tmp_path / str(index), sampler=sampler, budget={"draws": 20})
        for index, sampler in enumerate([HMC, SGLD, {**HMC, "num_warmup": 30}])
    ]
    for job in jobs:
        run(job)
    assert [trace_of(job)["loss"].dtype for job in jobs] == [np.float64, np.float32, np.float64]
    for index, job in enumerate(jobs):
        root = warm_store(tmp_path / f"alone{index}")
        config = {**job.to_dict(), "store": {"root": str(root), "plots": "none"}}
        subprocess.run([sys.executable, "-c", _ALONE, json.dumps(config)], check=True, timeout=HANG)
        alone = make_job(tmp_path / f"alone{index}", sampler=job.to_dict()["sampler"], budget={"draws": 20})
        assert_same_trace(trace_of(job), trace_of(alone))


def test_interrupted_run_has_committed_and_goes_on(tmp_path: Path, unbroken: dict[str, np.ndarray]) -> None:
    """SIGTERM between chunks: everything done is kept, the message says how to go on, the status says so."""
    job = make_job(tmp_path)
    with pytest.raises(Interrupted, match="The same command resumes it"):
        execute(job, Store(tmp_path), stop=Stop(signal.SIGTERM))
    folder = Store(tmp_path).run_dir(job.target_id, job.run_id)
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    assert list(folder.glob("carry-*.npz"))
    run(job)
    assert_same_trace(trace_of(job), unbroken)


def test_sigterm_is_turned_into_a_flag_and_handlers_return() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stop().listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_truncated_checkpoint_falls_back_to_the_one_before(tmp_path: Path, unbroken: dict[str, np.ndarray]) -> None:
    config = job_config(tmp_path)
    arguments = json.dumps([config, "checkpoint", "save_carry", 6, "after"])
    subprocess.run([sys.executable, "-c", _KILLED, arguments], capture_output=True, timeout=HANG, check=False)
    job = make_job(tmp_path)
    folder = Store(tmp_path).run_dir(job.target_id, job.run_id)
    newest = max(folder.glob("carry-*.npz"))
    newest.write_bytes(newest.read_bytes()[:100])
    run(job)
    assert_same_trace(trace_of(job), unbroken)
    assert newest.name in (folder / "log.txt").read_text()


def test_failure_is_recorded_and_raised(tmp_path: Path) -> None:
    """A step so large that every chain runs away: a sentence, a status, and no analysis."""
    job = make_job(tmp_path, sampler={**SGLD, "step_size": 1e3})
    with pytest.raises(RunError, match=r"sampler\.step_size"):
        execute(job, Store(tmp_path))
    folder = Store(tmp_path).run_dir(job.target_id, job.run_id)
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "failed"
    assert "finite" in status["error"]
    assert "NonFinite" in status["traceback"]
    assert not (folder / "analysis.json").exists()
