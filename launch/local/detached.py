"""The local backend with ``wait=false``: its pool in a process of its own.

That process takes over the sweep's lease from the driver that started it, so ``status`` sees it at work, ``cancel``
ends it, and a repeated command finds it.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from lambda_hat.launch.backend import backend_from
from lambda_hat.launch.local.pool import Pool, in_order
from lambda_hat.launch.manifest import Manifest
from lambda_hat.run.progress import PlainReporter
from lambda_hat.store.layout import Store
from lambda_hat.store.lease import Lease, LeaseHeld, Owner, newest_lease

_SECONDS_BETWEEN_POLLS = 0.1
_LONGEST_HANDOVER_S = 60.0


class Detached:
    """The process of a pool.

    Args:
        sweep_dir: The sweep's folder.
        arrays: Places in the manifest of the arrays of targets and of runs.
    """

    def __init__(self, sweep_dir: Path, arrays: tuple[int, int]):
        self._sweep_dir = sweep_dir
        self._log = sweep_dir / "logs" / "driver.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "lambda_hat.launch.local.detached", str(sweep_dir), *map(str, arrays)]
        environment = {**os.environ, **backend_from(Manifest.load(sweep_dir).backend).environment()}
        with self._log.open("ab") as output:
            self._popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
                start_new_session=True,
            )  # fmt: skip

    def take_over(self) -> None:
        """Return when the process holds the sweep's lease, which the caller must have released.

        Raises:
            PoolDied: it ended before.
        """
        while (code := self._popen.poll()) is None:
            seen = newest_lease(self._sweep_dir)
            if seen is not None and seen.owner is not None and seen.owner.pid == self._popen.pid:
                return
            time.sleep(_SECONDS_BETWEEN_POLLS)
        if code:
            raise PoolDied(f"the pool of processes ended with exit code {code} as it started; its log: {self._log}")


class PoolDied(RuntimeError):
    """The pool of a sweep ended as it started."""


def main(arguments: list[str]) -> None:
    """Claim the sweep as soon as the driver releases it, and run its elements."""
    sweep_dir, of_targets, of_runs = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    with _claimed(sweep_dir):
        manifest, store = Manifest.load(sweep_dir), Store(sweep_dir.parents[1])
        places = in_order(manifest, of_targets, of_runs)
        Pool(manifest, store, backend_from(manifest.backend), places, PlainReporter()).run()


def _claimed(sweep_dir: Path) -> Lease:
    deadline = time.monotonic() + _LONGEST_HANDOVER_S
    while True:
        try:
            return Lease.claim(sweep_dir, Owner.current())
        except LeaseHeld:
            if time.monotonic() > deadline:
                raise
            time.sleep(_SECONDS_BETWEEN_POLLS)


if __name__ == "__main__":
    main(sys.argv[1:])
