"""trace.nc: what goes in comes out, and ArviZ's own readers understand it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lambda_hat.estimation.estimate import Setting
from lambda_hat.samplers.base import StepInfo
from lambda_hat.store.trace_file import read_trace_file, write_trace_file

SETTING = Setting(nbeta=200.0, gamma=2.0, dim=5, num_data=1000, loss_at_w0=0.7, report={})


def trace(draws: int, dtype: str = "float64", seed: int = 0) -> dict[str, np.ndarray]:
    """Every column of a run by a sampler that has no energy."""
    rng = np.random.default_rng(seed)
    shape = (3, draws)
    return {
        "loss": rng.normal(0.7, 0.1, shape).astype(dtype),
        "virial": rng.normal(5, 1, shape).astype(dtype),
        "energy": np.full(shape, np.nan, dtype),
        "log_weight": rng.normal(0, 1, shape).astype(dtype),
        "gradients": rng.integers(1, 1000, shape).astype(np.int32),
        "acceptance": rng.random(shape).astype(dtype),
        "diverged": rng.random(shape) < 0.1,
        "coarse_loss": np.full(shape, np.nan, dtype),
        "coarse_virial": np.full(shape, np.nan, dtype),
        "work": rng.normal(0, 0.1, shape).astype(dtype),
        "expected_loss": np.full(shape, np.nan, dtype),
    }


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected) == set(StepInfo._fields)
    for name, column in expected.items():
        assert found[name].dtype == column.dtype, name
        np.testing.assert_array_equal(found[name], column, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("draws", "warmup_draws"), [(40, 10), (20000, 0), (0, 10)])
def test_round_trip_is_exact(tmp_path: Path, dtype: str, draws: int, warmup_draws: int) -> None:
    """A run with a larger budget continues from this file: its first half must keep every bit and dtype."""
    path = tmp_path / "trace.nc"
    sampling, warmup = trace(draws, dtype), trace(warmup_draws, dtype, seed=1)
    write_trace_file(path, sampling, warmup, SETTING, {"run_id": "run_hmc_1"})
    found = read_trace_file(path)
    assert_equal(found.trace, sampling)
    assert_equal(found.warmup, warmup)
    assert found.attrs["run_id"] == "run_hmc_1"
    assert (found.attrs["nbeta"], found.attrs["gamma"], found.attrs["loss_at_w0"]) == (200.0, 2.0, 0.7)


def test_a_loss_that_is_nowhere_finite_is_kept(tmp_path: Path) -> None:
    bad = {**trace(5), "loss": np.full((3, 5), np.nan)}
    write_trace_file(tmp_path / "trace.nc", bad, trace(0), SETTING, {})
    assert_equal(read_trace_file(tmp_path / "trace.nc").trace, bad)


def test_xarray_and_arviz_read_it(tmp_path: Path) -> None:
    xarray, arviz_stats = pytest.importorskip("xarray"), pytest.importorskip("arviz_stats")
    path = tmp_path / "trace.nc"
    sampling = trace(200)
    write_trace_file(path, sampling, trace(10), SETTING, {"run_id": "run_hmc_1"})
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        assert set(tree.children) == {"posterior", "sample_stats", "warmup_sample_stats"}
        assert dict(tree["posterior"].sizes) == {"chain": 3, "draw": 200}
        llc = tree["posterior"]["llc"].values
        np.testing.assert_array_equal(llc, 200.0 * (sampling["loss"] - 0.7))
        stats = tree["sample_stats"]
        kept = {"loss", "virial", "log_weight", "gradients", "acceptance_rate", "diverging", "work"}
        assert set(stats.data_vars) == kept
        assert stats["diverging"].dtype == bool
        assert tree["warmup_sample_stats"].sizes["draw"] == 10
        assert float(arviz_stats.summary(tree, round_to="none")["mean"]["llc"]) == pytest.approx(llc.mean())


def test_writing_imports_neither_pandas_nor_xarray(tmp_path: Path) -> None:
    """Their import costs most of a second, before publishing, on every element."""
    program = (
        "import sys, numpy as np, pathlib\n"
        "from lambda_hat.estimation.estimate import Setting, quick_llc\n"
        "from lambda_hat.store.trace_file import write_trace_file\n"
        "s = Setting(2.0, 1.0, 1, 10, 0.0, {})\n"
        "t = {'loss': np.ones((2, 9))}\n"
        f"write_trace_file(pathlib.Path({str(tmp_path / 'trace.nc')!r}), t, t, s, {{}})\n"
        "quick_llc(t['loss'], s)\n"
        "print([m for m in ('jax', 'xarray', 'pandas', 'arviz_stats', 'scipy') if m in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
