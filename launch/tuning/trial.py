"""A trial under way, as the driver that owns it sees it. Loads no Optuna."""

from dataclasses import dataclass, field

from lambda_hat.config.job import Job
from lambda_hat.launch.tuning.problems import Params


@dataclass
class LiveTrial:
    """A trial of this driver that has not ended.

    Args:
        number: Its number in the study.
        identifier: Its row in the database.
        params: Its parameters.
        job: Its run.
        retries: How many earlier trials had these parameters and were killed.
        rungs: The objective by step, as far as reported.
        is_pruned: The pruner has stopped it, and its element is being ended.
        is_preset: It is the method's preset, unchanged.
        failure: Why it has no result.
    """

    number: int
    identifier: int
    params: Params
    job: Job
    retries: int = 0
    rungs: dict[int, float] = field(default_factory=dict)
    is_pruned: bool = False
    is_preset: bool = False
    failure: str = ""
