"""The commands in one go, as a user takes them: build, sweep, status, report, workflow, gallery, clean up."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.hang import HANG
from tests.jobs import warm_store

TARGET = ("model=quadratic", "model.curvatures=[0.01,0.1,1,10]", "data.n=5000")
SMALL = ("num_chains=2", "budget=draws", "budget.draws=60", "sampler.num_warmup=40", "store.plots=none")
WORKFLOW = """
experiment: tour
overrides: {num_chains: 2, budget: draws, budget.draws: 60, sampler.num_warmup: 40, store.plots: none}
targets:
  - {model: quadratic, overrides: {model.curvatures: [0.01, 0.1, 1, 10], data.n: 5000}}
samplers:
  - {name: hmc}
  - {name: sgld}
"""


def test_the_tour(tmp_path: Path) -> None:
    warm_store(tmp_path / "runs")

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(_CHECKOUT)},
            capture_output=True, text=True, timeout=HANG,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    target = run("lambda_hat.build", *TARGET).split()[-1]
    assert (tmp_path / target / "meta.json").exists()

    table = run("lambda_hat.sample", "-m", *TARGET, *SMALL, "sampler=hmc,sgld")
    assert len(set(re.findall(r"run_\w+_[0-9a-f]{12}", table))) == 2
    (sweep,) = [path.name for path in (tmp_path / "runs" / "sweeps").iterdir()]
    states = json.loads(run("lambda_hat.cli", "status", sweep, "--json"))
    assert [state["state"] for state in states] == ["finished"] * 2

    page = run("lambda_hat.cli", "report", sweep, "-o", "report.html")
    assert "report: report.html" in page
    assert all(state["run"] in (tmp_path / "report.html").read_text() for state in states)

    # The same two runs: the workflow finds them, and adds its tag.
    (tmp_path / "tour.yaml").write_text(WORKFLOW)
    assert "0 to make, 2 found" in run("lambda_hat.cli", "workflow", "llc", "--config", "tour.yaml", "--dry-run")
    run("lambda_hat.launch.workflows.llc", "--config", "tour.yaml")
    listed = json.loads(run("lambda_hat.cli", "artifacts", "ls", "--json"))
    assert {entry["experiment"] for entry in listed["runs"]} == {"dev,tour"}

    run("lambda_hat.cli", "promote", "gallery", "--samplers", "sgld", "--plots", "running_llc.png")
    gallery = (tmp_path / "runs" / "promotion" / "gallery.md").read_text()
    (link,) = re.findall(r"!\[.*\]\((.*)\)", gallery)
    assert (tmp_path / "runs" / "promotion" / link).read_bytes().startswith(b"\x89PNG")

    assert "nothing is damaged" in run("lambda_hat.cli", "artifacts", "verify")
    assert "1 would go" in run("lambda_hat.cli", "artifacts", "gc", "--ttl-days", "0")
    run("lambda_hat.cli", "artifacts", "gc", "--ttl-days", "0", "--apply")
    (left,) = (tmp_path / "runs").glob("targets/*/run_*/analysis.json")
    assert left.parent.name in gallery
    run("lambda_hat.cli", "artifacts", "gc", "--undo")
    assert len(list((tmp_path / "runs").glob("targets/*/run_*/analysis.json"))) == 2


_CHECKOUT = Path(__file__).resolve().parent.parent
