"""Stopping a run: a signal becomes a flag, which the host loop reads between chunks."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType


class Interrupted(Exception):
    """A signal asked the run to end; what it had done is committed."""

    def __init__(self, signum: int, directory: Path):
        self.signum = signum
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name}; all work is committed in {directory}. The same command resumes it.")


@dataclass
class Stop:
    """A signal that has arrived and waits for the end of the chunk."""

    signum: int | None = None

    @contextmanager
    def listening(self, numbers: Sequence[int] = (signal.SIGTERM, signal.SIGINT)) -> Iterator["Stop"]:
        """Turn these signals into a flag. A second one acts at once. Outside the main thread it does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in numbers}

        def note(signum: int, frame: FrameType | None) -> None:
            del frame
            if self.signum is not None:
                raise KeyboardInterrupt
            self.signum = signum

        for number in before:
            signal.signal(number, note)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
