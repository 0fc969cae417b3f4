"""Runs with absurd numbers, or whose question has no answer, from composition to analysis.json: what they are told.

The settings are small; each model and sampler is compiled once.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lambda_hat.report.plots import draw_diagnostics
from lambda_hat.report.series import curves
from lambda_hat.run.loop import execute
from lambda_hat.run.summary import sentences
from lambda_hat.store.layout import Store
from lambda_hat.store.trace_file import read_trace_file
from tests.jobs import HMC, make_job

QUADRATIC = "lambda_hat.targets.analytic.Quadratic"
CROSSING = {"_target_": "lambda_hat.targets.analytic.NormalCrossing", "exponents": [1, 1]}
MCLMC = {"_target_": "lambda_hat.samplers.mclmc.MCLMC"}
POOR_VI = {
    "_target_": "lambda_hat.samplers.vi.VI", "whitening": "none", "learning_rate": 1e-6, "num_warmup": 100, "rank": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verdicts") / "runs"


def analysis_of(root: Path, **changes: Any) -> dict[str, Any]:
    return json.loads(execute(make_job(root, num_chains=4, **changes), Store(root)).analysis.read_text())


@pytest.mark.parametrize("curvature", [1e6, 1e8])
def test_a_fit_that_has_not_begun_is_doubted_and_contradicted(root: Path, curvature: float) -> None:
    """Sees 97,416 +- 307 called reliable beside the exact 10, for its Pareto fit divided by 0."""
    model = {"_target_": QUADRATIC, "curvatures": [curvature] * 20}
    found = analysis_of(root, model=model, sampler=POOR_VI, budget={"draws": 300})
    assert found["llc"] > 1000
    assert not found["verdict"]["reliable"]
    assert any("importance" in reason or "k-hat" in reason for reason in found["verdict"]["reasons"])
    assert any("more than the d/2 = 10" in reason for reason in found["verdict"]["reasons"])
    assert found["exact"]["contradicts"]
    assert found["exact"]["value"] == pytest.approx(10.0, rel=1e-6)
    assert any(line.startswith("exact LLC 10: CONTRADICTED") for line in sentences(found))
    assert "the virial" in found["verdict"]["unexamined"]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("nbeta", "gamma", "draws"), [(1e8, 1.0, 2000), (1e10, 1.0, 1000)])
def test_a_bias_that_drowns_in_noise_is_doubted(root: Path, nbeta: float, gamma: float, draws: int, seed: int) -> None:
    """Sees a virial that is 3 errors low excused by a correction of 0.4 +- 0.4, and a bias.llc of -8 recommended."""
    posterior = {"nbeta": nbeta, "gamma": gamma}
    found = analysis_of(root, model=CROSSING, sampler=MCLMC, posterior=posterior, budget={"draws": draws}, seed=seed)
    bias, reasons = found["bias"], found["verdict"]["reasons"]
    tolerated = max(1.5 * max(0.01 * abs(found["llc"]), found["llc_mcse"]), 0.003)
    assert bias["mcse"] > tolerated or abs(bias["value"]) < 3 * bias["mcse"] or abs(bias["value"]) < tolerated
    assert any("the bias of the step is not known" in reason for reason in reasons) or bias["mcse"] <= tolerated
    assert not any("bias.llc" in reason for reason in reasons)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("sampler", [MCLMC, HMC], ids=["mclmc", "hmc"])
def test_a_singular_loss_without_localiser_has_one_reason(root: Path, sampler: dict[str, Any], seed: int) -> None:
    """Sees a density that cannot be normalised called reliable in half of the seeds."""
    posterior = {"nbeta": 1e4, "gamma": 0.0}
    found = analysis_of(root, model=CROSSING, sampler=sampler, posterior=posterior, budget={"draws": 500}, seed=seed)
    (reason,) = found["verdict"]["reasons"]
    assert reason.startswith("no posterior is known to exist: posterior.gamma is 0")
    assert found["verdict"]["classes"] == ["question"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_constant_loss_is_told_as_one(root: Path, dtype: str) -> None:
    """Sees "stuck" of chains that accept every proposal, and float64 recommended to a float64 run."""
    model = {"_target_": QUADRATIC, "curvatures": [0, 0]}
    found = analysis_of(root, model=model, sampler={**HMC, "dtype": dtype})
    (reason,) = found["verdict"]["reasons"]
    assert "the loss does not depend on w near w0" in reason
    assert "the LLC is 0" in reason
    assert found["llc"] == 0
    assert found["exact"] == {"value": 0.0, "error": 0.0, "z": 0.0, "contradicts": False}


@pytest.mark.parametrize("draws", [40, 200])
def test_every_band_ends_at_the_printed_interval(root: Path, tmp_path: Path, draws: int) -> None:
    """Sees the quick error of progress lines, up to 2 times too small, drawn as a 90 % interval."""
    job = make_job(root, budget={"draws": draws})
    path = execute(job, Store(root)).analysis
    found, stored = json.loads(path.read_text()), read_trace_file(path.parent / "trace.nc")
    drawn = curves(stored.trace, found, 24)
    assert drawn is not None
    assert drawn["running"]["mcse"][-1] == pytest.approx(found["llc_mcse"], rel=1e-2)
    assert drawn["running"]["llc"][-1] == pytest.approx(found["llc"], rel=1e-2)
    assert np.all(np.array(drawn["running"]["mcse"], float) > 0)
    assert draw_diagnostics(stored.trace, stored.warmup, found, tmp_path)
