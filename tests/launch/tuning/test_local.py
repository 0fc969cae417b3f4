"""A tuning session from the command line on the local backend, with real runs, whose driver is killed on the way."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from lambda_hat.store.layout import read_json, read_status
from tests.hang import HANG
from tests.jobs import warm_store
from tests.launch.user import User

DOCUMENT: dict[str, Any] = {
    "problems": [
        {
            "model": "quadratic",
            "overrides": {
                # Slow in trials only.
                "model": {"_target_": "tests.launch.toys.Toy", "dim": 4, "step_s": 0.02, "slow_in": "float32"},
                "num_chains": 2,
            },
        }
    ],
    "methods": ["sgld"],
    "optuna": {"max_trials_per_method": 3, "concurrency": {"batch_size": 2}},
    "search_space": {
        "sgld": {
            "step_size": {"dist": "float", "low": 1e-6, "high": 1e-4, "log": True},
            "batch_size": {"dist": "categorical", "choices": [16]},
            "steps_per_draw": {"dist": "categorical", "choices": [4]},
            "num_warmup": {"dist": "categorical", "choices": [20]},
            "draws": {"dist": "categorical", "choices": [200]},
        }
    },
    "execution": {"reference": "hmc", "budget": {"hmc_sec": 10, "hmc_mcse": 0.1, "trial_sec": 60}},
}


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(warm_store(tmp_path / "runs"))


@pytest.mark.slow
def test_a_killed_drivers_runs_go_on_and_the_same_command_tells_them(user: User, tmp_path: Path) -> None:
    path = tmp_path / "session.yaml"
    path.write_text(yaml.safe_dump({**DOCUMENT, "store": {"root": str(user.root), "namespace": "local"}}))
    command = ("-m", "lambda_hat.cli", "workflow", "optuna", "--config", str(path), "--backend", "local")

    def has_begun() -> bool:
        return any((read_status(path) or {}).get("step") for path in user.root.glob("targets/*/run_sgld_*"))

    driver = user.popen(*command)
    user.until(has_begun)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()

    driver = user.popen(*command)
    out, err = driver.communicate(timeout=HANG)
    assert driver.returncode == 0, out + err + user.evidence()
    assert "3 complete" in out
    metrics = [read_json(path) or {} for path in user.root.glob("studies/local/*/sgld/trial-*/metrics.json")]
    assert [trial["state"] for trial in metrics] == ["COMPLETE"] * 3
    assert {trial["draws"] for trial in metrics} == {200}
    assert len(list(user.root.glob("targets/*/run_sgld_*"))) == 3, "a run was lost, or made twice under another id"

    again = user.popen(*command, "--resume")
    out, err = again.communicate(timeout=HANG)
    assert again.returncode == 0, err
    assert "3 complete" in out
