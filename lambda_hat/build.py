"""``python -m lambda_hat.build``: only the target of a run (training, polish, checks), made or found.

What it does is imported late, so that ``--help`` answers at once.
"""

from typing import TYPE_CHECKING

from lambda_hat.config.command_line import run_app
from lambda_hat.config.startup import without_garbage_collection

if TYPE_CHECKING:
    from lambda_hat.config.compose import CommandLine


def main() -> None:
    run_app("build", _task)


def _task(command_line: "CommandLine") -> None:
    with without_garbage_collection():
        from lambda_hat.cli.single import build
    build(command_line.config)


if __name__ == "__main__":
    main()
