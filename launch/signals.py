"""Signals of an element: SLURM's warnings and the driver's, kept until the run can end well.

Handlers are installed before JAX is imported, which takes seconds. Between two chunks a signal is a flag that
the host loop looks at; anywhere else (imports, building a target, waiting for a lease) there is nothing to
commit and it ends the process at once, through ``finally`` blocks.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from lambda_hat.run import signals as stop

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class Stopped(BaseException):
    """A signal ended the element outside a run. No ``except Exception`` may keep it from doing so."""


@dataclass
class Stop(stop.Stop):
    """The signal that has arrived.

    SIGTERM comes from ``scancel``, ``scontrol requeue``, a preemption or the local driver; SIGUSR2 is the warning
    submitit asks SLURM for, ahead of the walltime or a preemption. SIGCONT, which SLURM sends first, does nothing.
    """

    is_heard: bool = False

    def install(self) -> None:
        """Take the signals over, from submitit's handlers too, for the rest of the process."""
        for number in _SIGNALS:
            signal.signal(number, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        del frame
        # SLURM may send several (USR2, then TERM at the end of the grace time): the first says it all.
        is_first, self.signum = self.signum is None, signum
        if is_first and not self.is_heard:
            raise Stopped(f"stopped by {signal.Signals(signum).name}; what was committed stays")

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """While the host loop looks at the flag after each chunk."""
        self.is_heard = True
        try:
            yield self
        finally:
            self.is_heard = False
