"""What a process that makes an estimate does not import."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
from arviz_stats.base.array import array_stats as imported_whole

from tests.jobs import job_config


def python(program: str, *arguments: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_alone_it_gives_the_same_numbers_and_all_of_arviz_can_follow() -> None:
    program = """
        import json, sys
        import numpy as np
        from lambda_hat.array_layer import array_stats
        stats, x = array_stats(), np.random.default_rng(0).normal(size=(4, 100)).cumsum(axis=1)
        calls = [(stats.rhat, "rank"), (stats.ess, "bulk"), (stats.mcse, "mean")]
        numbers = [float(function(x, method=method)) for function, method in calls]
        alone = [name for name in ("arviz_stats", "arviz_base", "xarray", "pandas") if name in sys.modules]
        import arviz_plots, arviz_stats
        print(json.dumps([numbers, alone, arviz_stats.summary is not None, arviz_stats.base.array_stats is not None]))
    """
    numbers, alone, *whole = json.loads(python(program))
    x = np.random.default_rng(0).normal(size=(4, 100)).cumsum(axis=1)
    expected = [("rhat", "rank"), ("ess", "bulk"), ("mcse", "mean")]
    assert numbers == [float(getattr(imported_whole, name)(x, method=method)) for name, method in expected]
    assert alone == []
    assert whole == [True, True]


def test_a_run_publishes_its_trace_and_its_estimate_without_arviz_pandas_or_matplotlib(store_root: Path) -> None:
    """Before the trace is published not even SciPy's statistics, which take half a second, are there."""
    program = """
        import json, sys
        from lambda_hat import results
        from lambda_hat.config import parse_job
        from lambda_hat.run import execute
        from lambda_hat.store import Store

        def heavy():
            names = ("arviz_base", "arviz_stats", "arviz_plots", "pandas", "xarray", "matplotlib", "scipy.stats")
            return [name for name in names if name in sys.modules]

        def watched(directory, *rest):
            print(json.dumps([(directory / "trace.nc").exists(), heavy()]))
            return publish(directory, *rest)

        publish, results.publish = results.publish, watched
        job = parse_job(json.loads(sys.argv[1]))
        analysis = execute(job, Store(job.store.root)).analysis
        print(json.dumps([json.loads(analysis.read_text())["ess_bulk"] > 0, heavy()]))
    """
    config = job_config(store_root, budget={"draws": 20})
    before, after = map(json.loads, python(program, json.dumps(config)).splitlines())
    assert before == [True, []]
    assert after == [True, ["scipy.stats"]]
