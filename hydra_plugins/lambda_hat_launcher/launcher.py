"""The nodes of ``hydra/launcher``: what the presets local, slurm_cpu and slurm_gpu may hold, and their defaults.

Light to import, since Hydra imports every plugin at every start. The sweeper ``lambda_hat`` reads the node and
submits by itself (:mod:`lambda_hat.launch.submit`); the launcher classes are there because Hydra makes one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
from omegaconf import DictConfig


class LocalLauncher(Launcher):
    """Stands for the backend ``local``."""

    def __init__(self, **params: Any) -> None:
        del params  # the sweeper reads them from the config

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        del hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Refuse: another sweeper than ours would have every run composed on the node, edits of conf/ included."""
        del job_overrides, initial_job_idx
        raise ValueError(
            "hydra/launcher: the backends local, slurm_cpu and slurm_gpu need hydra/sweeper=lambda_hat, got another "
            "sweeper; with it, use one of Hydra's own launchers (hydra/launcher=basic)"
        )


class SlurmLauncher(LocalLauncher):
    """Stands for the backends on SLURM."""


@dataclass
class LocalConf:
    """Fields of hydra/launcher=local; conf/hydra/launcher/local.yaml says what they mean."""

    _target_: str = "hydra_plugins.lambda_hat_launcher.launcher.LocalLauncher"
    array_parallelism: int | None = None
    runs_per_element: int = 1


@dataclass
class SlurmConf(SlurmQueueConf):
    """Fields of hydra/launcher=slurm_cpu and slurm_gpu: those of hydra/launcher=submitit_slurm and a few more."""

    _target_: str = "hydra_plugins.lambda_hat_launcher.launcher.SlurmLauncher"
    submitit_folder: str = ".submitit/%j"  # in the sweep's own folder; an absolute path goes elsewhere
    mem_gb: float | None = None  # pyright: ignore[reportIncompatibleVariableOverride]  (theirs takes whole GB only)
    name: str | None = None  # pyright: ignore[reportIncompatibleVariableOverride]  (theirs is Hydra's job name)
    array_parallelism: int | None = 256  # pyright: ignore[reportIncompatibleVariableOverride]  (null: no limit)
    gpu_type: str | None = None
    runs_per_element: int = 1
    max_num_timeout: int = 20
    additional_parameters: dict[str, Any] = field(default_factory=lambda: {"requeue": True})


for _name, _node in (("lambda_hat_local", LocalConf), ("lambda_hat_slurm", SlurmConf)):
    ConfigStore.instance().store(group="hydra/launcher", name=_name, node=_node, provider="lambda_hat")
