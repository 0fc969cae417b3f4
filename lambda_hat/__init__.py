"""lambda_hat: the local learning coefficient of trained models, by many samplers, with errors one can trust."""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambda_hat import samplers as samplers
    from lambda_hat.api import llc as llc
    from lambda_hat.config.schema import Budget as Budget
    from lambda_hat.curve import trajectory as trajectory
    from lambda_hat.results import load as load
    from lambda_hat.targets.checkpoints import checkpoints as checkpoints
    from lambda_hat.targets.problem import Problem as Problem
    from lambda_hat.targets.problem import built_in as built_in

# `python -m lambda_hat.sample` searches the working directory first, where a user's jax.py or random.py would take the
# place of the real one. argv[0] is -m while it imports this package; pathlib would be searched for there, too.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and sys.path[0] != os.path.dirname(__path__[0]):  # noqa: PTH120
    sys.path.append(sys.path.pop(0))

__version__ = "0.1.0"  # pyproject.toml reads it here

# Where each name of the face lives.
_NAMES = {
    "Budget": "lambda_hat.config.schema",
    "Problem": "lambda_hat.targets.problem",
    "built_in": "lambda_hat.targets.problem",
    "checkpoints": "lambda_hat.targets.checkpoints",
    "llc": "lambda_hat.api",
    "load": "lambda_hat.results",
    "trajectory": "lambda_hat.curve",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for at its first use, because importing the package must stay fast."""
    if name == "samplers":
        return importlib.import_module("lambda_hat.samplers")
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*_NAMES, "__version__", "samplers"])
