"""What the two sides answered, in pairs, and what that says: shared by peer_rate.py and peer_process.py."""

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.peer_problems import PROBLEMS, Problem
from benchmarks.peer_venv import peer_python
from benchmarks.record import Row, publish
from lambda_hat.estimation.estimate import LLC, Comparison, agreement

# cpu_seconds, seconds, chain_steps, and llcs, one a chain.
Answer = dict[str, Any]


class Sides(NamedTuple):
    """What each side answered, round by round, and on how many threads."""

    ours: list[Answer]
    peer: list[Answer]
    threads: tuple[int, int]

    @property
    def ratios(self) -> list[float]:
        return [rate(ours) / rate(peer) for ours, peer in zip(self.ours, self.peer, strict=True)]

    @property
    def comparison(self) -> Comparison:
        return agreement({"lambda_hat": pooled(self.ours), "devinterp": pooled(self.peer)})[0]


def rate(answer: Answer) -> float:
    """Chain-steps per CPU-second."""
    return answer["chain_steps"] / answer["cpu_seconds"]


def pooled(answers: list[Answer]) -> LLC:
    """Over all chains. They are independent, so their spread is an error that asks nothing of their mixing."""
    chains = np.concatenate([answer["llcs"] for answer in answers])
    return LLC(float(chains.mean()), float(chains.std(ddof=1) / len(chains) ** 0.5))


def note(sides: Sides) -> str:
    """What stands behind the ratio: a round's CPU seconds, how far the ratio varied, and the estimates."""
    ours, peer = (statistics.median(a["cpu_seconds"] for a in answers) for answers in (sides.ours, sides.peer))
    llc, other = pooled(sides.ours), pooled(sides.peer)
    return (
        f"{sides.ours[0]['chain_steps']:,} chain-steps in {ours:.3g} against {peer:.3g} CPU-s, on {sides.threads[0]} "
        f"and {sides.threads[1]} threads, ratios {min(sides.ratios):.1f} to {max(sides.ratios):.1f}; "
        f"LLC {llc.llc:.2f} ± {llc.mcse:.2f} and {other.llc:.2f} ± {other.mcse:.2f}"
    )


def compare(
    part: str, description: str | None, measure: Callable[[Problem, int], Sides], goals: dict[str, float]
) -> None:
    """Measure the problems that the command line names, tell, and exit with 1 where the estimates do not agree.

    Args:
        part: The benchmark's name.
        description: Its docstring, for --help.
        measure: The sides of a problem, after a number of rounds.
        goals: The ratio asked for, by the problem's name.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [problem.name for problem in PROBLEMS]
    parser.add_argument("--problems", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    peer_python()
    found = {problem: measure(problem, options.rounds) for problem in PROBLEMS if problem.name in options.problems}
    rows = [
        Row(problem.name, statistics.median(sides.ratios), "x", goals[problem.name], note=note(sides))
        for problem, sides in found.items()
    ]
    publish(part, rows, {problem.name: sides._asdict() for problem, sides in found.items()})
    for problem, sides in found.items():
        exact = "" if problem.exact is None else f" (exact, without SGLD's bias: {problem.exact})"
        print(f"{problem.name}: {sides.comparison.sentence}{exact}")
    sys.exit(not all(sides.comparison.agrees for sides in found.values()))
