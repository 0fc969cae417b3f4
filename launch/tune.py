"""``python -m launch.tune tune=demo`` and ``lambda-hat workflow optuna --config FILE``: tune samplers by Optuna.

Everything is in :mod:`lambda_hat.launch.tuning`, and imported late, so that ``--help`` answers at once.
"""

import sys
from typing import TYPE_CHECKING

from lambda_hat.config.command_line import run_app

if TYPE_CHECKING:
    from lambda_hat.config.compose import CommandLine


def main() -> None:
    # Hydra would refuse a key that no YAML has in words of its own; the schema names its kin.
    sys.argv[1:] = [_forced(argument) for argument in sys.argv[1:]]
    run_app("tune", _task)


def _forced(argument: str) -> str:
    key, equals, _ = argument.partition("=")
    is_value = equals and key.replace(".", "").replace("_", "").isalnum() and not key.startswith("hydra")
    return f"++{argument}" if is_value and key != "tune" else argument


def _task(command_line: "CommandLine") -> None:
    from lambda_hat.launch.tuning.command import tune

    tune(command_line)


if __name__ == "__main__":
    main()
