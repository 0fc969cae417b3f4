"""The local backend when what lies around it goes wrong: conf/, the store's disk, the compilation cache, the driver."""

from pathlib import Path

import pytest

from lambda_hat.store.lease import newest_lease
from tests import faults
from tests.hang import HANG
from tests.jobs import HMC
from tests.launch.user import LONG, User, assert_same_trace, copy_of_checkout, trace_of

SHORT = {"sampler": {**HMC, "num_warmup": 5}, "budget": {"draws": 10}}


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path / "runs")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> User:
    """Somebody whose short run is finished; no test may change the store."""
    user = User(tmp_path_factory.mktemp("done") / "runs")
    assert {condition.state for condition in user.submit(SHORT).values()} == {"finished"}
    return user


def test_what_waits_runs_as_it_was_submitted_whatever_becomes_of_conf(user: User, tmp_path: Path) -> None:
    user.checkout = copy_of_checkout(tmp_path / "checkout")
    command = user.sample("sampler=hmc", "seed=0,1", "hydra.launcher.array_parallelism=1")
    user.until(lambda: len(list(user.root.glob("targets/*/run_*/submitted.json"))) == 2)
    for path in (user.checkout / "conf").rglob("*.yaml"):
        path.write_text("edited: [")
    out, err = command.communicate(timeout=HANG)
    assert command.returncode == 0, err + user.evidence()
    assert len([line for line in out.splitlines() if "│ run_hmc_" in line]) == 2


def test_a_full_disk_is_said_and_costs_nothing_that_is_finished(user: User) -> None:
    """The long run's trace does not fit. When there is room again, retry goes on from what was committed."""
    driver = user.start(LONG, SHORT, shell="ulimit -f 110;")
    conditions = user.finish(driver)
    long, short = user.job(**LONG), user.job(**SHORT)
    assert conditions[short.run_id].state == "finished"
    assert conditions[long.run_id].state == "failed"
    assert "cannot write" in conditions[long.run_id].reason
    made = faults.files_of(user.store, short)
    code, out, err = user.command("retry", "s")
    assert code == 0, out + err + user.evidence()
    assert {condition.state for condition in user.conditions().values()} == {"finished"}
    assert faults.files_of(user.store, short) == made


def test_a_disk_without_any_room_is_said_by_the_driver(done: User) -> None:
    made = faults.files_of(done.store, done.job(**SHORT))
    retry = ("-m", "lambda_hat.cli", "retry", "--finished", "s", "--store", str(done.root))
    command = done.popen(*retry, shell="ulimit -f 0;")
    _, err = command.communicate(timeout=HANG)
    assert command.returncode == 1
    assert err.startswith("error: cannot "), err
    assert "Traceback" not in err
    assert faults.files_of(done.store, done.job(**SHORT)) == made


@pytest.mark.slow  # tests/sampling/test_compilation_cache.py has it every day, in one process
def test_truncated_entries_of_the_compilation_cache_are_mended(user: User) -> None:
    user.root.mkdir()
    (user.root / ".cache").mkdir()  # this store's own: others must not meet what is broken here
    user.submit(SHORT)
    entries = faults.cut_cache_short(user.store)
    conditions = user.submit({**SHORT, "seed": 1})
    assert {condition.state for condition in conditions.values()} == {"finished"}
    assert faults.are_whole(entries)
    assert "truncated or damaged" in user.evidence()


def test_without_waiting_the_elements_have_a_pool_that_outlives_the_driver(user: User) -> None:
    jobs = [{**LONG, "budget": {"draws": 200}}, SHORT]
    driver = user.start(*jobs, wait=False, launcher={"array_parallelism": 1})
    driver.communicate(timeout=HANG)
    assert driver.returncode == 0
    assert {condition.state for condition in user.conditions().values()} <= {"queued", "running"}
    # The same command, waiting, finds them in hand.
    conditions = user.submit(*jobs)
    assert {condition.state for condition in conditions.values()} == {"finished"}
    assert len(user.manifest().arrays) == 2, "it was submitted twice"


def test_cancel_ends_a_pool_that_nobody_waits_for(user: User) -> None:
    user.start(LONG, {**LONG, "seed": 1}, wait=False, launcher={"array_parallelism": 1}).communicate(timeout=HANG)
    user.until_committed(user.job(**LONG))
    code, out, _ = user.command("cancel", "s")
    assert (code, out) == (0, "s: 2 runs were cancelled\n")

    def is_free() -> bool:
        seen = newest_lease(user.store.sweep_dir("s"))
        return seen is not None and seen.is_released

    user.until(is_free)
    assert not {condition.state for condition in user.conditions().values()} & {"running", "queued", "finished"}


@pytest.mark.usefixtures("disk")  # which skips the test where nothing may be mounted
def test_a_read_only_store_is_said_and_can_still_be_read(done: User) -> None:
    made = faults.files_of(done.store, done.job(**SHORT))
    with faults.read_only(done.root):
        code, _, err = done.command("retry", "--finished", "s")
        assert code == 1
        assert err.startswith("error: cannot "), err
        assert "read-only" in err.lower()
        assert done.command("status", "s")[0] == 0
        assert faults.files_of(done.store, done.job(**SHORT)) == made


def test_a_slow_store_changes_no_draw(done: User, tmp_path: Path) -> None:
    """Every fsync and rename takes a tenth of a second, in the driver and in the element."""
    slow = tmp_path / "slow"
    other = User(tmp_path / "elsewhere", environment=faults.slowed(slow))
    (condition,) = other.submit(SHORT).values()
    assert condition.state == "finished"
    job = done.job(**SHORT)
    assert faults.is_slowed(slow, other.status(job)["pid"])
    assert_same_trace(trace_of(job, other.store), trace_of(job, done.store))
