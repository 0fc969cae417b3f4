"""Targets at the edge: find or build one in the store, and bring one back as arrays."""

import contextlib
import time
import traceback
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from lambda_hat.config.job import Job
from lambda_hat.config.schema import ConfigError, Document
from lambda_hat.run.progress import Reporter, Silent
from lambda_hat.run.provenance import provenance
from lambda_hat.store.consistency import check_target
from lambda_hat.store.layout import Store, StoreError, write_status
from lambda_hat.store.lease import Lease, LeaseLost
from lambda_hat.store.runs import claim
from lambda_hat.targets.base import (
    DataSet,
    Leaf,
    Loss,
    OwnModel,
    SelfLabelled,
    Target,
    build,
    data_set,
    loss_of,
    training_of,
)
from lambda_hat.targets.restricted import restricted
from lambda_hat.targets.w0_report import report_of


class RunError(RuntimeError):
    """The run cannot go on, and going on with the same job would not help."""


class NonFinite(RunError):
    """Every chain has left the region where the loss is finite: these settings diverge."""


def ensure_target(job: Job, store: Store, reporter: Reporter | None = None) -> Document:
    """Find or build the job's target and return its meta.json; of several builders, one builds and all read."""
    reporter, folder = reporter or Silent(), store.target_dir(job.target_id)
    while (meta := store.read_meta(job.target_id)) is None:
        lease = claim(folder, lambda: store.read_meta(job.target_id) is not None, reporter.line)
        if lease is None:
            continue
        with lease:
            if store.read_meta(job.target_id) is None:
                try:
                    _build(job, store, reporter, lease)
                except LeaseLost:
                    raise
                except Exception as error:  # recorded for whoever waits for this target, then raised
                    words = {"error": str(error), "traceback": traceback.format_exc()}
                    with contextlib.suppress(StoreError):  # it may be the store that failed: that error is raised
                        write_status(folder, lease, state="failed", **words)
                    raise
    return meta


def _build(job: Job, store: Store, reporter: Reporter, lease: Lease) -> None:
    reporter.line(f"building {job.target_id}")
    started = time.monotonic()
    with jax.enable_x64(True):
        built = build(job)
    if not np.isfinite(built.report["loss"]):
        raise RunError(
            f"{job.target_id}: L_n(w0) needs to be finite, got {built.report['loss']}; "
            "lower training.learning_rate, or look at the data"
        )
    known = job.model.known_lambda()
    device = jax.devices()[0]
    meta = {
        "id": job.target_id,
        "num_data": built.num_data,
        "dim": built.w0.shape[0],
        "dtype": job.training.dtype,
        "report": built.report,
        "known_lambda": None if known is None else known[0],
        "known_multiplicity": None if known is None else known[1],
        "seconds": {"build": time.monotonic() - started},
        "provenance": provenance(device.platform, device.device_kind, job.training.dtype),
    }
    if isinstance(job.model, OwnModel):
        meta["own"] = job.model.provenance()
    store.publish_target(job.target_id, job.target_config, meta, built.arrays, built.w0, lease)
    for warning in built.report["warnings"]:
        reporter.line(f"warning: {warning}")


def _at_once(make: Callable[[], Document]) -> Document:
    return make()


def load_target(
    job: Job, store: Store, examined: Callable[[Callable[[], Document]], Document] = _at_once
) -> tuple[Target, Document]:
    """The job's target from the store, in the sampling dtype, and its meta.json.

    Args:
        job: Of which some weights may be free.
        store: Where its target is.
        examined: Gives what w0 is along the free weights, or of another loss, by looking (its argument), which takes
            up to 300 products with the Hessian, or as it was found before.
    """
    stored = store.load_target(job.target_id)
    check_target(store.target_dir(job.target_id), stored)
    arrays, w0, meta = stored
    if meta["num_data"] != job.data.count_rows():
        raise ConfigError(
            [f"data: {job.target_id} was built of {meta['num_data']} rows, but its data have {job.data.count_rows()}"]
        )
    if job.sampler.dtype == "float64" and meta["dtype"] == "float32":
        raise ConfigError(
            [f"sampler.dtype: a float64 run needs a target built in float64, got {job.target_id} in float32"]
        )

    loss, data = _loss_and_data(job, arrays, w0)

    def target_in(dtype: str) -> Target:
        leaves = jax.tree.map(lambda leaf: on_device(leaf, dtype), data)
        target = Target(on_device(w0, dtype), leaves, loss, meta["num_data"])
        return target if job.free is None else restricted(target, job.free, job.model.parameters(job.data))

    target = target_in(job.sampler.dtype)
    if job.free is None and job.posterior.self is None:
        return target, meta
    # Of the free weights, or of another loss: what w0 is as stored, not as rounded for the run; no asymptotic value is
    # known.
    with jax.enable_x64(True):
        report = examined(lambda: _report(job, target_in("float64"), meta["report"]))
    return target, {**meta, "report": report, "dim": target.dim, "known_lambda": None, "known_multiplicity": None}


def _loss_and_data(job: Job, arrays: Mapping[str, Leaf], w0: np.ndarray) -> tuple[Loss, DataSet]:
    """The loss that is asked for, and its data on the host."""
    loss = loss_of(job)
    data = data_set(loss, arrays)
    if job.posterior.self is None:
        return loss, data
    assert isinstance(job.model, SelfLabelled)  # or the job has been refused
    with jax.enable_x64(True):
        target = Target(jnp.asarray(w0), data, loss, job.data.count_rows()).astype("float64")
        return job.model.self_loss(job.posterior.self), job.model.self_data(target, data, job.posterior.self)


def _report(job: Job, target: Target, whole: Document) -> Document:
    """What w0 is of some weights of a target, or of another loss; ``whole``: of all."""
    if isinstance(job.model, OwnModel):
        return job.model.described(target)
    return report_of(target, training_of(job), whole["training"])


def on_device(array: Leaf, dtype: str) -> jax.Array:
    """The array where JAX computes, floating-point ones in ``dtype``."""
    # Converted here, and not by jnp.asarray: each shape would be a small program of its own.
    if jnp.issubdtype(array.dtype, jnp.floating):
        return jax.device_put(np.asarray(array).astype(dtype))
    # JAX may keep what it is given as it is, and a mapped file could change under it.
    return jax.device_put(np.array(array) if isinstance(array, np.memmap) else array)
