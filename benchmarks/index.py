"""A store of 100,000 runs: how long ``artifacts ls`` and ``collect`` take at first, again, and after a few changes.

One real run is made, and written down as many (``--runs``) as runs of 1,000 targets and 40 sweeps. The files are those
of a finished run, but for its trace and its checkpoint, which nothing here reads. Exits 1 beyond a goal.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from lambda_hat.run.loop import execute
from lambda_hat.store.files import document_bytes
from lambda_hat.store.layout import Store, write_status
from tests.jobs import make_job

GOAL_FIRST_S, GOAL_NEXT_S = 120.0, 3.0
RUNS_PER_TARGET, RUNS_PER_SWEEP = 100, 2500
CHANGED = 50


class Spent(NamedTuple):
    """Seconds of a command: by the clock, and of the processor. On a busy machine they differ."""

    wall: float
    cpu: float


def _template(folder: Path) -> dict[str, Any]:
    """The analysis.json of a real run."""
    job = make_job(folder)
    return json.loads(execute(job, Store(folder)).analysis.read_text())


def generate(root: Path, num_runs: int, template: dict[str, Any]) -> None:
    """Write ``num_runs`` finished runs, as plain files: what is measured is reading them."""
    runs: dict[str, Any] = {}
    for number in range(num_runs):
        target, run = f"tgt_{number // RUNS_PER_TARGET:012x}", f"run_hmc_{number:012x}"
        sweep = f"dev-{number // RUNS_PER_SWEEP:04d}"
        folder = root / "targets" / target / run
        folder.mkdir(parents=True)
        analysis = {**template, "run_id": run, "target_id": target, "llc": 1.0 + number / num_runs}
        submitted = {"sweep": sweep, "array": 0, "index": number, "before": None}
        status = {"state": "finished", "time": 1.7e9 + number}
        for name, document in (("analysis", analysis), ("status", status), ("submitted", submitted)):
            path = folder / f"{name}.json"
            path.write_bytes(document_bytes(document, path))
        runs[run] = {"target": target, "sampler": "hmc", "label": "quadratic-population-hmc-0"}
        if len(runs) == RUNS_PER_SWEEP or number == num_runs - 1:
            manifest = {"name": sweep, "experiment": f"e{number % 7}", "backend": {}, "runs": runs, "arrays": []}
            (root / "sweeps" / sweep).mkdir(parents=True)
            path = root / "sweeps" / sweep / "manifest.json"
            path.write_bytes(document_bytes(manifest, path))
            runs = {}


def seconds(root: Path, *command: str) -> Spent:
    """Of a whole command, the start of Python included."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "lambda_hat.cli", *command, "--store", str(root)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def change(root: Path, num_runs: int) -> None:
    """Touch some runs, as elements that end would."""
    for number in range(0, num_runs, num_runs // CHANGED):
        folder = root / "targets" / f"tgt_{number // RUNS_PER_TARGET:012x}" / f"run_hmc_{number:012x}"
        write_status(folder, state="failed", error="it broke")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    num_runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "runs"
        template = _template(Path(folder) / "template")
        started = time.perf_counter()
        generate(root, num_runs, template)
        print(f"a store of {num_runs} runs was written in {time.perf_counter() - started:.0f} s")
        time.sleep(4.0)  # what was touched a moment ago is read again
        measured = {"artifacts ls, first": seconds(root, "artifacts", "ls")}
        measured |= {"artifacts ls, again": seconds(root, "artifacts", "ls"), "collect": seconds(root, "collect")}
        change(root, num_runs)
        measured[f"artifacts ls, {CHANGED} runs changed"] = seconds(root, "artifacts", "ls")
        measured["artifacts ls --json"] = seconds(root, "artifacts", "ls", "--json")
    for name, value in measured.items():
        print(f"{name}: {value.wall:.2f} s, {value.cpu:.2f} s of CPU")
    worst = max(value.wall for name, value in measured.items() if "first" not in name)
    print(f"goals: first {GOAL_FIRST_S:g} s, next {GOAL_NEXT_S:g} s")
    sys.exit(int(measured["artifacts ls, first"].wall > GOAL_FIRST_S or worst > GOAL_NEXT_S))


if __name__ == "__main__":
    main()
