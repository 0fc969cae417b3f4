"""A process as others see it: who it is, and whether it still lives."""

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

STALE_SECONDS = 60.0


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
