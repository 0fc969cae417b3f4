"""A trajectory on a real SLURM whose driver is killed: the table is the one that this machine makes."""

import subprocess
from pathlib import Path

import pytest

from tests.hang import HANG
from tests.jobs import warm_store
from tests.launch.curve_home import curve_home, saved
from tests.launch.user import REPOSITORY
from tests.slurm.lab import Lab
from tests.slurm.user import ClusterUser

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def table(user: ClusterUser, *arguments: str) -> bytes:
    """Of the curve, once the command has ended well."""
    out, err = command(user, *arguments).communicate(timeout=HANG)
    assert "checkpoints, steps 1 to 200" in out, err + user.evidence()
    return (user.root / "trajectories" / "curve" / "table.csv").read_bytes()


def command(user: ClusterUser, *arguments: str) -> "subprocess.Popen[str]":
    words = ("-P", "-m", "lambda_hat.cli", "trajectory", "curve.yaml", "hydra.launcher.runs_per_element=2")
    return user.popen(*words, *arguments)


def test_a_driver_is_killed(lab: Lab, tmp_path: Path) -> None:
    home = curve_home(tmp_path)
    user = ClusterUser.of(lab, home / "runs")
    user.checkout = home
    user.environment = {**user.environment, "PYTHONPATH": str(REPOSITORY)}
    for step in (3, 40, 50):
        saved(home, step)
    driver = command(user, "--backend", "slurm_cpu")
    user.until(lambda: list(home.glob("runs/targets/*/run_*/analysis.json")) or driver.poll() is not None)
    driver.kill()
    driver.communicate(timeout=HANG)
    on_slurm = table(user, "--backend", "slurm_cpu")
    arrays = user.manifest(user.sweep_name()).arrays
    assert all(array.is_slurm and array.kind == "runs" for array in arrays)
    assert sum(len(array.elements) for array in arrays) == 3, "two checkpoints an element, and none twice"
    here = ClusterUser.of(lab, warm_store(home / "here"))
    here.checkout, here.environment = home, user.environment
    assert table(here, "store_root=here", "--backend", "local") == on_slurm
