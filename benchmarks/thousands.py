"""Sweeps of 2,500 tiny runs on a real SLURM, which tests/slurm/lab.py starts on this machine.

``queue`` submits one run to an element, which takes three arrays at MaxArraySize 1001, and times the driver, ``status``
and ``cancel`` while all are queued. ``finish`` makes the same runs to their end, two to an element, so that there are
still more elements than one array holds: JAX starts 1,250 times, most of an hour on two cores.
"""

import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lambda_hat.launch.manifest import Manifest
from tests.slurm.lab import Lab, install, missing_packages

NUM_RUNS = 2500
RUNS_PER_ELEMENT = 2
MAX_ARRAY_SIZE = 1001
REPEATS = 3
GOAL_OVERHEAD_MS, GOAL_STATUS_S = 50, 2.0
REPOSITORY = Path(__file__).resolve().parents[1]
# Elements that stay queued for as long as this takes.
LATER = "now+3hours"
TARGET = ["model=quadratic", "model.curvatures=[0.01,0.1,1,10]"]
RUNS = [
    f"seed=range({NUM_RUNS})", "num_chains=2", "sampler=hmc",
    "sampler.num_integration_steps=4", "sampler.num_warmup=20", "budget=draws", "budget.draws=30", "store.plots=none",
]  # fmt: skip
LAUNCHER = [
    "hydra/launcher=slurm_cpu", "hydra.launcher.timeout_min=60", "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=2", "hydra.launcher.array_parallelism=2",
]  # fmt: skip


class Queued(NamedTuple):
    """Seconds of whole commands, start of Python included, while no element may start.

    Args:
        arrays: Sizes of the arrays.
        driver: ``python -m lambda_hat.sample -m ... wait=false``: compose, plan, freeze, submit.
        slurm: sbatch of such arrays, and nothing else.
        again: The driver's command once more, which finds all of it queued.
        status: ``lambda-hat status``, median.
        cancel: ``lambda-hat cancel``.
    """

    arrays: list[int]
    driver: float
    slurm: float
    again: float
    status: float
    cancel: float

    @property
    def overhead_ms(self) -> float:
        """The driver's part in each element, beyond SLURM's."""
        return (self.driver - self.slurm) / NUM_RUNS * 1e3


class Finished(NamedTuple):
    """The sweep that was waited for, of which every run has a result.

    Args:
        arrays: Sizes of the arrays.
        driver: Seconds of the driver, which waits for all runs and prints their table.
        status: Seconds of ``lambda-hat status``, median.
    """

    arrays: list[int]
    driver: float
    status: float


@dataclass(frozen=True)
class User:
    """Somebody at the login node of ``lab``, whose store is ``root``."""

    lab: Lab
    root: Path

    def output(self, *command: str) -> str:
        environment = {**self.lab.environment, "JAX_PLATFORMS": "cpu"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as in the Makefile
        done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def seconds(self, *command: str) -> float:
        started = time.perf_counter()
        self.output(*command)
        return time.perf_counter() - started

    def build_target(self) -> None:
        self.output(sys.executable, "-m", "lambda_hat.build", *TARGET, f"store.root={self.root}")

    def sweep(self, *overrides: str) -> float:
        """Seconds of the sweep's driver; if it fails, its error says why the runs have failed."""
        module = [sys.executable, "-m", "lambda_hat.sample", "-m"]
        try:
            return self.seconds(*module, *TARGET, *RUNS, *LAUNCHER, f"store.root={self.root}", *overrides)
        except RuntimeError as error:
            if any(self.root.glob("sweeps/*/manifest.json")):
                error.add_note(self.output(*self.command("why")))
            raise

    def command(self, name: str) -> list[str]:
        """``lambda-hat NAME`` of the store's only sweep."""
        return [sys.executable, "-m", "lambda_hat.cli", name, self.manifest.name, "--store", str(self.root)]

    def states(self) -> Counter[str]:
        """How many runs are in which state."""
        return Counter(state["state"] for state in json.loads(self.output(*self.command("status"), "--json")))

    def status_seconds(self) -> float:
        return statistics.median(self.seconds(*self.command("status")) for _ in range(REPEATS))

    @property
    def manifest(self) -> Manifest:
        (path,) = self.root.glob("sweeps/*/manifest.json")
        return Manifest.load(path.parent)

    @property
    def arrays(self) -> list[int]:
        return [len(array.elements) for array in self.manifest.arrays]


@contextmanager
def _user(folder: Path, max_array_size: int) -> Iterator[User]:
    install(missing_packages(accounting=False))
    lab = Lab(max_array_size=max_array_size)
    try:
        lab.start()
        user = User(lab, folder)
        user.build_target()
        yield user
    finally:
        lab.stop()


def queue(folder: Path) -> Queued:
    """One run to an element: what the commands take while all of it is queued."""
    with _user(folder, MAX_ARRAY_SIZE) as user:
        later = f"+hydra.launcher.additional_parameters.begin={LATER}"
        driver = user.sweep(later, "wait=false")
        arrays = user.arrays
        slurm = sum(
            user.seconds("sbatch", f"--array=0-{size - 1}", f"--begin={LATER}", "-c1", "--mem=2G", "--wrap", "true")
            for size in arrays
        )
        again = user.sweep(later, "wait=false")
        if user.arrays != arrays or user.states() != {"queued": NUM_RUNS}:
            raise RuntimeError(f"needs {NUM_RUNS} runs queued once, got {user.states()} in arrays of {user.arrays}")
        return Queued(arrays, driver, slurm, again, user.status_seconds(), user.seconds(*user.command("cancel")))


def finish(folder: Path) -> Finished:
    """``RUNS_PER_ELEMENT`` runs to an element: the sweep to its end."""
    with _user(folder, MAX_ARRAY_SIZE) as user:
        driver = user.sweep(f"hydra.launcher.runs_per_element={RUNS_PER_ELEMENT}")
        return Finished(user.arrays, driver, user.status_seconds())
