"""The edge that the Hydra entry points share: Hydra's command line, with one clear sentence for every user's error.

Hydra, pydantic and the schemas are imported late, so that ``--help`` answers at once: in 0.3 s of a processor, against
the 2 s that Hydra's own help takes.
"""

import os
import sys
from collections.abc import Callable
from string import Template
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from lambda_hat.config.completion import complete
from lambda_hat.config.presets import config_dir, presets_of
from lambda_hat.config.startup import without_garbage_collection

if TYPE_CHECKING:
    from lambda_hat.config.compose import CommandLine


_IGNORED = (
    "hydra/launcher is ignored without -m: this process does the work, on this machine; "
    "python -m lambda_hat.sample -m ... submits it"
)


def run_app(config_name: str, task: "Callable[[CommandLine], None]") -> None:
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
    with without_garbage_collection():
        from lambda_hat.config import checkpoint_axis, compose
    arguments = checkpoint_axis.as_text(arguments)
    try:
        for command_line in compose.command_lines(config_name, arguments):
            if config_name in ("sample", "build") and _names_a_launcher(arguments):
                sys.stderr.write(f"warning: {_IGNORED}\n")
            task(command_line)
    except KeyboardInterrupt:
        sys.exit("error: stopped; the same command starts again where the store stands")
    except Exception as error:
        faults = None if os.environ.get("HYDRA_FULL_ERROR") == "1" else compose.faults_of(error, config_name, arguments)
        if faults is None:
            raise
        sys.exit("\n".join(f"error: {fault}" for fault in faults))


def _names_a_launcher(arguments: list[str]) -> bool:
    words = [argument.lstrip("+") for argument in arguments]
    return any(word.startswith(("hydra/launcher=", "hydra.launcher.")) for word in words)


def help_text(config_name: str) -> str:
    """What Hydra prints for a bare ``--help``."""
    template = OmegaConf.load(config_dir() / f"{config_name}.yaml").hydra.help.template
    defaults = OmegaConf.load(config_dir() / "sample.yaml").defaults
    groups = sorted(next(iter(default)) for default in defaults if not isinstance(default, str))
    listed = [f"{group}: {', '.join(presets_of(group))}" for group in groups if not group.startswith("override ")]
    return Template(template).safe_substitute(APP_CONFIG_GROUPS="\n".join(listed))
