"""Who works on a folder: leases fenced by epochs, for hosts that share nothing but files.

The owner of epoch k holds ``lease-<k>.json``. Whoever may take over claims ``lease-<k+1>.json``, a name that only one
can create; then the owner of k is told to stop, and if it is too slow to hear it does no harm, since carries and traces
bear the epoch of who wrote them. An owner's heartbeat is the modification time of its lease: touching a file needs no
space on a full disk, and the file server's clock is the same for all.
"""

import contextlib
import dataclasses
import errno
import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from lambda_hat.store.files import StoreError, explained, json_bytes, read_bytes, temporary_name

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
_RELEASED = 0.0  # the heartbeat of an owner that is done
_ABANDONED_SECONDS = 3600.0  # temporary files of processes that were killed while writing
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


class LeaseHeld(RuntimeError):
    """Somebody else is at work there and alive."""

    def __init__(self, folder: Path, owner: "Owner | None", age: float):
        super().__init__(
            f"{folder} is being worked on by {owner or 'an owner that cannot be read'}, last heard of {age:.0f} s ago: "
            f"wait for it, or cancel it; it can be taken over once it was silent for {STALE_SECONDS:.0f} s"
        )
        self.owner = owner
        self.age = age


class LeaseLost(RuntimeError):
    """Somebody else took over; whatever is written now would not be read."""

    def __init__(self, folder: Path, epoch: int):
        super().__init__(f"{folder} was taken over by a newer owner (this one held epoch {epoch}): stopping")


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process, so described that another one can tell whether it lives.

    Args:
        host: Its host's name, for people.
        machine: Where process ids are comparable: this boot of the kernel and this pid namespace.
        pid: Its process id.
        start: When it started, in the kernel's clock ticks (a pid may be reused), or None where that is not known.
        job: The SLURM job or array element it is part of, or None.
        restart: How often SLURM has restarted that job.
    """

    host: str
    machine: str
    pid: int
    start: int | None
    job: str | None
    restart: int

    @classmethod
    def current(cls) -> Self:
        """This process."""
        return cls(
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            start=_process_start(os.getpid()),
            job=_slurm_job(),
            restart=int(os.environ.get("SLURM_RESTART_COUNT") or 0),
        )

    def __str__(self) -> str:
        job = "" if self.job is None else f" (SLURM job {self.job}, restart {self.restart})"
        return f"process {self.pid} on {self.host}{job}"


def owner_lives(
    owner: Owner | None, seconds_silent: float, observer: Owner | None = None, patience: float = STALE_SECONDS
) -> bool:
    """Whether an owner has to be presumed alive: the one answer on which claims, status, gc and tuning act.

    A dead process of the observer's machine is gone at once, and so is the copy of the observer's SLURM job from before
    a restart (which may live on, on a node that SLURM gave up). Any other owner is gone once it is silent for long.

    Args:
        owner: Who holds the thing; None if its description cannot be read.
        seconds_silent: Since its last heartbeat.
        observer: Who asks; by default this process.
        patience: How many seconds of silence are allowed.
    """
    observer = observer or Owner.current()
    if owner is not None:
        if owner.job is not None and owner.job == observer.job and owner.restart < observer.restart:
            return False
        if owner.machine == observer.machine and not _process_lives(owner.pid, owner.start):
            return False
    return seconds_silent < patience


def _machine() -> str:
    # Containers share the boot id, but not the process ids.
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _process_lives(pid: int, start: int | None) -> bool:
    try:
        with contextlib.suppress(PermissionError):  # it lives, and is another user's
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    now = _process_start(pid)
    return now is None or now == start


def _process_start(pid: int) -> int | None:
    """When a process of this machine started: -1 for a zombie, None where that cannot be read (no /proc)."""
    try:
        # The name, in parentheses, may itself hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return -1 if fields[0] in "ZX" else int(fields[19])


def _slurm_job() -> str | None:
    array, cluster = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_CLUSTER_NAME")
    job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ.get("SLURM_JOB_ID")
    return f"{cluster}:{job}" if job and cluster else job


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
        if _modified(lease_path(folder, epoch + 1)) is not None or _modified(lease_path(folder, epoch)) is None:
            raise LeaseLost(folder, epoch)


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
                ticket.write_bytes(json_bytes(dataclasses.asdict(owner)))
                while (epoch := _try_next(folder, owner, ticket)) is None:
                    pass
            finally:
                ticket.unlink(missing_ok=True)
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

    def _beat(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
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
        return Owner(**json.loads(read_bytes(path) or b""))
    except (ValueError, TypeError):
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


def _tidy(folder: Path, epoch: int) -> None:
    """Remove leases that no fence needs, oldest first, and what killed writers left."""
    for old in sorted(old for old in _epochs(folder) if old < epoch - 1):
        lease_path(folder, old).unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
