"""CPU seconds of whole processes, against devinterp 1.3.2 on the same problem: the second run on a machine.

    python -m benchmarks.peer_process [--problems linear deep_linear mlp] [--rounds 3]

Ours is `python -m lambda_hat.sample` with all it does but pictures: compose, load the target, sample, checkpoint,
publish the trace, the estimate and its verdict. The peer's is a script that imports devinterp, loads rows and w0,
builds the network, samples, and prints the LLC of each chain. Both have one core, and have run once before, so that
bytecode and compiled programs are there; our target is built, as the peer's w0 is. Exits 1 where the estimates
differ by more than 3 combined errors.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.peer_problems import STEPS_A_DRAW, Problem, job, prepare
from benchmarks.peer_sides import Answer, Sides, compare
from benchmarks.peer_venv import PEER, peer_python
from lambda_hat.store.layout import Store
from lambda_hat.store.trace_file import read_loss

GOALS = {"linear": 6.0, "deep_linear": 6.0, "mlp": 2.0}


def timed(command: list[str]) -> tuple[str, dict[str, float]]:
    """What the command printed, and its seconds."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise subprocess.CalledProcessError(child.returncode, command)
    return printed, {"cpu_seconds": usage.ru_utime + usage.ru_stime, "seconds": time.perf_counter() - started}


def ours(problem: Problem, seed: int) -> Answer:
    overrides = problem.overrides(seed)
    run = job(overrides)
    store = Store(run.store.root)
    folder = store.run_dir(run.target_id, run.run_id)
    shutil.rmtree(folder, ignore_errors=True)  # an earlier benchmark's: it would be found
    _, seconds = timed([sys.executable, "-m", "lambda_hat.sample", *overrides])
    analysis = store.read_analysis(run.target_id, run.run_id)
    assert analysis is not None
    losses = read_loss(folder / "trace.nc")
    llcs = problem.nbeta * (losses.mean(1, dtype=float) - analysis["loss_at_w0"])
    return {**seconds, "chain_steps": problem.chain_steps, "llcs": llcs.tolist()}


def theirs(problem: Problem, folder: Path, seed: int) -> Answer:
    request = {"seed": seed, "warmup": STEPS_A_DRAW * problem.warmup, "draws": STEPS_A_DRAW * problem.draws}
    printed, seconds = timed([peer_python(), str(PEER), str(folder), "1", json.dumps(request)])
    return {**json.loads(printed), **seconds}


def measure(problem: Problem, rounds: int) -> Sides:
    folder = prepare(problem)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    # The first of each is not counted.
    pairs = [(ours(problem, seed), theirs(problem, folder, seed)) for seed in range(rounds + 1)][1:]
    return Sides([pair[0] for pair in pairs], [pair[1] for pair in pairs], (1, 1))


if __name__ == "__main__":
    compare(Path(__file__).stem, __doc__, measure, GOALS)
