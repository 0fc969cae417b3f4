"""What does a curve over checkpoints cost beside its draws: disk, memory, and CPU seconds for each further checkpoint?

python -m benchmarks.curve_cost [--small]
"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lambda_hat as lh
from benchmarks.own_cost import HIDDEN, digits, loss
from benchmarks.record import Row, publish

SGLD: dict[str, Any] = {
    "sampler": "sgld",
    "steps_per_draw": 1,
    "step_size": 1e-9,
    "measure_bias": False,
    "gamma": 100.0,
}
# Of targets over that of checkpoints, of memory with all over that with a few, CPU-s a further checkpoint.
DISK, MEMORY, BESIDE = 1.1, 1.05, 0.15
INPUTS, ROWS = 100, 128
FEW = 5


def wide(width: int) -> lh.Problem:
    """A layer of 100 x ``width`` weights, on few rows."""

    def row_losses(params: Any, batch: Any) -> Any:
        return 0.5 * (jnp.tanh(batch["x"] @ params["w"]) ** 2).mean(-1)

    x = np.random.default_rng(0).standard_normal((ROWS, INPUTS)).astype(np.float32)
    return lh.Problem(row_losses, {"w": np.zeros((INPUTS, width), np.float32)}, {"x": x})


def size(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


def disk_and_memory(folder: Path, number: int, width: int) -> list[Row]:
    for step in range(number):
        weights = np.random.default_rng(step).standard_normal((INPUTS, width)).astype(np.float32)
        np.savez(folder / f"step_{step:04}.npz", w=weights)
    problem, found = wide(width), lh.checkpoints(str(folder / "step_*.npz"))
    asked: dict[str, Any] = {
        **SGLD,
        "num_warmup": 2,
        "batch_size": 16,
        "budget": lh.Budget(draws=4),
        "store": folder / "runs",
    }
    peaks: list[float] = []
    for points in (found[:FEW], found):
        lh.trajectory(problem, points, progress=False, **asked)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
    checkpoints, targets = size(folder, "*.npz"), size(folder, "runs/targets/tgt_*/*")
    data, runs = size(folder, "runs/data/*"), size(folder, "runs/targets/tgt_*/run_*/*")
    note = f"{number} of {INPUTS * width:,} parameters; the data once {data / 1e6:.3g} MB, runs {runs / 1e6:.3g} MB"
    return [
        Row("bytes of targets over those of checkpoints", targets / checkpoints, "x", DISK, False, note),
        Row(
            f"peak memory with all over that with {FEW}", peaks[1] / peaks[0], "x", MEMORY, False,
            f"{peaks[1]:.3g} against {peaks[0]:.3g} GB",
        ),
    ]  # fmt: skip


def weights(seed: int) -> Any:
    rng, sizes = np.random.default_rng(seed), {"in": (64, HIDDEN), "out": (HIDDEN, 10)}
    return {
        name: {"w": rng.normal(0, shape[0] ** -0.5, shape).astype(np.float32), "b": np.zeros(shape[1], np.float32)}
        for name, shape in sizes.items()
    }


def beside_its_draws(folder: Path, number: int, examine: str) -> Row:
    """CPU seconds of a checkpoint without draws, by two budgets: what does not grow with the draws."""
    rows = digits()
    problem = lh.Problem(loss, weights(0), {"x": rows.inputs, "y": rows.outputs}, examine=examine)
    seconds: list[float] = []
    budgets, warmup, first = (40, 440), 20, 1
    for draws in budgets:
        asked: dict[str, Any] = {**SGLD, "num_warmup": warmup, "batch_size": 32, "budget": lh.Budget(draws=draws)}
        for count in (2, number):  # the first ones compile
            points = [(step, weights(step)) for step in range(first, first + count)]
            first += count
            started = time.process_time()
            lh.trajectory(problem, points, progress=False, store=folder / examine, **asked)
            taken = (time.process_time() - started) / count
        seconds.append(taken)
    a_draw = (seconds[1] - seconds[0]) / (budgets[1] - budgets[0])
    fixed = seconds[0] - a_draw * (budgets[0] + warmup)
    note = f"w0 examined: {examine}; a draw of 4 chains takes {a_draw * 1e3:.3g} CPU-ms"
    return Row("each further checkpoint of 610 parameters, beside its draws", fixed, "CPU-s", BESIDE, False, note)


def main() -> None:
    # Before JAX starts its threads. The last core: the first one serves the system.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    is_small = "--small" in sys.argv
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [beside_its_draws(folder, 2 if is_small else 10, examine) for examine in ("gradient", "full")]
        jax.clear_caches()
        rows += disk_and_memory(folder, *((8, 400) if is_small else (200, 10_000)))
    publish("curve_cost", rows)
    sys.exit(not is_small and any(row.is_met is False for row in rows))


if __name__ == "__main__":
    main()
