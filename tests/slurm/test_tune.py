"""A tuning session on a real SLURM: batches are arrays, none too large, and what clusters do to jobs costs nothing."""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from lambda_hat.config.job import parse_job
from lambda_hat.store.layout import read_config, read_json, read_status
from tests.hang import HANG
from tests.launch.user import kill
from tests.slurm.user import ClusterUser

pytestmark = pytest.mark.slurm

BATCH, NUM_TRIALS = 3, 5
LIVE = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD")
DOCUMENT: dict[str, Any] = {
    "problems": [
        {
            "model": "quadratic",
            "overrides": {
                "model": {
                    "_target_": "tests.launch.toys.Toy", "curvatures": [0.01, 0.1, 1.0, 10.0], "step_s": 0.015,
                    "slow_in": "float32",  # so that the reference is quick
                },
                "num_chains": 2,
            },
        }
    ],
    "methods": ["sgld"],
    "optuna": {
        "max_trials_per_method": NUM_TRIALS, "concurrency": {"batch_size": BATCH}, "pruner": {"type": "none"},
    },
    "search_space": {
        "sgld": {
            "step_size": {"dist": "float", "low": 1e-6, "high": 1e-4, "log": True},
            "batch_size": {"dist": "categorical", "choices": [16]},
            "steps_per_draw": {"dist": "categorical", "choices": [4]},
            "num_warmup": {"dist": "categorical", "choices": [20]},
            "draws": {"dist": "categorical", "choices": [1200]},
        }
    },
    "execution": {"reference": "hmc", "budget": {"hmc_sec": 10, "hmc_mcse": 0.1, "trial_sec": 60}, "max_retries": 1},
}  # fmt: skip


def start(user: ClusterUser, folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    path = folder / "session.yaml"
    path.write_text(yaml.safe_dump({**DOCUMENT, "store": {"root": str(user.root), "namespace": "lab"}}))
    launcher = ["partition=low", "timeout_min=10", "mem_gb=2", "cpus_per_task=1", "signal_delay_s=60"]
    sets = [word for field in launcher for word in ("--set", f"launcher.{field}")]
    command = ("workflow", "optuna", "--config", str(path), "--backend", "slurm-cpu", *sets, *arguments)
    return user.popen("-m", "lambda_hat.cli", *command)


def live_elements(user: ClusterUser) -> int:
    """Elements of trials that SLURM has not done with; arrays 0 and 1 are the target and the reference."""
    shown = (line.split("|") for line in user.slurm("squeue", "-h", "-r", "-o", "%T|%j").splitlines())
    return sum(state in LIVE and name.startswith("tune-lab.") and int(name.split(".")[1]) > 1 for state, name in shown)


def committed(user: ClusterUser) -> list[Path]:
    """Folders of trials' runs that are under way."""
    folders = sorted(user.root.glob("targets/*/run_sgld_*"))
    statuses = [(path, read_status(path) or {}) for path in folders]
    return [path for path, status in statuses if status.get("step") and status["state"] == "running"]


def test_batches_are_arrays_preempted_trials_resume_and_killed_ones_are_retried(
    user: ClusterUser, tmp_path: Path
) -> None:
    driver = start(user, tmp_path)
    most = 0

    def has_begun() -> bool:
        nonlocal most
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.2)  # the machine has other things to do than to answer
        most = max(most, live_elements(user))
        return len(committed(user)) == BATCH

    user.until(has_begun)
    assert most == BATCH
    victim, *preempted = committed(user)
    job = parse_job(read_config(victim) or {})
    submitted = read_json(victim / "submitted.json") or {}
    array = user.manifest("tune-lab").arrays[submitted["array"]]
    assert len(array.elements) == BATCH
    (pid,) = user.processes(str(array.job_id(submitted["index"])))
    kill(pid)
    for node in set(user.slurm("squeue", "-h", "-t", "R", "-o", "%N").split()):
        user.slurm("sbatch", "-p", "high", "-w", node, "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")

    def has_ended() -> bool:
        nonlocal most
        time.sleep(0.2)  # the machine has other things to do than to answer
        most = max(most, live_elements(user))
        return driver.poll() is not None

    try:
        user.until(has_ended)
    finally:
        driver.kill()
        out, err = driver.communicate()
    assert driver.returncode == 0, out + err + user.evidence()
    assert most == BATCH
    assert "5 complete" in out
    assert [(read_status(path) or {})["attempt"] for path in preempted] == [2, 2]

    metrics = [read_json(path) or {} for path in sorted(user.root.glob("studies/lab/*/sgld/trial-*/metrics.json"))]
    assert sorted(trial["state"] for trial in metrics) == ["COMPLETE"] * NUM_TRIALS + ["FAIL"]
    (failed,) = [trial for trial in metrics if trial["state"] == "FAIL"]
    retried = [trial for trial in metrics if trial["run_id"] == job.run_id and trial is not failed]
    assert failed["run_id"] == job.run_id
    assert [trial["retries"] for trial in retried] == [1]


def test_a_trial_that_needs_longer_than_the_walltime_is_refused(user: ClusterUser, tmp_path: Path) -> None:
    driver = start(user, tmp_path, "--set", "execution.budget.trial_sec=601")
    _, err = driver.communicate(timeout=HANG)
    assert driver.returncode == 1
    assert "601 s + 120 s margin = 721 s against 600 s" in err
    assert "timeout_min=13" in err
    assert not (user.root / "studies").exists()
