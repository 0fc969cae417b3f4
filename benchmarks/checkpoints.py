"""What a commit costs against the chunk of work that it keeps: SGLD and HMC on a small MLP and digits, at the length of
chunks that a run chooses by itself.

A commit is everything between two chunks: lease, trace, carry, status, log, and fsync of it all. The share is that of
all commits in all work, over chunks of a second or more (a run begins with shorter ones, to learn its speed).
Prints a table; exits 1 beyond the goal.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from benchmarks.record import Row, publish
from lambda_hat.config.job import parse_job
from lambda_hat.run import loop as run
from lambda_hat.run.chunks import Chunks
from lambda_hat.run.file_sink import FileSink
from lambda_hat.store.layout import Store

SECONDS = 30.0
_LONG_CHUNK_S = 1.0
GOAL = 0.02
SAMPLERS = {
    "sgld": {"_target_": "lambda_hat.samplers.sgld.SGLD", "num_warmup": 200},
    "hmc": {"_target_": "lambda_hat.samplers.hmc.HMC", "num_warmup": 100},
}


class Commit(NamedTuple):
    """Seconds of a chunk, and of its commit: by the clock, and of CPU."""

    work: float
    clock: float
    cpu: float


def commits_of(folder: Path, sampler: dict[str, Any]) -> list[Commit]:
    """Those of one run, in order."""
    job = parse_job(
        {
            "model": {"_target_": "lambda_hat.targets.mlp.MLP", "widths": [8]},
            "data": {"_target_": "lambda_hat.targets.data.Sklearn", "name": "digits"},
            "teacher": {"_target_": "lambda_hat.targets.mlp.Teacher"},
            "training": {"_target_": "lambda_hat.targets.training.Training", "steps": 200, "polish_steps": 0},
            "posterior": {"gamma": 100.0}, "sampler": sampler, "num_chains": 4, "seed": 0,
            "budget": {"seconds": SECONDS}, "store": {"root": str(folder), "plots": "none"},
        }
    )  # fmt: skip
    found: list[Commit] = []
    began = [0.0, 0.0]
    add, tell = FileSink.add, Chunks._tell  # pyright: ignore[reportPrivateUsage]

    def at_start(*arguments: Any) -> None:
        began[:] = time.perf_counter(), time.process_time()
        add(*arguments)

    def at_end(chunks: Chunks, losses: Any) -> None:
        tell(chunks, losses)
        work = chunks.ledger.computing - sum(commit.work for commit in found)
        found.append(Commit(work, time.perf_counter() - began[0], time.process_time() - began[1]))

    with mock.patch.object(FileSink, "add", at_start), mock.patch.object(Chunks, "_tell", at_end):
        run.execute(job, Store(folder))
    return found


def main() -> None:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        for sampler, node in SAMPLERS.items():
            long = [commit for commit in commits_of(Path(name), node) if commit.work >= _LONG_CHUNK_S]
            work, clock, cpu = (statistics.fmean(column) for column in zip(*long, strict=True))
            note = f"{len(long)} chunks of {work:.1f} s; a commit takes {clock * 1e3:.0f} ms, {cpu * 1e3:.1f} ms of CPU"
            rows.append(
                Row(f"{sampler}: commits / work, by the clock", 100 * clock / work, "%", 100 * GOAL, False, note)
            )
            rows.append(Row(f"{sampler}: CPU of commits / work", 100 * cpu / work, "%"))
    publish("checkpoints", rows)
    sys.exit(any(row.is_met is False for row in rows))


if __name__ == "__main__":
    main()
