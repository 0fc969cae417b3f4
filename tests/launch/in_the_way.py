"""A user whose working directory holds a ``launch.py`` or a ``launch/`` of their own, and every door to a sweep."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.hang import HANG
from tests.jobs import warm_store

RAISES = "raise RuntimeError('the file of the user was imported')\n"
SMALL = (
    "model=quadratic", "model.curvatures=[0.1,1.0]", "num_chains=2", "sampler.num_warmup=20", "budget=draws",
    "budget.draws=40", "store.plots=none",
)  # fmt: skip
WORKFLOW = """
experiment: flow
overrides: {num_chains: 2, budget: draws, budget.draws: 40, sampler.num_warmup: 20, store.plots: none}
targets:
  - {model: quadratic, overrides: {model.curvatures: [0.1, 1.0]}}
samplers:
  - {name: hmc}
"""
WAYS = (("launch.py",), ("launch/__init__.py",), ("launch.py", "launch/__init__.py"))


def put(folder: Path, files: Sequence[str]) -> Path:
    """``folder`` with ``files``, each of which raises on import."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(RAISES)
    warm_store(folder / "runs")
    (folder / "flow.yaml").write_text(WORKFLOW)
    return folder


def run(python: Path | str, folder: Path, *words: str, path: Path | None = None) -> str:
    """``python -m words`` in ``folder``; ``path``: the checkout that is imported, else what is installed is."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [str(python), "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sweep(python: Path | str, folder: Path, path: Path | None = None) -> None:
    """Two runs in a pool of workers."""
    run(python, folder, "lambda_hat.sample", "-m", *SMALL, "seed=0,1", "store.experiment=here", path=path)
    assert states_of("here", python, folder, path) == {"finished"}


def states_of(name: str, python: Path | str, folder: Path, path: Path | None) -> set[str]:
    """What `lambda-hat status` tells of a sweep's runs."""
    shown = run(python, folder, "lambda_hat.cli", "status", name, "--json", path=path)
    return {state["state"] for state in json.loads(shown)}


def sweep_through_every_door(python: Path | str, folder: Path, path: Path | None = None) -> None:
    """A sweep in a pool of workers, its retry, one in a detached pool, and a workflow."""
    sweep(python, folder, path)
    run(python, folder, "lambda_hat.cli", "retry", "here", "--finished", path=path)
    assert states_of("here", python, folder, path) == {"finished"}
    run(python, folder, "lambda_hat.sample", "-m", *SMALL, "seed=2", "wait=false", "store.experiment=away", path=path)
    deadline = time.monotonic() + HANG
    while (found := states_of("away", python, folder, path)) <= {"queued", "running"}:
        assert time.monotonic() < deadline
    assert found == {"finished"}
    run(python, folder, "lambda_hat.cli", "workflow", "llc", "--config", "flow.yaml", path=path)
    assert len(list(folder.glob("runs/targets/*/run_*/analysis.json"))) == 3
