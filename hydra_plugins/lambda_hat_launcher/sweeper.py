"""``hydra/sweeper=lambda_hat``: Hydra's multirun onto plan and submit. Thin, and light to import: Hydra imports every
plugin at every start, ``--help`` included."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class SweeperConf:
    _target_: str = "hydra_plugins.lambda_hat_launcher.sweeper.LambdaHatSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="lambda_hat", node=SweeperConf, provider="lambda_hat")


class LambdaHatSweeper(Sweeper):
    """Composes and validates every run before any is submitted; submits only what is missing; ends in a table."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        del task_function  # an element runs what the store holds, not a function of the driver's
        self._loader = hydra_context.config_loader
        self._config = config

    def sweep(self, arguments: list[str]) -> Sequence[Sequence[JobReturn]]:
        """Plan and submit the runs that ``arguments`` ask for.

        Returns:
            What Hydra's callbacks get: a JobReturn a run, COMPLETED (submitted or found), with the run's id.
        """
        from lambda_hat.launch.driver import Request, drive

        hydra_node = self._config.hydra
        request = Request(
            loader=self._loader,
            config_name=hydra_node.job.config_name,
            hydra_overrides=list(hydra_node.overrides.hydra),
            arguments=arguments,
            launcher=cast(dict[str, Any], OmegaConf.to_container(hydra_node.launcher, resolve=True)),
        )
        plan = drive(request)
        return [[_returned(job.to_dict(), job.run_id) for job in plan.jobs]]


def _returned(config: dict[str, Any], run_id: str) -> JobReturn:
    returned = JobReturn(cfg=OmegaConf.create(config), status=JobStatus.COMPLETED)
    returned.return_value = run_id
    return returned
