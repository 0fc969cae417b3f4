"""The local backend: the elements of a sweep in a bounded pool of processes that share the cores fairly.

Workers (:mod:`lambda_hat.launch.local.worker`) run the same elements as on SLURM, one after another. They are spawned,
because a process with threads, such as JAX's, must not be forked. They have sessions of their own, so the driver alone
decides what Ctrl-C means, and elements end normally even if the driver is killed.
"""

import os
import selectors
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from lambda_hat.launch.backend import Backend
from lambda_hat.launch.element import EXIT_INTERRUPTED, target_failure
from lambda_hat.launch.local.watch import Watch, hung
from lambda_hat.launch.local.worker import Worker
from lambda_hat.launch.manifest import SETTLED, Manifest, Place, Task, status_since_submission
from lambda_hat.run.progress import Reporter
from lambda_hat.sampling.devices import fits_one_core, usable_cores
from lambda_hat.store.layout import Store, write_status

_SECONDS_BETWEEN_POLLS = 0.05
# A process keeps the compiled programs of each target and sampler; beyond this many pairs a new process is started.
_MOST_KINDS = 16
_MOST_LOGS = 3


@dataclass
class Pool:
    """Runs elements until none is left, or for as long as more are added.

    Args:
        manifest: The sweep.
        store: Where it lives.
        backend: How many elements at once; by default one for each core.
        places: The elements to run, in order; an element of runs starts once its targets are built or have failed.
        reporter: Gets progress and warnings.
    """

    manifest: Manifest
    store: Store
    backend: Backend
    places: list[Place]
    reporter: Reporter
    stopped_by: int | None = None
    _workers: list[Worker] = field(default_factory=list)
    _waiting: list[Place] = field(default_factory=list)
    _tasks: dict[Place, list[Task]] = field(default_factory=dict)
    _called_off: set[Place] = field(default_factory=set)
    _hung: dict[Place, str] = field(default_factory=dict)
    _is_stop_told: bool = False
    _cores: list[int] = field(default_factory=usable_cores)

    def __post_init__(self) -> None:
        self._watch = Watch(self.reporter)

    def run(self) -> None:
        """Start, watch and reap elements; returns when all are done, or stopped by a signal."""
        with self.listening():
            self.add(self.places)
            self._start_ready()
            while running := len(self._busy()):
                self._pause()
                ended = len(self.places) - len(self._waiting) - running
                self.reporter.status(f"{ended} of {len(self.places)} elements have ended, {running} run")
                self.step()
        self.settle()

    def add(self, places: Iterable[Place]) -> None:
        """Add elements, which a later ``step`` starts."""
        for place in places:
            self._tasks[place] = self.manifest.tasks(self.store, *place)
            self._waiting.append(place)

    def step(self, *, start: bool = False) -> None:
        """Reap what has ended, and fill the slots that this frees (or all free ones: ``start``)."""
        if (self._reap() or start) and self.stopped_by is None:
            self._start_ready()

    def end(self, place: Place) -> None:
        """Have one element stop: it commits what it has."""
        self._called_off.add(place)
        if place in self._waiting:
            self._waiting.remove(place)
            for task in self._tasks[place]:
                _settle(task, "interrupted", "it was called off before it was started")
        for worker in self._workers:
            if worker.place == place:
                worker.signal(signal.SIGTERM)

    def unended(self) -> set[Place]:
        """Elements that wait or run."""
        return {*self._waiting, *(worker.place for worker in self._workers if worker.place is not None)}

    def drain(self) -> None:
        """After a signal: wait for what runs, which commits, and settle the rest."""
        while self._busy():
            self._pause()
            self._reap()
        self.settle()

    def settle(self) -> None:
        """Mark elements that were never started as interrupted."""
        for place in self._waiting:
            for task in self._tasks[place]:
                _settle(task, "interrupted", "the driver was stopped before this was started")

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.place is not None]

    def _pause(self) -> None:
        """Until an element ends, or a little longer than nothing."""
        with selectors.DefaultSelector() as selector:
            for worker in self._busy():
                selector.register(worker.answers, selectors.EVENT_READ)
            selector.select(_SECONDS_BETWEEN_POLLS)

    def _start_ready(self) -> None:
        """Fill the free slots, sharing the idle cores among what can start now."""
        ready: list[Place] = []
        room = (self.backend.array_parallelism or len(self._cores)) - len(self._busy())
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
            cores = self._share(len(ready) - count)
            self._start(place, cores[:1] if self._fits_one_core(place) else cores)

    def _fits_one_core(self, place: Place) -> bool:
        task = self._tasks[place][0]
        return task.run_id is not None and fits_one_core(self.store.read_meta(task.target_id))

    def _share(self, claimants: int) -> list[int]:
        """A fair share of the idle cores; the least busy core if none is idle."""
        used = Counter(core for worker in self._busy() for core in worker.cores)
        idle = [core for core in self._cores if not used[core]]
        return idle[: max(1, len(idle) // claimants)] or [min(self._cores, key=lambda core: used[core])]

    def _fail_without_target(self, tasks: list[Task]) -> bool:
        """Whether these are runs whose target has failed; they are then marked as failed without a process."""
        target_id = tasks[0].target_id
        folder = self.store.target_dir(target_id)
        if tasks[0].run_id is None or self.store.read_meta(target_id) is not None:
            return False
        status = status_since_submission(folder)
        if status is None or status["state"] not in ("failed", "cancelled"):
            return False
        for task in tasks:
            _settle(task, "failed", target_failure(target_id, status))
        return True

    def _start(self, place: Place, cores: list[int]) -> None:
        """Give the element to an idle worker on exactly these cores, or to a new one that replaces some."""
        kinds = {(task.target_id, self._sampler(task)) for task in self._tasks[place]}
        idle = [worker for worker in self._workers if worker.place is None]
        fit = (worker for worker in idle if worker.cores == cores and len(worker.kinds | kinds) <= _MOST_KINDS)
        worker = next(fit, None)
        if worker is None:
            self._dismiss(worker for worker in idle if not set(cores).isdisjoint(worker.cores))
            sweep_dir = self.store.sweep_dir(self.manifest.name).absolute()
            worker = Worker(sweep_dir, place, cores, self._environment())
            self._workers.append(worker)
        else:
            worker.give(place)
        worker.kinds |= kinds
        if self.stopped_by is not None:  # the signal came between the last look and this start
            worker.signal(signal.SIGTERM)

    def _sampler(self, task: Task) -> str | None:
        return None if task.run_id is None else self.manifest.runs[task.run_id].sampler

    def _dismiss(self, workers: Iterable[Worker]) -> None:
        for worker in list(workers):
            worker.dismiss()
            self._workers.remove(worker)

    def _environment(self) -> Mapping[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {**inherited, **self.backend.environment()}

    def _end_what_hangs(self) -> None:
        """Kill a process that has committed nothing for long; a target, which commits nothing, is only reported."""
        working = {worker.place: worker for worker in self._busy() if worker.place is not None}
        for place, seconds in self._watch.silences({place: self._tasks[place] for place in working}).items():
            task = self._tasks[place][0]
            if task.run_id is not None and self.store.read_meta(task.target_id) is not None:
                self._hung[place] = hung(seconds)
                working[place].signal(signal.SIGKILL)

    def _tell_of_stop(self) -> None:
        """Not in the handler of the signal, which may have interrupted another line."""
        busy = self._busy()
        if self.stopped_by is not None and busy and not self._is_stop_told:
            self._is_stop_told = True
            count = f"{len(busy)} element{'s' if len(busy) > 1 else ''}"
            logs = [*(str(worker.log) for worker in busy[:_MOST_LOGS]), *(["..."] if len(busy) > _MOST_LOGS else [])]
            again = signal.Signals(self.stopped_by).name
            self.reporter.line(
                f"stopping: waiting for {count} to commit what they have (logs: {', '.join(logs)}); "
                f"a second {again} kills them, and costs what they did since their last commit"
            )

    def _reap(self) -> bool:
        """Record which elements have ended, and how; returns whether any did."""
        self._tell_of_stop()
        self._end_what_hangs()
        before = len(self._busy())
        for worker in list(self._workers):
            code = worker.exit_code()
            if worker.place is not None and worker.has_answered():  # asked second: it may have died since
                worker.place = None
            if code is None:
                continue
            place, worker.place = worker.place, None
            self._dismiss([worker])
            if place is not None:
                self._explain(worker, place, code)
        return len(self._busy()) < before

    def _explain(self, worker: Worker, place: Place, code: int) -> None:
        """Record why an element ended badly if it did not do so itself."""
        if code == EXIT_INTERRUPTED:
            if self.stopped_by is None and place not in self._called_off:
                words = "was stopped from outside; the same command goes on with it"
                self.reporter.line(f"element {worker.log.stem} {words}")
        else:
            self._blame(place, f"{self._hung.pop(place, None) or _cause(code)}; its log: {worker.log}")

    def _blame(self, place: Place, cause: str) -> None:
        """Record the end of a process that could not do so itself, and requeue its untouched runs."""
        untouched = False
        blamed = False
        for task in self._tasks[place]:
            status = status_since_submission(task.folder)
            if status is not None and status["state"] in SETTLED:
                continue
            if not blamed:  # tasks are done in order: the first that is not settled was at work
                blamed = True
                _settle(task, "failed", cause)
            else:
                untouched = True
        if untouched and self.stopped_by is None:
            self._waiting.insert(0, place)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Pass the first signal on to the elements, so that they commit and end; the second kills them."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

        def forward(signum: int, frame: FrameType | None) -> None:
            del frame
            again = self.stopped_by is not None
            self.stopped_by = signum
            for worker in self._workers:
                worker.signal(signal.SIGKILL if again else signal.SIGTERM)

        heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores SIGHUP
        before = {number: signal.signal(number, forward) for number in heard}
        try:
            yield
        finally:
            self._dismiss(self._workers)
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


def _settle(task: Task, state: str, error: str) -> None:
    write_status(task.folder, state=state, error=error, ended=time.time())


def _cause(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code} before it could say why"
    name = signal.Signals(-code).name
    hint = " (out of memory, or killed by hand)" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"
