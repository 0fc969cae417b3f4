"""This checkout against another one, in turn: a trivial element, 16 packed runs, and an update of SGLD.

python -m benchmarks.against OTHER_CHECKOUT

Each round runs every part once in either checkout, in a process of its own that imports that checkout alone, with the
interpreter and the libraries of this one. The parts are those of `elements`, `packing` and `speed`. Prints the ratios
of the minima; exits 1 beyond a goal.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.record import Row, publish

ROUNDS = 5
_HERE = Path(__file__).resolve().parents[1]
_ELEMENT = """
from benchmarks.elements import Store, cost, cpu_seconds, trivial_job
store = Store(folder)
cpu_seconds([trivial_job(folder)], store)
cold, warm = cost(store, warm=False), cost(store, warm=True)
found = {"trivial element, cold": cold.element, "trivial element, warm": warm.element,
         "trivial command, cold": cold.command, "trivial command, warm": warm.command}
"""
_PACKING = """
from benchmarks.packing import measure
packing = measure(folder)
found = {"16 packed runs, cold": packing.packed_cold, "16 packed runs, warm": packing.packed_warm}
"""
_STEP = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
from benchmarks.kernels import cpu_seconds, posterior_of
from benchmarks.speed import BATCH, NUM_CHAINS, NUM_DATA, STEPS_A_DRAW, drawing
from lambda_hat.samplers.sgld import SGLD
from lambda_hat.targets.mlp import MLP
posterior = posterior_of(MLP(widths=(90, 90)), (16, 90, 90, 10), NUM_DATA, moments=False)
sampler = SGLD(step_size=1e-6, batch_size=BATCH, measure_bias=False, num_warmup=0, steps_per_draw=STEPS_A_DRAW)
seconds = cpu_seconds({"step": drawing(sampler, posterior, 4)})["step"]
found = {"SGLD step, MLP 10,630": seconds / 4 / STEPS_A_DRAW / NUM_CHAINS}
"""
_PROGRAM = "import json, pathlib, sys\nfolder = pathlib.Path(sys.argv[1])\n{part}\nprint(json.dumps(found))"
_GOALS = {
    "trivial element, warm": 2.2, "trivial element, cold": 1.0, "16 packed runs, warm": 1.0,
    "16 packed runs, cold": 1.0, "SGLD step, MLP 10,630": 1.06,
}  # fmt: skip


def seconds_in(checkout: Path, part: str) -> dict[str, float]:
    """CPU seconds of one part, by name, measured by a process that imports ``checkout``."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(checkout)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM.format(part=part), f"{folder}/store"],
            cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def measure(checkouts: tuple[Path, Path], rounds: int) -> list[dict[str, float]]:
    """The minima of all rounds, by part, in each of ``checkouts``."""
    least: list[dict[str, float]] = [{}, {}]
    for _ in range(rounds):
        for part in (_ELEMENT, _PACKING, _STEP):
            for checkout, found in zip(checkouts, least, strict=True):
                for name, seconds in seconds_in(checkout, part).items():
                    found[name] = min(seconds, found.get(name, seconds))
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    ours, others = measure((_HERE, options.other.resolve()), options.rounds)
    rows = [
        Row(
            name,
            ours[name] / others[name],
            "x",
            _GOALS.get(name),
            False,
            f"{ours[name]:.3g} / {others[name]:.3g} CPU-s",
        )
        for name in ours
    ]
    publish("against", rows)
    sys.exit(any(row.is_met is False for row in rows))


if __name__ == "__main__":
    main()
