"""Processes for a hundredth of a second each, forked from one that has imported everything and started nothing.

JAX starts threads, and what has threads must not be forked: the zygote imports the modules, but no backend of JAX.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class Zygote:
    """The process that forks: ``with Zygote() as zygote: zygote.fork(spec)``. May be used by several threads."""

    def __enter__(self) -> "Zygote":
        # OpenBLAS would start its threads when it is imported.
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.kills_zygote"], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1,
        )  # fmt: skip
        self._lock = threading.Lock()
        return self

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._popen.pid

    def __exit__(self, *exc: object) -> None:
        with self._popen:  # closes its pipes, at which it ends, and waits
            pass

    def fork(self, spec: Mapping[str, Any]) -> "Life":
        """Start a life (:func:`benchmarks.kills_life.live`)."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        with self._lock:
            self._popen.stdin.write(json.dumps(spec) + "\n")
            answer = self._popen.stdout.readline()
        if not answer:
            raise RuntimeError("the zygote has ended: see its words above")
        return Life(int(answer), Path(spec["outcome"]))


class Life:
    """A process of the zygote, as the harness sees it.

    Args:
        pid: Its process.
        outcome: Where it says how it ended.
    """

    def __init__(self, pid: int, outcome: Path):
        self.pid, self._outcome = pid, outcome
        self._handle: int | None = None
        try:
            self._handle = os.pidfd_open(pid)
        except ProcessLookupError:  # it has ended already
            self._handle = None

    def signal(self, number: int) -> bool:
        """Send a signal; False if the process has ended."""
        if self._handle is None:
            return False
        try:
            signal.pidfd_send_signal(self._handle, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, seconds: float) -> bool:
        """Whether it ends within ``seconds``."""
        if self._handle is not None and select.select([self._handle], [], [], seconds)[0]:
            os.close(self._handle)
            self._handle = None
        return self._handle is None

    def stops(self, seconds: float) -> bool:
        """Whether it is stopped within ``seconds``, before it ends."""
        deadline = time.monotonic() + seconds
        while not self.wait(0.005):
            if self.is_stopped():
                return True
            if time.monotonic() > deadline:
                return False
        return False

    def is_stopped(self) -> bool:
        """Whether a signal has stopped it."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except FileNotFoundError:
            return False

    def outcome(self) -> str | None:
        """What it said of its end; None if it was killed, or lives."""
        return self._outcome.read_text() if self._outcome.exists() else None


def main() -> None:
    """Import everything, then fork a life for each line of standard input and answer with its process id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children: their ends are seen by pidfd
    import_everything()
    # Through buffers of Python a child would read the lines of its siblings.
    orders = os.fdopen(os.dup(0), "rb", buffering=0)
    for line in iter(orders.readline, b""):
        assert len(list(Path("/proc/self/task").iterdir())) == 1, "something that was imported has started a thread"
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.closerange(3, 64)
            from benchmarks.kills_life import live

            live(json.loads(line))
        os.write(1, f"{pid}\n".encode())


def import_everything() -> None:
    """All that a run imports, apart from BlackJAX, whose import starts JAX's backend."""
    import importlib
    import pkgutil

    import lambda_hat.samplers
    import lambda_hat.targets

    for package in (lambda_hat.samplers, lambda_hat.targets):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for name in (
        "scipy.signal",
        "scipy.stats",
        "h5netcdf",
        "h5py",
        "benchmarks.kills_life",
        "lambda_hat.launch.element",
    ):
        importlib.import_module(name)


if __name__ == "__main__":
    main()
