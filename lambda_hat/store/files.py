"""Files that appear whole or not at all: bytes, JSON, YAML and npz, written for many processes on many nodes.

A file is written under a unique temporary name beside it, flushed to the disk, and renamed. Every fault of the
filesystem leaves as a :class:`StoreError`, one sentence that names the file and the way out.
"""

import contextlib
import errno
import io
import json
import math
import os
import re
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import yaml

from lambda_hat.config.schema import Document, Node
from lambda_hat.store.seal import BrokenSeal, check_yaml, sealed, sealed_yaml, subject_of, unsealed

# The member of an npz file that lists its arrays and holds its meta.
_META = "index.json"
# What reading a zip that was truncated, or whose bytes changed, may raise.
_BROKEN_FILE = (zipfile.BadZipFile, ValueError, KeyError, EOFError, NotImplementedError)
_WAYS_OUT = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "your disk quota is spent: free some space and run the same command again",
    errno.EFBIG: "the file is larger than may be (ulimit -f): raise that and run the same command again",
    errno.EROFS: "it is read-only: choose another store with store.root=DIR",
    errno.EACCES: "permission denied: make it writable, or choose another store with store.root=DIR",
    errno.EPERM: "not permitted: make it writable, or choose another store with store.root=DIR",
    errno.ENOENT: "there is no such file: was it removed while this ran?",
}


class StoreError(RuntimeError):
    """The store cannot be read or written: what, where and the way out, in one sentence."""


@contextlib.contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` met while doing ``action`` to ``path`` into a :class:`StoreError`."""
    try:
        yield
    except OSError as error:
        reason = _WAYS_OUT.get(error.errno or 0, f"{error.strerror or error}: run the same command again")
        raise StoreError(f"cannot {action} {path}: {reason}") from error


def sync_dir(path: Path) -> None:
    """Make the names in ``path`` durable, where the filesystem knows how."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


class Guard(Protocol):
    """The right to publish files in a folder: a :class:`lambda_hat.store.lease.Lease`."""

    @property
    def epoch(self) -> int: ...

    def check(self) -> None:
        """Raise unless nobody newer has the right."""


_OF_EPOCH = re.compile(r"\..+\.e(\d{6,})\.[0-9a-f]{32}\.tmp")


def temporary_name(path: Path, epoch: int | None = None) -> Path:
    """A name beside ``path`` that nobody else uses and that no reader of the store looks at."""
    of = "" if epoch is None else f"e{epoch:06d}."
    return path.with_name(f".{path.name}.{of}{uuid.uuid4().hex}.tmp")


def epoch_of_temporary(name: str) -> int | None:
    """The epoch of the owner who is writing the temporary file ``name``; None for what is written without a guard."""
    match = _OF_EPOCH.fullmatch(name)
    return None if match is None else int(match[1])


@contextlib.contextmanager
def atomic_path(path: Path, guard: Guard | None = None) -> Iterator[Path]:
    """A temporary path beside ``path``; what is written there becomes ``path`` if the block ends well.

    With a guard an owner that was replaced cannot rename: it is checked right before, and one that is stopped between
    the two finds its temporary file gone, because whoever takes over removes those of older epochs first.

    Raises:
        StoreError: the disk is full, the folder is read-only, ...; ``path`` is then as it was before.
        lambda_hat.store.lease.LeaseLost: the guard's; ``path`` was left alone.
    """
    temporary = temporary_name(path, None if guard is None else guard.epoch)
    with explained("write", path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            if guard is not None:
                guard.check()
            os.replace(temporary, path)
            sync_dir(path.parent)
        except FileNotFoundError:
            if guard is not None:
                guard.check()
            raise
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, guard: Guard | None = None) -> None:
    """Replace ``path`` by ``data``, whole or not at all."""
    with atomic_path(path, guard) as temporary:
        temporary.write_bytes(data)


def read_bytes(path: Path) -> bytes | None:
    """The bytes of ``path``, or None if there is no such file."""
    with explained("read", path):
        for attempt in range(3):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                # NFS: the file was replaced between our look-up and our read; the new one is there at once.
                if error.errno != errno.ESTALE or attempt == 2:
                    raise
    return None


def write_json(path: Path, document: Node, place: Path | None = None, guard: Guard | None = None) -> None:
    """Write ``document`` as JSON (:func:`plain`), sealed (:mod:`lambda_hat.store.seal`).

    Args:
        path: Where to.
        document: What; the keys ``format`` and ``digest`` are the seal's.
        place: Where the file will lie, if it is moved before it is read.
        guard: Of the owner of a run's folder.
    """
    write_bytes(path, document_bytes(document, place or path), guard)


def document_bytes(document: Node, place: Path) -> bytes:
    """``document`` as :func:`write_json` stores it at ``place``."""
    return sealed(plain(document), subject_of(place))


def plain(value: Any) -> Any:
    """``value`` in JSON types: NumPy scalars become numbers; NaN and infinities, which JSON lacks, null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_json(path: Path) -> Document | None:
    """The document at ``path`` without its seal, or None if there is no such file.

    Raises:
        StoreError: it cannot be read, is no JSON object, or is not what was written there.
    """
    data = read_bytes(path)
    if data is None:
        return None
    try:
        return unsealed(data, subject_of(path))
    except BrokenSeal as error:
        raise StoreError(f"cannot read {path}: {error}; remove it") from error


def write_config(folder: Path, config: Node, guard: Guard | None = None) -> None:
    """Freeze ``config`` as ``folder/config.yaml``; one that says the same already is left alone."""
    path, data = folder / "config.yaml", sealed_yaml(yaml.safe_dump(plain(config), sort_keys=False)).encode()
    if read_bytes(path) != data:
        write_bytes(path, data, guard)


def adopt_config(folder: Path) -> None:
    """Write ``folder/config.yaml`` as it is, so that it belongs to the user of this process."""
    data = read_bytes(folder / "config.yaml")
    if data is not None:
        write_bytes(folder / "config.yaml", data)


def read_config(folder: Path) -> Document | None:
    """The frozen configuration of a run or target, or None if there is none.

    Raises:
        StoreError: it is no YAML, or not what was written.
    """
    path = folder / "config.yaml"
    data = read_bytes(path)
    if data is None:
        return None
    try:
        text = data.decode()
        check_yaml(text)
        found = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, BrokenSeal) as error:
        raise StoreError(f"cannot read {path}: it is no YAML ({error}); remove it and submit again") from error
    if not isinstance(found, dict):
        raise StoreError(f"cannot read {path}: it needs a mapping, got {type(found).__name__}; remove it, submit again")
    return found


def write_npz(
    path: Path, arrays: Mapping[str, np.ndarray], meta: Node | None = None, guard: Guard | None = None
) -> None:
    """Write ``arrays`` and ``meta`` as one npz file (``numpy.load`` reads it too).

    Equal arrays give equal bytes: members are sorted, in C order, and bear no time. Each has a CRC-32, so that
    :func:`read_npz` notices any change.

    Raises:
        TypeError: an array is of a dtype that npz cannot keep exactly (object, bfloat16, ...).
    """
    names = sorted(arrays)
    for name in names:
        refuse_dtype(f"{path.name}: {name}", arrays[name])
    with atomic_path(path, guard) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in names:
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                array = np.asarray(arrays[name], order="C")
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
        index = json.dumps(plain({"arrays": names, "meta": meta or {}}), indent=1, allow_nan=False)
        archive.writestr(zipfile.ZipInfo(_META), index + "\n")


def refuse_dtype(name: str, array: np.ndarray) -> None:
    """Raises ``TypeError`` for a dtype that NumPy's files do not keep exactly."""
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{name} needs a bool, integer, float or complex dtype, got {array.dtype}")


class Bundle(NamedTuple):
    """What an npz file of the store holds."""

    arrays: dict[str, np.ndarray]
    meta: Document


@contextlib.contextmanager
def _members(path: Path) -> Iterator[Callable[[str], bytes]]:
    """A function from a member's name to its bytes, whose CRC-32 it has checked."""
    with explained("read", path):
        try:
            with zipfile.ZipFile(path) as archive:
                if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in archive.infolist()):
                    raise zipfile.BadZipFile("its members need to be stored as they are")
                yield archive.read
        except _BROKEN_FILE as error:
            raise StoreError(f"cannot read {path}: it is truncated or damaged ({error})") from error


def read_npz_meta(path: Path) -> Document:
    """The ``meta`` of a file of :func:`write_npz`, without its arrays.

    Raises:
        StoreError: it is missing, truncated or damaged.
    """
    with _members(path) as read:
        return json.loads(read(_META))["meta"]


def read_npz(path: Path) -> Bundle:
    """Read a file of :func:`write_npz`, checking every byte of every array.

    Raises:
        StoreError: it is missing, truncated or damaged.
    """
    with _members(path) as read:
        index = json.loads(read(_META))
        # Checked before it is parsed: a damaged header could ask for any amount of memory.
        arrays = {
            name: np.lib.format.read_array(io.BytesIO(read(f"{name}.npy")), allow_pickle=False)
            for name in index["arrays"]
        }
    return Bundle(arrays, index["meta"])
