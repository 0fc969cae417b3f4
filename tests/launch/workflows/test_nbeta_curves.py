"""`lambda-hat temperatures` on a sweep whose results are written by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lambda_hat.cli.__main__ import app
from lambda_hat.launch.manifest import Manifest
from lambda_hat.launch.sweep import Sweep
from lambda_hat.launch.workflows.nbeta_curves import curves
from lambda_hat.store.layout import Store, write_json
from lambda_hat.store.sweeps import SweepRun
from tests.estimation.test_temperatures import CASES, RANGE, sample

TARGET = "tgt_0123456789ab"


def analysis(run_id: str, point: Any, gamma: float, sampler: str, *, reliable: bool = True) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "target_id": TARGET,
        "sampler": sampler,
        "nbeta": point.nbeta,
        "gamma": gamma,
        "dim": 18,
        "llc": point.e1,
        "llc_mcse": point.e1_mcse,
        "llc_variance": point.e3,
        "llc_variance_mcse": point.e3_mcse,
        "e1_minus_e3": point.e1_minus_e3,
        "e1_minus_e3_mcse": point.e1_minus_e3_mcse,
        "known_lambda": 4.0,
        "known_multiplicity": 2,
        "verdict": {"reliable": reliable, "reasons": [] if reliable else ["R-hat"]},
        "config": {
            "model": {"_target_": "x.DeepLinear"},
            "posterior": {"nbeta": point.nbeta, "gamma": gamma},
            "sampler": {"_target_": f"x.{sampler}"},
            "num_chains": 4,
        },
    }


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """hmc at six temperatures and two gammas, one run of them without a result; nuts at three."""
    store, manifest = Store(tmp_path), Manifest("dev-1", "dev", {})
    case = CASES["5-2-4"]
    for sampler, gamma, nbetas in (("hmc", 1.0, RANGE), ("hmc", 3.0, RANGE), ("nuts", 1.0, RANGE[:3])):
        for number, point in enumerate(sample(case, 3, nbetas, gamma)):
            run_id = f"run_{sampler}_{gamma:g}_{number}"
            manifest.runs[run_id] = SweepRun(TARGET, sampler, "deeplinear")
            store.run_dir(TARGET, run_id).mkdir(parents=True)
            document = analysis(run_id, point, gamma, sampler, reliable=not (sampler == "nuts" and number == 0))
            if (sampler, number) == ("nuts", 1):
                document["e1_minus_e3_mcse"] = None
            write_json(store.run_dir(TARGET, run_id) / "analysis.json", document)
    manifest.runs["run_hmc_lost"] = SweepRun(TARGET, "hmc", "deeplinear")
    manifest.save(store)
    return Sweep(store, "dev-1")


def test_each_sampler_and_gamma_is_a_curve(sweep: Sweep) -> None:
    found = {curve.label: curve for curve in curves(sweep)}
    assert [*found] == ["DeepLinear hmc gamma=1", "DeepLinear hmc gamma=3", "DeepLinear nuts gamma=1"]
    for gamma in (1, 3):
        fitted = found[f"DeepLinear hmc gamma={gamma}"].asymptotics
        assert fitted is not None
        assert fitted.lambda_value == pytest.approx(4.0, abs=3 * fitted.lambda_error)
        assert len(found[f"DeepLinear hmc gamma={gamma}"].pairs) == len(RANGE) - 1
    few = found["DeepLinear nuts gamma=1"]
    assert len(few.points) == 2
    assert few.asymptotics is None
    notes = list(few.notes(None))
    assert notes[0].startswith("no lambda: a fit needs 4 values of posterior.nbeta with results, got 2")
    assert notes[1].startswith("its runs are not all reliable: run_nuts_1_0;")


def test_the_command_prints_and_writes_them(sweep: Sweep) -> None:
    done = CliRunner().invoke(app, ["temperatures", "dev", "--store", str(sweep.store.root)])
    assert done.exit_code == 0, done.output
    assert "known: lambda 4, multiplicity 2" in done.output
    assert "E2 to the next" in done.output
    document = json.loads((sweep.directory / "temperatures.json").read_text())
    first = document["curves"][0]
    assert f"lambda {first['asymptotics']['lambda']:.1f}" in done.output
    assert sum(first["asymptotics"]["multiplicity_probabilities"]) == pytest.approx(1.0)
    assert first["points"][0]["e1"] != first["asymptotics"]["lambda"]
    assert (sweep.directory / "temperatures.png").stat().st_size > 10_000
    as_json = CliRunner().invoke(app, ["temperatures", "dev-1", "--store", str(sweep.store.root), "--json"])
    assert json.loads(as_json.output) == document


def test_a_sweep_without_results_is_refused(tmp_path: Path) -> None:
    manifest = Manifest("dev-2", "dev", {}, {"run_hmc_0": SweepRun(TARGET, "hmc", "x")})
    manifest.save(Store(tmp_path))
    done = CliRunner().invoke(app, ["temperatures", "dev-2", "--store", str(tmp_path)])
    assert done.exit_code == 1
    assert "needs runs that are finished, dev-2 has none" in done.output
