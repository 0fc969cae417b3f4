"""Files appear whole or not at all, equal arrays are equal bytes, and damage is noticed."""

import errno
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lambda_hat.store import files
from lambda_hat.store.files import (
    StoreError,
    atomic_path,
    read_bytes,
    read_json,
    read_npz,
    write_bytes,
    write_json,
    write_npz,
)

ARRAYS = {
    "counter": np.array(3, np.int32),
    "flag": np.array([True, False]),
    "empty": np.zeros((0, 3), np.uint32),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "single": np.array([1.5, np.nan, -0.0], np.float32),
    "complex": np.array([1 + 2j]),
}


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """A folder that this process cannot write, whoever runs the tests: root steps down for the while."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "store"
        folder.mkdir()
        (folder / "old.json").write_text('{"a": 1}')
        Path(name).chmod(0o755)
        folder.chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if is_root:
                os.seteuid(0)
            folder.chmod(0o755)


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape)
        assert got[name].tobytes() == np.asarray(array, order="C").tobytes()


def test_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", ARRAYS, {"seconds": 0.1})
    arrays, meta = read_npz(tmp_path / "a.npz")
    assert_same(arrays, ARRAYS)
    assert meta == {"seconds": 0.1}
    assert files.read_npz_meta(tmp_path / "a.npz") == meta
    with np.load(tmp_path / "a.npz") as theirs:  # a plain npz: readable in ten years
        assert_same({name: theirs[name] for name in ARRAYS}, ARRAYS)


def test_equal_arrays_are_equal_bytes(tmp_path: Path) -> None:
    """Sees times, orders of insertion and memory layouts that leak into the file."""
    write_npz(tmp_path / "a.npz", ARRAYS)
    os.utime(tmp_path / "a.npz", (0, 0))
    write_npz(tmp_path / "b.npz", {name: ARRAYS[name].copy(order="C") for name in reversed(ARRAYS)})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()]), np.zeros(2, "V2")])
def test_dtypes_that_npz_cannot_keep_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(TypeError, match=r"a\.npz: w needs a bool, integer, float or complex dtype"):
        write_npz(tmp_path / "a.npz", {"w": array})
    assert list(tmp_path.iterdir()) == []


def test_damage_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    """Flip bits and cut at many places: the arrays are right, or it is a StoreError; never other data."""
    path = tmp_path / "a.npz"
    write_npz(path, ARRAYS, {"step": 7})
    whole = path.read_bytes()
    rng = random.Random(0)
    noticed = 0
    positions = range(0, len(whole), 3)
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            arrays, meta = read_npz(path)
        except StoreError:
            noticed += 1
        else:
            assert_same(arrays, ARRAYS)
            assert meta == {"step": 7}
    assert noticed > len(positions) / 2
    for length in range(0, len(whole), 17):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match="truncated or damaged"):
            read_npz(path)


def test_json_knows_numpy_and_writes_null_for_nan(tmp_path: Path) -> None:
    document = {"llc": np.float64(1.5), "n": np.int64(3), "rhat": float("nan"), "interval": (1, np.inf), "ok": np.True_}
    write_json(tmp_path / "a.json", document)
    assert read_json(tmp_path / "a.json") == {"llc": 1.5, "n": 3, "rhat": None, "interval": [1, None], "ok": True}


def test_missing_is_none_and_damaged_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert read_json(path) is None
    for text in ("", '{"a": ', "[1]", "\xff"):
        path.write_bytes(text.encode("latin1"))
        with pytest.raises(StoreError, match=r"a\.json.*remove it"):
            read_json(path)


def test_a_stale_handle_is_looked_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS: a file that is replaced while it is read."""
    answers = [OSError(errno.ESTALE, "stale"), OSError(errno.ESTALE, "stale"), b"new"]

    def reading(_: Path) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(Path, "read_bytes", reading)
    assert read_bytes(tmp_path / "a") == b"new"


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "disk is full: free some space"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only.*store.root=")],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, words: str
) -> None:
    """A full disk may be told of as late as the flush (NFS does)."""
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def failing(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, call, failing)
    with pytest.raises(StoreError, match=f"cannot write .*a.json: .*{words}"):
        write_npz(path, ARRAYS)
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_write_that_the_kernel_cuts_short(tmp_path: Path) -> None:
    """A real partial write (the limit on a file's size stands for the full disk), not a simulated one."""
    write_bytes(tmp_path / "a.npz", b"old")
    code = """
import resource, sys, numpy as np
from pathlib import Path
from lambda_hat.store.files import StoreError, write_npz
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    write_npz(Path(sys.argv[1]), {"x": np.zeros(100_000)})
except StoreError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(tmp_path / "a.npz")],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert "cannot write" in done.stdout
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.npz", b"old")]


def test_a_folder_without_permission_is_an_error_with_a_way_out(locked_folder: Path) -> None:
    with pytest.raises(StoreError, match=r"permission denied: .*store\.root=DIR"):
        write_json(locked_folder / "old.json", {"a": 2})
    with pytest.raises(StoreError, match=r"store\.root=DIR"):
        write_json(locked_folder / "new" / "a.json", {})
    assert read_json(locked_folder / "old.json") == {"a": 1}


def test_a_failing_block_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic_path(tmp_path / "trace.nc") as temporary:
        temporary.write_bytes(b"half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
