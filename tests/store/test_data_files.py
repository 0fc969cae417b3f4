"""Large arrays lie in data/ once, by content; w0 takes no more than its bits; nothing is lost or read as another."""

import errno
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lambda_hat.store import data_files, files
from lambda_hat.store.data_files import LEAST_BYTES
from lambda_hat.store.layout import Store, StoreError

LARGE = np.arange(LEAST_BYTES // 8, dtype=np.float64).reshape(-1, 2)
SMALL = np.array([0, 1, 0])
W0 = np.array([1.0, -2.0, np.pi])


def publish(store: Store, tid: str, w0: np.ndarray = W0, large: np.ndarray = LARGE) -> None:
    store.publish_target(tid, {"model": tid}, {"dim": len(w0)}, {"rows.0": large, "rows.1": SMALL}, w0)


def shared(store: Store) -> list[Path]:
    return sorted((store.root / "data").iterdir())


def test_targets_of_the_same_data_share_them(store_root: Path) -> None:
    """Each target has what is its own; a copy in Fortran order is the same array."""
    store = Store(store_root)
    for number in range(5):
        publish(store, f"tgt_{number}", W0 + number, np.asfortranarray(LARGE))
    (file,) = shared(store)
    assert LARGE.nbytes < file.stat().st_size < LARGE.nbytes + 200
    own = sum(path.stat().st_size for path in store.root.glob("targets/tgt_0/*"))
    assert own < 3000
    found = store.load_target("tgt_3")
    np.testing.assert_array_equal(found.arrays["rows.0"], LARGE)
    np.testing.assert_array_equal(found.arrays["rows.1"], SMALL)
    np.testing.assert_array_equal(found.w0, W0 + 3)
    assert isinstance(found.arrays["rows.0"], np.memmap)
    assert found.meta["data"] == {"rows.0": file.stem}
    assert not list((store_root / ".tmp").iterdir())


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", ">f4", "complex128"])
def test_every_dtype_comes_back(store_root: Path, dtype: str) -> None:
    array = (np.arange(LEAST_BYTES) % 2).astype(dtype).reshape(2, -1)
    (digest,) = data_files.put(store_root, {"a": array}).values()
    found = data_files.read(store_root, digest, "")
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_what_npy_does_not_keep_is_refused(store_root: Path) -> None:
    with pytest.raises(TypeError, match="rows needs a bool"):
        data_files.put(store_root, {"rows": np.array([None] * LEAST_BYTES)})


@pytest.mark.parametrize("at", [0, 1, 2, 4])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_failing_disk_leaves_no_half(store_root: Path, monkeypatch: pytest.MonkeyPatch, at: int, number: int) -> None:
    """At the n-th flush, of the data or of the target: one sentence, no half file, and the next try succeeds."""
    store, flush, left = Store(store_root), os.fsync, at

    def failing(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", failing)
        with pytest.raises(StoreError, match=r"disk is full|read-only"):
            publish(store, "tgt_a")
    assert store.read_meta("tgt_a") is None
    assert not list((store_root / ".tmp").iterdir())
    publish(store, "tgt_a")
    np.testing.assert_array_equal(store.load_target("tgt_a").arrays["rows.0"], LARGE)
    assert len(shared(store)) == 1


def test_a_killed_writer_is_in_nobodys_way(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it left is in .tmp, which gc empties; the data are whole or not there."""
    store = Store(store_root)

    class KilledError(BaseException):
        """Nothing after it runs: no tidying either."""

    def killed(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(data_files.os, "replace", killed)
        patch.setattr(data_files.shutil, "rmtree", killed)
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KilledError):
            publish(store, "tgt_a")
    assert not list((store_root / "data").glob("*"))
    assert list((store_root / ".tmp").iterdir())
    publish(store, "tgt_a")
    np.testing.assert_array_equal(store.load_target("tgt_a").arrays["rows.0"], LARGE)


def test_many_writers_make_one_file(store_root: Path) -> None:
    store = Store(store_root)
    threads = [threading.Thread(target=publish, args=(store, f"tgt_{number}")) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(shared(store)) == 1
    for number in range(8):
        np.testing.assert_array_equal(store.load_target(f"tgt_{number}").arrays["rows.0"], LARGE)


def test_data_that_gc_takes_while_their_target_is_published_are_put_again(
    store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, rename = Store(store_root), os.rename

    def taking(source: Path, destination: Path) -> None:
        rename(source, destination)
        shared(store)[0].unlink()

    monkeypatch.setattr(os, "rename", taking)
    publish(store, "tgt_a")
    monkeypatch.undo()
    np.testing.assert_array_equal(store.load_target("tgt_a").arrays["rows.0"], LARGE)


def test_bytes_are_checked_once_a_process_and_again_when_a_file_has_changed(
    store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(store_root)
    publish(store, "tgt_a")
    (path,) = shared(store)
    looks: list[Path] = []
    fault = data_files.fault_of
    monkeypatch.setattr(data_files, "fault_of", lambda path: looks.append(path) or fault(path))
    monkeypatch.setattr(data_files, "_SETTLED_S", -1.0)
    for _ in range(3):
        store.load_target("tgt_a")
    assert len(looks) == 1
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"\.npy: its sha256 is .* so it was changed; tgt_a needs it"):
        store.load_target("tgt_a")
    assert len(looks) == 2


def test_a_file_that_was_written_a_moment_ago_is_checked_again(store_root: Path) -> None:
    """Its time of change may not tell two writes apart."""
    store = Store(store_root)
    publish(store, "tgt_a")
    store.load_target("tgt_a")
    (path,) = shared(store)
    assert path.absolute() not in data_files._checked


def test_lost_data_are_told_with_ways_out(store_root: Path) -> None:
    store = Store(store_root)
    for tid in ("tgt_a", "tgt_b"):
        publish(store, tid)
    (path,) = shared(store)
    path.unlink()
    with pytest.raises(StoreError, match=r"there is no such file; tgt_a needs it: .*gc --undo.*; else remove it and "):
        store.load_target("tgt_a")
    (store.target_dir("tgt_a") / "meta.json").unlink()
    publish(store, "tgt_a")
    np.testing.assert_array_equal(store.load_target("tgt_b").arrays["rows.0"], LARGE)


def test_data_that_are_used_again_are_marked(store_root: Path) -> None:
    """gc takes what nobody has used for long, and a target that is being built names its data at its end."""
    store = Store(store_root)
    publish(store, "tgt_a")
    (path,) = shared(store)
    os.utime(path, (1e9, 1e9))
    publish(store, "tgt_b")
    assert time.time() - path.stat().st_mtime < 100


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ([1.5, -0.0, 2.0**-24], 2),
        ([1.0 + 2.0**-20, -0.0, 2.0**100], 4),
        ([1.0078125, -0.0, 2.0**100], 2),  # bfloat16
        ([0.1, -0.0, 1e-40], 8),
        (np.array([0.1, -3.0, 1e-40], np.float32).tolist(), 4),
        ([1e300, 0.0, 1.0], 8),
        ([np.nan, np.inf, -np.inf], 2),
    ],
)
def test_w0_takes_no_more_than_its_bits(store_root: Path, values: list[float], size: int) -> None:
    store, w0 = Store(store_root), np.array(values * 1000)
    publish(store, "tgt_a", w0)
    found = store.load_target("tgt_a").w0
    assert (found.dtype, found.tobytes()) == (np.float64, w0.tobytes())
    assert 0 <= (store.target_dir("tgt_a") / "params.npz").stat().st_size - size * len(w0) < 700


def test_a_target_of_before_is_read_and_left_alone(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its arrays are in data.npz, and w0 in float64."""
    store = Store(store_root)
    with monkeypatch.context() as patch:
        patch.setattr(data_files, "LEAST_BYTES", 1 << 40)
        publish(store, "tgt_a", np.ones(3))
    files.write_npz(folder := store.target_dir("tgt_a") / "params.npz", {"w0": np.ones(3)})
    meta = store.read_meta("tgt_a") or {}
    assert "data" not in meta
    meta["files"]["params.npz"] = data_files.hashlib.sha256(folder.read_bytes()).hexdigest()
    files.write_json(store.target_dir("tgt_a") / "meta.json", meta)
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    publish(store, "tgt_a", np.ones(3))
    found = store.load_target("tgt_a")
    np.testing.assert_array_equal(found.arrays["rows.0"], LARGE)
    np.testing.assert_array_equal(found.w0, np.ones(3))
    assert before.items() <= {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}.items()
