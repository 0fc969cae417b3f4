"""From a finished trace to what is published: trace.nc and analysis.json."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lambda_hat.config.job import Job
from lambda_hat.config.schema import Document
from lambda_hat.estimation.estimate import Estimate, Setting, estimate
from lambda_hat.run.accounting import Ledger, TracePhase
from lambda_hat.run.document import Facts, document_of
from lambda_hat.run.sink import joined, with_columns
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
        """The exact finite value at this nbeta and gamma, where the model knows it."""
        return self.job.exact_llc(self.setting.nbeta, self.setting.gamma, self.meta["report"])


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
    return joined(parts)


def merge_trace(directory: Path, ledger: Ledger, origin: Origin, lease: Lease) -> dict[str, np.ndarray]:
    """Write all that the ledger names into trace.nc, and return the draws (chain, draw). Nothing is removed: the chunk
    files go when a carry no longer names them."""
    phases = read_trace(directory, ledger, "sampling"), read_trace(directory, ledger, "warmup")
    sampling, warmup = with_columns(*phases, origin.job.num_chains)
    attributes = {
        "run_id": origin.job.run_id,
        "target_id": origin.job.target_id,
        "lambda_hat_version": origin.provenance["versions"]["lambda-hat"],
    }
    with trace_digest.published(directory / "trace.nc", lease) as temporary:
        trace_file.write_trace_file(temporary, sampling, warmup, origin.setting, attributes)
    return sampling


def publish(lease: Lease, ledger: Ledger, origin: Origin, trace: dict[str, np.ndarray]) -> Path:
    """Estimate from the merged trace, and publish analysis.json in the folder of ``lease``."""
    found = estimate(trace, origin.setting)
    path = lease.folder / "analysis.json"
    write_json(path, {**analysis(ledger, origin, found), "epoch": lease.epoch}, guard=lease)
    return path


def analysis(ledger: Ledger, origin: Origin, found: Estimate) -> Document:
    """The document analysis.json, whose schema is docs/store.md."""
    job, meta = origin.job, origin.meta
    names = {
        "schema": ANALYSIS_SCHEMA,
        "run_id": job.run_id,
        "target_id": job.target_id,
        "sampler": job.sampler_name,
    }
    facts = Facts(
        names,
        job.to_dict(),
        job.budget,
        origin.setting,
        origin.provenance,
        origin.tuned,
        meta["seconds"]["build"],
        origin.exact_llc,
        *(meta[name] if job.posterior.quantity == "llc" else None for name in ("known_lambda", "known_multiplicity")),
    )
    return document_of(ledger, found, facts)
