"""The edge that the Hydra entry points share: Hydra's command line, with one clear sentence for every user's error.

Hydra, pydantic and the schemas are imported late, so that ``--help`` answers at once: in 0.3 s of a processor, against
the 2 s that Hydra's own help takes.
"""

import os
import sys
from collections.abc import Callable
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from omegaconf import DictConfig, OmegaConf

from lambda_hat.config.completion import complete
from lambda_hat.config.presets import config_dir, presets_of
from lambda_hat.config.startup import without_garbage_collection

if TYPE_CHECKING:
    from lambda_hat.config.job import Job

_OURS = ("lambda_hat", "launch", "hydra_plugins")


class CommandLine(NamedTuple):
    """What Hydra composed: the config, and the plain node of the backend's preset."""

    config: DictConfig
    launcher: dict[str, Any]


def run_app(config_name: str, task: Callable[[CommandLine], None]) -> None:
    """Run ``task`` on what Hydra composes; an error that the user can mend ends the process with one sentence.

    Args:
        config_name: The primary config in conf/, without ``.yaml``.
        task: Called in this process, unless Hydra's command line asked for a sweep or for words only.
    """
    arguments = sys.argv[1:]
    if arguments in (["--help"], ["-h"]):
        sys.stdout.write(help_text(config_name))
        return
    if complete(arguments):
        return
    try:
        for command_line in _composed(config_name, arguments):
            task(command_line)
    except KeyboardInterrupt:
        sys.exit("error: stopped; the same command starts again where the store stands")
    except Exception as error:
        faults = None if os.environ.get("HYDRA_FULL_ERROR") == "1" else _faults(error, config_name, arguments)
        if faults is None:
            raise
        sys.exit("\n".join(f"error: {fault}" for fault in faults))


def _composed(config_name: str, arguments: list[str]) -> list[CommandLine]:
    """One command line, or none if Hydra itself did what was asked for (a sweep, ``--cfg``).

    The task runs after Hydra has returned, because Hydra adds words of its own to every error of a task.
    """
    with without_garbage_collection():
        import hydra
        from hydra.core.hydra_config import HydraConfig
        from hydra.core.utils import env_override

    composed: list[CommandLine] = []

    def keep(config: DictConfig) -> None:
        launcher = OmegaConf.to_container(HydraConfig.get().launcher, resolve=True)
        composed.append(CommandLine(config, cast(dict[str, Any], launcher)))

    if {"-m", "--multirun"} & set(arguments):
        from lambda_hat.config.compose import deferred

        sys.argv[1:] = deferred(arguments)
    # Else Hydra prints errors in its own words, and a traceback for all but its own, before we see them.
    with env_override({"HYDRA_FULL_ERROR": "1"}):
        hydra.main(config_path=str(config_dir()), config_name=config_name, version_base="1.3")(keep)()
    return composed


def help_text(config_name: str) -> str:
    """What Hydra prints for a bare ``--help``."""
    template = OmegaConf.load(config_dir() / f"{config_name}.yaml").hydra.help.template
    defaults = OmegaConf.load(config_dir() / "sample.yaml").defaults
    groups = sorted(next(iter(default)) for default in defaults if not isinstance(default, str))
    listed = [f"{group}: {', '.join(presets_of(group))}" for group in groups if not group.startswith("override ")]
    return Template(template).safe_substitute(APP_CONFIG_GROUPS="\n".join(listed))


def job_of(config: DictConfig) -> "Job":
    """The validated job of a config that Hydra composed."""
    from lambda_hat.config.compose import plain
    from lambda_hat.config.job import parse_job

    return parse_job(plain(config))


def _faults(error: Exception, config_name: str, arguments: list[str]) -> list[str] | None:
    """What to tell the user, or None if the error is ours and needs its traceback."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from lambda_hat.config.compose import explain, one_line
    from lambda_hat.config.schema import ConfigError

    if isinstance(error, ConfigError):
        return error.faults
    if isinstance(error, HydraException | OmegaConfBaseException):
        # Only the composition of runs can be explained by their schemas.
        explained = explain(config_name, arguments) if config_name in ("sample", "build") else []
        return explained or [one_line(error)]
    if type(error).__module__.partition(".")[0] in _OURS or isinstance(error, OSError):
        return [str(error)]
    return None
