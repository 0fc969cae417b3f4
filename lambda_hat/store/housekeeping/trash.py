"""The store's .trash: moving runs, targets and sweeps there while others work beside, and bringing them back.

Everything is moved by rename, below ``.trash/gc-<time>-<number>/`` at the path that it had in the store. A run or a
sweep is moved under its own lease: its owner, if there is one after all, finds the lease gone and stops. A target is
moved file by file, ``meta.json`` first, so that a run's folder that appears in it meanwhile stays where it is. Data are
moved once no target names them, and moved back if one does afterwards: see :mod:`lambda_hat.store.data_files`.
"""

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from lambda_hat.store.data_files import data_folder, mark_used, named_by
from lambda_hat.store.files import StoreError, explained, read_json, sync_dir
from lambda_hat.store.housekeeping.named_data import targets_by_data
from lambda_hat.store.layout import Store
from lambda_hat.store.lease import Lease, LeaseHeld, Owner


def new_trash(store: Store) -> Path:
    """A new folder in .trash, not made yet."""
    return store.trash_dir(f"gc-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}")


def discard(store: Store, folder: Path, trash: Path, seen: tuple[int, ...]) -> bool:
    """Move the folder of a run or of a sweep to ``trash``.

    Args:
        store: Where it is.
        folder: What to move.
        trash: Of :func:`new_trash`.
        seen: :func:`fingerprint` of the folder when it was judged.

    Returns:
        Whether it was moved: not if somebody has worked on it since, or works on it now.
    """
    with _claimed(folder) as lease:
        if lease is None or fingerprint(folder) != seen:
            return False
        place = trash / folder.relative_to(store.root)
        with explained("move", folder):
            place.parent.mkdir(parents=True, exist_ok=True)
            os.rename(folder, place)
        Lease(place, lease.owner, lease.epoch).release()
        return True


def discard_target(store: Store, folder: Path, trash: Path) -> bool:
    """Move a target without runs to ``trash``; False if a run has appeared, or somebody builds it."""
    with _claimed(folder) as lease:
        if lease is None or any(folder.glob("run_*")):
            return False
        place = trash / folder.relative_to(store.root)
        with explained("move", folder):
            place.mkdir(parents=True, exist_ok=True)
            # Without meta.json nobody takes the rest for a target; the lease goes last.
            names = sorted(_files(folder), key=lambda name: (name.startswith("lease-"), name != "meta.json"))
            for name in names:
                os.rename(folder / name, place / name)
            try:
                folder.rmdir()
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                for name in reversed(names):
                    os.rename(place / name, folder / name)
                return False
        Lease(place, lease.owner, lease.epoch).release()
        return True


def discard_data(store: Store, files: Mapping[Path, tuple[int, ...]], trash: Path) -> set[Path]:
    """Move those of ``files`` to ``trash`` that no target names, and return them.

    Args:
        store: Where they are.
        files: Each with its :func:`fingerprint` when it was judged.
        trash: Of :func:`new_trash`.

    Raises:
        StoreError: a ``meta.json`` cannot be read, so that what it names is not known.
    """
    named, moved = targets_by_data(store), dict[Path, Path]()
    for path, seen in files.items():
        place = trash / path.relative_to(store.root)
        with explained("move", path):
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.name not in named and fingerprint(path) == seen and not _is_linked(store.root, path):
                os.rename(path, place)
                moved[path] = place
    named = targets_by_data(store) if moved else named
    for path in [path for path in moved if path.name in named]:
        with explained("restore", path):
            os.rename(moved.pop(path), path)
    return set(moved)


class Restored(NamedTuple):
    """What :func:`undo` did.

    Args:
        folders: What is back in its place; of data the files.
        left: What stays in .trash, since its place is taken.
    """

    folders: list[Path]
    left: list[Path]


def undo(store: Store, name: str | None = None) -> Restored:
    """Bring back what one `gc` moved: the last one, or the one whose folder in .trash begins with ``name``."""
    trash = store.trash_dir("")
    folders = sorted(_unlinked(trash, trash.glob(f"{name or 'gc-'}*")), key=lambda path: path.name)
    if not folders or (name is not None and len(folders) > 1):
        got = "nothing" if not folders else f"{len(folders)} that begin so"
        raise StoreError(f"cannot undo: needs a folder of {trash}, got {got}")
    trash, restored = folders[-1], Restored([], [])
    with explained("restore", trash):
        for file in sorted(_unlinked(trash, trash.glob("data/*.npy"))):
            restored.folders.append(_restore_data(store, file))
        for target in sorted(_unlinked(trash, trash.glob("targets/tgt_*"))):
            _restore_target(store, target, restored, trash)
        for folder in sorted(_unlinked(trash, [*trash.glob("targets/tgt_*/run_*"), *trash.glob("sweeps/*")])):
            place = store.root / folder.relative_to(trash)
            if place.exists() or _is_linked(store.root, place):
                restored.left.append(folder)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                os.rename(folder, place)
                restored.folders.append(place)
    for folder in sorted((path for path in trash.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
    with contextlib.suppress(OSError):
        trash.rmdir()
    return restored


def fingerprint(folder: Path) -> tuple[int, ...]:
    """Changes whenever somebody submits, works on, or ends what is in a folder of a run or of a sweep, and whenever
    data are marked as used."""
    if not folder.is_dir():
        return (_touched(folder),)
    names = ("status.json", "submitted.json", "analysis.json", "config.yaml", "manifest.json")
    return tuple(_touched(folder / name) for name in names)


def _restore_target(store: Store, folder: Path, restored: Restored, trash: Path) -> None:
    """The files of a target, ``meta.json`` last; a target that was built again meanwhile is the same one."""
    names = sorted(_files(folder), key=lambda name: name == "meta.json")
    place = store.root / folder.relative_to(trash)
    if not names:
        return
    if (place / "meta.json").exists() or _is_linked(store.root, place):
        restored.left.append(folder)
        return
    for name in named_by(read_json(folder / "meta.json") or {}):
        # A later gc may have moved them, when another target that needed them went.
        for file in _unlinked(store.trash_dir(""), store.trash_dir("").glob(f"*/data/{name}")):
            _restore_data(store, file)
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        os.rename(folder / name, place / name)
    sync_dir(place)
    restored.folders.append(place)


def _restore_data(store: Store, file: Path) -> Path:
    """Data that are there again are the same ones: their name says so."""
    place = data_folder(store.root) / file.name
    place.parent.mkdir(exist_ok=True)
    os.replace(file, place)
    mark_used(place)
    return place


def _unlinked(top: Path, paths: Iterable[Path]) -> Iterator[Path]:
    """Those to which no link below ``top`` leads: what is behind a link was never moved here."""
    return (path for path in paths if not _is_linked(top, path))


def _is_linked(top: Path, path: Path) -> bool:
    """Whether ``path``, or a folder between it and ``top``, is a link."""
    folders = [path, *path.parents]
    return any(folder.is_symlink() for folder in folders[: folders.index(top)])


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[Lease | None]:
    """The lease of ``folder``, or None if somebody else has it."""
    try:
        lease = Lease.claim(folder, Owner.current())
    except LeaseHeld:
        yield None
        return
    try:
        yield lease
    finally:
        lease.release()


def _files(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if not entry.name.startswith("run_")]


def _touched(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
