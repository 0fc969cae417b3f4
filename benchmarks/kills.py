"""A sweep whose processes are killed, stopped, doubled and deceived a thousand times: is every number the same?

Each case is a new store in which one run (with two drivers: a sweep) is struck, and then goes on until it is finished.
Its traces, its target's arrays and its analysis, apart from seconds, places and epochs, must then be those of a run
that nobody disturbed, bit by bit, and ``verify`` must find nothing.

    killed at random     SIGKILL after a random time
    killed at a write    SIGKILL before or after a rename, a flush, a fence, a link or a removal
    stopped at a write   SIGSTOP there, beyond the lease; another owner takes over; SIGCONT
    clock jumps          the clock that leases see jumps by a minute to a year, in one of two owners or in both
    two owners           an owner at work looks silent, another one takes over, and a third
    two drivers          two drivers of one sweep; drivers and workers are killed

Prints how many strikes of each kind left everything identical (at Ctrl-C: those that there were), and exits 1 if one
did not.

    python -m benchmarks.kills --count 1000 --seed 1
"""

import argparse
import itertools
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.kills_case import KINDS, Case, Sweep
from benchmarks.kills_zygote import Zygote
from lambda_hat.sampling.devices import usable_cores


class Result(NamedTuple):
    """What became of one case.

    Args:
        kind: One of :data:`KINDS`.
        number: Which case it is of its seed.
        strikes: How often it was struck.
        restarts: How many processes it took beyond the first.
        faults: What is not as it would have been, a sentence each.
    """

    kind: str
    number: int
    strikes: int
    restarts: int
    faults: list[str]


def strike(sweep: Sweep, zygote: Zygote, count: int, seed: int = 0) -> list[Result]:
    """Make cases of each kind until it has its share of ``count`` strikes, or until Ctrl-C."""
    results: list[Result] = []
    share = -(-count // len(KINDS))
    tally = dict.fromkeys(KINDS, 0)
    lock, is_stopped = threading.Lock(), threading.Event()

    def work() -> None:
        while True:
            with lock:
                kind = min(tally, key=lambda name: tally[name])
                if is_stopped.is_set() or tally[kind] >= share:
                    return
                tally[kind] += 1  # until it is known
                number = next(numbers)
            result = _case(sweep, zygote, kind, number, seed)
            with lock:
                tally[kind] += result.strikes - 1
                results.append(result)

    numbers = itertools.count()
    with ThreadPoolExecutor(workers := len(usable_cores())) as pool:
        futures = [pool.submit(work) for _ in range(workers)]
        try:
            for future in futures:
                future.result()
        except KeyboardInterrupt:
            is_stopped.set()
    return results


def _case(sweep: Sweep, zygote: Zygote, kind: str, number: int, seed: int) -> Result:
    folder = Path(tempfile.mkdtemp(prefix="kills-", dir=sweep.folder))
    case = Case(sweep, zygote, folder, random.Random(f"{seed}-{number}"), number)
    try:
        KINDS[kind](case)
        case.finish(is_sweep=kind == "two drivers")
    finally:
        case.end_all()
    if not case.faults:
        shutil.rmtree(folder)
    return Result(kind, number, case.strikes, max(0, len(case.lives) - 1), case.faults)


def table(results: list[Result]) -> str:
    """A line a kind: strikes, those of cases in which everything is identical, runs or sweeps, and restarts."""
    lines = [f"{'kind':20} {'strikes':>8} {'identical':>10} {'cases':>6} {'restarts':>9}"]
    for kind in KINDS:
        of = [result for result in results if result.kind == kind]
        same = sum(result.strikes for result in of if not result.faults)
        restarts = sum(result.restarts for result in of)
        lines.append(f"{kind:20} {sum(one.strikes for one in of):8} {same:10} {len(of):6} {restarts:9}")
    strikes = Counter(bool(result.faults) for result in results for _ in range(result.strikes))
    return "\n".join([*lines, f"{'all':20} {strikes.total():8} {strikes[False]:10} {len(results):6}"])


def faults(results: list[Result]) -> str:
    """What is not as it would have been."""
    return "\n".join(f"{one.kind}, case {one.number}: {fault}" for one in results for fault in one.faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    with Zygote() as zygote:
        results = strike(Sweep(zygote, folder), zygote, arguments.count, arguments.seed)
    print(table(results))
    print(f"seed {arguments.seed}, {time.monotonic() - started:.0f} s")
    if any(result.faults for result in results):
        print(f"{faults(results)}\nthe stores of these cases are kept in {folder}")
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
