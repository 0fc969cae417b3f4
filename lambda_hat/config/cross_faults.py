"""What is wrong with a job though each of its nodes is right."""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lambda_hat.config.schema import ConfigError, Distance, schema_path

if TYPE_CHECKING:
    from lambda_hat.config.job import DataConfig, Job, SamplerTraits

_OWN = "lambda_hat.targets.problem.own."


@runtime_checkable
class Network(Protocol):
    """A model whose outputs can be its labels (``posterior.loss=self``).

    ``self_faults``  why these data do not fit such a distance, one sentence each.
    """

    def self_faults(self, data: "DataConfig", distance: Distance) -> list[str]: ...


def cross_faults(job: "Job") -> list[str]:
    """What no single node can see."""
    strangers = _strangers(job)
    if strangers:  # whatever else was said would be of data or a training that the model has not
        return strangers
    faults = job.model.faults(job.data, job.teacher) or _self_faults(job)
    if job.sampler_name == "localiser" and not job.posterior.control:
        faults.append("sampler: localiser knows no loss and belongs to posterior.control=true; choose another")
    faults += job.sampler.traits.refuses(job.model, job.data)
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


def _strangers(job: "Job") -> list[str]:
    """The groups that model=own does not bring, and those of model=own where the model is another."""
    nodes = {name: getattr(job, name) for name in ("model", "data", "teacher", "training")}
    is_own = {name: (schema_path(type(node)) or "").startswith(_OWN) for name, node in nodes.items()}
    if is_own.pop("model"):
        return [f"{name}: model=own brings its own, so leave {name}= out" for name, own in is_own.items() if not own]
    return [f"{name}: {name}=own belongs to model=own; choose another" for name, own in is_own.items() if own]


def _self_faults(job: "Job") -> list[str]:
    """Why the model's outputs cannot be its labels, where they are asked for."""
    if job.posterior.self is None:
        return []
    if isinstance(job.model, Network):
        return job.model.self_faults(job.data, job.posterior.self)
    name = type(job.model).__name__
    return [f"posterior.loss: self needs a problem of one's own with outputs, got {name}; set loss=data and self=null"]


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
