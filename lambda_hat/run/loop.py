"""A run of a store: target, lease, chunks, estimate, artifacts. The one place where a run meets its folder; how it
commits is in :mod:`lambda_hat.run.file_sink`, the loop itself in :mod:`lambda_hat.run.chunks`.
"""

import contextlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from lambda_hat.config.job import Job
from lambda_hat.config.schema import Document
from lambda_hat.estimation.statistics import Displaced, Setting
from lambda_hat.posterior import localise
from lambda_hat.run import publish as results
from lambda_hat.run.accounting import Ledger
from lambda_hat.run.chunks import Chunks, setting_of
from lambda_hat.run.displaced import displaced
from lambda_hat.run.file_sink import FileSink
from lambda_hat.run.kernel import start_again_if_changed
from lambda_hat.run.memory import give_back
from lambda_hat.run.progress import Log, Reporter, Silent
from lambda_hat.run.provenance import provenance
from lambda_hat.run.signals import Interrupted, Stop
from lambda_hat.run.target import RunError, ensure_target, load_target
from lambda_hat.samplers.base import sampler_of
from lambda_hat.sampling.compilation_cache import CompilationCache, compilation_cache
from lambda_hat.sampling.ensemble import Ensemble
from lambda_hat.store.checkpoint import forget_state
from lambda_hat.store.files import plain
from lambda_hat.store.layout import Store, StoreError, open_log, read_json, write_config, write_json, write_status
from lambda_hat.store.lease import Lease, LeaseLost
from lambda_hat.store.runs import claim, finished
from lambda_hat.targets.base import OwnModel, Target

__all__ = ["Interrupted", "Outcome", "RunError", "Stop", "ensure_target", "execute"]


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


@dataclass(frozen=True)
class _Run:
    """One run under its lease, from its last commit to its published analysis."""

    job: Job
    store: Store
    directory: Path
    lease: Lease
    cache: CompilationCache
    reporter: Reporter
    stop: Stop

    def to_the_end(self) -> Outcome:
        sink = FileSink(self.job, self.directory, self.lease, self.cache, self.reporter)
        ledger, origin, trace = self._sample(sink)
        give_back()
        path = results.publish(self.lease, ledger, origin, trace)
        sink.status(ledger, "finished")
        if not self.job.store.keep_state:
            forget_state(self.directory, self.lease.epoch)
        return Outcome(path, was_found=False)

    def _sample(self, sink: FileSink) -> tuple[Ledger, results.Origin, dict[str, np.ndarray]]:
        """Draw, and merge the trace. The estimate needs neither target nor chains, which end here: on a large model
        they are most of the memory."""
        job = self.job
        target, meta = load_target(job, self.store, self._once)
        nbeta, gamma = job.posterior.resolve_nbeta(target.num_data), job.posterior.gamma
        ensemble = Ensemble(sampler_of(job), localise(target, nbeta, gamma), job.num_chains, job.seed)
        setting = setting_of(job.run_id, ensemble, nbeta, gamma, meta["report"], job.posterior.quantity)
        setting = replace(setting, displaced=self._displaced(target, setting))
        chunks = Chunks(setting, ensemble, job.budget, sink, self.stop, self.reporter)
        ended = chunks.to_the_end()
        if ended.signum is not None:
            raise Interrupted(ended.signum, self.directory)
        self.lease.check()
        device = jax.devices()[0]
        made = provenance(device.platform, device.device_kind, job.sampler.dtype)
        origin = results.Origin(job, meta, setting, made, ensemble.tuned(ended.state))
        return chunks.ledger, origin, sink.merge(chunks.ledger, ended.state, origin)

    def _displaced(self, target: Target, setting: Setting) -> Displaced | None:
        """What is known of a w0 that is no minimum: looked at when the run begins, and kept for when it goes on."""
        path, model = self.directory / "shift.json", self.job.model
        kept = read_json(path)
        if kept is not None:
            return Displaced.of(kept["shift"], kept["groups"])
        found = displaced(target, setting, lambda: model.gradient_groups(target) if isinstance(model, OwnModel) else [])
        if found is not None:
            shift = None if found.shift is None else found.shift._asdict()
            write_json(path, plain({"shift": shift, "groups": list(found.groups)}), guard=self.lease)
        return found

    def _once(self, look: Callable[[], Document]) -> Document:
        """What w0 is along the free weights: looked at when the run begins, and kept for when it goes on."""
        path = self.directory / "w0.json"
        kept = read_json(path)
        if kept is not None:
            return kept["report"]
        report = plain(look())
        write_json(path, {"report": report}, guard=self.lease)
        return report
