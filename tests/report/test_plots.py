"""The pictures: which of them a trace gets, that they are whole, and that broken traces are drawn too."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lambda_hat.estimation.estimate import Setting, estimate
from lambda_hat.report.plots import draw_diagnostics

SETTING = Setting(nbeta=100.0, gamma=1.0, dim=20, num_data=500, loss_at_w0=2.0, report={})
ALWAYS = ["trace", "running_llc", "llc_convergence_combined"]


def trace(chains: int, draws: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.chisquare(20, (chains, draws)) / 2
    return {
        "loss": 2.0 + x / 100.0,
        "energy": x + rng.chisquare(20, (chains, draws)) / 2,
        "gradients": np.full((chains, draws), 500, np.int32),
    }


def analysis(sampling: dict[str, np.ndarray], **changed: Any) -> dict[str, Any]:
    """What results.py publishes, as far as a picture looks."""
    draws = sampling["loss"].shape[1]
    spent = int(sampling["gradients"].sum())
    return {
        **estimate(sampling, SETTING).to_dict(),
        "sampler": "hmc",
        "target_id": "tgt_0123456789ab",
        "nbeta": SETTING.nbeta,
        "loss_at_w0": SETTING.loss_at_w0,
        "num_data": SETTING.num_data,
        "gradients": spent + 10_000,
        "history": [[draws // 2, 10_000 + spent // 2, 1.5], [draws, 10_000 + spent, 2.0]],
        "seconds": {"warmup": 1.0},
        "exact_llc": 10.0,
        "known_lambda": 40.0,
        **changed,
    }


def names(files: list[Path]) -> list[str]:
    for file in files:
        content = file.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert content.endswith(b"IEND\xaeB`\x82")
    return [file.stem for file in files]


def test_all_pictures_of_a_healthy_run(tmp_path: Path) -> None:
    sampling = trace(4, 300)
    files = draw_diagnostics(sampling, trace(4, 100, seed=1), analysis(sampling), tmp_path)
    assert sorted(names(files)) == sorted([*ALWAYS, "rank", "energy"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in files)


def test_a_long_trace_of_many_chains_without_energy(tmp_path: Path) -> None:
    sampling = trace(12, 9001)
    sampling["energy"] = np.full_like(sampling["loss"], np.nan)
    files = draw_diagnostics(sampling, {}, analysis(sampling, history=[], exact_llc=None, known_lambda=None), tmp_path)
    assert sorted(names(files)) == sorted([*ALWAYS, "rank"])


@pytest.mark.parametrize(("chains", "draws"), [(1, 1), (1, 50), (4, 1), (2, 3)])
def test_short_traces(tmp_path: Path, chains: int, draws: int) -> None:
    sampling = trace(chains, draws)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = draw_diagnostics(sampling, trace(chains, 2), analysis(sampling), tmp_path)
    assert set(ALWAYS) <= set(names(files))
    assert ("rank" in names(files)) == (chains > 1)


def test_broken_traces(tmp_path: Path) -> None:
    """One chain lost at once, one on the way; draws all equal. They are what somebody will look at a picture for."""
    lost = trace(3, 60)
    lost["loss"][0] = np.nan
    lost["loss"][1, 20:] = np.inf
    lost["energy"][1, 20:] = np.inf
    assert sorted(names(draw_diagnostics(lost, trace(3, 9), analysis(lost), tmp_path))) == sorted([*ALWAYS, "energy"])
    still = trace(3, 60)
    still["loss"][:] = 2.1
    assert set(ALWAYS) <= set(names(draw_diagnostics(still, {}, analysis(still), tmp_path)))


def test_nothing_to_draw(tmp_path: Path) -> None:
    empty = trace(4, 0)
    assert draw_diagnostics(empty, trace(4, 10), analysis(empty), tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_no_display_and_no_pyplot(tmp_path: Path) -> None:
    """Sees a picture that needs a display, or leaves figures behind in pyplot's global list."""
    program = (
        "import sys, os, pathlib, importlib.util\n"
        "os.environ['MPLBACKEND'] = 'TkAgg'\n"
        f"spec = importlib.util.spec_from_file_location('pictures', {str(Path(__file__))!r})\n"
        "pictures = importlib.util.module_from_spec(spec); spec.loader.exec_module(pictures)\n"
        "t = pictures.trace(2, 50)\n"
        f"print(len(pictures.draw_diagnostics(t, {{}}, pictures.analysis(t), pathlib.Path({str(tmp_path)!r}))))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "5"
