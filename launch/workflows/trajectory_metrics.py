"""Numbers of the user's own at each checkpoint of a trajectory, each found once by a process that runs their code."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lambda_hat.config.job import Job, digest
from lambda_hat.config.own_models import in_a_child
from lambda_hat.config.schema import ConfigError
from lambda_hat.store.layout import read_json, write_json

_CHILD = "lambda_hat.launch.workflows.metrics_process"


def measured(jobs: Sequence[Job], metrics: Mapping[str, str], folder: Path) -> list[dict[str, float]]:
    """The metrics at the checkpoint of each job; ``metrics.json`` in ``folder`` keeps them.

    Raises:
        ConfigError: a function does not exist, raised, or returned no number.
    """
    if not metrics:
        return [{} for _ in jobs]
    path = folder / "metrics.json"
    known = read_json(path) or {}
    models = [job.to_dict()["model"] for job in jobs]
    keys = [digest("metrics", [model["content"], model["facts"]["sources"], dict(metrics)]) for model in models]
    missing = {key: model for key, model in zip(keys, models, strict=True) if key not in known}
    if missing:
        question = {"models": list(missing.values()), "metrics": dict(metrics)}
        answer = in_a_child(_CHILD, question, ", ".join(metrics.values()), "metrics")
        if "faults" in answer:
            raise ConfigError(answer["faults"])
        known |= zip(missing, answer["values"], strict=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, known)
    return [{name: float(value) for name, value in known[key].items()} for key in keys]
