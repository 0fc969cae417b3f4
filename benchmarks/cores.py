"""SGLD on two cores over one, by the clock: 8 chains of a process that may use two, against one pinned to one core.

    python -m benchmarks.cores

The sides take turns. The note has the ceiling: two processes at once, each pinned to a core with half of the chains.
Wants a machine with nothing else to do. Exits 1 where a goal is missed, or where the chains of the two sides differ.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

from benchmarks.record import Row, publish

GOAL, ROUNDS, NUM_CHAINS, BATCH, STEPS_A_DRAW, NUM_DATA = 1.7, 7, 8, 250, 50, 10_000
SECONDS = 0.5  # that a side samples for in a round, about
LEAST_DIM = 900  # of a problem that has the goal
# Widths, inputs first; three layers of tens are a deep linear network, which has second moments for its rows.
SIZES = {"MLP": [(16, 21, 21, 10), (64, 32, 10), (16, 90, 90, 10)], "deep linear": [(10, 10, 10, 10)]}
CASES = [(kind, sizes) for kind, all_sizes in SIZES.items() for sizes in all_sizes]


class Answer(NamedTuple):
    """Of one round: seconds by the clock and of the CPU for ``updates`` of each chain, and the last draw's losses."""

    seconds: float
    cpu_seconds: float
    updates: int
    losses: list[float]


class Side:
    """A process on ``cores``, with ``num_chains`` of a case; it samples when asked."""

    def __init__(self, cores: list[int], num_chains: int, case: int) -> None:
        words = [",".join(map(str, cores)), str(num_chains), str(case)]
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.cores", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.communicate()

    def ask(self, draws: int) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(f"{draws}\n")
        self._child.stdin.flush()

    def answer(self) -> Answer:
        assert self._child.stdout is not None
        return Answer(*json.loads(self._child.stdout.readline()))


def sampling(case: int, num_chains: int) -> Callable[[int], Answer]:
    """What samples so many draws of the case, going on where it stopped."""
    from benchmarks.kernels import posterior_of
    from lambda_hat.samplers.sgld import SGLD
    from lambda_hat.sampling.ensemble import Ensemble
    from lambda_hat.targets.deep_linear import DeepLinear
    from lambda_hat.targets.mlp import MLP

    kind, sizes = CASES[case]
    model: Any = MLP(widths=sizes[1:-1]) if kind == "MLP" else DeepLinear(widths=sizes, rank=3)
    posterior = posterior_of(model, sizes, NUM_DATA, moments=kind != "MLP")
    sampler = SGLD(step_size=1e-6, batch_size=BATCH, measure_bias=False, num_warmup=0, steps_per_draw=STEPS_A_DRAW)
    ensemble = Ensemble(sampler, posterior, num_chains, 0)
    state, step = ensemble.finish(ensemble.init()[0]), 0

    def sample(draws: int) -> Answer:
        nonlocal state, step
        started, cpu = time.perf_counter(), time.process_time()
        state, trace = ensemble.advance(state, "sampling", step, draws)
        step += draws
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        return Answer(seconds, cpu, draws * STEPS_A_DRAW, trace["loss"][-1].tolist())

    return sample


def dim_of(case: int) -> int:
    kind, sizes = CASES[case]
    return sum(a * b for a, b in itertools.pairwise(sizes)) + (sum(sizes[1:]) if kind == "MLP" else 0)


def work(cores: set[int], num_chains: int, case: int) -> None:
    # Before JAX is loaded.
    os.sched_setaffinity(0, cores)
    from lambda_hat.sampling.devices import one_a_core

    one_a_core({"dim": dim_of(case)})
    sample = sampling(case, num_chains)
    for line in sys.stdin:
        print(json.dumps(sample(int(line))), flush=True)


def round_of(sides: list[Side], draws: int) -> list[Answer]:
    """The answers of sides that sample at once."""
    for side in sides:
        side.ask(draws)
    return [side.answer() for side in sides]


def measure(case: int, one: Side, two: Side, halves: list[Side]) -> tuple[Row, bool]:
    """Two cores over one, and whether their chains are the same."""
    for sides in ([one], [two], halves):
        round_of(sides, 1)  # compiles
    draws = max(1, round(SECONDS / round_of([one], 1)[0].seconds))
    round_of([two], 1)
    rounds = [[round_of(sides, draws) for sides in ([one], [two], halves)] for _ in range(ROUNDS)]
    seconds = [min(max(answer.seconds for answer in answers[side]) for answers in rounds) for side in range(3)]
    cpu = [min(answers[side][0].cpu_seconds for answers in rounds) for side in range(2)]
    is_same = all(answers[0][0].losses == answers[1][0].losses for answers in rounds)
    kind, dim = CASES[case][0], dim_of(case)
    steps = draws * STEPS_A_DRAW * NUM_CHAINS
    note = (
        f"{seconds[0] / steps * 1e6:.3g} and {seconds[1] / steps * 1e6:.3g} µs a chain-step; ceiling "
        f"{seconds[0] / seconds[2]:.2f} x; CPU time {cpu[1] / cpu[0]:.2f} x; "
        f"chains {'the same' if is_same else 'differ'}"
    )
    goal = GOAL if dim > LEAST_DIM else None
    return Row(f"SGLD on 2 cores over 1, {kind}, d = {dim:,}", seconds[0] / seconds[1], "x", goal, note=note), is_same


def main() -> None:
    if len(sys.argv) > 1:
        work({int(core) for core in sys.argv[1].split(",")}, int(sys.argv[2]), int(sys.argv[3]))
        return
    cores = sorted(os.sched_getaffinity(0))[-2:]
    if len(cores) < 2:
        sys.exit(f"{Path(__file__).stem}: needs two cores, may use {cores}")
    found: list[tuple[Row, bool]] = []
    for case in range(len(CASES)):
        with ExitStack() as stack:
            one, two = (stack.enter_context(Side(where, NUM_CHAINS, case)) for where in (cores[-1:], cores))
            halves = [stack.enter_context(Side([core], NUM_CHAINS // 2, case)) for core in cores]
            found.append(measure(case, one, two, halves))
    rows = [row for row, _ in found]
    publish("cores", rows)
    sys.exit(any(row.is_met is False for row in rows) or not all(is_same for _, is_same in found))


if __name__ == "__main__":
    main()
