"""The checkpoint of a run: trace chunks, and the carry that says which of them count.

A chunk of work is committed in two steps: its trace is written (:func:`save_trace`), then the carry (the sampler's
state, and ``meta`` with the names of all chunks so far: :func:`save_carry`). The rename of the carry is the commit
point. Killed before it, the run resumes from the carry before and makes the chunk again, bit for bit.

Each file says which it is, so that one that was copied or linked here from elsewhere is refused.

File names bear the epoch of the lease under which they were written, so that a fenced-off owner writes beside its
successor and never over it. Two carries of the owner are kept, with the chunks they rely on: a damaged file costs one
chunk of work.
"""

import contextlib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from lambda_hat.config.schema import Document
from lambda_hat.store.files import Bundle, StoreError, explained, read_npz, read_npz_meta, write_npz
from lambda_hat.store.lease import fence

_GENERATIONS = 2
_CARRY = re.compile(r"carry-(\d{6,})-(\d{12,})\.npz")
_CHUNK = re.compile(r"trace-(\d{6,})-([a-z]+)-(\d{12,})-(\d{12,})\.npz")


class Carry(NamedTuple):
    """Where a run stands.

    leaves: the sampler's state, as it was saved. meta: as it was saved. epoch, step: of the owner who saved it.
    skipped: one sentence for each newer carry that could not be used.
    """

    leaves: list[np.ndarray]
    meta: Document
    epoch: int
    step: int
    skipped: list[str]


class Chunk(NamedTuple):
    """What the name of a trace chunk says: draws ``start`` to ``stop`` of ``phase``, written in ``epoch``."""

    epoch: int
    phase: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"trace-{self.epoch:06d}-{self.phase}-{self.start:012d}-{self.stop:012d}.npz"

    @classmethod
    def parse(cls, name: str) -> Self:
        """Raises ``ValueError`` for a name that is no chunk's."""
        match = _CHUNK.fullmatch(name)
        if match is None:
            raise ValueError(f"a trace chunk is named trace-EPOCH-PHASE-START-STOP.npz, got {name!r}")
        return cls(int(match[1]), match[2], int(match[3]), int(match[4]))


class _Fence(NamedTuple):
    """The right of the owner of ``epoch``. One that lost it would leave a file behind that nobody prunes."""

    run_dir: Path
    epoch: int

    def check(self) -> None:
        fence(self.run_dir, self.epoch)


def _carry_path(run_dir: Path, epoch: int, step: int) -> Path:
    return run_dir / f"carry-{epoch:06d}-{step:012d}.npz"


def save_carry(run_dir: Path, epoch: int, step: int, leaves: list[np.ndarray], meta: Document) -> None:
    """Commit: from here on the run resumes from ``leaves``.

    Args:
        run_dir: The run's folder.
        epoch: The epoch of the lease under which the caller works.
        step: Steps done, warm-up included: the carry with the most is the newest of an epoch.
        leaves: The sampler's state; each array comes back with its dtype and shape.
        meta: JSON types. ``meta["trace_files"]`` lists the names of all trace chunks that the run relies on.

    Raises:
        LeaseLost: somebody newer has taken over; nothing was written.
        StoreError: it could not be written; the carries before are intact.
    """
    fence(run_dir, epoch)
    arrays = {f"leaf-{index:06d}": leaf for index, leaf in enumerate(leaves)}
    path = _carry_path(run_dir, epoch, step)
    told = {**meta, "trace_files": list(meta["trace_files"]), "is": _identity(path)}
    write_npz(path, arrays, told, _Fence(run_dir, epoch))
    _prune(run_dir, epoch)


def load_carry(run_dir: Path) -> Carry | None:
    """The newest usable carry (highest epoch, then step), or None if the run has none yet.

    A carry is usable if it and every chunk it relies on are read whole.

    Raises:
        StoreError: there are carries, and not one is usable.
    """
    skipped: list[str] = []
    for epoch, step in reversed(_carries(run_dir)):
        try:
            arrays, meta = read_checkpoint_file(_carry_path(run_dir, epoch, step))
            for name in meta["trace_files"]:
                read_checkpoint_file(run_dir / name)
        except StoreError as error:
            skipped.append(str(error))
            continue
        leaves = [arrays[name] for name in sorted(arrays)]
        return Carry(leaves, meta, epoch, step, skipped)
    if skipped:
        raise StoreError(
            f"no usable checkpoint is left in {run_dir}; set rerun=true to make this run anew. {'; '.join(skipped)}"
        )
    return None


def read_checkpoint_file(path: Path) -> Bundle:
    """A carry or a chunk of a trace, checked whole; one that older code wrote does not say which it is.

    Raises:
        StoreError: it is missing or damaged, or is that of another run, step or chunk.
    """
    found = read_npz(path)
    identity = found.meta.pop("is", None)
    if identity not in (None, _identity(path)):
        raise StoreError(f"cannot read {path}: it is a copy of {identity}")
    if path.name.startswith("carry-") and "trace_files" not in found.meta:
        raise StoreError(f"cannot read {path}: it is no checkpoint of a run")
    if path.name.startswith("trace-"):
        chunk = Chunk.parse(path.name)
        if any(array.shape[:1] != (chunk.stop - chunk.start,) for array in found.arrays.values()):
            raise StoreError(f"cannot read {path}: it has other draws than its name says")
    return found


def _identity(path: Path) -> str:
    return "/".join((path.parent.parent.name, path.parent.name, path.name))


def kernel_version(run_dir: Path) -> int | None:
    """The version of the sampler's kernel that computed the run so far: what the newest readable carry says.

    A carry that says nothing is of version 1; None if there is no readable carry.
    """
    for key in reversed(_carries(run_dir)):
        with contextlib.suppress(StoreError):
            return read_npz_meta(_carry_path(run_dir, *key)).get("kernel_version", 1)
    return None


def save_trace(run_dir: Path, epoch: int, phase: str, start: int, stop: int, arrays: dict[str, np.ndarray]) -> str:
    """Write draws ``start`` to ``stop`` of ``phase`` and return the chunk's name, to be listed by the next carry.

    Args:
        run_dir: The run's folder.
        epoch: The epoch of the lease under which the caller works.
        phase: ``warmup`` or ``sampling``.
        start: First draw of the chunk, counted within its phase.
        stop: One past its last draw.
        arrays: Fields of the trace, each of shape (stop - start, chain).

    Raises:
        ValueError: an array is not that long.
        LeaseLost: somebody newer has taken over; nothing was written.
        StoreError: it could not be written.
    """
    for field, array in arrays.items():
        if array.shape[:1] != (stop - start,):
            raise ValueError(f"trace {field} needs {stop - start} draws, got shape {array.shape}")
    name = Chunk(epoch, phase, start, stop).name
    write_npz(run_dir / name, arrays, {"is": _identity(run_dir / name)}, _Fence(run_dir, epoch))
    return name


def load_trace(run_dir: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The chunks ``names`` of one phase as one trace: each field of shape (draw, chain).

    Raises:
        ValueError: the chunks are not of one phase, one after another.
        StoreError: a chunk is missing, truncated or damaged.
    """
    chunks = [Chunk.parse(name) for name in names]
    for before, after in itertools.pairwise(chunks):
        if (before.phase, before.stop) != (after.phase, after.start):
            raise ValueError(f"trace chunks need to follow one another, got {before.name} and then {after.name}")
    parts = [read_checkpoint_file(run_dir / name).arrays for name in names]
    # A column that was added to the trace since the first of them is left out.
    fields = [field for field in parts[0] if all(field in part for part in parts)] if parts else []
    return {field: np.concatenate([part[field] for part in parts]) for field in fields}


def merge_trace(run_dir: Path, epoch: int, names: Sequence[str]) -> list[str]:
    """One chunk for each phase in place of ``names``, in their order; returns the names for the next carry.

    The small ones are removed once no kept carry relies on them. Clusters count files: merge every few dozen.
    """
    merged: list[str] = []
    for phase, group in itertools.groupby(names, key=lambda name: Chunk.parse(name).phase):
        parts = list(group)
        start, stop = Chunk.parse(parts[0]).start, Chunk.parse(parts[-1]).stop
        merged.append(save_trace(run_dir, epoch, phase, start, stop, load_trace(run_dir, parts)))
    return merged


def keep_newest(run_dir: Path, epoch: int) -> None:
    """Keep nothing but the newest carry and the chunks it names: for a run that is done, once its trace is elsewhere.

    Raises:
        LeaseLost: somebody newer has taken over; nothing was removed.
        StoreError: the newest carry cannot be read; nothing was removed.
    """
    keys = _carries(run_dir)
    if keys:
        needed = set(read_npz(_carry_path(run_dir, *keys[-1])).meta["trace_files"])
        fence(run_dir, epoch)
        _remove(run_dir, epoch, keys[:-1], needed)


def forget_state(run_dir: Path, epoch: int) -> None:
    """Remove the carries of a run that is published, and the chunks they rely on.

    Raises:
        LeaseLost: somebody newer has taken over; nothing was removed.
    """
    fence(run_dir, epoch)
    _remove(run_dir, epoch, _carries(run_dir), set())


def _carries(run_dir: Path) -> list[tuple[int, int]]:
    """(epoch, step) of every carry, oldest first."""
    with explained("scan", run_dir):
        matches = [_CARRY.fullmatch(path.name) for path in run_dir.glob("carry-*.npz")]
    return sorted((int(match[1]), int(match[2])) for match in matches if match is not None)


def _prune(run_dir: Path, epoch: int) -> None:
    """Once this owner has written two carries, remove what neither needs: until then an older owner's files are the
    ones that were proved readable. Files of a later epoch are not ours to judge."""
    carries = [key for key in _carries(run_dir) if key[0] <= epoch]
    kept = [key for key in carries[-_GENERATIONS:] if key[0] == epoch]
    if len(kept) < _GENERATIONS:
        return
    try:
        needed = {name for key in kept for name in read_npz_meta(_carry_path(run_dir, *key))["trace_files"]}
    except StoreError:
        return  # damaged since: what it needs is not known, and one commit later it is gone
    fence(run_dir, epoch)
    _remove(run_dir, epoch, carries[:-_GENERATIONS], needed)


def _remove(run_dir: Path, epoch: int, carries: list[tuple[int, int]], needed: set[str]) -> None:
    """Remove ``carries``, and the chunks written up to ``epoch`` that are not ``needed``."""
    with explained("tidy", run_dir):
        for key in carries:
            _carry_path(run_dir, *key).unlink(missing_ok=True)
        for path in run_dir.glob("trace-*.npz"):
            match = _CHUNK.fullmatch(path.name)
            if match is not None and int(match[1]) <= epoch and path.name not in needed:
                path.unlink(missing_ok=True)
