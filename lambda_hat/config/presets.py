"""Where the YAML presets are. Apart from config.py because ``--help`` must not wait for pydantic."""

import os
from pathlib import Path


def config_dir() -> Path:
    """The folder of YAML files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def own_config_dirs() -> list[Path]:
    """The folders with a user's own presets, laid out as conf/ is, that exist.

    They are the one that ``LAMBDA_HAT_CONFIG`` names, and ``~/.config/lambda_hat`` (``XDG_CONFIG_HOME``).
    """
    named = os.environ.get("LAMBDA_HAT_CONFIG")
    folders = [Path(named).expanduser()] if named else []
    folders.append(Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()) / "lambda_hat")
    return [folder.absolute() for folder in folders if folder.is_dir()]


def presets_of(group: str) -> list[str]:
    """The presets of one group, a user's own among them: ``hmc``, ``nuts``, ... of ``sampler``."""
    folders = (config_dir(), *own_config_dirs())
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})
