"""What the page holds, read from its JSON: numbers are those of the store, pools are what their runs say together."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lambda_hat.cli.__main__ import app
from lambda_hat.report.curve import Curve, Point
from lambda_hat.report.kept_curves import kept_curves
from lambda_hat.report.series import curves, numbers
from lambda_hat.store.files import read_json, write_json
from lambda_hat.store.layout import Store
from tests.report.conftest import Report
from tests.report.stores import CHAINS, DRAWS, HMC, fill, jobs_of


def document(page: Path, name: str = "data") -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1], parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def data(report: Report) -> dict[str, Any]:
    return document(report.page)


def test_every_run_has_its_numbers_and_its_fate(report: Report, data: dict[str, Any]) -> None:
    store = Store(report.root)
    assert [run["id"] for run in data["runs"]] == [job.run_id for job in report.jobs]
    states = [run["state"] for run in data["runs"]]
    assert states[:7] == ["failed", "failed", "cancelled", "running", "lost", "lost", "damaged"]
    assert set(states[7:]) == {"finished"}
    for job, run in zip(report.jobs[7:], data["runs"][7:], strict=True):
        analysis = store.read_analysis(job.target_id, job.run_id)
        assert analysis is not None
        assert run["analysis"]["llc"] == pytest.approx(analysis["llc"], rel=1e-6)
        assert run["analysis"]["verdict"] == analysis["verdict"]
        assert run["seed"] == job.seed
        config = {node: data["nodes"][place] for node, place in run["config"].items()}
        assert config == analysis["config"]
    assert data["runs"][3]["status"]["step"] == 120


def test_a_pool_is_what_its_seeds_say_together(data: dict[str, Any]) -> None:
    checked = 0
    for problem in data["problems"]:
        for pool in problem["pools"]:
            found = [data["runs"][index]["analysis"] for index in pool["runs"] if data["runs"][index]["analysis"]]
            assert pool["num_estimates"] == len(found)
            if len(found) < 3:
                continue
            llcs, mcses = ([run[name] for run in found] for name in ("llc", "llc_mcse"))
            assert pool["llc"] == pytest.approx(np.mean(llcs), rel=1e-5)
            assert pool["spread"] == pytest.approx(np.std(llcs, ddof=1), rel=1e-3)
            # The larger of what MCSEs and seeds tell.
            error = max(math.sqrt(np.mean(np.square(mcses))), pool["spread"]) / math.sqrt(3)
            assert pool["error"] == pytest.approx(error, rel=1e-3)
            assert pool["z"] == pytest.approx((pool["llc"] - problem["exact_llc"]) / pool["error"], abs=1e-3)
            assert pool["num_reliable"] == sum(run["verdict"]["reliable"] for run in found)
            checked += 1
    assert checked > 8


def test_targets_are_told_apart_and_training_seeds_put_together(data: dict[str, Any]) -> None:
    assert [(problem["name"], problem["setting"]) for problem in data["problems"]] == [
        ("quadratic · population", "data.n=2000 training.seed=0"),
        ("quadratic · population", "data.n=2000 training.seed=1"),
        ("quadratic · population", "data.n=3000 training.seed=0"),
    ]
    # On the first target HMC has no result; the third has no neighbour.
    assert len(data["families"]) == 3
    for family in data["families"]:
        assert set(family["llcs"]) == {"0", "1"}
        pools = [data["problems"][place]["pools"][family["pool"]] for place in (0, 1)]
        assert list(family["llcs"].values()) == pytest.approx([pool["llc"] for pool in pools], rel=1e-6)
        assert family["spread"] == pytest.approx(abs(pools[0]["llc"] - pools[1]["llc"]) / math.sqrt(2), rel=1e-3)


def test_settings_are_named_by_what_differs(data: dict[str, Any]) -> None:
    names = [pool["name"] for pool in data["problems"][2]["pools"]]
    assert names == ["hmc", "mclmc", "sgld step_size=0.0001", "sgld step_size=0.001", "vi"]
    differing = {entry["key"]: dict(entry["values"]) for entry in data["varying"]}
    assert differing["step_size"] == {"0.0001": 9, "0.001": 9}
    assert differing["training.seed"] == {"0": 30, "1": 15}
    assert "gamma" not in differing


def test_each_cause_is_told_once(data: dict[str, Any]) -> None:
    causes = {(cause["state"], len(cause["runs"])) for cause in data["failures"]}
    assert causes == {("failed", 2), ("cancelled", 1), ("lost", 1), ("damaged", 1)}
    (failed,) = (cause for cause in data["failures"] if cause["state"] == "failed")
    assert "FloatingPointError: </script>" in failed["traceback"]
    (finding,) = data["findings"]
    assert finding["finding"].startswith("the virial")
    assert {data["problems"][0]["pools"][data["runs"][index]["pool"]]["sampler"] for index in finding["runs"]} == {
        "sgld"
    }


def test_curves_end_at_the_estimate(report: Report, data: dict[str, Any]) -> None:
    series = document(report.page, "series")
    assert [curve is None for curve in series] == [run["analysis"] is None for run in data["runs"]]
    for run, curve in zip(data["runs"][7:], series[7:], strict=True):
        running, analysis = curve["running"], run["analysis"]
        assert running["draws"][-1] == DRAWS
        assert running["fge"][-1] == pytest.approx(analysis["fge"], rel=2e-3)
        assert running["seconds"][-1] == pytest.approx(2.1)
        assert running["llc"][-1] == pytest.approx(np.mean([chain[-1] for chain in running["chains"]]), rel=1e-2)
        assert len(curve["trace"]["means"]) == CHAINS
        assert len(curve["rank"]["chains"]) == CHAINS


def test_without_an_exact_value_the_best_sampler_that_accepts_is_the_reference(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    jobs = fill(root, jobs_of(root, 1, 2))
    for job in jobs:
        path = root / "targets" / job.target_id / job.run_id / "analysis.json"
        write_json(path, {**(read_json(path) or {}), "exact_llc": None})
    page = tmp_path / "page.html"
    assert CliRunner().invoke(app, ["report", "--all", "--store", str(root), "-o", str(page)]).exit_code == 0
    (problem,) = document(page)["problems"]
    assert problem["reference"]["name"] == "hmc"
    assert [pool["z"] is None for pool in problem["pools"]] == [True, False, False, False, False]


def test_a_damaged_trace_costs_only_its_curves(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    (job,) = fill(root, jobs_of(root, 1, 1, [HMC]))
    (root / "targets" / job.target_id / job.run_id / "trace.nc").write_bytes(b"no HDF5")
    page = tmp_path / "page.html"
    assert CliRunner().invoke(app, ["report", "--all", "--store", str(root), "-o", str(page)]).exit_code == 0
    assert document(page, "series") == [None]
    assert document(page)["runs"][0]["analysis"]["llc"] is not None


@pytest.mark.parametrize(
    ("words", "refusal"),
    [([], "not both"), (["dev", "--all"], "not both"), (["--all"], "which has none"), (["x"], "needs a sweep")],
)
def test_what_cannot_be_reported_is_refused(tmp_path: Path, words: list[str], refusal: str) -> None:
    done = CliRunner().invoke(app, ["report", *words, "--store", str(tmp_path), "-o", str(tmp_path / "page.html")])
    assert done.exit_code == 1
    assert refusal in done.output
    assert not (tmp_path / "page.html").exists()


def test_a_curve_keeps_its_shape_in_few_digits() -> None:
    values = 1234.5 + 0.01 * np.sin(np.linspace(0, 6, 100))
    short = numbers(values)
    assert np.abs(np.array(short) - values).max() < 0.02 / 1000
    assert max(len(str(value)) for value in short) <= 10
    assert numbers(np.array([1.0, np.nan, np.inf, 3.0])) == [1.0, None, None, 3.0]
    assert numbers(np.array([2.0, 2.0])) == [2.0, 2.0]
    assert numbers(np.array([0.0, 0.0])) == [0.0, 0.0]


def test_a_lost_chain_is_a_gap_and_no_draw_is_no_curve() -> None:
    x = np.random.default_rng(0).gamma(2.0, size=(2, 50))
    x[0, 20:] = np.inf
    analysis = {
        "nbeta": 1.0, "loss_at_w0": 0.0, "gradients": 300, "num_data": 10, "seconds": {"warmup": 1.0},
        "history": [(50, 300, 2.0)], "ess_bulk": None,
    }  # fmt: skip
    trace = {"loss": x, "gradients": np.ones((2, 50))}
    found = curves(trace, analysis, 24)
    assert found is not None
    assert found["running"]["chains"][0][-1] is None
    assert found["running"]["chains"][1][-1] is not None
    assert found["rank"] is None
    assert curves({**trace, "loss": np.full((2, 50), np.nan)}, analysis, 24) is None


def test_curves_of_the_runs_are_shown(tmp_path: Path) -> None:
    """Not those of other runs; one whose table is damaged says so."""
    store, page = Store(tmp_path / "runs"), tmp_path / "reports" / "report.html"
    for name, run in (("mine", "run_hmc_1"), ("other", "run_hmc_2")):
        points = [Point(step, "", {"error": "no", "run_id": run}, {}) for step in (10, 20)]
        Curve(points).write(store.root / "trajectories" / name)
    damaged = store.root / "trajectories" / "zzz" / "table.parquet"
    damaged.parent.mkdir()
    damaged.write_bytes(b"no table")
    mine, broken = kept_curves(store, page, {"run_hmc_1"})
    assert (mine["name"], mine["folder"]) == ("mine", "../runs/trajectories/mine")
    assert (page.parent / mine["folder"] / "table.csv").resolve().exists()
    assert mine["picture"].startswith("data:image/png;base64,iVBOR")
    assert [row[mine["columns"].index("step")] for row in mine["rows"]] == [10, 20]
    assert "table.parquet cannot be read" in broken["error"]
