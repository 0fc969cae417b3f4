"""SGLD chain-steps per CPU-second, against devinterp 1.3.2 on the same problem, while both sample.

    python -m benchmarks.peer_rate [--problems linear deep_linear mlp] [--rounds 3]

Each side is a process that has loaded its data and has sampled once already. In every round they sample in turn, with
the same batch size, chains, updates and hyperparameters, so that a busy machine slows both alike. Each side
has the number of threads that serves it best. Exits 1 where the estimates differ by more than 3 combined errors.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Self

from benchmarks.peer_problems import STEPS_A_DRAW, Problem, prepare
from benchmarks.peer_sides import Answer, Sides, compare
from benchmarks.peer_venv import PEER, peer_python

GOALS = {"linear": 15.0, "deep_linear": 12.0, "mlp": 3.0}
THREADS = (1, 2)


class Worker:
    """One side in a process of its own, on ``threads`` cores; it answers one request at a time."""

    def __init__(self, command: list[str], threads: int) -> None:
        self._child = subprocess.Popen(
            [*command, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.communicate()  # no more requests: it ends

    def ask(self, seed: int, warmup: int, draws: int) -> Answer:
        """Sample ``warmup`` and then ``draws`` recorded draws of 50 updates; only the latter count for the LLC."""
        assert self._child.stdin is not None and self._child.stdout is not None
        request = {"seed": seed, "warmup": STEPS_A_DRAW * warmup, "draws": STEPS_A_DRAW * draws}
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._child.args} ended with {self._child.wait()} instead of answering")
        return json.loads(line)


def fittest(command: list[str]) -> int:
    """The number of threads with which a side needs the least CPU time."""
    seconds: dict[int, float] = {}
    for threads in THREADS:
        with Worker(command, threads) as worker:
            worker.ask(0, 1, 1)
            seconds[threads] = worker.ask(1, 1, 1)["cpu_seconds"]
    return min(THREADS, key=seconds.__getitem__)


def measure(problem: Problem, rounds: int) -> Sides:
    folder = prepare(problem)
    commands = ([sys.executable, "-m", "benchmarks.peer_ours", problem.name], [peer_python(), str(PEER), str(folder)])
    threads = fittest(commands[0]), fittest(commands[1])
    with Worker(commands[0], threads[0]) as ours, Worker(commands[1], threads[1]) as peer:
        for worker in (ours, peer):
            worker.ask(0, 1, 1)  # compiles
        answers = [
            (ours.ask(seed, problem.warmup, problem.draws), peer.ask(seed, problem.warmup, problem.draws))
            for seed in range(1, rounds + 1)
        ]
    return Sides([pair[0] for pair in answers], [pair[1] for pair in answers], threads)


if __name__ == "__main__":
    compare(Path(__file__).stem, __doc__, measure, GOALS)
