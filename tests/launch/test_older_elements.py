"""Array elements that 31848a6 queued: their pickles name ``launch.element.Element``, and SLURM starts them whenever."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lambda_hat.launch.plan import plan_jobs
from lambda_hat.launch.submit import enter_here, freeze, manifest_of, pack
from lambda_hat.store.layout import Store
from lambda_hat.store.runs import finished
from tests.hang import HANG
from tests.jobs import HMC, make_job
from tests.launch.drive import LOCAL, backend

CHECKOUT = Path(__file__).resolve().parents[2]
PICKLE = CHECKOUT / "tests" / "data" / "element_31848a6.pkl"  # Element("runs/sweeps/s", 1, 0), as submitit dumped it


def start_queued_element(python: Path | str, folder: Path, path: Path | None = None) -> None:
    """A sweep of one run whose element waits in SLURM's queue since 31848a6, and the node that starts it."""
    store = Store(folder / "runs")
    job = make_job(store.root, sampler={**HMC, "num_warmup": 10}, budget={"draws": 10})
    plan, where = plan_jobs([job], store, "s"), backend(LOCAL)
    freeze(plan, store)
    enter_here(manifest_of(plan, where, store), plan, pack(plan.missing, 1), store)
    queue = folder / "queue"
    queue.mkdir()
    shutil.copy(PICKLE, queue / "7_submitted.pkl")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SLURM"))}
    environment |= {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "7"}  # as submitit's own sbatch script does
    environment |= {} if path is None else {"PYTHONPATH": str(path)}
    done = subprocess.run(
        [str(python), "-u", "-m", "submitit.core._submit", str(queue)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert finished(store, job.target_id, job.run_id, job.budget) is not None


@pytest.mark.slow  # from a wheel they start every day, in test_packaging
def test_they_start_from_a_checkout(tmp_path: Path) -> None:
    start_queued_element(sys.executable, tmp_path, CHECKOUT)


def test_a_driver_of_that_version_still_finds_its_workers() -> None:
    command = [sys.executable, "-m", "launch.worker", "nowhere"]
    done = subprocess.run(command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, timeout=HANG)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
