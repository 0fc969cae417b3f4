"""Files of workflows, for tests."""

from pathlib import Path
from typing import Any

import yaml

QUADRATIC = {"model": "quadratic", "overrides": {"model.curvatures": [0.01, 0.1, 1, 10], "data.n": 5000}}
DOCUMENT: dict[str, Any] = {
    "experiment": "tour",
    "overrides": {"num_chains": 3, "budget": "draws", "budget.draws": 50, "store.plots": "none"},
    "targets": [QUADRATIC, {"model": "deep_linear", "seed": 7, "overrides": {"training": {"learning_rate": 0.5}}}],
    "samplers": [
        {"name": "hmc", "overrides": {"sampler.num_warmup": 60}},
        {"name": "sgld", "seed": 3, "overrides": {"sampler": {"step_size": 1e-5, "precond": "adam"}}},
        {"name": "hmc", "overrides": {"posterior": "local", "budget.draws": 20}},
    ],
}


def written(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "workflow.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
