"""A store that fails under a sweep on a real SLURM: each fault must be said or mended, and cost nothing finished."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests import faults
from tests.hang import HANG
from tests.jobs import HMC
from tests.launch.user import LONG, Trace, assert_same_trace, trace_of
from tests.slurm.lab import Lab
from tests.slurm.user import ClusterUser

pytestmark = pytest.mark.slurm

SHORT = {"sampler": {**HMC, "num_warmup": 5}, "budget": {"draws": 10}}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(faults.read_only, "it is read-only", id="read_only", marks=pytest.mark.slow),
        pytest.param(faults.full, "the disk is full", id="full", marks=pytest.mark.slow),
    ],
)
def test_a_store_that_cannot_be_written_is_said_and_retry_goes_on_from_what_it_has(
    lab: Lab, disk: Path, unbroken: Trace, fault: Callable[[Path], AbstractContextManager[None]], words: str
) -> None:
    """It fails under one run, while one is finished and one is queued; then another sweep is to be submitted."""
    user = ClusterUser.of(lab, disk / "runs")
    changes = [{**SHORT, "model": LONG["model"]}, LONG, {**LONG, "seed": 1, "budget": {"draws": 10}}]
    finished, running, queued = (user.job(**change) for change in changes)
    driver = user.start(*changes, launcher={"array_parallelism": 1})
    user.until(lambda: user.status(finished).get("state") == "finished")
    user.until_committed(running)
    made = faults.files_of(user.store, finished)
    with fault(disk):
        user.finish(driver)
        conditions = user.conditions()
        assert conditions[finished.run_id].state == "finished"
        assert (conditions[running.run_id].state, conditions[queued.run_id].state) == ("failed", "failed"), (
            user.evidence()
        )
        assert conditions[running.run_id].reason.startswith("cannot write"), conditions
        assert words in conditions[running.run_id].reason
        # SLURM itself does not start what has nowhere to print to.
        assert (
            "is the store full, or read-only?" in conditions[queued.run_id].reason
            or words in conditions[queued.run_id].reason
        )
        code, out, _ = user.command("why", "s")
        assert code == 0
        assert words in out

        refused = user.sample("sampler=hmc", "hydra/launcher=slurm_cpu")
        _, err = refused.communicate(timeout=HANG)
        assert refused.returncode == 1
        assert words in err
        assert "Traceback" not in err
        assert not user.slurm("squeue", "-h").strip()

    code, out, err = user.command("retry", "s")
    assert code == 0, out + err + user.evidence()
    assert {condition.state for condition in user.conditions().values()} == {"finished"}
    assert faults.files_of(user.store, finished) == made, "what was finished was done again"
    assert_same_trace(trace_of(running, user.store), unbroken)


@pytest.mark.slow
def test_a_slow_store_changes_no_draw(user: ClusterUser, tmp_path: Path) -> None:
    """Every fsync and rename takes its time, in the driver and on the nodes; then the same run is made quickly."""
    fast, slow = user.environment, tmp_path / "slow"
    user.environment = {**fast, **faults.slowed(slow)}
    job = user.job(**SHORT)
    assert user.submit(SHORT)[job.run_id].state == "finished"
    assert faults.is_slowed(slow, user.status(job)["pid"])
    slowly = trace_of(job, user.store)
    user.environment = fast
    code, out, err = user.command("retry", "--finished", "s")
    assert code == 0, out + err + user.evidence()
    assert not faults.is_slowed(slow, user.status(job)["pid"])
    assert_same_trace(trace_of(job, user.store), slowly)


@pytest.mark.slow
def test_truncated_entries_of_the_shared_compilation_cache_are_mended(user: ClusterUser) -> None:
    (user.root / ".cache").mkdir(parents=True)  # this store's own: others must not meet what is broken here
    job = user.job(**SHORT)
    user.submit(SHORT)
    expected = trace_of(job, user.store)
    entries = faults.cut_cache_short(user.store)
    code, out, err = user.command("retry", "--finished", "s")
    assert code == 0, out + err + user.evidence()
    assert faults.are_whole(entries)
    code, out, err = user.command("logs", "s", "-n", "1000")
    assert "truncated or damaged" in out
    assert_same_trace(trace_of(job, user.store), expected)
