"""``python -m lambda_hat.sample``: one run in this process; with -m a sweep, which our sweeper plugin takes over.

What it does is imported late, so that ``--help`` answers at once.
"""

from typing import TYPE_CHECKING

from lambda_hat.config.command_line import run_app
from lambda_hat.config.startup import without_garbage_collection

if TYPE_CHECKING:
    from lambda_hat.config.compose import CommandLine


def main() -> None:
    run_app("sample", _task)


def _task(command_line: "CommandLine") -> None:
    with without_garbage_collection():
        from lambda_hat.cli.single import sample
    sample(command_line.config)


if __name__ == "__main__":
    main()
