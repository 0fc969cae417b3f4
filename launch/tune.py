"""``python -m launch.tune tune=demo`` and ``lambda-hat workflow optuna --config FILE``: tune samplers by Optuna.

Everything is in :mod:`lambda_hat.launch.tuning`; here the two command lines meet.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_hat.config.command_line import run_app

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lambda_hat.config.compose import Composer
    from lambda_hat.launch.backend import Backend


def main() -> None:
    # Hydra would refuse a key that no YAML has in words of its own; the schema names its kin.
    sys.argv[1:] = [_forced(argument) for argument in sys.argv[1:]]
    run_app("tune", tune)


def _forced(argument: str) -> str:
    key, equals, _ = argument.partition("=")
    is_value = equals and key.replace(".", "").replace("_", "").isalnum() and not key.startswith("hydra")
    return f"++{argument}" if is_value and key != "tune" else argument


def tune(config: "DictConfig") -> None:
    """What Hydra composed, run."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    from lambda_hat.config.compose import Composer, plain
    from lambda_hat.launch.backend import backend_from

    document = plain(config)
    words = {name: bool(document.pop(name, False)) for name in ("dry_run", "resume")}
    backend = backend_from(HydraConfig.get().launcher)
    _run(document, backend, Composer(GlobalHydra.instance().config_loader(), "sample"), **words)


def tune_file(
    config: Path, backend: str | None, sets: Sequence[str], *, dry_run: bool = False, resume: bool = False
) -> None:
    """A file of the same keys, run; ``launcher`` in it, or in ``sets``, goes to the backend's preset."""
    from lambda_hat.config.compose import Composer
    from lambda_hat.config.yaml_file import apply_sets, backend_named, presets_loader, read_document

    document = read_document(config)
    apply_sets(document, sets)
    launcher: dict[str, Any] = {**document.pop("hydra", {}).get("launcher", {}), **document.pop("launcher", {})}
    with presets_loader() as loader:
        named = backend_named(loader, backend, launcher)
        _run(document, named, Composer(loader, "sample"), dry_run=dry_run, resume=resume)


def _run(document: dict[str, Any], backend: "Backend", composer: "Composer", *, dry_run: bool, resume: bool) -> None:
    from lambda_hat.launch.tuning.parse import parse_tuning
    from lambda_hat.launch.tuning.session import drive, prepare, print_plan

    session = prepare(parse_tuning(document), backend, composer, resume=resume)
    if dry_run:
        print_plan(session)
    else:
        drive(session)


if __name__ == "__main__":
    from lambda_hat.launch.tune import main as imported_main

    imported_main()
