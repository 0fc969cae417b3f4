"""What is wrong with a job though each of its nodes is right."""

from typing import TYPE_CHECKING

from lambda_hat.config.schema import ConfigError

if TYPE_CHECKING:
    from lambda_hat.config.job import Job, SamplerTraits


def cross_faults(job: "Job") -> list[str]:
    """What no single node can see."""
    faults = job.model.faults(job.data, job.teacher) + job.sampler.traits.refuses(job.model, job.data)
    try:
        faults += _size_faults(job, fits=not faults)
    except ConfigError as error:  # of a file, or of a beta that needs more rows
        faults += error.faults
    if job.sampler.dtype == "float64" and job.training.dtype == "float32":
        faults.append(
            "sampler.dtype: a float64 run needs a target built in float64, got training.dtype=float32; "
            "set training.dtype=float64 or sampler.dtype=float32"
        )
    return faults


def _size_faults(job: "Job", *, fits: bool) -> list[str]:
    """Why so many rows, or so few parameters, cannot be sampled; ``fits``: the data are of the model's kind."""
    traits, num_rows = job.sampler.traits, job.data.count_rows()
    faults = batch_faults(traits, num_rows)
    job.posterior.resolve_nbeta(num_rows)
    if not fits:
        return faults
    if job.free is not None and traits.whole_only:
        faults.append(
            f"posterior.restrict: {job.sampler_name} draws all weights; set posterior.restrict=null or use sampler=hmc"
        )
    if traits.least_dim > 1:
        faults += dim_faults(job.sampler_name, traits, job.num_free)
    return faults


def batch_faults(traits: "SamplerTraits", num_rows: int) -> list[str]:
    """Why a sampler cannot take its minibatches from so many rows."""
    size = traits.batch_size
    if size is None or size <= num_rows:
        return []
    return [f"sampler.batch_size: needs at most the n = {num_rows} rows of the data, got {size}"]


def dim_faults(name: str, traits: "SamplerTraits", num_free: int) -> list[str]:
    """Why the sampler ``name`` cannot move so few weights."""
    if num_free >= traits.least_dim:
        return []
    return [
        f"sampler: {name} needs at least {traits.least_dim} parameters that are free, got {num_free}; use sampler=hmc"
    ]
