"""The problem that a function of the user's returns."""

from collections.abc import Mapping
from typing import Any

import jax

from lambda_hat.config.schema import ConfigError
from lambda_hat.config.sentences import kind_of
from lambda_hat.config.user_module import UserFunction, user_function
from lambda_hat.targets.problem.problem import Problem
from lambda_hat.targets.problem.tracing import told


def as_planned(path: str, args: Mapping[str, Any], folder: str | None, computes: str, version: str) -> Problem:
    """The problem of the function at ``path``, whose loss is the one that was planned.

    Args:
        path: Dotted, as of :func:`lambda_hat.config.user_module.user_function`.
        args: Of the function.
        folder: Where its module is.
        computes: The id of the planned loss.
        version: Of JAX, which wrote it.

    Raises:
        ConfigError: there is no such function, it raised, or its loss computes something else.
    """
    function = user_function(path, folder, told)
    problem = problem_of(path, function, args)
    if problem.loss_id != computes:
        other = "" if jax.__version__ == version else f" (by JAX {version}; here it is {jax.__version__})"
        raise ConfigError(
            [
                f"model.problem: the loss of {path} in {function.file} is another one than was planned"
                f"{other}: it computes {problem.loss_id}, and the runs are of {computes}; undo the change, "
                "or submit the sweep again"
            ]
        )
    return problem


def problem_of(path: str, function: UserFunction, args: Mapping[str, Any]) -> Problem:
    """The problem that a user's function returns.

    Raises:
        ConfigError: it is neither a function nor a Problem, raised, or returned something else.
    """
    value = function.value
    if isinstance(value, Problem):
        if args:
            raise ConfigError([f"model.args: {path} is a Problem, which takes none; name a function"])
        return value
    if not callable(value):
        raise ConfigError([f"model.problem: {path} needs to be a function, got {kind_of(value)}"])
    try:
        made = value(**args)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError([f"model.problem: {path}({_shown(args)}) raised {told(error)}"]) from error
    if not isinstance(made, Problem):
        raise ConfigError([f"model.problem: {path} needs to return a lambda_hat.Problem, got {kind_of(made)}"])
    return made


def _shown(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items())
