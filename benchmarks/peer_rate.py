"""SGLD chain-steps per CPU-second, against devinterp 1.3.2 on the same problem, while both sample.

    python -m benchmarks.peer_rate [--problems linear deep_linear mlp] [--rounds 3]

Each side is a process that has loaded its data and has sampled once already. In every round they sample in turn, with
the same batch size, chains, updates and hyperparameters, so that a busy machine slows both alike. Each side
has the number of threads that serves it best. Exits 1 where the estimates differ by more than 3 combined errors.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from benchmarks.peer_problems import PROBLEMS, STEPS_A_DRAW, Problem, prepare
from benchmarks.peer_venv import PEER, peer_python
from benchmarks.record import Row, publish
from lambda_hat.estimate import LLC, Comparison, agreement

THREADS = (1, 2)
Answer = dict[str, Any]


class Worker:
    """One side in a process of its own, on ``threads`` cores; it answers one request at a time."""

    def __init__(self, command: list[str], threads: int) -> None:
        self.threads = threads
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


class Sides(NamedTuple):
    """What each side answered, round by round, and how many threads it had."""

    ours: list[Answer]
    peer: list[Answer]
    threads: tuple[int, int]

    @property
    def ratios(self) -> list[float]:
        return [rate(ours) / rate(peer) for ours, peer in zip(self.ours, self.peer, strict=True)]

    @property
    def comparison(self) -> Comparison:
        return compare(pooled(self.ours), pooled(self.peer))


def rate(answer: Answer) -> float:
    """Chain-steps per CPU-second."""
    return answer["chain_steps"] / answer["cpu_seconds"]


def pooled(answers: list[Answer]) -> LLC:
    """Over all chains. They are independent, so their spread is an error that asks nothing of their mixing."""
    chains = np.concatenate([answer["llcs"] for answer in answers])
    return LLC(float(chains.mean()), float(chains.std(ddof=1) / len(chains) ** 0.5))


def compare(ours: LLC, peer: LLC) -> Comparison:
    return agreement({"lambda_hat": ours, "devinterp": peer})[0]


def fittest(command: list[str]) -> int:
    """The number of threads with which a side needs the least CPU time."""
    seconds: dict[int, float] = {}
    for threads in THREADS:
        with Worker(command, threads) as worker:
            worker.ask(0, 1, 1)
            seconds[threads] = worker.ask(0, 1, 3)["cpu_seconds"]
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


def row(problem: Problem, sides: Sides) -> Row:
    ours, peer = (statistics.median(map(rate, answers)) for answers in (sides.ours, sides.peer))
    note = (
        f"{ours:,.0f} against {peer:,.0f} chain-steps per CPU-s, {sides.threads[0]} and {sides.threads[1]} threads, "
        f"ratios {min(sides.ratios):.1f} to {max(sides.ratios):.1f}; {said(sides)}"
    )
    return Row(f"{problem.name}, sampling", statistics.median(sides.ratios), "x", problem.rate_goal, note=note)


def said(sides: Sides) -> str:
    ours, peer = pooled(sides.ours), pooled(sides.peer)
    return f"LLC {ours.llc:.2f} ± {ours.mcse:.2f} and {peer.llc:.2f} ± {peer.mcse:.2f}"


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--problems", nargs="+", choices=[p.name for p in PROBLEMS], default=[p.name for p in PROBLEMS])
    made.add_argument("--rounds", type=int, default=3)
    return made


def main() -> None:
    options = parser(__doc__).parse_args()
    peer_python()
    found = {p: measure(p, options.rounds) for p in PROBLEMS if p.name in options.problems}
    publish(
        Path(__file__).stem, [row(*item) for item in found.items()], {p.name: s._asdict() for p, s in found.items()}
    )
    for problem, sides in found.items():
        exact = "" if problem.exact is None else f" (exact, without SGLD's bias: {problem.exact})"
        print(f"{problem.name}: {sides.comparison.sentence}{exact}")
    sys.exit(not all(sides.comparison.agrees for sides in found.values()))


if __name__ == "__main__":
    main()
