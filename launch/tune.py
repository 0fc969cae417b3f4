"""``python -m launch.tune tune=demo`` and ``lambda-hat workflow optuna --config FILE``: tune samplers by Optuna.

Everything is in :mod:`lambda_hat.launch.tuning`; here the two command lines meet. Imports are late, so that ``--help``
answers at once.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_hat.config.command_line import CommandLine, run_app
from lambda_hat.config.schema import Document

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def main() -> None:
    # Hydra would refuse a key that no YAML has in words of its own; the schema names its kin.
    sys.argv[1:] = [_forced(argument) for argument in sys.argv[1:]]
    run_app("tune", tune)


def _forced(argument: str) -> str:
    key, equals, _ = argument.partition("=")
    is_value = equals and key.replace(".", "").replace("_", "").isalnum() and not key.startswith("hydra")
    return f"++{argument}" if is_value and key != "tune" else argument


def tune(command_line: CommandLine) -> None:
    """Run the session that Hydra composed."""
    from lambda_hat.config.compose import plain
    from lambda_hat.config.yaml_file import presets_loader

    document = plain(command_line.config)
    words = {name: bool(document.pop(name, False)) for name in ("dry_run", "resume")}
    with presets_loader() as loader:
        _run(document, command_line.launcher, loader, **words)


def tune_file(
    config: Path, backend: str | None, sets: Sequence[str], *, dry_run: bool = False, resume: bool = False
) -> None:
    """Run the session of a file; ``launcher`` in it, or in ``sets``, holds fields of the backend's preset."""
    from lambda_hat.config.yaml_file import apply_sets, launcher_preset, presets_loader, read_document

    document = read_document(config)
    apply_sets(document, sets)
    fields: dict[str, Any] = {**document.pop("hydra", {}).get("launcher", {}), **document.pop("launcher", {})}
    with presets_loader() as loader:
        launcher = launcher_preset(loader, backend, fields)
        _run(document, launcher, loader, dry_run=dry_run, resume=resume)


def _run(document: Document, launcher: Document, loader: "ConfigLoader", *, dry_run: bool, resume: bool) -> None:
    from lambda_hat.config.compose import Composer
    from lambda_hat.launch.backend import backend_from
    from lambda_hat.launch.tuning.parse import parse_tuning
    from lambda_hat.launch.tuning.session import prepare, print_plan

    session = prepare(parse_tuning(document), backend_from(launcher), Composer(loader, "sample"), resume=resume)
    if dry_run:
        print_plan(session)
        return
    from lambda_hat.launch.tuning.driver import drive  # Optuna takes half a second, which a dry run spares

    drive(session)


if __name__ == "__main__":
    from lambda_hat.launch.tune import main as imported_main

    imported_main()
