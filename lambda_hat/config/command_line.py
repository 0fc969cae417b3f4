"""The edge that the Hydra entry points share: Hydra's command line, with one clear sentence for every user's error."""

import functools
import os
import sys
from collections.abc import Callable
from string import Template
from typing import TYPE_CHECKING, Any

from lambda_hat.config.completion import complete
from lambda_hat.config.presets import config_dir, presets_of
from lambda_hat.config.startup import without_garbage_collection

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lambda_hat.config.job import Job

_OURS = ("lambda_hat", "launch", "hydra_plugins")


def run_app(config_name: str, task: "Callable[[DictConfig], Any]") -> None:
    """Run ``task`` under Hydra; end the process with exit code 1 and a sentence if the user can mend the error.

    Args:
        config_name: The primary config in conf/, without ``.yaml``.
        task: Called in this process with the composed config, unless it is a sweep.
    """
    arguments = sys.argv[1:]
    if arguments in (["--help"], ["-h"]):
        sys.stdout.write(help_text(config_name))
        return
    if complete(arguments):
        return
    with without_garbage_collection():
        import hydra
        from hydra.core.utils import env_override

    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    if {"-m", "--multirun"} & set(arguments):
        from lambda_hat.config.compose import deferred

        sys.argv[1:] = deferred(arguments)
    else:
        task = _past_hydra(task)
    try:
        # Otherwise Hydra prints errors in its own words, and a traceback for all but its own, before we see them.
        with env_override({"HYDRA_FULL_ERROR": "1"}):
            hydra.main(config_path=str(config_dir()), config_name=config_name, version_base="1.3")(task)()
    except (Exception, _Raised) as raised:  # noqa: BLE001  the edge: told in a sentence, or raised on
        error = raised.error if isinstance(raised, _Raised) else raised
        faults = None if wants_traceback else _faults(error, config_name, arguments)
        if faults is None:
            raise error from None
        sys.exit("\n".join(f"error: {fault}" for fault in faults))


class _Raised(BaseException):
    """An error of the task on its way through Hydra, which holds up every Exception to add words of its own."""

    def __init__(self, error: Exception):
        super().__init__(error)
        self.error = error


def _past_hydra(task: "Callable[[DictConfig], Any]") -> "Callable[[DictConfig], Any]":
    @functools.wraps(task)
    def carrying(config: "DictConfig") -> Any:
        try:
            return task(config)
        except KeyboardInterrupt:
            sys.exit("error: stopped; the same command starts again where the store stands")
        except Exception as error:
            raise _Raised(error) from error

    return carrying


def help_text(config_name: str) -> str:
    """What Hydra prints for a bare ``--help``, which takes it three times as long."""
    from omegaconf import OmegaConf

    template = OmegaConf.load(config_dir() / f"{config_name}.yaml").hydra.help.template
    defaults = OmegaConf.load(config_dir() / "sample.yaml").defaults
    groups = sorted(next(iter(default)) for default in defaults if not isinstance(default, str))
    listed = [f"{group}: {', '.join(presets_of(group))}" for group in groups if not group.startswith("override ")]
    return Template(template).safe_substitute(APP_CONFIG_GROUPS="\n".join(listed))


def job_of(config: "DictConfig") -> "Job":
    """The validated job of a config that Hydra composed."""
    from lambda_hat.config.compose import plain
    from lambda_hat.config.job import parse_job

    return parse_job(plain(config))


def _faults(error: Exception, config_name: str, arguments: list[str]) -> list[str] | None:
    """What to tell the user, or None if the error is ours and needs its traceback."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from lambda_hat.config.compose import explain, one_line
    from lambda_hat.config.job import ConfigError

    if isinstance(error, ConfigError):
        return error.faults
    if isinstance(error, HydraException | OmegaConfBaseException):
        # Only the composition of runs can be explained by their schemas.
        explained = explain(config_name, arguments) if config_name in ("sample", "build") else []
        return explained or [one_line(error)]
    if type(error).__module__.partition(".")[0] in _OURS or isinstance(error, OSError):
        return [str(error)]
    return None
