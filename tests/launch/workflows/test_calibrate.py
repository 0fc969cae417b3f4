"""`lambda-hat calibrate`, whole: a grid on a quadratic whose answer is known, and what it refuses."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from lambda_hat.cli.__main__ import app
from lambda_hat.config.job import parse_job
from lambda_hat.config.schema import ConfigError
from lambda_hat.launch.workflows.calibrate import Request, compose
from lambda_hat.targets.exact import quadratic_llc
from tests.jobs import job_config, warm_store

CURVATURES = [0.1, 0.3, 1.0]
# Too short to mix, two that are right, one that is biased, one that is unstable.
STEPS = (1e-5, 2e-4, 4e-4, 2e-3, 3e-2)
QUADRATIC = (
    "model=quadratic",
    f"model.curvatures={CURVATURES}",
    "data.n=1000",
    "posterior.gamma=1",
    "sampler.num_warmup=100",
)


class Done(NamedTuple):
    """What the command left behind."""

    root: Path
    exit_code: int
    output: str
    arguments: Sequence[str]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    root = warm_store(tmp_path_factory.mktemp("calibrate") / "runs")
    steps = f"sampler.step_size={','.join(map(str, STEPS))}"
    arguments = ["calibrate", *QUADRATIC, steps, "budget.draws=1500", f"store.root={root}"]
    result = CliRunner().invoke(app, arguments)
    return Done(root, result.exit_code, result.output, arguments)


def test_the_recommended_step_gives_the_exact_value(done: Done) -> None:
    """Within 3 errors or 1 %, without knowing it; the steps at both ends of the grid are no part of the plateau."""
    assert done.exit_code == 0, done.output
    [path] = done.root.glob("sweeps/calibrate-*/calibration.json")
    document = json.loads(path.read_text())
    best, exact = document["recommended"], quadratic_llc(document["cells"][0]["nbeta"], 1.0, CURVATURES, [0.0] * 3)
    assert exact is not None
    assert abs(best["llc"] - exact) <= max(3 * best["mcse"], 0.01 * exact)
    plateau = [cell["step_size"] for cell in document["cells"] if cell["run_id"] in document["plateau"]]
    assert plateau == [2e-4, 4e-4]
    assert best["step_size"] in plateau
    diverged = next(cell for cell in document["cells"] if cell["step_size"] == STEPS[-1])
    assert diverged["llc"] is None
    assert diverged["reasons"]


def test_the_preset_makes_the_run_it_recommends(done: Done) -> None:
    [path] = done.root.glob("sweeps/calibrate-*/sgld_calibrated.yaml")
    assert path.read_text() in done.output
    node = yaml.safe_load(path.read_text())
    job = parse_job(job_config(done.root, sampler=node))
    document = json.loads((path.parent / "calibration.json").read_text())
    assert job.to_dict()["sampler"]["step_size"] == document["recommended"]["step_size"]
    assert (path.parent / "calibration.png").stat().st_size > 10_000


def test_the_same_command_finds_its_runs_again(done: Done) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.root.glob("targets/*/run_*/analysis.json")}
    assert len(before) == len(STEPS) - 1
    again = CliRunner().invoke(app, [*done.arguments, "--dry-run"])
    assert again.exit_code == 0, again.output
    assert f"{len(before)} found" in again.output


def test_the_defaults_are_a_grid_of_sgld_in_packed_elements(tmp_path: Path) -> None:
    jobs, backend = compose(Request([*QUADRATIC[:3], f"store.root={tmp_path}"]))
    assert {job.sampler_name for job in jobs} == {"sgld"}
    assert len(jobs) == 27
    assert {job.posterior.gamma for job in jobs} == {1.0, 10.0, 100.0}
    assert backend.runs_per_element == 8


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sampler=hmc", "sampler.step_size=0.1,0.2"], "needs one with a fixed step size"),
        (["sampler.step_size=auto"], "a grid needs numbers, got auto"),
        (["sampler.step_size=1e-4"], "a plateau needs two values or more"),
        (["seed=0,1"], "needs one value of seed, got 2"),
        (["sampler.batch_size=16,32"], "needs one value of the sampler's other fields, got 2"),
        (["model.dim=3,4"], "needs one value of target, got 2"),
    ],
)
def test_what_is_no_grid_is_refused(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        compose(Request(["model=quadratic", "data.n=1000", f"store.root={tmp_path}", *arguments]))
