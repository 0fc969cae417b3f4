"""Signals of an element: warnings from SLURM and from the driver.

Handlers are installed before JAX is imported, which takes seconds. While a run samples, a signal sets a flag that the
host loop checks after each chunk. Anywhere else (imports, building a target, waiting for a lease) there is nothing to
commit, and the signal ends the process at once through ``finally`` blocks.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from lambda_hat.run import signals as stop

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class Stopped(BaseException):
    """A signal ended the element outside a run. It is no ``Exception``, so that no handler of those stops it."""


@dataclass
class Stop(stop.Stop):
    """The signal that has arrived.

    SIGTERM comes from ``scancel``, ``scontrol requeue``, a preemption or the local driver; SIGUSR2 is the warning
    submitit asks SLURM for, ahead of the walltime or a preemption. SIGCONT, which SLURM sends first, does nothing.
    """

    is_heard: bool = False

    def install(self) -> None:
        """Handle the signals, instead of submitit, for the rest of the process."""
        for number in _SIGNALS:
            signal.signal(number, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        del frame
        # SLURM may send several (USR2, then TERM at the end of the grace time); the first one counts.
        is_first, self.signum = self.signum is None, signum
        if is_first and not self.is_heard:
            raise Stopped(f"stopped by {signal.Signals(signum).name}; what was committed stays")

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """While the block lasts, a signal only sets the flag, which the host loop checks after each chunk."""
        self.is_heard = True
        try:
            yield self
        finally:
            self.is_heard = False
