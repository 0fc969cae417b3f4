"""The local backend: the elements of a sweep in a bounded pool of fresh processes, cores shared fairly.

The same elements as on SLURM, started by ``python -m launch.element``: a process that has threads (JAX) is never
forked. They are in sessions of their own, so the driver alone decides what Ctrl-C means, and its death, even by
SIGKILL, leaves them to end well by themselves.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from lambda_hat.progress import Reporter
from lambda_hat.store import Store, write_status
from launch.backend import Backend
from launch.element import CORES, EXIT_INTERRUPTED, target_failure
from launch.manifest import SETTLED, Manifest, Place, Task, news

_SECONDS_BETWEEN_POLLS = 0.05
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")  # NPROC is XLA's


class _Process(NamedTuple):
    place: Place
    popen: subprocess.Popen[bytes]
    cores: list[int]
    log: Path


@dataclass
class Pool:
    """Runs elements until none is left, or for as long as somebody adds some.

    Args:
        manifest: The sweep.
        store: Where it lives.
        backend: How many elements at once; by default one for each core.
        places: The elements to run, in order; an element of runs starts when its own targets are done with.
        reporter: Who is told.
    """

    manifest: Manifest
    store: Store
    backend: Backend
    places: list[Place]
    reporter: Reporter
    stopped_by: int | None = None
    _running: list[_Process] = field(default_factory=list)
    _waiting: list[Place] = field(default_factory=list)
    _tasks: dict[Place, list[Task]] = field(default_factory=dict)
    _called_off: set[Place] = field(default_factory=set)
    _cores: list[int] = field(default_factory=lambda: _cores())

    def run(self) -> None:
        """Start, watch and bury elements; returns when all are done, or stopped by a signal."""
        with self.listening():
            self.add(self.places)
            self._start_ready()
            while self._running:
                time.sleep(_SECONDS_BETWEEN_POLLS)
                ended = len(self.places) - len(self._waiting) - len(self._running)
                self.reporter.status(f"{ended} of {len(self.places)} elements have ended, {len(self._running)} run")
                self.step()
        self.settle()

    def add(self, places: Iterable[Place]) -> None:
        """More elements, to be started by a later ``step``."""
        for place in places:
            self._tasks[place] = self.manifest.tasks(self.store, *place)
            self._waiting.append(place)

    def step(self, *, start: bool = False) -> None:
        """Bury what has ended, and fill the slots that this frees (or all free ones: ``start``)."""
        if (self._bury() or start) and self.stopped_by is None:
            self._start_ready()

    def end(self, place: Place) -> None:
        """Have one element stop: it commits what it has."""
        self._called_off.add(place)
        if place in self._waiting:
            self._waiting.remove(place)
            for task in self._tasks[place]:
                _settle(task, "interrupted", "it was called off before it was started")
        for process in self._running:
            if process.place == place and process.popen.poll() is None:
                process.popen.send_signal(signal.SIGTERM)

    def unended(self) -> set[Place]:
        """Elements that wait or run."""
        return {*self._waiting, *(process.place for process in self._running)}

    def drain(self) -> None:
        """After a signal: wait for what runs, which commits, and settle the rest."""
        while self._running:
            time.sleep(_SECONDS_BETWEEN_POLLS)
            self._bury()
        self.settle()

    def settle(self) -> None:
        """Say of what has not been started that it will not be."""
        for place in self._waiting:
            for task in self._tasks[place]:
                _settle(task, "interrupted", "the driver was stopped before this was started")

    def _start_ready(self) -> None:
        """Fill the free slots, sharing the idle cores among what can start now."""
        ready: list[Place] = []
        room = (self.backend.array_parallelism or len(self._cores)) - len(self._running)
        unbuilt = {task.target_id for place in self.unended() for task in self._tasks[place] if task.run_id is None}
        for place in list(self._waiting):
            if len(ready) == room:
                break
            tasks = self._tasks[place]
            if tasks[0].run_id is not None and not unbuilt.isdisjoint(task.target_id for task in tasks):
                continue
            self._waiting.remove(place)
            if not self._fail_without_target(tasks):
                ready.append(place)
        for count, place in enumerate(ready):
            self._start(place, self._share(len(ready) - count))

    def _share(self, claimants: int) -> list[int]:
        """A fair part of the idle cores; the least busy core if all are taken."""
        used = Counter(core for process in self._running for core in process.cores)
        idle = [core for core in self._cores if not used[core]]
        return idle[: max(1, len(idle) // claimants)] or [min(self._cores, key=lambda core: used[core])]

    def _fail_without_target(self, tasks: list[Task]) -> bool:
        """Whether these are runs whose target has failed; they are told so without a process."""
        target_id = tasks[0].target_id
        folder = self.store.target_dir(target_id)
        if tasks[0].run_id is None or self.store.read_meta(target_id) is not None:
            return False
        status = news(folder)
        if status is None or status["state"] not in ("failed", "cancelled"):
            return False
        for task in tasks:
            _settle(task, "failed", target_failure(target_id, status))
        return True

    def _start(self, place: Place, cores: list[int]) -> None:
        sweep_dir = self.store.sweep_dir(self.manifest.name).absolute()
        log = element_log(sweep_dir, place)
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "launch.element", str(sweep_dir), str(place.array), str(place.index)]
        with log.open("ab") as output:
            popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=self._environment(cores), start_new_session=True,
            )  # fmt: skip
        self._running.append(_Process(place, popen, cores, log))
        if self.stopped_by is not None:  # the signal came between the last look and this start
            popen.send_signal(signal.SIGTERM)

    def _environment(self, cores: list[int]) -> Mapping[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        shares = dict.fromkeys(_THREADS, str(len(cores)))
        return {**inherited, **self.backend.environment(), **shares, CORES: ",".join(map(str, cores))}

    def _bury(self) -> bool:
        """Note how processes ended; whether any did."""
        before = len(self._running)
        for process in list(self._running):
            code = process.popen.poll()
            if code is None:
                continue
            self._running.remove(process)
            if code == EXIT_INTERRUPTED and self.stopped_by is None and process.place not in self._called_off:
                self.reporter.line(
                    f"element {process.log.stem} was stopped from outside; the same command goes on with it"
                )
            elif code not in (0, EXIT_INTERRUPTED):
                self._blame(process, code)
        return len(self._running) < before

    def _blame(self, process: _Process, code: int) -> None:
        """Record the end of a process that could not do so itself, and give its untouched runs another process."""
        untouched = False
        blamed = False
        for task in self._tasks[process.place]:
            status = news(task.folder)
            if status is not None and status["state"] in SETTLED:
                continue
            if not blamed:  # tasks are done in order: the first that is not settled was at work
                blamed = True
                _settle(task, "failed", f"{_cause(code)}; its log: {process.log}")
            else:
                untouched = True
        if untouched and self.stopped_by is None:
            self._waiting.insert(0, process.place)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Pass the first signal on to the elements, so that they commit and end; the second kills them."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

        def forward(signum: int, frame: FrameType | None) -> None:
            del frame
            again = self.stopped_by is not None
            self.stopped_by = signum
            for process in self._running:
                if process.popen.poll() is None:
                    process.popen.send_signal(signal.SIGKILL if again else signal.SIGTERM)

        heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores SIGHUP
        before = {number: signal.signal(number, forward) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def in_order(manifest: Manifest, of_targets: int, of_runs: int) -> list[Place]:
    """The elements of two arrays of a manifest, each target right before its first runs."""
    targets = manifest.arrays[of_targets].elements
    unbuilt = {target_id: Place(of_targets, index) for index, (target_id,) in enumerate(targets)}
    places: list[Place] = []
    for index, element in enumerate(manifest.arrays[of_runs].elements):
        target = unbuilt.pop(manifest.runs[element[0]].target, None)
        places += [Place(of_runs, index)] if target is None else [target, Place(of_runs, index)]
    return places


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _settle(task: Task, state: str, error: str) -> None:
    write_status(task.folder, state=state, error=error, ended=time.time())


def element_log(sweep_dir: Path, place: Place) -> Path:
    """Where a local element's output goes."""
    return sweep_dir / "logs" / f"{place.array}_{place.index}.log"


def _cause(code: int) -> str:
    if code > 0:
        return f"its process ended with exit code {code} before it could say why"
    name = signal.Signals(-code).name
    hint = " (out of memory, or killed by hand)" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"
