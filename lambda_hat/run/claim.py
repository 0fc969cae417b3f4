"""Waiting for one's turn at a folder: of several processes that want the same thing made, one makes it."""

import time
from collections.abc import Callable
from pathlib import Path

from lambda_hat.run.progress import Reporter
from lambda_hat.store.lease import Lease, LeaseHeld, Owner

_SECONDS_BETWEEN_POLLS = 1.0


def take_turn(folder: Path, is_made: Callable[[], bool], reporter: Reporter) -> Lease | None:
    """Become the owner of ``folder``, waiting while somebody else is; None once that one has made the thing.

    Raises:
        StoreError: the folder cannot be written.
    """
    told = False
    while True:
        try:
            return Lease.claim(folder, Owner.current())
        except LeaseHeld as held:
            if not told:
                reporter.line(f"waiting: {held}")
                told = True
        time.sleep(_SECONDS_BETWEEN_POLLS)
        if is_made():
            return None
