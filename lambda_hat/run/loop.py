"""The host loop: target, chunks, checkpoint, estimate, artifacts. The one place where a run meets files,
clocks and signals; everything it calls to compute is pure.

After a chunk the trace file is written first and the carry second: the carry's rename is the commit point, so
a run that is killed at any instant continues from its last commit, bit by bit as if it had not been.
"""

import contextlib
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lambda_hat.config.job import Job
from lambda_hat.estimation.estimate import Setting, quick_llc
from lambda_hat.estimation.trace import averaged_loss
from lambda_hat.posterior import localise
from lambda_hat.run import publish as results
from lambda_hat.run.accounting import Ledger, Pace
from lambda_hat.run.kernel import start_again_if_changed
from lambda_hat.run.memory import give_back
from lambda_hat.run.progress import Log, Reporter, Silent
from lambda_hat.run.provenance import place, provenance
from lambda_hat.run.signals import Interrupted, Stop
from lambda_hat.run.summary import duration, with_error
from lambda_hat.run.target import NonFinite, RunError, ensure_target, load_target
from lambda_hat.samplers.base import sampler_of
from lambda_hat.sampling.compilation_cache import CompilationCache, compilation_cache
from lambda_hat.sampling.ensemble import CAPACITY, Ensemble
from lambda_hat.store import checkpoint
from lambda_hat.store.layout import Store, StoreError, open_log, write_config, write_status
from lambda_hat.store.lease import Lease, LeaseLost
from lambda_hat.store.runs import claim, finished

__all__ = ["Interrupted", "Outcome", "RunError", "Stop", "ensure_target", "execute"]

# A target MCSE is looked at again when the trace has grown by this factor: the check costs about a second.
_GROWTH_BETWEEN_CHECKS = 1.3
# Clusters count files.
_CHUNKS_BEFORE_MERGE = 48


@dataclass(frozen=True)
class Outcome:
    """Where a run's analysis.json is, and whether it was found rather than made."""

    analysis: Path
    was_found: bool


def execute(job: Job, store: Store, reporter: Reporter | None = None, stop: Stop | None = None) -> Outcome:
    """Make the run, or find it finished, and return where its analysis is.

    Args:
        job: What to run. ``rerun`` is not looked at: who submits calls :func:`lambda_hat.store.runs.archive`.
        store: Where it lives.
        reporter: Receives the progress.
        stop: Set its ``signum`` from a signal handler of your own to end the run after the current chunk.

    Raises:
        Interrupted: after SIGTERM or SIGINT; everything is committed.
        RunError: the run cannot be done (non-finite loss, a checkpoint of another kernel version).
        lambda_hat.store.lease.LeaseLost: a newer owner has taken the run over.
    """
    reporter = reporter or Silent()
    asked = store, job.target_id, job.run_id, job.budget
    found = finished(*asked)
    if found is not None:
        return Outcome(found, was_found=True)
    directory = store.run_dir(job.target_id, job.run_id)
    with compilation_cache(store.cache_dir) as cache:
        ensure_target(job, store, reporter)
        directory.mkdir(parents=True, exist_ok=True)
        lease = claim(directory, lambda: finished(*asked) is not None, reporter.line)
        if lease is None:
            return execute(job, store, reporter, stop)
        with lease, open_log(directory) as file:
            log = Log(file, reporter)
            start_again_if_changed(job, store, log)
            write_config(directory, job.to_dict(), lease)
            try:
                with (stop or Stop()).listening() as listening, jax.enable_x64(job.sampler.dtype == "float64"):
                    outcome = _Run(job, store, directory, lease, cache, log, listening).to_the_end()
            except Interrupted as interruption:
                write_status(directory, lease, state="interrupted", error=str(interruption))
                raise
            except LeaseLost:
                raise
            except Exception as error:  # the edge of a run: recorded for `why` and `retry`, then raised
                log.line(f"failed: {error}")
                with contextlib.suppress(StoreError):  # it may be the store that failed: that error is raised
                    write_status(directory, lease, state="failed", error=str(error), traceback=traceback.format_exc())
                raise
    return outcome


@dataclass
class _Run:
    """One run under its lease, from its last commit to its published analysis."""

    job: Job
    store: Store
    directory: Path
    lease: Lease
    cache: CompilationCache
    reporter: Reporter
    stop: Stop
    ledger: Ledger = field(default_factory=Ledger)
    pace: Pace = field(default_factory=Pace)
    mcse: float | None = None
    checked_at: int = 0
    losses: list[np.ndarray] = field(default_factory=list)

    def to_the_end(self) -> Outcome:
        target, self.meta = load_target(self.job, self.store)
        nbeta = self.job.posterior.resolve_nbeta(target.num_data)
        sampler = sampler_of(self.job)
        self.ensemble = Ensemble(
            sampler,
            localise(target, nbeta, self.job.posterior.gamma),
            self.job.num_chains,
            self.job.seed,
        )
        loss_at_w0 = float(self.ensemble.posterior.loss_at_w0)
        if not np.isfinite(loss_at_w0):
            raise RunError(
                f"{self.job.run_id}: L_n(w0) needs to be finite in {self.job.sampler.dtype}, got {loss_at_w0}"
            )
        self.setting = Setting(
            nbeta=nbeta,
            gamma=self.job.posterior.gamma,
            dim=target.dim,
            num_data=target.num_data,
            loss_at_w0=loss_at_w0,
            report=self.meta["report"],
            num_warmup=sampler.num_warmup,
            batch_size=sampler.traits.batch_size,
            bias_knob=sampler.traits.bias_knob,
            noise_gain=sampler.traits.noise_gain,
            columns=sampler.traits.columns,
        )
        state = self._restore()
        self._status("running")
        while not self._is_done():
            if self.ledger.phase == "warmup" and self.ledger.step >= self.job.sampler.num_warmup:
                state = self.ensemble.finish(state)
                self.ledger.phase, self.ledger.step, self.pace, self.losses = "sampling", 0, Pace(), []
            state = self._chunk(state)
            if self.stop.signum is not None and not self._is_done():
                raise Interrupted(self.stop.signum, self.directory)
        origin, trace = self._merge_trace(state)
        # The estimate needs none of them, and on a large model they are most of the memory.
        del state, target, self.ensemble
        give_back()
        return Outcome(self._publish(origin, trace), was_found=False)

    def _restore(self) -> Any:
        """The state of the last commit, or a fresh one."""
        device = jax.devices()[0]
        here = place(device.platform, device.device_kind)
        carry = checkpoint.load_carry(self.directory)
        if carry is None:
            started = time.monotonic()
            state, info = jax.block_until_ready(self.ensemble.init())
            self.ledger.seconds["compile"] += time.monotonic() - started
            self.ledger.gradients = int(np.asarray(info.gradients, dtype=np.int64).sum())
        else:
            for skipped in carry.skipped:
                self.reporter.line(f"warning: {skipped}; resuming from the checkpoint before it")
            self.ledger = Ledger.from_dict(carry.meta["ledger"])
            state = self._fit(carry.leaves)
            self.reporter.line(f"resuming at {self.ledger.phase} step {self.ledger.step}")
            trace = results.read_trace(self.directory, self.ledger, "sampling")
            self.losses = [averaged_loss(trace)] if trace else []
        if not self.ledger.places or self.ledger.places[-1]["place"] != here:
            since = {"phase": self.ledger.phase, "step": self.ledger.step}
            self.ledger.places.append({"place": here, "from": since})
        return state

    def _fit(self, leaves: list[np.ndarray]) -> Any:
        expected, structure = jax.tree.flatten(self.ensemble.template())
        got = [(leaf.shape, leaf.dtype) for leaf in leaves]
        if got != [(leaf.shape, leaf.dtype) for leaf in expected]:
            raise RunError(
                f"{self.directory}: its checkpoint needs the state of this version's {self.job.sampler_name}, "
                f"got another layout, so other code made it; rerun=true makes the run anew"
            )
        return jax.tree.unflatten(structure, [jax.numpy.asarray(leaf) for leaf in leaves])

    def _chunk(self, state: Any) -> Any:
        """Advance by a few seconds' worth of steps and commit."""
        ledger = self.ledger
        if self.pace.seconds_a_step is None:
            started = time.monotonic()
            state, _ = jax.block_until_ready(self.ensemble.advance(state, ledger.phase, ledger.step, 0))
            ledger.seconds["compile"] += time.monotonic() - started
            self.cache.publish()
            give_back()
        length = self._next_length()
        started = time.monotonic()
        state, arrays = self.ensemble.advance(state, ledger.phase, ledger.step, length)
        seconds = time.monotonic() - started
        gradients = int(arrays["gradients"].astype(np.int64).sum())
        self.pace.observe(length, seconds, gradients)
        if not np.isfinite(arrays["loss"]).any():
            raise NonFinite(
                f"{self.job.run_id}: L_n(w) needs to be finite, got none in {ledger.phase} steps {ledger.step} to "
                f"{ledger.step + length} of any chain; try a smaller sampler.step_size, or look at the data"
            )
        started = time.monotonic()
        self._commit(state, arrays, length, gradients, seconds)
        self.pace.commit_seconds = time.monotonic() - started
        return state

    def _next_length(self) -> int:
        ledger, budget = self.ledger, self.job.budget
        if ledger.phase == "warmup":
            steps: float | None = self.job.sampler.num_warmup - ledger.step
        else:
            steps = None if budget.draws is None else budget.draws - ledger.step
        limits = {
            "steps": steps,
            "gradients": None if budget.gradients is None else budget.gradients - ledger.gradients,
            "seconds": None if budget.seconds is None else budget.seconds - ledger.computing,
        }
        return self.pace.next_length(limits, CAPACITY)

    def _commit(self, state: Any, arrays: dict[str, np.ndarray], length: int, gradients: int, seconds: float) -> None:
        ledger = self.ledger
        self.lease.check()
        self.lease.moved()
        name = checkpoint.save_trace(
            self.directory, self.lease.epoch, ledger.phase, ledger.step, ledger.step + length, arrays
        )
        ledger.record(name, length, gradients, seconds)
        if len(ledger.chunks) >= _CHUNKS_BEFORE_MERGE:
            ledger.chunks = checkpoint.merge_trace(self.directory, self.lease.epoch, ledger.chunks)
        self._save_carry(state)
        self._tell(averaged_loss(arrays).T)

    def _tell(self, losses: np.ndarray) -> None:
        """The running LLC with its error: in warm-up that of the last chunk, in sampling that of all draws."""
        ledger = self.ledger
        self.losses = [losses] if ledger.phase == "warmup" or not self.losses else [*self.losses, losses]
        quick = quick_llc(np.concatenate(self.losses, axis=1), self.setting)
        self._status("running", llc=quick.llc, llc_mcse=quick.mcse)
        total = self.job.sampler.num_warmup if ledger.phase == "warmup" else self.job.budget.draws
        of = "" if total is None else f" of {total}"
        words = f"{ledger.phase} {ledger.step}{of}, {duration(ledger.computing)}: LLC {with_error(*quick)}"
        self.reporter.status(f"{self.job.run_id} {words}")

    def _save_carry(self, state: Any) -> None:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
        version = self.ensemble.sampler.kernel_version
        meta = {"ledger": self.ledger.to_dict(), "trace_files": self.ledger.chunks, "kernel_version": version}
        position = self.ledger.step + (self.job.sampler.num_warmup if self.ledger.phase == "sampling" else 0)
        checkpoint.save_carry(self.directory, self.lease.epoch, position, leaves, meta)

    def _status(self, state: str, **more: Any) -> None:
        ledger = self.ledger
        write_status(
            self.directory, self.lease, state=state, phase=ledger.phase, step=ledger.step, gradients=ledger.gradients,
            seconds=ledger.computing, **more,
        )  # fmt: skip

    def _is_done(self) -> bool:
        ledger, budget = self.ledger, self.job.budget
        if budget.mcse is not None and ledger.draws >= max(100, self.checked_at * _GROWTH_BETWEEN_CHECKS):
            self.checked_at = ledger.draws
            trace = results.read_trace(self.directory, ledger, "sampling")
            self.mcse = results.checked_mcse(trace, self.setting, budget.mcse)
        return budget.spent(ledger.progress(self.mcse)) is not None

    def _merge_trace(self, state: Any) -> tuple[results.Origin, dict[str, np.ndarray]]:
        """Gather the trace in one file, let the carry point at it, and drop the chunk files."""
        self.lease.check()
        ledger = self.ledger
        device = jax.devices()[0]
        dtype = self.job.sampler.dtype
        made = provenance(device.platform, device.device_kind, dtype)
        origin = results.Origin(self.job, self.meta, self.setting, made, self.ensemble.tuned(state))
        trace = results.merge_trace(self.directory, ledger, origin, self.lease)
        ledger.merged = {
            "warmup": self.job.sampler.num_warmup if ledger.phase == "sampling" else ledger.step,
            "sampling": ledger.draws,
        }
        ledger.chunks = []
        self._save_carry(state)
        checkpoint.keep_newest(self.directory, self.lease.epoch)
        return origin, trace

    def _publish(self, origin: results.Origin, trace: dict[str, np.ndarray]) -> Path:
        path = results.publish(self.lease, self.ledger, origin, trace)
        self._status("finished")
        return path
