"""What runs on the node: one element of one array of a sweep.

An element reads its ids from the manifest and each run's frozen ``config.yaml``, never conf/. It may be started any
number of times: finished runs are found, those that failed since the submission stay failed, and the others continue
where they last committed. However it ends, it leaves a status.json, or a comment on the SLURM job if the store cannot
be written. Only SIGKILL prevents both; then the local driver or ``lambda-hat status`` records the end.

Imports that load JAX or submitit are inside functions: signal handlers and core affinity come before JAX, which reads
the latter, and a local worker needs no submitit.
"""

import contextlib
import math
import os
import socket
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lambda_hat.config.foreign_code import refuse_foreign_code
from lambda_hat.config.job import Job, parse_job
from lambda_hat.config.schema import ConfigError, Document
from lambda_hat.config.user_module import search_last
from lambda_hat.launch.backend import Backend, backend_from
from lambda_hat.launch.manifest import SETTLED, Manifest, Task, status_since_submission
from lambda_hat.launch.plan import program_of
from lambda_hat.launch.signals import Stop
from lambda_hat.launch.slurm import cluster
from lambda_hat.launch.slurm.logs import STARTS
from lambda_hat.report.pictures import draw_missing
from lambda_hat.run.progress import PlainReporter
from lambda_hat.sampling.devices import one_a_core
from lambda_hat.store.layout import Store, StoreError, read_config, write_status
from lambda_hat.store.lease import LeaseLost, is_held_by_another

EXIT_FAILED = 1
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: started again, it goes on


class ElementError(RuntimeError):
    """A run cannot start: what it needed, what it found, the way out."""


class Element:
    """One array task, as submitit pickles it (by reference) and calls it on the node.

    Args:
        sweep_dir: The sweep's folder in the store, absolute.
        number: The array's place in the manifest.
        index: The task's index in the array.
    """

    def __init__(self, sweep_dir: str, number: int, index: int):
        self.sweep_dir, self.number, self.index = Path(sweep_dir), number, index
        self.started = time.monotonic()

    def __call__(self) -> None:
        """Do the work, and end the process with an exit code that SLURM understands."""
        PlainReporter().line(f"{STARTS}{self.index} of {self.sweep_dir.name} starts on {socket.gethostname()}")
        self.started = time.monotonic()
        stop = Stop()
        stop.install()
        search_last("")
        code = self.work(stop)
        if code == EXIT_INTERRUPTED:
            self._start_again()
        if code:
            sys.exit(code)

    def checkpoint(self) -> Any:
        """What submitit restarts if a signal arrives before our handlers are installed."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def work(self, stop: Stop) -> int:
        """Do every task of the element, whether or not others fail; returns the exit code."""
        manifest, store = self._manifest()
        backend = backend_from(manifest.backend)
        self._before = {task: _commits(task) for task in manifest.tasks(store, self.number, self.index)}
        states: list[str] = []
        for task in self._before:
            status = status_since_submission(task.folder)
            # An observer's conclusion from SLURM's words does not bind an element that starts after all.
            if status is not None and status["state"] in SETTLED and "told_by" not in status:
                states.append(status["state"])
                continue
            with _Recorded(task.folder, stop) as recorded:
                _do(task, store, backend, stop)
            states.append(recorded.state)
            if stop.signum is not None:
                return EXIT_INTERRUPTED
        return EXIT_FAILED if "failed" in states else 0

    def _manifest(self) -> tuple[Manifest, Store]:
        return Manifest.load(self.sweep_dir), Store(self.sweep_dir.parents[1])

    def _start_again(self) -> None:
        """Have SLURM requeue this element, unless it committed nothing within a whole walltime.

        At the warning of the walltime or of a preemption the job is RUNNING, and would end for good. In any other state
        SLURM is ending it and knows what comes next: cancelled, or requeued.
        """
        manifest, _ = self._manifest()
        backend = backend_from(manifest.backend)
        job_id = cluster.own_job_id()
        if job_id is None or cluster.state_of(job_id) != "RUNNING":
            return
        spent = time.monotonic() - self.started
        timed_out = spent >= backend.timeout_min * 60 - backend.margin_s
        if timed_out and all(_commits(task) == names for task, names in self._before.items()):
            error = (
                f"needs more than the {spent:.0f} s that a walltime of {backend.timeout_min} min left it to commit "
                "anything; raise hydra.launcher.timeout_min"
            )
            for task in self._before:
                if _state(task) == "interrupted":
                    _write(task.folder, "failed", error=error, ended=time.time())
            return
        cluster.requeue(job_id)


class _Recorded:
    """Writes a status.json when the block ends, and suppresses its failure so that the next run starts.

    If a signal has arrived it counts as the cause. A lost lease belongs to another owner, and so does the status.
    """

    def __init__(self, folder: Path, stop: Stop):
        self.folder, self._stop = folder, stop
        self.state = "running"

    def __enter__(self) -> Self:
        self._started = time.time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self._write("finished")
        elif isinstance(error, LeaseLost):
            self.state = "taken over"
        elif self._stop.signum is not None:
            self._write("interrupted", error=str(error))
        elif isinstance(error, Exception):
            words = "".join(traceback.format_exception(kind, error, trace))
            PlainReporter().line(words)
            self._write("failed", error=str(error), error_type=type(error).__name__, traceback=words)
        else:
            return False
        return True

    def _write(self, state: str, **more: Any) -> None:
        self.state = state
        if is_held_by_another(self.folder):  # whose status it is now
            return
        try:
            _write(self.folder, state, started=self._started, ended=time.time(), **more)
        except StoreError as unwritten:
            PlainReporter().line(str(unwritten))
            job_id = cluster.own_job_id()
            if job_id is not None and "error" in more:
                with contextlib.suppress(cluster.ClusterError):
                    cluster.leave_word(job_id, more["error"])


def _write(folder: Path, state: str, **fields: Any) -> None:
    place: Document = {"host": socket.gethostname(), "pid": os.getpid(), "job": cluster.own_job_id()}
    attempt = int(os.environ.get("SLURM_RESTART_COUNT") or 0) + 1
    write_status(folder, state=state, attempt=attempt, **place, **fields)


def _state(task: Task) -> str | None:
    status = status_since_submission(task.folder)
    return None if status is None else status["state"]


def _commits(task: Task) -> frozenset[str]:
    """File names that change with every commit of a run."""
    if task.run_id is None or not task.folder.is_dir():
        return frozenset()
    return frozenset(path.name for path in task.folder.iterdir() if path.name.startswith(("carry", "trace")))


def _do(task: Task, store: Store, backend: Backend, stop: Stop) -> None:
    """Build the target or make the run."""
    if task.run_id is not None:
        _refuse_without_target(task, store)
    job = _frozen_job(task)
    # A local worker may get another target later, so its pool chooses its cores.
    one_a_core(None if backend.kind == "local" else store.read_meta(task.target_id) or _size(job))
    if backend.wants_gpu:
        _refuse_without_gpu()
    from lambda_hat.run import loop as host_loop  # imports JAX

    if task.run_id is None:
        host_loop.ensure_target(job, store, PlainReporter())
    else:
        outcome = host_loop.execute(job, store, PlainReporter(), stop)
        draw_missing(job, outcome.analysis, was_found=outcome.was_found)


def _size(job: Job) -> Document | None:
    """Of a target that its run will build, at a checkpoint."""
    return None if program_of(job) is None else {"dim": sum(map(math.prod, job.model.parameters(job.data).values()))}


def _frozen_job(task: Task) -> Job:
    config = read_config(task.config_folder)
    if config is None:
        raise ElementError(f"needs {task.config_folder / 'config.yaml'}, which is gone; submit the sweep again")
    refuse_foreign_code(task.config_folder / "config.yaml", config)
    try:
        job = parse_job(config)
    except ConfigError as error:
        raise ElementError(
            f"{task.config_folder / 'config.yaml'} was frozen by another version of the code ({error}); "
            "submit the sweep again"
        ) from error
    if (job.target_id, job.run_id) != (task.target_id, task.run_id or job.run_id):
        raise ElementError(
            f"needs {task.config_folder / 'config.yaml'} to be that of {task.run_id or task.target_id}, got that of "
            f"{job.run_id} on {job.target_id}: it was changed since it was submitted; submit the sweep again"
        )
    return job


def _refuse_without_target(task: Task, store: Store) -> None:
    """Fail at once, without JAX, if the target failed. A target that was only interrupted is built by its run."""
    if store.read_meta(task.target_id) is not None:
        return
    folder = store.target_dir(task.target_id)
    status = status_since_submission(folder)
    if status is not None and status["state"] in ("failed", "cancelled"):
        raise ElementError(target_failure(task.target_id, status))


def target_failure(target_id: str, status: Document) -> str:
    """Why a run cannot be made without its target."""
    return f"its target {target_id} {status['state']}: {status.get('error')}"


def _refuse_without_gpu() -> None:
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms == "cpu":  # the preset's own setup lines ask for it
        return
    import jax

    reason = "it has no CUDA plugin"
    try:
        if jax.default_backend() == "gpu":
            return
    except RuntimeError as error:
        reason = str(error)
    raise ElementError(
        f"needs a GPU, which hydra/launcher asked SLURM for, but JAX sees none on {socket.gethostname()} "
        f"(CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')}; {reason}): install lambda_hat[cuda] there "
        "(in a checkout: make setup CUDA=1), or use hydra/launcher=slurm_cpu"
    )
