"""One owner at a time, told by files alone; whoever is surely gone is replaced at once, whoever may live is not."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lambda_hat.store import lease as lease_module
from lambda_hat.store import owner as owner_module
from lambda_hat.store.layout import StoreError
from lambda_hat.store.lease import (
    HEARTBEAT_SECONDS,
    STALE_SECONDS,
    Lease,
    LeaseHeld,
    LeaseLost,
    Owner,
    is_held_by_another,
    lease_path,
    newest_lease,
)
from tests.hang import HANG

ROOT = Path(__file__).parents[2]
ELSEWHERE = Owner(host="node7", machine="another boot", pid=1, start=1, job=None, restart=0)


def grow_silent(folder: Path, seconds: float) -> None:
    """Set the newest lease's heartbeat back."""
    newest = newest_lease(folder)
    assert newest is not None
    then = time.time() - seconds
    os.utime(lease_path(folder, newest.epoch), (then, then))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def test_a_live_lease_is_held_and_says_by_whom(tmp_path: Path) -> None:
    owner = dataclasses.replace(ELSEWHERE, job="cluster:17_3", restart=2)
    Lease.claim(tmp_path / "run", owner)
    grow_silent(tmp_path / "run", 30)
    with pytest.raises(LeaseHeld, match=r"process 1 on node7 \(SLURM job cluster:17_3, restart 2\).*3\d s ago") as held:
        Lease.claim(tmp_path / "run", Owner.current())
    assert held.value.owner == owner
    assert 29 < held.value.age < 59
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lease-000001.json"]


def test_a_released_lease_is_free_at_once(tmp_path: Path) -> None:
    with Lease.claim(tmp_path, ELSEWHERE) as first:
        first.check()
    newest = newest_lease(tmp_path)
    assert newest is not None
    assert (newest.epoch, newest.owner, newest.is_released) == (1, ELSEWHERE, True)
    assert Lease.claim(tmp_path, Owner.current()).epoch == 2


@pytest.mark.parametrize(("seconds", "is_free"), [(STALE_SECONDS - 20, False), (STALE_SECONDS + 5, True)])
def test_a_silent_owner_is_replaced_when_stale(tmp_path: Path, seconds: float, is_free: bool) -> None:
    first = Lease.claim(tmp_path, ELSEWHERE)
    grow_silent(tmp_path, seconds)
    if is_free:
        second = Lease.claim(tmp_path, Owner.current())
        second.check()
        with pytest.raises(LeaseLost, match="taken over by a newer owner"):
            first.check()
    else:
        with pytest.raises(LeaseHeld):
            Lease.claim(tmp_path, Owner.current())
        first.check()


def test_clocks_of_hosts_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both times that are compared are the file server's; an hour's error of this host's clock takes nothing over."""
    Lease.claim(tmp_path, ELSEWHERE)
    now = time.time()
    monkeypatch.setattr(lease_module.time, "time", lambda: now + 3000)
    with pytest.raises(LeaseHeld):
        Lease.claim(tmp_path, Owner.current())


def test_a_dead_process_of_this_machine_is_replaced_at_once(tmp_path: Path) -> None:
    """Also while it is a zombie: dead, but not yet waited for."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; print(flush=True); time.sleep(600)"], stdout=-1
    )
    assert process.stdout is not None
    process.stdout.readline()
    theirs = dataclasses.replace(Owner.current(), pid=process.pid, start=owner_module._process_start(process.pid))
    try:
        Lease.claim(tmp_path, theirs)
        with pytest.raises(LeaseHeld):
            Lease.claim(tmp_path, Owner.current())
    finally:
        process.kill()
        process.stdout.close()
    wait_for(lambda: owner_module._process_start(process.pid) == -1)
    assert Lease.claim(tmp_path, Owner.current()).epoch == 2
    process.wait()
    assert not owner_module._process_lives(process.pid, theirs.start)


def test_a_reused_pid_is_another_process(tmp_path: Path) -> None:
    me = Owner.current()
    assert me.start is not None
    Lease.claim(tmp_path, dataclasses.replace(me, start=me.start - 1))
    assert Lease.claim(tmp_path, me).epoch == 2
    with pytest.raises(LeaseHeld):
        Lease.claim(tmp_path, me)


def test_pids_of_other_machines_say_nothing(tmp_path: Path) -> None:
    """Another node, another container or an earlier boot: only the heartbeat tells."""
    Lease.claim(tmp_path, dataclasses.replace(ELSEWHERE, pid=2**22 + 1))
    with pytest.raises(LeaseHeld):
        Lease.claim(tmp_path, Owner.current())


@pytest.mark.parametrize(
    ("job", "restart", "is_free"),
    [("17_3", 1, True), ("17_3", 0, False), ("17_4", 1, False), (None, 1, False)],
)
def test_a_restarted_slurm_job_replaces_its_earlier_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str | None, restart: int, is_free: bool
) -> None:
    """SLURM restarts a job whose node it gave up, while the old process may live on there."""
    old = Lease.claim(tmp_path, dataclasses.replace(ELSEWHERE, job="17_3", restart=0))
    if job is not None:
        monkeypatch.setenv("SLURM_JOB_ID", "99")
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", job.partition("_")[0])
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", job.partition("_")[2])
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
    owner = Owner.current()
    assert (owner.job, owner.restart) == (job, restart)
    if is_free:
        assert Lease.claim(tmp_path, owner).epoch == 2
        with pytest.raises(LeaseLost):
            old.check()
        with pytest.raises(LeaseHeld):  # the older copy does not take it back
            Lease.claim(tmp_path, old.owner)
    else:
        with pytest.raises(LeaseHeld):
            Lease.claim(tmp_path, owner)


def test_jobs_of_two_clusters_are_not_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Owner.current().job, Owner.current().restart) == (None, 0)
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    assert Owner.current().job == "99"
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "north")
    assert Owner.current().job == "north:99"


def test_the_heartbeat_keeps_a_lease_alive_and_stops_when_it_is_lost(tmp_path: Path) -> None:
    lease = Lease.claim(tmp_path, ELSEWHERE)
    grow_silent(tmp_path, 1000)
    lease.start_heartbeat(seconds=0.01)
    path = lease_path(tmp_path, 1)
    wait_for(lambda: time.time() - path.stat().st_mtime < STALE_SECONDS)
    with pytest.raises(LeaseHeld):
        Lease.claim(tmp_path, Owner.current())
    newer = dataclasses.replace(ELSEWHERE, job="1", restart=0)
    lease_path(tmp_path, 2).write_text(json.dumps(dataclasses.asdict(newer)))
    assert lease._thread is not None
    lease._thread.join(timeout=HANG)
    assert not lease._thread.is_alive()
    lease.release()  # of a lost lease: leaves the newer one alone
    newest = newest_lease(tmp_path)
    assert newest is not None
    assert (newest.epoch, newest.owner, newest.is_released) == (2, newer, False)


def test_the_heartbeat_outlives_a_file_server_that_stalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = Lease.claim(tmp_path, ELSEWHERE)
    calls: list[Path] = []
    touch = os.utime

    def stalling(path: Path, *times: object) -> None:
        calls.append(path)
        if len(calls) < 4:
            raise OSError(errno.EIO, "Input/output error")
        touch(path)

    grow_silent(tmp_path, 1000)
    with monkeypatch.context() as patch:
        patch.setattr(lease_module.os, "utime", stalling)
        lease.start_heartbeat(seconds=0.01)
        wait_for(lambda: time.time() - lease_path(tmp_path, 1).stat().st_mtime < STALE_SECONDS)
    lease.release()


def test_a_damaged_lease_is_judged_by_its_heartbeat(tmp_path: Path) -> None:
    lease_path(tmp_path, 3).write_bytes(b"{")
    with pytest.raises(LeaseHeld, match="an owner that cannot be read"):
        Lease.claim(tmp_path, Owner.current())
    grow_silent(tmp_path, STALE_SECONDS + 5)
    assert Lease.claim(tmp_path, Owner.current()).epoch == 4


def test_a_filesystem_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(lease_module.os, "link", refusing)
    with Lease.claim(tmp_path, ELSEWHERE) as lease:
        newest = newest_lease(tmp_path)
        assert newest is not None
        assert (newest.epoch, newest.owner) == (lease.epoch, ELSEWHERE)
        assert not lease_module._take(lease_path(tmp_path, 1), lease_path(tmp_path, 1))


def test_a_link_whose_answer_was_lost_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS repeats the request and reports that the file exists: it does, we made it."""
    link = os.link

    def forgetful(source: Path, destination: Path) -> None:
        link(source, destination)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(lease_module.os, "link", forgetful)
    assert Lease.claim(tmp_path, ELSEWHERE).epoch == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_store_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def failing(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", failing)
    with pytest.raises(StoreError, match="cannot claim"):
        Lease.claim(tmp_path, Owner.current())
    assert list(tmp_path.iterdir()) == []


def test_what_killed_writers_left_is_removed_in_time(tmp_path: Path) -> None:
    old, young = tmp_path / ".carry.npz.1.tmp", tmp_path / ".carry.npz.2.tmp"
    old.touch()
    young.touch()
    os.utime(old, (1, 1))
    Lease.claim(tmp_path, ELSEWHERE)
    assert (old.exists(), young.exists()) == (False, True)


def test_several_beats_may_be_missed() -> None:
    assert HEARTBEAT_SECONDS * 10 <= STALE_SECONDS


@pytest.mark.parametrize(("owner", "is_another"), [(Owner.current(), False), (ELSEWHERE, True)])
def test_a_lease_that_this_process_could_not_release_is_not_anothers(
    tmp_path: Path, owner: Owner, is_another: bool
) -> None:
    """Sees a run whose store became read-only take its own lease for a newer owner's, and say no cause."""
    Lease.claim(tmp_path, owner)
    assert is_held_by_another(tmp_path) == is_another
