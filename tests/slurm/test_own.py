"""model=own on a real SLURM, from a directory that is not the checkout, beside files that are in the way."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambda_hat.config.job import Job, parse_job
from lambda_hat.run.loop import execute
from lambda_hat.store.layout import Store, read_config, read_status
from tests.hang import HANG
from tests.launch.own_home import IN_THE_WAY, OWN, own_home
from tests.launch.user import REPOSITORY, assert_same_trace, kill, trace_of
from tests.slurm.lab import Lab
from tests.slurm.user import ClusterUser
from tests.wheel import build_wheel, install

pytestmark = pytest.mark.slurm

RUNS = ("sampler=hmc,sgld", "num_chains=2", "budget=draws", "budget.draws=3000", "store.plots=none")


@pytest.fixture(params=["checkout", pytest.param("wheel", marks=pytest.mark.slow)])
def user(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Iterator[ClusterUser]:
    """In a directory with their module; ``lambda_hat`` is installed."""
    home = own_home(tmp_path / "home", IN_THE_WAY)
    user = ClusterUser.of(lab, home / "runs")
    user.checkout = home
    if request.param == "wheel":
        (tmp_path / "venv").mkdir()
        user.python = install(build_wheel(tmp_path), tmp_path / "venv") / "python"
    user.environment = {**user.environment, "PYTHONPATH": str(REPOSITORY) if request.param == "checkout" else ""}
    before = list(sys.path)
    yield user
    sys.path[:] = before
    sys.modules.pop("grok", None)


def made_here(user: ClusterUser, folder: Path, root: Path) -> Job:
    """The frozen run of ``folder``, made in this process."""
    job = parse_job({**(read_config(folder) or {}), "store": {"root": str(root), "plots": "none"}})
    execute(job, Store(root))
    return job


class Watched:
    """A sweep of hmc and sgld while its driver waits, and the run of hmc in it."""

    def __init__(self, user: ClusterUser):
        self.user = user
        self.driver = user.popen("-P", "-m", "lambda_hat.sample", "-m", *OWN, *RUNS, "hydra/launcher=slurm_cpu")
        self.owner = 0

    def after_a_commit(self) -> Path:
        """The folder of the run of hmc, once an owner after the last one has committed."""
        found: list[Path] = []

        def has_committed() -> bool:
            for path in self.user.root.glob("targets/*/run_hmc_*/status.json"):
                status = read_status(path.parent) or {}
                if status.get("state") == "running" and status.get("step") and status["epoch"] > self.owner:
                    self.owner = status["epoch"]
                    found.append(path.parent)
            return bool(found) or self.driver.poll() is not None

        self.user.until(has_committed)
        assert found, f"{self.driver.communicate()}\n{self.user.evidence()}"
        return found[0]

    def job_id(self, folder: Path) -> str:
        manifest = self.user.manifest(self.user.sweep_name())
        place = manifest.places()[folder.name]
        return str(manifest.arrays[place.array].job_id(place.index))


def test_an_own_problem_is_requeued_killed_retried_and_lost(user: ClusterUser, tmp_path: Path) -> None:
    """Requeued, and retried from another directory, it goes on to the numbers of a run that met nothing."""
    watched = Watched(user)
    driver, folder = watched.driver, watched.after_a_commit()
    user.slurm("scontrol", "requeue", watched.job_id(folder))
    assert watched.after_a_commit() == folder
    name = user.sweep_name()
    (pid,) = user.processes(watched.job_id(folder))
    kill(pid)
    _, err = driver.communicate(timeout=HANG)
    assert driver.returncode == 1, err
    assert f"grok.problem: imported from {user.checkout / 'grok.py'} in " in err
    assert {state.state for state in user.conditions(name).values()} == {"finished", "failed"}

    (tmp_path / "elsewhere").mkdir()
    home, user.checkout = user.checkout, tmp_path / "elsewhere"
    code, out, err = user.command("retry", name)
    assert code == 0, out + err + user.evidence()
    job = made_here(user, folder, tmp_path / "local")
    assert_same_trace(trace_of(job, user.store), trace_of(job, Store(tmp_path / "local")))

    (home / "grok.py").unlink()
    code, _, _ = user.command("retry", name, "--finished")
    assert code == 1
    code, out, _ = user.command("why", name)
    assert out.startswith("2 failed: model.problem: ")
    assert f"has no module grok, which grok.problem names, neither in {home} nor where" in out
    assert "Traceback" not in out
    _, out, _ = user.command("status", name, "--json")
    assert {run["state"] for run in json.loads(out)} == {"failed"}
