"""A case of :mod:`benchmarks.kills`: one store, the processes that work in it, and what strikes them."""

import hashlib
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.kills_life import Order
from benchmarks.kills_zygote import Life, Zygote
from lambda_hat.config.job import Job, parse_job
from lambda_hat.store.housekeeping.verify import verify
from lambda_hat.store.layout import Store
from lambda_hat.store.lease import STALE_SECONDS, lease_path, newest_lease
from lambda_hat.store.runs import finished
from lambda_hat.store.trace_file import read_trace_file
from tests.jobs import job_config

_LIMIT_S = 600.0  # a life that takes longer hangs
_MOST_ENDINGS = 4  # processes, undisturbed, until everything has to be finished
_JUMPS_S = (61.0, 3600.0, 86400.0, 4e7)
# What no two runs share: when, where and how often a run was computed.
_UNSTABLE = ("seconds", "provenance", "places", "epoch", "ess_per_second", "time_normalised_variance", "history")
_QUADRATIC = {"_target_": "lambda_hat.targets.analytic.Quadratic", "curvatures": [0.01, 0.1, 1.0, 10.0]}
_DEEP = {"_target_": "lambda_hat.targets.deep_linear.DeepLinear", "widths": [2, 2, 2]}
_STOCHASTIC = {"step_size": 1e-4, "batch_size": 16, "steps_per_draw": 4}
JOBS: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
    ("gibbs", "Gibbs", _DEEP, {}),
    ("sgld", "SGLD", _QUADRATIC, {**_STOCHASTIC, "measure_bias": True}),
    ("hmc", "HMC", _QUADRATIC, {"num_integration_steps": 4}),
    ("mclmc", "MCLMC", _QUADRATIC, {}),
    ("sghmc", "SGHMC", _DEEP, _STOCHASTIC),
    ("vi", "VI", _QUADRATIC, {"whitening": "none"}),
)


class Sweep:
    """The runs that are struck, and what each is if nobody disturbs it.

    Args:
        zygote: Forks the processes.
        folder: Where stores may be made.
        count: How many of :data:`JOBS`.
        most: Strikes of one case, where it is struck again and again.
    """

    def __init__(self, zygote: Zygote, folder: Path, count: int = len(JOBS), most: int = 4):
        self.folder, self.count, self.most = folder, count, most
        self.expected: list[dict[str, str]] = []
        self.steps: list[list[str]] = []
        self.seconds: list[float] = []
        for index in range(count):
            case = Case(self, zygote, folder / f"undisturbed-{index}", random.Random(index), index)
            steps = case.folder / "steps"
            started = time.monotonic()
            case.end(case.start(steps=steps))
            self.seconds.append(time.monotonic() - started)
            if case.faults:
                raise RuntimeError(f"an undisturbed run ends badly: {case.faults}")
            self.steps.append(steps.read_text().splitlines())
            self.expected.append(numbers(case.store, case.job(index)))
        labels = {label for steps in self.steps for label in steps}
        self.stops = itertools.cycle(sorted(labels))


class Case:
    """One store.

    Args:
        sweep: What is run.
        zygote: Forks the processes.
        folder: Of the store, and of the words of its processes.
        rng: Chooses what strikes where.
        number: Of the case; the runs are taken in turn.
    """

    def __init__(self, sweep: Sweep, zygote: Zygote, folder: Path, rng: random.Random, number: int):
        self.sweep, self.folder, self.rng = sweep, folder, rng
        self.index = number % sweep.count
        self.store = Store(folder / "runs")
        self.lives: list[Life] = []
        self.faults: list[str] = []
        self.strikes = 0
        self._zygote = zygote
        self._events = folder / "events"

    def job(self, index: int) -> Job:
        return parse_job(self._config(index))

    def _config(self, index: int) -> dict[str, Any]:
        name, cls, model, fields = JOBS[index]
        sampler = {"_target_": f"lambda_hat.samplers.{name}.{cls}", "num_warmup": 40, **fields}
        return job_config(self.store.root, model=model, sampler=sampler, budget={"draws": 60})

    def start(
        self, *orders: Order, offset: float = 0.0, steps: Path | None = None, is_driver: bool = False
    ) -> Life:  # fmt: skip
        """Start a process that makes the run, or drives the sweep."""
        indices = range(self.sweep.count) if is_driver else [self.index]
        spec = {
            "root": str(self.store.root), "jobs": [self._config(index) for index in indices], "orders": orders,
            "seed": self.rng.random(), "offset": offset, "is_driver": is_driver, "events": str(self._events),
            "steps": None if steps is None else str(steps), "log": str(self.folder / f"log-{len(self.lives)}"),
            "outcome": str(self.folder / f"outcome-{len(self.lives)}"),
        }  # fmt: skip
        self.lives.append(self._zygote.fork(spec))
        return self.lives[-1]

    def end(self, life: Life) -> None:
        """Wait for the end of a process, which may be that it is killed or finds that it lost its lease."""
        if not life.wait(_LIMIT_S):
            self.faults.append(f"process {life.pid} hangs")
            life.signal(signal.SIGKILL)
        if life.outcome() not in (None, "done", "LeaseLost"):
            self.faults.append(f"a process ended with {life.outcome()}")

    def events(self) -> list[str]:
        """What happened to processes of the case, a word each."""
        return self._events.read_text().splitlines() if self._events.exists() else []

    def is_told(self, life: Life, count: int) -> bool:
        """Whether processes have told ``count`` times that they reached their step, before ``life`` ends."""
        while not life.wait(0.005):
            if self.events().count("tell") >= count:
                return True
        return False

    def silence(self) -> None:
        """Make whoever holds the run or its target look silent for longer than a lease lasts."""
        job = self.job(self.index)
        for folder in (self.store.target_dir(job.target_id), self.store.run_dir(job.target_id, job.run_id)):
            seen = newest_lease(folder)
            if seen is not None and not seen.is_released:
                then = time.time() - STALE_SECONDS - 1.0
                os.utime(lease_path(folder, seen.epoch), (then, then))

    def at(self) -> int:
        """A random step of the run."""
        return self.rng.randint(1, len(self.sweep.steps[self.index]))

    def finish(self, *, is_sweep: bool) -> None:
        """Go on until everything is finished, and compare."""
        jobs = [self.job(index) for index in (range(self.sweep.count) if is_sweep else [self.index])]
        for _ in range(_MOST_ENDINGS):
            if all(finished(self.store, job.target_id, job.run_id, job.budget) for job in jobs):
                break
            self.end(self.start(is_driver=is_sweep))
        for index, job in zip(range(self.sweep.count) if is_sweep else [self.index], jobs, strict=True):
            if finished(self.store, job.target_id, job.run_id, job.budget) is None:
                self.faults.append(f"{job.run_id} is not finished")
                continue
            found, expected = numbers(self.store, job), self.sweep.expected[index]
            differ = [name for name in expected.keys() | found.keys() if found.get(name) != expected.get(name)]
            self.faults += [f"{job.run_id}: {name} differs" for name in sorted(differ)]
        self.faults += [f"verify: {damage.path}: {damage.reason}" for damage in verify(self.store)]

    def end_all(self) -> None:
        """End what is left of the processes."""
        for life in self.lives:
            life.signal(signal.SIGKILL)
            life.wait(_LIMIT_S)
        for pid in self.workers():
            os.kill(pid, signal.SIGKILL)

    def workers(self) -> list[int]:
        """The workers of the case's drivers that live."""
        named = [int(event.split()[1]) for event in self.events() if event.startswith("worker")]
        return [pid for pid in named if _is_of(pid, self._zygote.pid)]


def _is_of(pid: int, zygote: int) -> bool:
    """Whether a process lives, and is a fork of the zygote: the same command line."""
    try:
        theirs, ours = (Path(f"/proc/{one}/cmdline").read_bytes() for one in (pid, zygote))
    except FileNotFoundError:
        return False
    return theirs == ours


def numbers(store: Store, job: Job) -> dict[str, str]:
    """A digest of every number of a finished run and its target, by name."""
    stored = read_trace_file(store.run_dir(job.target_id, job.run_id) / "trace.nc")
    analysis = dict(store.read_analysis(job.target_id, job.run_id) or {})
    for name in _UNSTABLE:
        del analysis[name]
    analysis["progress"] = {**analysis["progress"], "seconds": None}
    analysis["config"] = {**analysis["config"], "store": None}
    named: dict[str, bytes] = {name: repr(value).encode() for name, value in analysis.items()}
    for part, columns in (("trace", stored.trace), ("warm-up", stored.warmup)):
        named |= {f"{part} {name}": _bytes(column) for name, column in columns.items()}
    target = store.load_target(job.target_id)
    named |= {f"target {key}": _bytes(array) for key, array in {**target.arrays, "w0": target.w0}.items()}
    return {name: hashlib.sha256(value).hexdigest() for name, value in named.items()}


def _bytes(array: Any) -> bytes:
    return f"{array.dtype} {array.shape} ".encode() + array.tobytes()


def _killed_at_random(case: Case) -> None:
    for _ in range(case.sweep.most):
        life = case.start()
        life.wait(case.rng.uniform(0.0, case.sweep.seconds[case.index]))
        if not life.signal(signal.SIGKILL):  # it was quicker
            case.sweep.seconds[case.index] *= 0.9
            return case.end(life)
        case.strikes += 1
        case.end(life)
    return None


def _killed_at_a_write(case: Case) -> None:
    for _ in range(case.sweep.most):
        life = case.start(Order(case.at(), "kill"))
        case.end(life)
        if life.outcome() is not None:
            return
        case.strikes += 1


def _stopped_at_a_write(case: Case) -> None:
    """Half of the time the newer owner is at work, and itself stopped at a write, when the older one wakes."""
    steps, wanted = case.sweep.steps[case.index], next(case.sweep.stops)
    places = [place for place, label in enumerate(steps, 1) if label == wanted] or [case.at()]
    zombie = case.start(Order(case.rng.choice(places), "stop"))
    if not zombie.stops(_LIMIT_S):
        return case.end(zombie)
    case.strikes += 1
    case.silence()
    newer = case.start(*([Order(case.at(), "stop")] if case.rng.random() < 0.5 else []))
    newer.stops(_LIMIT_S)
    zombie.signal(signal.SIGCONT)
    zombie.wait(2.0)  # it may have to wait for the newer one
    newer.signal(signal.SIGCONT)
    case.end(zombie)
    return case.end(newer)


def _clock_jumps(case: Case) -> None:
    def orders() -> Sequence[Order]:
        jumps = [case.rng.choice(_JUMPS_S) * case.rng.choice((-1.0, 1.0)) for _ in range(2)]
        return [*(Order(case.at(), "jump", seconds) for seconds in jumps), Order(case.at(), "tell")]

    first = case.start(*orders())
    case.is_told(first, 1)
    second = case.start(*orders(), offset=case.rng.choice((0.0, *_JUMPS_S)) * case.rng.choice((-1.0, 1.0)))
    if case.rng.random() < 0.3 and case.is_told(second, 2):
        case.rng.choice((first, second)).signal(signal.SIGKILL)
    case.end(first)
    case.end(second)
    case.strikes += case.events().count("jump")


def _two_owners(case: Case) -> None:
    owners = [case.start(Order(case.at(), "tell"))]
    for number in range(1, min(2, case.sweep.most) + 1):
        if case.is_told(owners[-1], number):
            case.silence()
            owners.append(case.start(Order(case.at(), "tell")))
            case.strikes += 1
    for owner in owners:
        case.end(owner)


def _two_drivers(case: Case) -> None:
    whole = sum(case.sweep.seconds)
    for _ in range(min(2, case.sweep.most)):
        drivers = [case.start(is_driver=True), case.start(is_driver=True)]
        drivers[0].wait(case.rng.uniform(0.0, 0.6 * whole))
        for pid in case.workers():
            if case.rng.random() < 0.5:
                os.kill(pid, signal.SIGKILL)
                case.strikes += 1
        case.strikes += sum(driver.signal(signal.SIGKILL) for driver in drivers if case.rng.random() < 0.7)
        if case.rng.random() < 0.5:  # the next ones find workers whose driver is gone
            for driver in drivers:
                case.end(driver)
    for driver in case.lives:
        case.end(driver)


KINDS: Mapping[str, Callable[[Case], None]] = {
    "killed at random": _killed_at_random,
    "killed at a write": _killed_at_a_write,
    "stopped at a write": _stopped_at_a_write,
    "clock jumps": _clock_jumps,
    "two owners": _two_owners,
    "two drivers": _two_drivers,
}
