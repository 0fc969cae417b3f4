"""What a process that makes an estimate does not import."""

import inspect
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from arviz_stats.base.array import array_stats as imported_whole

from tests.hang import HANG
from tests.jobs import job_config


def python(program: str, *arguments: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    return done.stdout


def traces() -> list[np.ndarray]:
    """White noise, walks, ties, and chains apart, of an even and an odd number of draws."""
    rng = np.random.default_rng(0)
    white = [rng.normal(size=shape) for shape in ((1, 4), (2, 7), (4, 100), (16, 101))]
    kinds = [[x, x.cumsum(axis=1), np.round(x, 1), 1e-3 * x + rng.normal(size=(len(x), 1))] for x in white]
    return [x for kind in kinds for x in kind]


def diagnostics(stats: Any) -> list[float]:
    """Every number that an estimate asks for."""
    found: list[float] = []
    for x in traces():
        values = [stats.ess(x, method="bulk"), stats.ess(x, method="tail", prob=(0.05, 0.95)), stats.mcse(x)]
        found += map(float, values if len(x) == 1 else [*values, stats.rhat(x, method="rank")])
    weights, khat = stats.psislw(np.random.default_rng(0).normal(size=400))
    return [*found, *map(float, weights), float(khat)]


def test_alone_it_gives_the_same_numbers_and_all_of_arviz_and_scipy_can_follow() -> None:
    heavy = ("arviz_stats", "arviz_base", "xarray", "pandas", "matplotlib")
    program = f"""
import json, sys
from typing import Any
import numpy as np
from lambda_hat.estimation.diagnostics import array_stats
{inspect.getsource(traces)}
{inspect.getsource(diagnostics)}
numbers = diagnostics(array_stats())
alone = [name for name in {heavy} if name in sys.modules]
import arviz_plots, arviz_stats, scipy.signal, scipy.stats
whole = [arviz_stats.summary, arviz_stats.base.array_stats.ess, scipy.stats.rankdata, scipy.signal.convolve]
print(json.dumps([numbers, alone, [function.__module__.partition(".")[0] for function in whole]]))
"""
    numbers, alone, whole = json.loads(python(program))
    assert numbers == diagnostics(imported_whole)
    assert alone == []
    assert whole == ["arviz_stats", "arviz_stats", "scipy", "scipy"]


def test_a_run_publishes_its_trace_and_its_estimate_without_arviz_pandas_or_matplotlib(store_root: Path) -> None:
    """Nor SciPy's statistics before the trace: they take half a second."""
    program = """
        import json, sys
        from lambda_hat.run import publish as results
        from lambda_hat.config.job import parse_job
        from lambda_hat.run.loop import execute
        from lambda_hat.store.layout import Store

        def heavy():
            names = ("arviz_base", "arviz_stats", "arviz_plots", "pandas", "xarray", "matplotlib", "scipy.stats")
            return [name for name in names if name in sys.modules]

        def watched(lease, *rest):
            print(json.dumps([(lease.folder / "trace.nc").exists(), heavy()]))
            return publish(lease, *rest)

        publish, results.publish = results.publish, watched
        job = parse_job(json.loads(sys.argv[1]))
        analysis = execute(job, Store(job.store.root)).analysis
        print(json.dumps([json.loads(analysis.read_text())["ess_bulk"] > 0, heavy()]))
    """
    config = job_config(store_root, budget={"draws": 20})
    before, after = map(json.loads, python(program, json.dumps(config)).splitlines())
    assert before == [True, []]
    assert after == [True, ["scipy.stats"]]
