"""A run's folder as the sink of the host loop: checkpoints, status and the merged trace, under the run's lease.

After a chunk the trace file is written first and the carry second: the carry's rename is the commit point, so
a run that is killed at any instant continues from its last commit, bit by bit as if it had not been.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from lambda_hat.config.job import Job
from lambda_hat.run import publish as results
from lambda_hat.run.accounting import Ledger, TracePhase
from lambda_hat.run.progress import Reporter
from lambda_hat.run.sink import Kept
from lambda_hat.run.target import RunError
from lambda_hat.sampling.compilation_cache import CompilationCache
from lambda_hat.store import checkpoint
from lambda_hat.store.layout import write_status
from lambda_hat.store.lease import Lease

# Clusters count files.
_CHUNKS_BEFORE_MERGE = 48


@dataclass(frozen=True)
class FileSink:
    """A :class:`lambda_hat.run.sink.Sink`.

    Args:
        job: The run's job.
        directory: The run's folder.
        lease: Of that folder, held by the caller.
        cache: Where programs are shared as soon as they are compiled.
        reporter: Is told what was found.
    """

    job: Job
    directory: Path
    lease: Lease
    cache: CompilationCache
    reporter: Reporter

    @property
    def name(self) -> str:
        return self.job.run_id

    def load(self, template: Callable[[], PyTree], /) -> Kept | None:
        carry = checkpoint.load_carry(self.directory)
        if carry is None:
            if (self.directory / "analysis.json").exists():
                self.reporter.line(
                    f"{self.name} is finished for a smaller budget, and the state of its chains was not kept: it is "
                    "repeated from its target"
                )
            return None
        for skipped in carry.skipped:
            self.reporter.line(f"warning: {skipped}; resuming from the checkpoint before it")
        return Kept(self._fit(carry.leaves, template()), Ledger.from_dict(carry.meta["ledger"]))

    def _fit(self, leaves: list[np.ndarray], template: PyTree) -> PyTree:
        expected, structure = jax.tree.flatten(template)
        got = [(leaf.shape, leaf.dtype) for leaf in leaves]
        if got != [(leaf.shape, leaf.dtype) for leaf in expected]:
            raise RunError(
                f"{self.directory}: its checkpoint needs the state of this version's {self.job.sampler_name}, "
                f"got another layout, so other code made it; rerun=true makes the run anew"
            )
        return jax.tree.unflatten(structure, [jax.numpy.asarray(leaf) for leaf in leaves])

    def compiled(self) -> None:
        self.cache.publish()

    def add(self, ledger: Ledger, arrays: dict[str, np.ndarray], /) -> None:
        self.lease.check()
        self.lease.moved()
        stop = ledger.step + len(arrays["loss"])
        name = checkpoint.save_trace(self.directory, self.lease.epoch, ledger.phase, ledger.step, stop, arrays)
        ledger.chunks.append(name)

    def commit(self, ledger: Ledger, state: PyTree, /) -> None:
        if len(ledger.chunks) >= _CHUNKS_BEFORE_MERGE:
            ledger.chunks = checkpoint.merge_trace(self.directory, self.lease.epoch, ledger.chunks)
        self._save_carry(ledger, state)

    def _save_carry(self, ledger: Ledger, state: PyTree) -> None:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
        sampler = self.job.sampler
        meta = {
            "ledger": ledger.to_dict(),
            "trace_files": ledger.chunks,
            "kernel_version": sampler.kernel_version,
        }
        position = ledger.step + (sampler.num_warmup if ledger.phase == "sampling" else 0)
        checkpoint.save_carry(self.directory, self.lease.epoch, position, leaves, meta)

    def trace(self, ledger: Ledger, phase: TracePhase, /) -> dict[str, np.ndarray]:
        return results.read_trace(self.directory, ledger, phase)

    def status(self, ledger: Ledger, state: str, /, **more: Any) -> None:
        write_status(
            self.directory, self.lease, state=state, phase=ledger.phase, step=ledger.step, gradients=ledger.gradients,
            seconds=ledger.computing, **more,
        )  # fmt: skip

    def merge(self, ledger: Ledger, state: PyTree, origin: results.Origin) -> dict[str, np.ndarray]:
        """Gather the trace in one file, let the carry point at it, drop the chunk files, and return the draws."""
        trace = results.merge_trace(self.directory, ledger, origin, self.lease)
        ledger.merged = {
            "warmup": self.job.sampler.num_warmup if ledger.phase == "sampling" else ledger.step,
            "sampling": ledger.draws,
        }
        ledger.chunks = []
        self._save_carry(ledger, state)
        checkpoint.keep_newest(self.directory, self.lease.epoch)
        return trace
