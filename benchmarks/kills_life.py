"""One life of a process of :mod:`benchmarks.kills`: a run or a driver, which is struck at the steps of its writes.

A step is whatever separates two states of the disk: below the store a temporary file is begun, flushed, fenced,
renamed, linked or removed. The n-th step of a life is where it is killed, stopped, or its clock jumps. The clock that
jumps is the one that leases see: ``time.time()`` and the times at which a lease is touched.
"""

import functools
import os
import random
import re
import signal
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from lambda_hat.config.job import parse_job
from lambda_hat.launch.backend import LOCAL_TARGET, backend_from
from lambda_hat.launch.local import worker
from lambda_hat.launch.plan import plan_jobs
from lambda_hat.launch.submit import submit
from lambda_hat.run import loop
from lambda_hat.run.accounting import Pace
from lambda_hat.store import files, lease
from lambda_hat.store.layout import Store
from lambda_hat.store.lease import LeaseLost

_CHUNKS = (7, 25)  # steps between commits: a few commits each
_CHUNKS_BEFORE_MERGE = 4
_AFTER_THE_STREAMS = 3  # the first descriptor that a worker must not inherit


class Order(NamedTuple):
    """What happens at a step.

    Args:
        at: Which step of this life, from 1.
        act: ``kill``, ``stop``, ``jump`` (of the clock) or ``tell``.
        seconds: How far the clock jumps.
    """

    at: int
    act: str
    seconds: float = 0.0


def live(spec: Mapping[str, Any]) -> None:
    """Do what ``spec`` says in this process, which has started no JAX, and end it.

    The file ``spec["outcome"]`` then has one line: ``done``, ``LeaseLost`` or a traceback. It is missing if the process
    was killed.
    """
    with Path(spec["log"]).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    _Pace.chunks = random.Random(spec["seed"])
    pool: Any = worker
    pool.subprocess = types.SimpleNamespace(Popen=functools.partial(_Fork, spec["events"]), PIPE=subprocess.PIPE)
    host_loop: Any = loop
    host_loop.Pace, host_loop._CHUNKS_BEFORE_MERGE = _Pace, _CHUNKS_BEFORE_MERGE
    _Steps(spec).watch()
    try:
        _drive(spec) if spec["is_driver"] else _run(spec["jobs"][0])
        outcome = "done"
    except LeaseLost:
        outcome = "LeaseLost"
    except BaseException:  # noqa: BLE001 (whatever ends the life is what the harness reports)
        outcome = traceback.format_exc()
    print(f"{time.process_time():.1f} s of CPU")
    temporary = Path(spec["outcome"] + ".tmp")
    temporary.write_text(outcome)
    temporary.rename(spec["outcome"])
    sys.stdout.flush()
    os._exit(0)


class _Pace(Pace):
    """Short chunks, of other lengths in each life."""

    chunks: ClassVar[random.Random]

    def next_length(self, limits: dict[str, float | None], capacity: int) -> int:
        return min(int(limits["steps"] or capacity), self.chunks.randint(*_CHUNKS))


def _run(config: dict[str, Any]) -> None:
    job = parse_job(config)
    loop.execute(job, Store(Path(job.store.root)))


def _drive(spec: Mapping[str, Any]) -> None:
    jobs = [parse_job(config) for config in spec["jobs"]]
    store = Store(Path(jobs[0].store.root))
    backend = backend_from({"_target_": LOCAL_TARGET, "array_parallelism": 2, "runs_per_element": 1})
    submit(plan_jobs(jobs, store, "sweep"), backend, store)


class _Steps:
    """Counts the steps of this process's writes below the store, and carries out orders.

    Args:
        spec: Of the life. ``events`` gets a line for each order that is carried out, before it is; ``steps``, if it is
            not null, one for each step.
    """

    def __init__(self, spec: Mapping[str, Any]):
        self._root, self._events, self._steps = spec["root"], spec["events"], spec["steps"]
        self._orders = [Order(*order) for order in spec["orders"]]
        self._offset, self._count = float(spec["offset"]), 0

    def watch(self) -> None:
        """From now on."""
        modules: tuple[Any, ...] = (files, lease)
        for module in modules:
            module.temporary_name = self._before("begin", module.temporary_name)
        for name in ("replace", "rename", "link"):
            setattr(os, name, self._around(name, getattr(os, name)))
        os.unlink = self._before("unlink", os.unlink)
        os.fsync = self._before("fsync", os.fsync)
        lease.fence = self._before("fence", lease.fence)
        now, utime = time.time, os.utime
        time.time = lambda: now() + self._offset

        def touch(path: Any, times: tuple[float, float] | None = None, **more: Any) -> None:
            if times is None and not more and self._offset:
                times = (now() + self._offset, now() + self._offset)
            utime(path, times, **more)

        os.utime = touch

    def _before(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(what: Any, *arguments: Any, **more: Any) -> Any:
            self._step(name, os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else what)
            return call(what, *arguments, **more)

        return counted

    def _around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(source: Any, *arguments: Any, **more: Any) -> Any:
            self._step(f"before {name}", source)
            result = call(source, *arguments, **more)
            self._step(f"after {name}", source)
            return result

        return counted

    def _step(self, name: str, path: Any) -> None:
        path = str(path)
        if not path.startswith(f"{self._root}/") or "/.cache/" in path:
            return
        self._count += 1
        if self._steps is not None:
            _append(self._steps, f"{name} {_kind(path)}")
        for order in self._orders:
            if order.at == self._count:
                _append(self._events, order.act)
                self._do(order)

    def _do(self, order: Order) -> None:
        if order.act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif order.act == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif order.act == "jump":
            self._offset += order.seconds


def _kind(path: str) -> str:
    """The name of a file without its numbers: of a temporary one, that of the file it will be."""
    name = re.sub(r"^\.(.+?)(\.e\d{6,})?\.[0-9a-f]{32}\.tmp$", r"\1", Path(path).name)
    return re.sub(r"-[0-9]{6,}|_[0-9a-f]{12}$|[0-9a-f]{32}", "", name)


def _append(path: str, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


class _Fork:
    """What a pool needs of the ``subprocess.Popen`` of a worker, forked from its driver, which has started no JAX."""

    def __init__(self, events: str, command: list[str], *, stderr: Any, env: Mapping[str, str], **_: Any):
        orders, stdin = os.pipe()
        stdout, answers = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            for descriptor, number in ((orders, 0), (answers, 1), (stderr.fileno(), 2)):
                os.dup2(descriptor, number)
            os.closerange(_AFTER_THE_STREAMS, 1024)
            _append(events, f"worker {os.getpid()}")
            _work(command, env)
        os.close(orders)
        os.close(answers)
        self.stdin, self.stdout = os.fdopen(stdin, "wb", buffering=0), os.fdopen(stdout, "rb", buffering=0)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.01)
        return self.returncode or 0

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _work(command: list[str], env: Mapping[str, str]) -> None:
    code = 1
    try:
        os.environ.clear()
        os.environ.update(env)
        worker.main(command[command.index("lambda_hat.launch.local.worker") + 1 :])
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001 (its log is where a worker's last words are looked for)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
