"""Large arrays of targets, stored once: ``data/<sha256>.npy``, however many targets name one.

A file's name is the sha256 of its bytes: equal arrays have one file, and any change of it shows. It is never written
again while it is there.

Who publishes a target puts its arrays here first, and looks for them again once the target names them; who removes a
file that no target names looks again at the targets afterwards, and brings back what is named after all. Whatever the
order of the two, one of them sees the other.
"""

import contextlib
import hashlib
import io
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from lambda_hat.config.schema import Node
from lambda_hat.store.files import StoreError, atomic_path, explained, refuse_dtype, sync_dir

# Smaller arrays stay with their target: clusters count files.
LEAST_BYTES = 1 << 14
# A file that is found is marked as used, but not at every use.
_SECONDS_BETWEEN_MARKS = 3600.0
# A file that was changed so lately may change again without another time of change.
_SETTLED_S = 2.0
_NAME = re.compile(r"[0-9a-f]{64}\.npy")

# What the files were like when this process last found their bytes to be those of their names.
_checked: dict[Path, tuple[int, ...]] = {}


def is_large(array: np.ndarray) -> bool:
    """Whether the store keeps an array here."""
    return array.nbytes >= LEAST_BYTES


def is_data_file(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def data_folder(root: Path) -> Path:
    return root / "data"


def named_by(meta: Node) -> set[str]:
    """The files that a target's ``meta.json`` names."""
    return {f"{digest}.npy" for digest in meta.get("data", {}).values()}


def put(root: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Keep ``arrays``, and return the sha256 of the file of each. Many processes may put the same.

    Raises:
        TypeError: an array is of a dtype that npy cannot keep exactly.
        StoreError: one cannot be written; no part of it is left behind.
    """
    found: dict[str, str] = {}
    for name, array in sorted(arrays.items()):
        refuse_dtype(name, array)
        parts = _bytes(array)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        found[name] = digest.hexdigest()
        path = data_folder(root) / f"{digest.hexdigest()}.npy"
        if not _is_there(path, sum(part.nbytes for part in parts)):
            _write(root, path, parts)
    return found


def is_one_missing(root: Path, digests: Mapping[str, str]) -> bool:
    """Whether not all of these files are there."""
    return any(not (data_folder(root) / f"{digest}.npy").exists() for digest in digests.values())


def read(root: Path, digest: str, way_out: str) -> np.ndarray:
    """The array of a file, mapped into memory. Its bytes are checked once by a process.

    Args:
        root: Of the store.
        digest: The sha256 of the file.
        way_out: What to do where it is missing or damaged, as the end of a sentence.

    Raises:
        StoreError: it is missing or damaged, or cannot be read.
    """
    path = data_folder(root).absolute() / f"{digest}.npy"
    with explained("read", path):
        seen = _seen(path)
        if seen is None or _checked.get(path) != seen:
            fault = fault_of(path)
            if fault is not None:
                raise StoreError(f"cannot read {path}: {fault}; {way_out}")
            if seen is not None and time.time() - path.stat().st_ctime > _SETTLED_S:
                _checked[path] = seen
        return np.load(path, mmap_mode="r", allow_pickle=False)


def fault_of(path: Path) -> str | None:
    """Why a file is not the one that its name says."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "there is no such file"
    return None if found == path.stem else f"its sha256 is {found[:12]}... and not its name, so it was changed"


def _seen(path: Path) -> tuple[int, ...] | None:
    """What changes with a file; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _bytes(array: np.ndarray) -> list[memoryview]:
    """A file's bytes: the header, and the array in C order. Equal arrays have equal bytes."""
    head = io.BytesIO()
    whole = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(whole))
    return [head.getbuffer(), whole.reshape(-1).view(np.uint8).data]


def _is_there(path: Path, size: int) -> bool:
    """Whether a whole file is there, which is then marked as used: gc leaves it alone for a while."""
    with explained("read", path):
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        if status.st_size == size and time.time() - status.st_mtime > _SECONDS_BETWEEN_MARKS:
            mark_used(path)
        return status.st_size == size


def mark_used(path: Path) -> None:
    """Let gc see that somebody has used a file now."""
    with contextlib.suppress(PermissionError):  # it is somebody else's
        os.utime(path)


def _write(root: Path, path: Path, parts: list[memoryview]) -> None:
    with staging(root) as folder:
        with atomic_path(folder / path.name) as temporary, temporary.open("wb") as file:
            for part in parts:
                file.write(part)
        with explained("write", path):
            path.parent.mkdir(exist_ok=True)
            os.replace(folder / path.name, path)
            sync_dir(path.parent)


@contextlib.contextmanager
def staging(root: Path) -> Iterator[Path]:
    """A new folder for files that are not in place yet; gc removes that of a process that was killed."""
    path = root / ".tmp" / uuid.uuid4().hex
    with explained("create", path):
        path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
