"""A tuning session from either command line: what Hydra composed, or the file of a workflow."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_loader import ConfigLoader

from lambda_hat.config.compose import CommandLine, Composer, plain
from lambda_hat.config.schema import Document
from lambda_hat.config.yaml_file import apply_sets, launcher_preset, presets_loader, read_document
from lambda_hat.launch.backend import backend_from
from lambda_hat.launch.tuning.parse import parse_tuning
from lambda_hat.launch.tuning.session import prepare, print_plan


def tune(command_line: CommandLine) -> None:
    """Run the session that Hydra composed."""
    document = plain(command_line.config)
    words = {name: bool(document.pop(name, False)) for name in ("dry_run", "resume")}
    with presets_loader() as loader:
        _run(document, command_line.launcher, loader, **words)


def tune_file(
    config: Path, backend: str | None, sets: Sequence[str], *, dry_run: bool = False, resume: bool = False
) -> None:
    """Run the session of a file; ``launcher`` in it, or in ``sets``, holds fields of the backend's preset."""
    document = read_document(config)
    apply_sets(document, sets)
    fields: Document = {**document.pop("hydra", {}).get("launcher", {}), **document.pop("launcher", {})}
    with presets_loader() as loader:
        launcher = launcher_preset(loader, backend, fields)
        _run(document, launcher, loader, dry_run=dry_run, resume=resume)


def _run(document: Document, launcher: Document, loader: ConfigLoader, *, dry_run: bool, resume: bool) -> None:
    session = prepare(parse_tuning(document), backend_from(launcher), Composer(loader, "sample"), resume=resume)
    from lambda_hat.launch.tuning.driver import check, drive  # Optuna takes half a second, which refusals spare

    if dry_run:
        check(session)
        print_plan(session)
    else:
        drive(session)
