"""Targets appear whole or not at all, races have one winner, and scanning tolerates what it meets."""

import errno
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from lambda_hat.store import files
from lambda_hat.store.layout import (
    Store,
    StoreError,
    open_log,
    read_config,
    read_json,
    read_status,
    write_config,
    write_status,
)
from lambda_hat.store.lease import Lease, Owner
from lambda_hat.store.runs import move_to_trash

ARRAYS = {"inputs": np.arange(6.0).reshape(3, 2), "targets": np.array([0, 1, 0])}
W0 = np.array([1.0, -2.0])
LAYOUT = ["config.yaml", "data.npz", "meta.json", "params.npz", "status.json"]


def publish(store: Store, tid: str = "tgt_a", seconds: float = 1.0, w0: np.ndarray = W0) -> dict[str, object]:
    return store.publish_target(tid, {"model": {"dim": 2}}, {"seconds": seconds, "loss": np.float64(0.5)}, ARRAYS, w0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_target_comes_back(store_root: Path) -> None:
    store = Store(store_root)
    assert store.read_meta("tgt_a") is None
    meta = publish(store)
    assert store.read_meta("tgt_a") == meta
    assert (meta["seconds"], meta["loss"]) == (1.0, 0.5)
    arrays, w0, same = store.load_target("tgt_a")
    assert same == meta
    np.testing.assert_array_equal(w0, W0)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    assert names(store.target_dir("tgt_a")) == LAYOUT
    assert read_config(store.target_dir("tgt_a")) == {"model": {"dim": 2}}
    assert names(store_root / ".tmp") == []


def test_same_target_same_bytes(tmp_path: Path) -> None:
    """The promise `same id = same bytes`, in stores made at other times."""
    stores = [Store(tmp_path / name) for name in ("one", "two")]
    for seconds, store in enumerate(stores):
        publish(store, seconds=float(seconds))
    for name in ("data.npz", "params.npz", "config.yaml"):
        one, two = (store.target_dir("tgt_a") / name for store in stores)
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("has_waiting_run", [False, True])
def test_the_second_publisher_gets_the_first_ones(store_root: Path, has_waiting_run: bool) -> None:
    store = Store(store_root)
    if has_waiting_run:  # its frozen configuration is there before its target is
        write_config(store.run_dir("tgt_a", "run_hmc_1"), {"seed": 0})
    first = publish(store, seconds=1.0)
    assert publish(store, seconds=2.0, w0=W0 + 1) == first
    np.testing.assert_array_equal(store.load_target("tgt_a").w0, W0)
    assert names(store_root / ".tmp") == []


@pytest.mark.parametrize("has_waiting_run", [False, True])
def test_publishers_at_once_agree(store_root: Path, has_waiting_run: bool) -> None:
    store = Store(store_root)
    if has_waiting_run:
        write_config(store.run_dir("tgt_a", "run_hmc_1"), {"seed": 0})
    metas: list[object] = []
    threads = [threading.Thread(target=lambda: metas.append(publish(store))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(metas) == 8
    assert all(meta == store.read_meta("tgt_a") for meta in metas)
    np.testing.assert_array_equal(store.load_target("tgt_a").w0, W0)


@pytest.mark.parametrize("has_waiting_run", [False, True])
@pytest.mark.parametrize("at", [0, 1, 5, 8, 9, 10])
def test_a_publication_that_fails_anywhere_leaves_no_target(
    store_root: Path, monkeypatch: pytest.MonkeyPatch, has_waiting_run: bool, at: int
) -> None:
    """The disk fills up at the n-th flush: there is no target, or a whole one; the next try succeeds."""
    store = Store(store_root)
    if has_waiting_run:
        write_config(store.run_dir("tgt_a", "run_hmc_1"), {"seed": 0})
    left = at
    flush = os.fsync

    def filling(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", filling)
        with pytest.raises(StoreError, match="disk is full"):
            publish(store)
    # The last flushes only make names durable: by then the target is there, and whole.
    assert (store.read_meta("tgt_a") is None) == (at < 10)
    assert names(store_root / ".tmp") == []
    publish(store)
    np.testing.assert_array_equal(store.load_target("tgt_a").w0, W0)


def test_what_a_killed_publisher_left_is_replaced(store_root: Path) -> None:
    store = Store(store_root)
    folder = store.target_dir("tgt_a")
    folder.mkdir(parents=True)
    (folder / "data.npz").write_bytes(b"of another time")
    publish(store)
    np.testing.assert_array_equal(store.load_target("tgt_a").arrays["inputs"], ARRAYS["inputs"])


@pytest.mark.parametrize("name", ["data.npz", "params.npz"])
def test_a_damaged_target_is_told_with_a_way_out(store_root: Path, name: str) -> None:
    """Also a whole file of another build: two builders on unlike machines may mix theirs."""
    store = Store(store_root)
    publish(store)
    other = Store(store_root.parent / "other")
    other.publish_target("tgt_a", {}, {}, {"inputs": np.zeros(1)}, W0 + 1)
    path = store.target_dir("tgt_a") / name
    shutil.copy(other.target_dir("tgt_a") / name, path)
    with pytest.raises(StoreError, match=rf"{name}: it is not the file that meta.json describes; remove .*meta.json"):
        store.load_target("tgt_a")
    path.unlink()
    with pytest.raises(StoreError, match=rf"{name}: there is no such file"):
        store.load_target("tgt_a")
    (store.target_dir("tgt_a") / "meta.json").unlink()
    publish(store)
    np.testing.assert_array_equal(store.load_target("tgt_a").w0, W0)


def test_an_unbuilt_target_is_told(store_root: Path) -> None:
    with pytest.raises(StoreError, match="not built"):
        Store(store_root).load_target("tgt_a")


def test_runs_are_found_by_scanning(store_root: Path) -> None:
    store = Store(store_root)
    assert list(store.iter_runs()) == []
    for tid, rid in (("tgt_b", "run_nuts_2"), ("tgt_a", "run_vi_3"), ("tgt_a", "run_hmc_1")):
        write_status(store.run_dir(tid, rid), state="running")
    (store_root / "targets" / "tgt_a" / "meta.json").write_text("{}")
    (store_root / "targets" / "notes.txt").write_text("mine")
    found = [(ref.target_id, ref.run_id) for ref in store.iter_runs()]
    assert found == [("tgt_a", "run_hmc_1"), ("tgt_a", "run_vi_3"), ("tgt_b", "run_nuts_2")]
    assert all(ref.folder == store.run_dir(ref.target_id, ref.run_id) for ref in store.iter_runs())


def test_status_says_the_last_word_only(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    write_status(tmp_path, state="failed", error="boom")
    write_status(tmp_path, state="running")
    status = read_status(tmp_path)
    assert status is not None
    assert (status["state"], "error" in status) == ("running", False)


def test_a_log_has_one_writer(tmp_path: Path) -> None:
    """An older owner that lives on writes beside the log, not into it."""
    with open_log(tmp_path) as first:
        first.write("one\n")
        with open_log(tmp_path) as second:
            second.write("two\n")
            first.write("too late\n")
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\n"


def test_an_archived_run_starts_again_behind_its_fence(store_root: Path) -> None:
    store = Store(store_root)
    folder = store.run_dir("tgt_a", "run_hmc_1")
    with Lease.claim(folder, Owner.current()) as lease:
        (folder / "analysis.json").write_text('{"llc": 1.0}')
        (folder / "carry-000001-000000000001.npz").write_bytes(b"state")
        trash = move_to_trash(store, folder)
        lease.check()
    assert store.read_analysis("tgt_a", "run_hmc_1") is None
    assert names(folder) == ["lease-000001.json"]
    assert read_json(trash / "analysis.json") == {"llc": 1.0}
    with Lease.claim(folder, Owner.current()) as lease:
        assert lease.epoch == 2
