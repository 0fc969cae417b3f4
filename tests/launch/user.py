"""Somebody who submits sweeps: drivers in processes of their own, and what their store then says."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lambda_hat.config.job import Job
from lambda_hat.config.schema import Document
from lambda_hat.launch.manifest import Manifest
from lambda_hat.launch.sweep import Condition, Sweep
from lambda_hat.store.layout import Store, read_status
from lambda_hat.store.trace_file import read_trace_file
from tests.hang import HANG
from tests.jobs import job_config, make_job, warm_store
from tests.launch.drive import LOCAL

REPOSITORY = Path(__file__).resolve().parents[2]
TOY = {"_target_": "tests.launch.toys.Toy", "curvatures": [0.01, 0.1, 1.0, 10.0]}
# Ten seconds that cost no CPU, in commits a few seconds apart: where commits are dear, up to ten.
LONG = {"model": {**TOY, "step_s": 0.013}, "budget": {"draws": 700}}
SMALL = (
    "model=quadratic", "model.curvatures=[0.01,0.1,1,10]", "posterior.gamma=1", "num_chains=3", "budget=draws",
    "budget.draws=50", "store.plots=none",
)  # fmt: skip

Trace = dict[str, np.ndarray]


def trace_of(job: Job, store: Store) -> Trace:
    """Every number that a finished run recorded, warm-up included."""
    stored = read_trace_file(store.run_dir(job.target_id, job.run_id) / "trace.nc")
    return {**stored.trace, **{f"warmup_{name}": column for name, column in stored.warmup.items()}}


def assert_same_trace(found: Trace, expected: Trace) -> None:
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column, err_msg=name)


def copy_of_checkout(folder: Path) -> Path:
    """A checkout of one's own, to be edited. What Python has compiled comes along, or each process would do it anew."""
    for name in ("lambda_hat", "launch", "hydra_plugins", "conf"):
        shutil.copytree(REPOSITORY / name, folder / name, symlinks=True)
    return folder


@dataclass
class User:
    """A user with the store ``root``.

    Args:
        environment: What their commands find, beside what this process has.
        preset: Their ``hydra/launcher``.
        checkout: The code that they work with, and where they are.
        python: With which they work.
    """

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    preset: Mapping[str, Any] = field(default_factory=lambda: LOCAL)
    checkout: Path = REPOSITORY
    python: str | Path = sys.executable

    @property
    def store(self) -> Store:
        return Store(self.root)

    def job(self, **changes: Any) -> Job:
        return make_job(self.root, **{"model": TOY, **changes})

    def start(
        self, *jobs: dict[str, Any], name: str = "s", wait: bool = True, launcher: Mapping[str, Any] | None = None,
        shell: str = "",
    ) -> subprocess.Popen[str]:  # fmt: skip
        """Start a driver; ``jobs`` are changes to the job of tests/jobs.py, ``launcher`` to the preset."""
        spec = {
            "root": str(self.root), "name": name, "wait": wait, "launcher": {**self.preset, **(launcher or {})},
            "jobs": [job_config(self.root, **{"model": TOY, **changes}) for changes in jobs],
        }  # fmt: skip
        return self.popen("-m", "tests.launch.drive", json.dumps(spec), shell=shell)

    def popen(self, *arguments: str, shell: str = "") -> subprocess.Popen[str]:
        """Start Python, after the ``shell`` lines."""
        return subprocess.Popen(
            ["bash", "-c", f'{shell} exec "$@"', "bash", str(self.python), *arguments], cwd=self.checkout, text=True,
            env={**os.environ, **self.environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def sample(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``python -m lambda_hat.sample -m ...`` on a quadratic, which is quick."""
        warm_store(self.root)
        return self.popen("-m", "lambda_hat.sample", "-m", *SMALL, f"store.root={self.root}", *arguments)

    def submit(self, *jobs: dict[str, Any], seconds: float = HANG, **more: Any) -> dict[str, Condition]:
        """Run a driver to its end: what it says of each run."""
        return self.finish(self.start(*jobs, **more), seconds)

    def finish(self, driver: subprocess.Popen[str], seconds: float = HANG) -> dict[str, Condition]:
        """Wait for a driver: what it says of each run."""
        try:
            out, err = driver.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            driver.kill()
            raise AssertionError(f"waits for ever: {driver.communicate()[1]}\n{self.evidence()}") from None
        assert out, err + self.evidence()
        conditions = {run_id: Condition(*condition) for run_id, condition in json.loads(out).items()}
        assert driver.returncode == int(any(condition.state != "finished" for condition in conditions.values()))
        return conditions

    def command(self, *arguments: str, seconds: float = HANG) -> tuple[int, str, str]:
        """``lambda-hat ...``: exit code, standard output and standard error."""
        command = self.popen("-m", "lambda_hat.cli", *arguments, "--store", str(self.root))
        out, err = command.communicate(timeout=seconds)
        return command.returncode, out, err

    def manifest(self, name: str = "s") -> Manifest:
        return Manifest.load(self.store.sweep_dir(name))

    def status(self, job: Job) -> Document:
        return read_status(self.store.run_dir(job.target_id, job.run_id)) or {}

    def sweep_name(self) -> str:
        """The name of the only sweep."""
        (folder,) = (self.root / "sweeps").iterdir()
        return folder.name

    def conditions(self, name: str = "s") -> dict[str, Condition]:
        """What `lambda-hat status` tells of each run."""
        with self.here():
            return {state.run_id: state.condition for state in Sweep(self.store, name).states()}

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """Give this process the user's environment."""
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def until(self, is_so: Callable[[], object], seconds: float = HANG) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, f"waited {seconds:g} s in vain\n{self.evidence()}"
            time.sleep(0.05)

    def until_committed(self, job: Job) -> None:
        """Wait until a run has committed draws and is still at it."""
        self.until(lambda: self.has_committed(job))

    def has_committed(self, job: Job) -> bool:
        status = self.status(job)
        return status.get("state") == "running" and bool(status.get("step"))

    def evidence(self) -> str:
        """What there is to see when a test goes wrong."""
        paths = sorted([*self.root.glob("sweeps/*/.submitit/*/*_log.*"), *self.root.glob("sweeps/*/logs/*")])
        return "".join(f"\n== {path}\n{path.read_text()[-3000:]}" for path in paths)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
