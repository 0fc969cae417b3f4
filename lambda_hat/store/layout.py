"""The store: every path of a results folder, its targets and its documents.

A store is plain files that many processes on many nodes read and write at once, on NFS or Lustre as on a laptop.
Three habits make that safe: a file appears whole or not at all (:mod:`lambda_hat.store.files`); no file has two writers
(a run's folder is worked under a :class:`lambda_hat.store.lease.Lease`); nothing shared is ever appended to.
A target is there when its ``meta.json`` is, a result when its ``analysis.json`` is.
"""

import contextlib
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO

import numpy as np

from lambda_hat.config.schema import Document, Node
from lambda_hat.store import data_files
from lambda_hat.store.files import (
    Guard,
    StoreError,
    atomic_path,
    explained,
    read_bytes,
    read_config,
    read_json,
    sync_dir,
    write_bytes,
    write_config,
    write_json,
)
from lambda_hat.store.target_files import install, read_arrays, write_arrays

__all__ = [
    "Document",
    "RunRef",
    "Store",
    "StoreError",
    "StoredTarget",
    "atomic_path",
    "open_log",
    "read_config",
    "read_json",
    "read_status",
    "write_bytes",
    "write_config",
    "write_json",
    "write_status",
]


def write_status(folder: Path, guard: Guard | None = None, **fields: Any) -> None:
    """Replace ``folder/status.json`` by ``fields`` and the time (seconds since 1970).

    Args:
        folder: Of a run or a target.
        guard: The owner's lease, whose epoch the document then bears; None for an observer, who leaves the epoch that
            the owner before wrote.
        fields: ``state``, and what belongs to it.

    Raises:
        lambda_hat.store.lease.LeaseLost: somebody newer has taken over; the status is theirs.
    """
    epoch = _epoch_written(folder) if guard is None else guard.epoch
    marked = fields if epoch is None else {**fields, "epoch": epoch}
    write_json(folder / "status.json", {**marked, "time": time.time()}, guard=guard)


def _epoch_written(folder: Path) -> int | None:
    with contextlib.suppress(StoreError):  # a damaged one is replaced
        return (read_status(folder) or {}).get("epoch")
    return None


def read_status(folder: Path) -> Document | None:
    """What :func:`write_status` last said of a run or target, or None."""
    return read_json(folder / "status.json")


def in_order_of_epochs(folder: Path, status: Document, analysis: Document | None) -> Document:
    """``status``, or nothing if the result was published by a newer owner than the one who wrote it.

    Raises:
        StoreError: the result is of an older owner than the one who said that it had published its own.
    """
    said, made = status.get("epoch"), None if analysis is None else analysis.get("epoch")
    if said is None or made is None or said == made:
        return status
    if said < made:
        return {}
    if status["state"] == "finished":
        raise StoreError(
            f"cannot read {folder / 'analysis.json'}: it needs to be that of owner {said}, who finished the run, got "
            f"one of owner {made}, whom it had replaced; remove it and run the same command again"
        )
    return status


def open_log(folder: Path) -> TextIO:
    """``folder/log.txt``, open for appending, with what was logged before.

    The file is made anew (same words, another inode), so that an older owner that still lives writes into its own,
    now nameless, copy: a log has one writer at every moment.
    """
    path = folder / "log.txt"
    write_bytes(path, read_bytes(path) or b"")
    with explained("open", path):
        # No buffer: what a full disk did not take would be written again on closing, and fail there.
        return io.TextIOWrapper(path.open("ab", buffering=0), encoding="utf-8", write_through=True)


class StoredTarget(NamedTuple):
    """A target as the store holds it."""

    arrays: dict[str, np.ndarray]
    w0: np.ndarray
    meta: Document


class RunRef(NamedTuple):
    """Where one run lives."""

    target_id: str
    run_id: str
    folder: Path

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The run that lives in ``folder``."""
        return cls(folder.parent.name, folder.name, folder)

    @property
    def sampler(self) -> str:
        """The sampler's short name, which the id bears."""
        return self.run_id.removeprefix("run_").rpartition("_")[0]


@dataclass(frozen=True)
class Store:
    """The paths of one store, and what is read and published there. Nothing is created before it is written.

    Args:
        root: The folder, ``store.root`` of the configuration.
    """

    root: Path

    def __init__(self, root: str | Path) -> None:
        object.__setattr__(self, "root", Path(root))

    @property
    def cache_dir(self) -> Path:
        """Where compiled programs are shared (see :mod:`lambda_hat.sampling.compilation_cache`)."""
        return self.root / ".cache" / "xla"

    def trash_dir(self, name: str) -> Path:
        """A folder in .trash, not made yet.

        Raises:
            StoreError: .trash is a link, and so what is moved there would leave the store.
        """
        trash = self.root / ".trash"
        if trash.is_symlink():
            raise StoreError(f"cannot move anything to {trash}: it needs to be a folder, got a link; remove the link")
        return trash / name

    def target_dir(self, target_id: str) -> Path:
        return self.root / "targets" / target_id

    def run_dir(self, target_id: str, run_id: str) -> Path:
        return self.target_dir(target_id) / run_id

    def sweep_dir(self, name: str) -> Path:
        return self.root / "sweeps" / name

    def read_meta(self, target_id: str) -> Document | None:
        """The target's ``meta.json``, or None while it is not built."""
        return read_json(self.target_dir(target_id) / "meta.json")

    def read_analysis(self, target_id: str, run_id: str) -> Document | None:
        """The run's ``analysis.json``, or None while it has none."""
        return read_json(self.run_dir(target_id, run_id) / "analysis.json")

    def iter_runs(self) -> Iterator[RunRef]:
        """Every run that has a folder, finished or not, in the order of its ids."""
        with explained("scan", self.root):
            for target in sorted(self.root.glob("targets/tgt_*")):
                for folder in sorted(target.glob("run_*")):
                    yield RunRef.of(folder)

    def publish_target(
        self,
        target_id: str,
        config: Node,
        meta: Node,
        arrays: dict[str, np.ndarray],
        w0: np.ndarray,
        guard: Guard | None = None,
    ) -> Document:
        """Publish a built target; whoever comes second gets the first one's ``meta`` and leaves its files alone.

        ``meta`` gains ``files``, the sha256 of ``data.npz`` and ``params.npz``, and ``data``, the sha256 of each array
        that is large and so lies in ``data/`` (:mod:`lambda_hat.store.data_files`). Where the target's folder is new,
        it appears by one rename. Where it stands already (runs wait in it for their target), its files are renamed into
        it one by one and ``meta.json``, without which nobody reads the others, comes last; hold a lease of the
        target's folder while building and give it as ``guard``, or two builders on unlike machines may mix their files
        (:meth:`load_target` would tell).

        Raises:
            StoreError: it cannot be written; no half of a target is left behind.
        """
        folder = self.target_dir(target_id)
        large = {name: array for name, array in arrays.items() if data_files.is_large(array)}
        data = data_files.put(self.root, large)
        with data_files.staging(self.root) as staging, explained("publish", folder):
            small = {name: array for name, array in arrays.items() if name not in large}
            made = {**meta, "files": write_arrays(staging, small, w0), **({"data": data} if data else {})}
            write_config(staging, config)
            status: Document = {"state": "finished", "time": time.time()}
            for name, document in {"status.json": status, "meta.json": made}.items():
                write_json(staging / name, document, folder / name)
            folder.parent.mkdir(parents=True, exist_ok=True)
            install(staging, folder, guard)
            sync_dir(folder.parent)
        if data_files.is_one_missing(self.root, data):  # gc took one before the target named it
            data_files.put(self.root, large)
        published = self.read_meta(target_id)
        if published is None:
            raise StoreError(f"cannot publish {folder}: it was removed while this ran; run the same command again")
        return published

    def load_target(self, target_id: str) -> StoredTarget:
        """The published target, each byte checked against its ``meta.json``. Large arrays are mapped into memory.

        Raises:
            StoreError: it is not built, or damaged.
        """
        folder = self.target_dir(target_id)
        meta = self.read_meta(target_id)
        if meta is None:
            raise StoreError(f"cannot read {folder}: this target is not built; build it first")
        arrays, w0 = read_arrays(folder, meta)
        way_out = (
            f"{target_id} needs it: `lambda-hat artifacts gc --undo` may bring it back; else remove it and "
            f"{folder / 'meta.json'} and run the same command again, which makes it for every target"
        )
        arrays |= {name: data_files.read(self.root, one, way_out) for name, one in meta.get("data", {}).items()}
        return StoredTarget(arrays, w0, meta)
