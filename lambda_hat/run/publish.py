"""From a finished trace to what is published: trace.nc and analysis.json."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lambda_hat.config.job import Job
from lambda_hat.config.schema import Document
from lambda_hat.estimation.estimate import LLC, Estimate, Setting, beside_exact, efficiency, estimate, quick_llc
from lambda_hat.estimation.reason import MAX_RHAT, MIN_ESS
from lambda_hat.estimation.trace import COLUMNS, averaged_loss
from lambda_hat.run.accounting import Ledger, TracePhase
from lambda_hat.store import trace_digest, trace_file
from lambda_hat.store.checkpoint import Chunk, load_trace
from lambda_hat.store.layout import StoreError, write_json
from lambda_hat.store.lease import Lease

ANALYSIS_SCHEMA = 1


@dataclass(frozen=True)
class Origin:
    """What an analysis says about its run, beside the numbers of the estimate."""

    job: Job
    meta: dict[str, Any]
    setting: Setting
    provenance: dict[str, Any]
    tuned: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def exact_llc(self) -> float | None:
        """The exact finite value at this nbeta and gamma, where the model knows it, which is for all weights."""
        if self.job.free is not None:
            return None
        return self.job.model.exact_llc(self.setting.nbeta, self.setting.gamma, self.meta["report"])


def checked_mcse(trace: dict[str, np.ndarray], setting: Setting, wanted: float) -> float | None:
    """The relative MCSE of the LLC, or None while R-hat or the ESS fail the checks of the verdict.

    The quick error is looked at first: ArviZ is not asked about a trace that is far from ``wanted``.
    """
    quick = quick_llc(averaged_loss(trace), setting)
    if not quick.mcse <= 2.0 * wanted * abs(quick.llc):
        return None
    return settled_mcse(estimate(trace, setting))


def settled_mcse(found: Estimate) -> float | None:
    """The MCSE as a fraction of |LLC|, if the checks of mixing pass."""
    is_settled = found.rhat <= MAX_RHAT and min(found.ess_bulk, found.ess_tail) >= MIN_ESS
    return found.llc_mcse / abs(found.llc) if is_settled and found.llc != 0 else None


def read_trace(directory: Path, ledger: Ledger, phase: TracePhase) -> dict[str, np.ndarray]:
    """All steps of ``phase`` that the ledger names, as arrays (chain, step); empty when there are none."""
    parts: list[dict[str, np.ndarray]] = []
    merged = ledger.merged[phase]
    if merged:
        stored = trace_file.read_trace_file(directory / "trace.nc")
        whole = stored.trace if phase == "sampling" else stored.warmup
        if whole["loss"].shape[1] < merged:
            raise StoreError(
                f"{directory / 'trace.nc'}: needs {merged} {phase} steps, which the checkpoint counts on, got "
                f"{whole['loss'].shape[1]}: it was replaced by an older one; rerun=true makes the run anew"
            )
        parts.append({name: column[:, :merged] for name, column in whole.items()})
    names = [name for name in ledger.chunks if Chunk.parse(name).phase == phase]
    if names:
        parts.append({name: column.T for name, column in load_trace(directory, names).items()})
    if not parts:
        return {}
    # What was begun before a column was added goes on without it.
    names = [name for name in parts[0] if all(name in part for part in parts)]
    # Chunks are stored by draw. The order in memory is that of the sums below, and so of their last bits.
    return {name: np.ascontiguousarray(np.concatenate([part[name] for part in parts], axis=1)) for name in names}


def merge_trace(directory: Path, ledger: Ledger, origin: Origin, lease: Lease) -> dict[str, np.ndarray]:
    """Write all that the ledger names into trace.nc, and return the draws (chain, draw). Nothing is removed: the chunk
    files go when a carry no longer names them."""
    warmup = read_trace(directory, ledger, "warmup")
    sampling = read_trace(directory, ledger, "sampling")
    # A phase without steps still has its columns; spent by the initialisation alone, a run has not even warm-up's.
    nothing = {name: np.zeros((origin.job.num_chains, 0)) for name in COLUMNS}
    columns = {name: column[:, :0] for name, column in (sampling or warmup or nothing).items()}
    attributes = {
        "run_id": origin.job.run_id,
        "target_id": origin.job.target_id,
        "lambda_hat_version": origin.provenance["versions"]["lambda-hat"],
    }
    with trace_digest.published(directory / "trace.nc", lease) as temporary:
        trace_file.write_trace_file(temporary, sampling or columns, warmup or columns, origin.setting, attributes)
    return sampling or columns


def publish(lease: Lease, ledger: Ledger, origin: Origin, trace: dict[str, np.ndarray]) -> Path:
    """Estimate from the merged trace, and publish analysis.json in the folder of ``lease``."""
    found = estimate(trace, origin.setting)
    path = lease.folder / "analysis.json"
    write_json(path, {**analysis(ledger, origin, found), "epoch": lease.epoch}, guard=lease)
    return path


def analysis(ledger: Ledger, origin: Origin, found: Estimate) -> Document:
    """The document analysis.json, whose schema is docs/store.md."""
    job, setting = origin.job, origin.setting
    fge = ledger.gradients / setting.num_data
    progress = ledger.progress(settled_mcse(found))
    known, multiplicity = origin.meta["known_lambda"], origin.meta["known_multiplicity"]
    exact = origin.exact_llc
    return {
        "schema": ANALYSIS_SCHEMA,
        "run_id": job.run_id,
        "target_id": job.target_id,
        "sampler": job.sampler_name,
        **found.to_dict(),
        **efficiency(found, fge, ledger.computing),
        "exact_llc": exact,
        "exact": None if exact is None else beside_exact(LLC(found.llc, found.llc_mcse), LLC(exact, 0.0))._asdict(),
        "known_lambda": known,
        "known_multiplicity": multiplicity,
        "tuned": origin.tuned,
        "nbeta": setting.nbeta,
        "gamma": setting.gamma,
        "loss_at_w0": setting.loss_at_w0,
        "dim": setting.dim,
        "num_data": setting.num_data,
        "gradients": ledger.gradients,
        "fge": fge,
        "seconds": {"build": origin.meta["seconds"]["build"], **ledger.seconds},
        "progress": dataclasses.asdict(progress),
        "stopped_by": job.budget.spent(progress),
        "draws_used": [0, ledger.draws],
        "history": [list(row) for row in ledger.history],
        "target_report": origin.meta["report"],
        "config": job.to_dict(),
        "places": ledger.places,
        "provenance": origin.provenance,
    }
