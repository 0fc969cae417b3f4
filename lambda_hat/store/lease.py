"""Who works on a folder: leases fenced by epochs, for hosts that share nothing but files.

The owner of epoch k holds ``lease-<k>.json``. Whoever may take over claims ``lease-<k+1>.json``, a name that only one
can create; then the owner of k is told to stop, and if it is too slow to hear it does no harm, since carries and traces
bear the epoch of who wrote them. An owner's heartbeat is the modification time of its lease: touching a file needs no
space on a full disk, and the file server's clock is the same for all.
"""

import contextlib
import dataclasses
import errno
import os
import threading
import time
from pathlib import Path
from typing import NamedTuple, Self

from lambda_hat.store.files import StoreError, document_bytes, epoch_of_temporary, explained, read_bytes, temporary_name
from lambda_hat.store.owner import STALE_SECONDS, Owner, owner_lives
from lambda_hat.store.seal import BrokenSeal, subject_of, unsealed

__all__ = [
    "HEARTBEAT_SECONDS", "STALE_SECONDS", "Lease", "LeaseHeld", "LeaseLost", "LeaseSeen", "Owner", "fence", "is_held",
    "lease_path", "newest_lease", "owner_lives", "process_here",
]  # fmt: skip

HEARTBEAT_SECONDS = 5.0
# An owner whose work has not moved for so long hangs, though the thread of its heartbeat does not.
_HUNG_SECONDS = 3600.0
_RELEASED = 0.0  # the heartbeat of an owner that is done
_ABANDONED_SECONDS = 3600.0  # temporary files of processes that were killed while writing
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


class LeaseHeld(RuntimeError):
    """Somebody else is at work there and alive."""

    def __init__(self, folder: Path, owner: Owner | None, age: float):
        super().__init__(
            f"{folder} is being worked on by {owner or 'an owner that cannot be read'}, last heard of {age:.0f} s ago: "
            f"wait for it, or cancel it; it can be taken over once it was silent for {STALE_SECONDS:.0f} s"
        )
        self.owner = owner
        self.age = age


class LeaseLost(RuntimeError):
    """Somebody else took over, or the folder is gone; whatever is written now would not be read."""

    def __init__(self, folder: Path, epoch: int, *, is_gone: bool = False):
        words = (
            "is not where it was, because it or its store was moved or removed while this ran: stopping; run the same "
            "command again, with store.root where the store is now"
            if is_gone
            else f"was taken over by a newer owner (this one held epoch {epoch}): stopping"
        )
        super().__init__(f"{folder} {words}")


def lease_path(folder: Path, epoch: int) -> Path:
    """The file that the owner of ``epoch`` holds."""
    return folder / f"lease-{epoch:06d}.json"


def fence(folder: Path, epoch: int) -> None:
    """Stop whoever is no longer the owner of ``folder``.

    The newest two leases are kept, so the owner of ``epoch`` is the newest if its own exists and the next does not.

    Raises:
        LeaseLost: a newer owner has claimed it, or the lease was removed with its folder.
    """
    with explained("see the lease of", folder):
        if _modified(lease_path(folder, epoch + 1)) is not None:
            raise LeaseLost(folder, epoch)
        if _modified(lease_path(folder, epoch)) is None:
            raise LeaseLost(folder, epoch, is_gone=max(_epochs(folder), default=0) < epoch)


class LeaseSeen(NamedTuple):
    """A lease as others see it: its epoch, who holds it (None if that cannot be read), when it last beat."""

    epoch: int
    owner: Owner | None
    beat: float

    @property
    def is_released(self) -> bool:
        return self.beat == _RELEASED


def newest_lease(folder: Path) -> LeaseSeen | None:
    """The newest lease of ``folder``, or None."""
    with explained("see the lease of", folder):
        while (epoch := max(_epochs(folder), default=0)) > 0:
            path = lease_path(folder, epoch)
            if (beat := _modified(path)) is not None:  # else it was pruned since, and there is a newer one
                return LeaseSeen(epoch, _read(path), beat)
    return None


def is_held(folder: Path, patience: float = STALE_SECONDS) -> bool:
    """Whether somebody works in ``folder`` and, as far as one can tell without claiming it, lives."""
    seen = newest_lease(folder)
    if seen is None or seen.is_released:
        return False
    return owner_lives(seen.owner, time.time() - seen.beat, patience=patience)


def is_held_by_another(folder: Path) -> bool:
    """Whether another process works in ``folder``; a lease that this one could not release does not count."""
    seen, here = newest_lease(folder), Owner.current()
    owner = None if seen is None else seen.owner
    is_own = owner is not None and (owner.machine, owner.pid) == (here.machine, here.pid)
    return not is_own and is_held(folder)


def process_here(folder: Path) -> int | None:
    """The id of the process of this machine that works in ``folder``, unless it is this process; else None."""
    seen, here = newest_lease(folder), Owner.current()
    if seen is None or seen.owner is None or seen.owner.machine != here.machine or seen.owner.pid == here.pid:
        return None
    return seen.owner.pid if is_held(folder) else None


class Lease:
    """The right to write in a folder, until released, lost or silent for :data:`STALE_SECONDS`.

    As a context manager it beats while the block runs, and is released after it.
    """

    def __init__(self, folder: Path, owner: Owner, epoch: int):
        self.folder = folder
        self.owner = owner
        self.epoch = epoch
        self._stop = threading.Event()
        self._moved: float | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def claim(cls, folder: Path, owner: Owner) -> Self:
        """Become the owner of ``folder`` (made if it is missing).

        Raises:
            LeaseHeld: somebody else is, and alive.
            StoreError: the folder cannot be written.
        """
        with explained("claim", folder):
            folder.mkdir(parents=True, exist_ok=True)
            ticket = temporary_name(folder / "claim")
            try:
                ticket.write_bytes(document_bytes(dataclasses.asdict(owner), folder / "lease.json"))
                while (epoch := _try_next(folder, owner, ticket)) is None:
                    pass
            finally:
                ticket.unlink(missing_ok=True)
            _stop_older_writers(folder, epoch)
            _tidy(folder, epoch)
        return cls(folder, owner, epoch)

    def __enter__(self) -> Self:
        self.start_heartbeat()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def check(self) -> None:
        """Raise :class:`LeaseLost` unless this is still the newest lease. Call it before every commit."""
        fence(self.folder, self.epoch)

    def start_heartbeat(self, seconds: float = HEARTBEAT_SECONDS) -> None:
        """Beat every ``seconds`` in a daemon thread, which ends by itself when the lease is lost."""
        self._thread = threading.Thread(target=self._beat, args=(seconds,), name="lease-heartbeat", daemon=True)
        self._thread.start()

    def moved(self) -> None:
        """Say that the work goes on. After the first such word the heartbeat depends on them."""
        self._moved = time.monotonic()

    def _beat(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            if self._moved is not None and time.monotonic() - self._moved > _HUNG_SECONDS:
                continue
            try:
                self.check()
                os.utime(lease_path(self.folder, self.epoch))
            except LeaseLost:
                return
            except (OSError, StoreError):
                continue  # a file server that stalls: the next beat tries again, and `check` tells the owner

    def release(self) -> None:
        """Let the next owner claim at once. A lease that is lost, or cannot be reached, is left to go stale."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):
            os.utime(lease_path(self.folder, self.epoch), (_RELEASED, _RELEASED))


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _epochs(folder: Path) -> list[int]:
    names = (path.stem.removeprefix("lease-") for path in folder.glob("lease-*.json"))
    return [int(name) for name in names if name.isdigit()]


def _read(path: Path) -> Owner | None:
    try:
        return Owner(**unsealed(read_bytes(path) or b"", subject_of(path)))
    except (BrokenSeal, TypeError):
        return None  # damaged, or being written where there are no hard links


def _try_next(folder: Path, owner: Owner, ticket: Path) -> int | None:
    """The epoch that is now ours; None if somebody else was quicker, to look again."""
    # Both times are the file server's: the clocks of hosts may differ by minutes.
    os.utime(ticket)
    newest = newest_lease(folder)
    if newest is not None and not newest.is_released:
        age = ticket.stat().st_mtime - newest.beat
        if owner_lives(newest.owner, age, owner):
            raise LeaseHeld(folder, newest.owner, age)
    epoch = 1 if newest is None else newest.epoch + 1
    path = lease_path(folder, epoch)
    if not _take(ticket, path):
        return None
    if max(_epochs(folder), default=0) > epoch:
        # We were asleep while several owners came and went: the name was free because it had been pruned.
        path.unlink(missing_ok=True)
        return None
    return epoch


def _take(ticket: Path, path: Path) -> bool:
    """Create ``path`` as a copy of ``ticket`` if nobody has; True if it is ours."""
    try:
        os.link(ticket, path)
    except FileExistsError:
        # NFS may repeat a request whose answer was lost, and then report its own success as a failure.
        return ticket.stat().st_nlink == 2
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        try:
            with path.open("xb") as file:
                file.write(ticket.read_bytes())
        except FileExistsError:
            return False
    return True


def _stop_older_writers(folder: Path, epoch: int) -> None:
    """Remove what older owners are writing, so that none who was stopped right before its rename can make it."""
    for path in folder.glob(".*.tmp"):
        before = epoch_of_temporary(path.name)
        if before is not None and before < epoch:
            path.unlink(missing_ok=True)


def _tidy(folder: Path, epoch: int) -> None:
    """Remove leases that no fence needs, oldest first, and what killed writers left."""
    for old in sorted(old for old in _epochs(folder) if old < epoch - 1):
        lease_path(folder, old).unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
