"""A process of the local backend that runs one element after another, so that JAX starts once and not for every run.

The pool holds a :class:`Worker`; the process is ``python -m lambda_hat.launch.local.worker SWEEP_DIR``. It reads
``ARRAY INDEX`` from standard input, runs the element, answers a line on standard output, and waits for the next one.
Any other end than success ends the process with an exit code, so that no state of a failure reaches the next run. The
process ends when standard input does, because the pool closed it or died.
"""

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from lambda_hat.config.user_module import search_last
from lambda_hat.launch.element import EXIT_INTERRUPTED, Element
from lambda_hat.launch.manifest import Place
from lambda_hat.launch.signals import Stop, Stopped

CORES = "LAMBDA_HAT_CORES"  # of a worker, comma separated
_DONE = b"\n"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")  # NPROC is XLA's


def element_log(sweep_dir: Path, place: Place) -> Path:
    """Where a local element's output goes."""
    return sweep_dir / "logs" / f"{place.array}_{place.index}.log"


class Worker:
    """The process, as its pool sees it.

    Args:
        sweep_dir: The sweep's folder in the store, absolute.
        place: Its first element.
        cores: The cores it may run on.
        environment: Its environment, to which the variables that limit threads are added.
    """

    def __init__(self, sweep_dir: Path, place: Place, cores: list[int], environment: Mapping[str, str]):
        self._sweep_dir, self.cores = sweep_dir, cores
        self.place: Place | None = None
        self.kinds: set[tuple[str, str | None]] = set()  # pairs of target and sampler that it has run
        self.log = element_log(sweep_dir, place)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        shares = dict.fromkeys(_THREADS, str(len(cores)))
        with self.log.open("ab") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "lambda_hat.launch.local.worker", str(sweep_dir)],
                bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, start_new_session=True,
                env={**environment, **shares, CORES: ",".join(map(str, cores))},
            )  # fmt: skip
        self.give(place)

    def give(self, place: Place) -> None:
        """Send it an element. If it has died, its exit code shows that later."""
        assert self._popen.stdin is not None
        self.place, self.log = place, element_log(self._sweep_dir, place)
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.write(f"{place.array} {place.index}\n".encode())

    @property
    def answers(self) -> int:
        """File descriptor that is readable when its element has succeeded or the process has ended."""
        assert self._popen.stdout is not None
        return self._popen.stdout.fileno()

    def has_answered(self) -> bool:
        """Whether its element has succeeded; true once for each element."""
        return bool(select.select([self.answers], [], [], 0)[0]) and os.read(self.answers, 1) == _DONE

    def exit_code(self) -> int | None:
        """None while it lives."""
        return self._popen.poll()

    def signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        self._popen.send_signal(number)

    def dismiss(self) -> None:
        """Let it end after its element; an idle one is waited for."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.close()
        if self.place is None:
            self._popen.wait()
            self._popen.stdout.close()


def main(arguments: list[str]) -> None:
    """Set signals and cores, then run elements until there are no more."""
    stop = Stop()
    stop.install()
    search_last("")
    cores = os.environ.get(CORES)
    if cores and hasattr(os, "sched_setaffinity"):
        # Before JAX is imported, because XLA starts a thread for each core it finds.
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    # Runs, and what they start, must not read from or write to the pipes.
    orders, answers = os.fdopen(os.dup(0)), os.dup(1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    try:
        for line in orders:
            array, index = map(int, line.split())
            _work(Path(arguments[0]), Place(array, index), stop)
            os.write(answers, _DONE)
    except Stopped:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # the pool has died
        pass


def _work(sweep_dir: Path, place: Place, stop: Stop) -> None:
    with element_log(sweep_dir, place).open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    code = Element(str(sweep_dir), *place).work(stop)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
