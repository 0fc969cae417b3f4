"""Peak memory of a 1M-parameter SGLD run, above an empty JAX process. The goal is 20 x parameter bytes x chains, plus
the data. The target is built before, in a process of its own: training is not what is measured."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

NUM_CHAINS = 4
GOAL = 20
EMPTY = "import jax, jax.numpy as jnp; jax.jit(jnp.sin)(jnp.ones(8)).block_until_ready()"
TARGET = [
    "model=wide", "model.widths=null", "model.depth=2", "model.target_params=1000000", "data=digits",
    "training.dtype=float32", "training.steps=50", "training.polish_steps=0", "sampler=sgld",
]  # fmt: skip
RUN = [
    "sampler.num_warmup=8",
    "sampler.steps_per_draw=10",
    f"num_chains={NUM_CHAINS}",
    "budget=draws",
    "budget.draws=8",
]


def peak_bytes(command: list[str], folder: Path) -> int:
    """The largest resident size of the command's process."""
    with (folder / "out.txt").open("wb") as out:
        child = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit((folder / "out.txt").read_text())
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peak_bytes([sys.executable, "-m", "lambda_hat.build", *TARGET], folder)
        empty = peak_bytes([sys.executable, "-c", EMPTY], folder)
        run = peak_bytes([sys.executable, "-m", "lambda_hat.sample", *TARGET, *RUN, "store.plots=none"], folder)
        (meta_file,) = folder.glob("runs/targets/*/meta.json")
        dim = json.loads(meta_file.read_text())["dim"]
        data = sum(path.stat().st_size for path in folder.glob("runs/data/*.npy"))
    chains = 4 * dim * NUM_CHAINS
    above = run - empty - data
    print(f"d = {dim}, {NUM_CHAINS} chains, float32: parameters of all chains {chains / 1e6:.0f} MB")
    print(f"empty JAX process {empty / 1e6:.0f} MB, the run {run / 1e6:.0f} MB, data {data / 1e6:.1f} MB")
    print(f"above the empty process and the data: {above / chains:.1f} x (goal: at most {GOAL} x)")
    sys.exit(above > GOAL * chains)


if __name__ == "__main__":
    main()
