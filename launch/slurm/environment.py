"""What SLURM's commands may see of the environment they are called from.

Inside an allocation (``salloc``, a notebook's job) SLURM has described that allocation in the environment, and a user's
SBATCH_* variables take precedence over what an sbatch script says. Both would change what a sweep asked for, so
commands are called without them. What a preset leaves open is read from SBATCH_* here, and kept in the manifest.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from lambda_hat.config.schema import Document, Node

# Where the cluster is, and who asks.
_KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_TIME_FORMAT"})
_PREFIXES = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_")
# The devices of the driver's own allocation.
_DEVICES = frozenset(
    {
        "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK",
    }
)  # fmt: skip
# Which field of a preset each variable may fill, if it is null.
_FIELDS = {
    "SBATCH_ACCOUNT": "account", "SBATCH_CONSTRAINT": "constraint", "SBATCH_MEM_PER_CPU": "mem_per_cpu",
    "SBATCH_MEM_PER_GPU": "mem_per_gpu", "SBATCH_MEM_PER_NODE": "mem_gb", "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos", "SBATCH_RESERVATION": "reservation", "SBATCH_TIMELIMIT": "timeout_min",
}  # fmt: skip
# Fields of which SLURM takes one.
_MEMORY = ("mem_gb", "mem_per_cpu", "mem_per_gpu")
# Options that the presets have no field for, as additional_parameters names them.
_OPTIONS = {"mem_gb": "mem", "reservation": "reservation"}


class Inherited(NamedTuple):
    """A preset after the environment has filled what it left open.

    Args:
        config: The preset's fields.
        words: What came from the environment and what of it was ignored, one sentence each.
    """

    config: Document
    words: list[str]


def inherit(config: Node) -> Inherited:
    """Fill the open fields of a preset from this process's SBATCH_* variables."""
    filled, words = dict(config), list[str]()
    for variable in sorted(name for name in os.environ if name.startswith("SBATCH_")):
        value, field = os.environ[variable], _FIELDS.get(variable)
        if field is None:
            words.append(f"{variable}={value} is ignored: set it in hydra.launcher.additional_parameters")
        elif (owner := _set_already(filled, field)) is not None:
            words.append(f"{variable}={value} is ignored: {owner} is set")
        elif field in _OPTIONS:
            options = {**(filled.get("additional_parameters") or {}), _OPTIONS[field]: value}
            filled["additional_parameters"] = options
            words.append(f"--{_OPTIONS[field]}={value} comes from {variable}")
        else:
            filled[field] = value
            words.append(f"hydra.launcher.{field}={value} comes from {variable}")
    return Inherited(filled, words)


def _set_already(config: Node, field: str) -> str | None:
    """What in the preset answers the same question as ``field``, and its value; None if the preset leaves it open."""
    options: Mapping[str, object] = config.get("additional_parameters") or {}
    rivals = _MEMORY if field in _MEMORY else (field,)
    for rival in rivals:
        if config.get(rival) is not None:
            return f"hydra.launcher.{rival}={config[rival]}"
        for option in {rival, rival.replace("_", "-"), _OPTIONS.get(rival, rival)} & set(options):
            return f"hydra.launcher.additional_parameters.{option}={options[option]}"
    return None


def without_allocation() -> dict[str, str]:
    """This process's environment without what SLURM or a user has set there for other jobs."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or not (name.startswith(_PREFIXES) or name in _DEVICES)
    }


@contextmanager
def outside_allocation() -> Iterator[None]:
    """Have the commands that others start in this block see :func:`without_allocation`."""
    removed = {name: value for name, value in os.environ.items() if name not in without_allocation()}
    for name in removed:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(removed)
