"""Every band called a 90 % interval ends at the interval that is printed, and keeps the course of the quick one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lambda_hat.estimation.estimate import Setting, estimate
from lambda_hat.estimation.standard_error import running_interval, running_llc
from lambda_hat.report import plots, tensorboard
from lambda_hat.report.series import curves

SETTING = Setting(100.0, 1.0, 20, 500, 2.0, {})


def drawn(phi: float, draws: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """An autocorrelated trace, whose quick error is too small, and the part of analysis.json that pictures look at."""
    rng = np.random.default_rng(0)
    x = np.zeros((4, draws))
    for draw in range(1, draws):
        x[:, draw] = phi * x[:, draw - 1] + rng.standard_normal(4)
    trace = {"loss": 2.0 + (10 + x) / 100.0, "gradients": np.full(x.shape, 500), "acceptance": np.full(x.shape, 0.8)}
    found = estimate({"loss": trace["loss"]}, SETTING)
    analysis = {
        **found.to_dict(), "nbeta": 100.0, "loss_at_w0": 2.0, "num_data": 500, "gradients": 500 * x.size,
        "history": [[draws, 500 * x.size, 2.0]], "seconds": {"warmup": 1.0}, "exact_llc": None, "known_lambda": None,
        "sampler": "sgld", "target_id": "tgt_0", "progress": {"draws": draws},
    }  # fmt: skip
    return trace, analysis


@pytest.mark.parametrize(("phi", "draws"), [(0.0, 400), (0.97, 300), (0.995, 1000), (0.9, 6)])
def test_all_bands_end_at_the_published_error(
    phi: float, draws: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, analysis = drawn(phi, draws)
    page = curves(trace, analysis, 48)
    assert page is not None
    assert page["running"]["mcse"][-1] == pytest.approx(analysis["llc_mcse"], rel=1e-2)
    ends: list[float] = []

    def draw_band(run: Any, axes: Any, where: Any) -> None:
        del axes, where
        ends.append(float(run.running[1][-1]))

    monkeypatch.setattr(plots, "_draw_band", draw_band)
    plots.draw_diagnostics(trace, {}, analysis, tmp_path)
    assert len(ends) >= 2
    assert ends == pytest.approx([analysis["llc_mcse"]] * len(ends))

    class Stored:
        pass

    stored = Stored()
    stored.trace = trace  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(tensorboard.trace_file, "read_trace_file", lambda path: stored)
    events = list(tensorboard._curves(tmp_path, analysis))
    last = [value for tag, _, value in events if tag == "llc/mcse"][-1]
    assert last == pytest.approx(analysis["llc_mcse"])


def test_the_band_keeps_its_course() -> None:
    x = np.random.default_rng(1).standard_normal((4, 200))
    counts = np.array([4, 20, 100, 200])
    llc, quick = running_llc(x, counts)
    scaled_llc, scaled = running_interval(x, counts, 3.0 * float(quick[-1]))
    assert np.array_equal(llc, scaled_llc)
    assert scaled == pytest.approx(3.0 * quick)


def test_no_error_no_band_and_no_spread_only_its_end() -> None:
    counts = np.array([4, 20, 50])
    _, unknown = running_interval(np.random.default_rng(2).standard_normal((4, 50)), counts, np.nan)
    assert np.isnan(unknown).all()
    _, still = running_interval(np.ones((4, 50)), counts, 0.3)
    assert np.isnan(still[:-1]).all()
    assert still[-1] == 0.3
