"""A run that is killed at any instant finds a consistent checkpoint; damage costs one chunk; old owners do no harm."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lambda_hat.store import checkpoint, files
from lambda_hat.store.checkpoint import Carry, Chunk, load_carry, load_trace, merge_trace, save_carry, save_trace
from lambda_hat.store.files import StoreError
from lambda_hat.store.lease import Lease, LeaseLost, Owner
from tests.hang import HANG

ELSEWHERE = Owner(host="node7", machine="another boot", pid=1, start=1, job=None, restart=0)
DRAWS = 10


@pytest.fixture
def lease(tmp_path: Path) -> Iterator[Lease]:
    with Lease.claim(tmp_path / "run", ELSEWHERE) as lease:
        yield lease


def commit(lease: Lease, number: int, names: list[str]) -> list[str]:
    """Chunk ``number``: draws whose loss is their index, and a state that counts them."""
    start, stop = number * DRAWS, (number + 1) * DRAWS
    loss = np.arange(start, stop, dtype=np.float32)[:, None] + np.array([0.0, 0.5], np.float32)
    name = save_trace(lease.folder, lease.epoch, "sampling", start, stop, {"loss": loss})
    names = [*names, name]
    save_carry(lease.folder, lease.epoch, stop, [np.array(stop, np.int32)], {"trace_files": names})
    return names


def loaded(folder: Path) -> Carry:
    carry = load_carry(folder)
    assert carry is not None
    return carry


def assert_consistent(folder: Path) -> int:
    """The carry and the trace it names tell the same story; returns its step."""
    carry = loaded(folder)
    assert int(carry.leaves[0]) == carry.step
    loss = load_trace(folder, carry.meta["trace_files"])["loss"]
    np.testing.assert_array_equal(loss[:, 0], np.arange(carry.step))
    return carry.step


def contents(folder: Path, kind: str) -> list[str]:
    return sorted(path.name for path in folder.glob(f"{kind}-*"))


def test_a_carry_comes_back_bit_for_bit(lease: Lease) -> None:
    assert load_carry(lease.folder) is None
    leaves = [
        np.array(7, np.int32), np.array([True, False]), np.zeros((0, 2), np.uint32), np.array([np.nan, -0.0]),
        np.array([[1, 2**32 - 1]], np.uint32), np.float32(1) / np.arange(1, 4, dtype=np.float32),
        *(np.array(index) for index in range(12)),
    ]  # fmt: skip
    save_carry(lease.folder, lease.epoch, 5, leaves, {"trace_files": [], "seconds": 0.1, "nested": {"a": [1, None]}})
    carry = loaded(lease.folder)
    assert (carry.epoch, carry.step, carry.skipped) == (1, 5, [])
    assert carry.meta == {"trace_files": [], "seconds": 0.1, "nested": {"a": [1, None]}}
    assert len(carry.leaves) == len(leaves)
    for got, expected in zip(carry.leaves, leaves, strict=True):
        assert (got.dtype, got.shape, got.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


def test_an_owner_keeps_two_carries_and_the_chunks_they_need(lease: Lease) -> None:
    names: list[str] = []
    for number in range(4):
        names = commit(lease, number, names)
    assert len(contents(lease.folder, "carry")) == 2
    assert contents(lease.folder, "trace") == names
    assert assert_consistent(lease.folder) == 4 * DRAWS
    merged = merge_trace(lease.folder, lease.epoch, names)
    assert [Chunk.parse(name)[1:] for name in merged] == [("sampling", 0, 40)]
    names = commit(lease, 4, merged)
    assert len(contents(lease.folder, "trace")) == 6  # the carry before needs the small ones
    names = commit(lease, 5, names)
    assert contents(lease.folder, "trace") == sorted(names)
    assert assert_consistent(lease.folder) == 6 * DRAWS


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "flipped":
        path.write_bytes(whole.replace(b"NUMPY", b"NUMPX", 1))
    else:
        path.write_bytes(whole[: {"empty": 0, "cut": len(whole) // 2, "short": len(whole) - 1}[how]])


@pytest.mark.parametrize("how", ["empty", "cut", "short", "flipped"])
def test_a_damaged_carry_is_skipped_and_told(lease: Lease, how: str) -> None:
    names: list[str] = []
    for number in range(3):
        names = commit(lease, number, names)
    damage(lease.folder / contents(lease.folder, "carry")[-1], how)
    carry = loaded(lease.folder)
    assert carry.step == 2 * DRAWS
    assert len(carry.skipped) == 1
    assert "carry-000001-000000000030.npz: it is truncated or damaged" in carry.skipped[0]


@pytest.mark.parametrize("how", ["missing", "cut", "flipped"])
def test_a_carry_is_worth_no_more_than_its_chunks(lease: Lease, how: str) -> None:
    names: list[str] = []
    for number in range(3):
        names = commit(lease, number, names)
    damage(lease.folder / names[-1], how)
    assert assert_consistent(lease.folder) == 2 * DRAWS
    assert names[-1] in loaded(lease.folder).skipped[0]


def test_the_good_carry_outlives_the_damaged_ones_successor(lease: Lease) -> None:
    """The next owner's first commit does not remove the only carry that was proved readable."""
    names: list[str] = []
    for number in range(3):
        names = commit(lease, number, names)
    damage(lease.folder / contents(lease.folder, "carry")[-1], "flipped")
    lease.release()
    with Lease.claim(lease.folder, ELSEWHERE) as second:
        carry = loaded(lease.folder)
        names = commit(second, 2, carry.meta["trace_files"])
        assert assert_consistent(lease.folder) == 3 * DRAWS
        damage(lease.folder / contents(lease.folder, "carry")[-1], "cut")
        assert assert_consistent(lease.folder) == 2 * DRAWS
        names = commit(second, 2, carry.meta["trace_files"])
        names = commit(second, 3, names)
        assert len(contents(lease.folder, "carry")) == 2
        assert contents(lease.folder, "trace") == sorted(names)  # the orphan of epoch 1 is gone too
        assert assert_consistent(lease.folder) == 4 * DRAWS


def test_without_a_usable_carry_there_is_an_error_with_a_way_out(lease: Lease) -> None:
    """Not a silent start from nothing."""
    names = commit(lease, 0, [])
    commit(lease, 1, names)
    for name in contents(lease.folder, "carry"):
        damage(lease.folder / name, "cut")
    with pytest.raises(StoreError, match=r"no usable checkpoint is left in .*rerun=true.*truncated or damaged"):
        load_carry(lease.folder)


def test_the_highest_epoch_counts_whatever_its_step(lease: Lease) -> None:
    names = commit(lease, 0, [])
    later = commit(lease, 1, names)
    lease.release()
    with Lease.claim(lease.folder, ELSEWHERE) as second:
        save_carry(lease.folder, second.epoch, DRAWS, [np.array(DRAWS)], {"trace_files": later[:1]})
    assert (loaded(lease.folder).epoch, loaded(lease.folder).step) == (2, DRAWS)


def test_a_fenced_off_owner_changes_nothing(lease: Lease) -> None:
    """A process that sleeps through its own succession, and wakes in the middle of a commit."""
    names: list[str] = []
    for number in range(2):
        names = commit(lease, number, names)
    lease.release()
    with Lease.claim(lease.folder, ELSEWHERE) as second:
        before = assert_consistent(lease.folder)
        with pytest.raises(LeaseLost):
            save_trace(lease.folder, lease.epoch, "sampling", 20, 30, {"loss": np.full((10, 2), -1.0)})
        carries = contents(lease.folder, "carry")
        with pytest.raises(LeaseLost):
            save_carry(lease.folder, lease.epoch, 30, [np.array(-1)], {"trace_files": []})
        with pytest.raises(LeaseLost):
            checkpoint.keep_newest(lease.folder, lease.epoch)
        assert contents(lease.folder, "carry") == carries
        assert assert_consistent(lease.folder) == before
        names = commit(second, 2, names)
        assert assert_consistent(lease.folder) == 3 * DRAWS


def test_a_published_run_keeps_one_carry(lease: Lease) -> None:
    names: list[str] = []
    for number in range(3):
        names = commit(lease, number, names)
    save_carry(lease.folder, lease.epoch, 3 * DRAWS, [np.array(30)], {"trace_files": [], "merged": 30})
    checkpoint.keep_newest(lease.folder, lease.epoch)
    assert (contents(lease.folder, "trace"), len(contents(lease.folder, "carry"))) == ([], 1)
    assert loaded(lease.folder).meta["merged"] == 30


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_loses_nothing(lease: Lease, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    names = commit(lease, 0, [])

    def failing(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(path.name for path in lease.folder.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(files.os, call, failing)
        with pytest.raises(StoreError, match=r"trace-.*disk is full: free some space and run the same command again"):
            commit(lease, 1, names)
        with pytest.raises(StoreError, match=r"cannot write .*carry-.*disk is full"):
            save_carry(lease.folder, lease.epoch, 20, [np.array(20)], {"trace_files": names})
    assert sorted(path.name for path in lease.folder.iterdir()) == before
    assert assert_consistent(lease.folder) == DRAWS
    commit(lease, 1, names)
    assert assert_consistent(lease.folder) == 2 * DRAWS


def test_chunks_that_do_not_follow_one_another_are_refused(lease: Lease) -> None:
    first = save_trace(lease.folder, 1, "sampling", 0, 2, {"loss": np.zeros((2, 3))})
    third = save_trace(lease.folder, 1, "sampling", 4, 6, {"loss": np.zeros((2, 3))})
    warmup = save_trace(lease.folder, 1, "warmup", 2, 4, {"loss": np.zeros((2, 3))})
    for names in ([first, third], [first, warmup], [third, first]):
        with pytest.raises(ValueError, match="need to follow one another"):
            load_trace(lease.folder, names)
    assert load_trace(lease.folder, []) == {}
    with pytest.raises(ValueError, match=r"loss needs 2 draws, got shape \(3, 2\)"):
        save_trace(lease.folder, 1, "sampling", 0, 2, {"loss": np.zeros((3, 2))})
    with pytest.raises(ValueError, match="a trace chunk is named"):
        load_trace(lease.folder, ["trace.nc"])


def test_merging_keeps_phases_apart(lease: Lease) -> None:
    names = [
        save_trace(lease.folder, 1, phase, start, start + 2, {"loss": np.full((2, 3), float(start))})
        for phase, start in (("warmup", 0), ("warmup", 2), ("sampling", 0), ("sampling", 2))
    ]
    warmup, sampling = merge_trace(lease.folder, 1, names)
    assert (Chunk.parse(warmup).phase, Chunk.parse(sampling).phase) == ("warmup", "sampling")
    np.testing.assert_array_equal(load_trace(lease.folder, [warmup])["loss"][:, 0], [0, 0, 2, 2])


# One process that starts workers by fork (it imports no JAX), kills each with SIGKILL at a random instant of its
# loop of commits, and looks at what is left. A worker says what it has committed; the next one must find that.
KILLER = """
import itertools, os, random, signal, sys, time
from pathlib import Path
import numpy as np
from lambda_hat.store.checkpoint import load_carry, load_trace, merge_trace, save_carry, save_trace
from lambda_hat.store.lease import Lease, Owner

folder, rng = Path(sys.argv[1]), random.Random(0)

def work(pipe):
    lease = Lease.claim(folder, Owner.current())
    carry = load_carry(folder)
    step, names = (0, []) if carry is None else (carry.step, carry.meta["trace_files"])
    while True:
        stop = step + 1 + step % 7
        loss = np.arange(step, stop, dtype=float)[:, None]
        names = [*names, save_trace(folder, lease.epoch, "sampling", step, stop, {"loss": loss})]
        if len(names) > 8:
            names = merge_trace(folder, lease.epoch, names)
        step = stop
        save_carry(folder, lease.epoch, step, [np.full(3000, step)], {"trace_files": names})
        os.write(pipe, b"%d\\n" % step)

promised = 0
for kill in itertools.count():
    if kill >= 40 and promised > 100:  # a slow machine commits less between two kills
        break
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        work(writer)
    os.close(writer)
    first = os.read(reader, 1) if kill % 4 else b""  # sometimes it dies while it claims and loads
    time.sleep(rng.uniform(0, 0.03))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    said = (first + os.fdopen(reader, "rb").read()).split()
    promised = max([promised, *map(int, said)])
    carry = load_carry(folder)
    if carry is None:
        assert promised == 0
        continue
    assert not carry.skipped, carry.skipped
    assert carry.step >= promised, (carry.step, promised)
    assert (carry.leaves[0] == carry.step).all()
    loss = load_trace(folder, carry.meta["trace_files"])["loss"]
    assert (loss[:, 0] == np.arange(carry.step)).all()
    promised = carry.step
print(promised, len(list(folder.iterdir())))
"""


def test_kill_9_at_any_instant_leaves_a_consistent_checkpoint(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path)],
        capture_output=True, text=True, timeout=HANG, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps, num_files = map(int, done.stdout.split())
    assert steps > 100
    assert num_files < 100  # what dead owners left is tidied by their successors
