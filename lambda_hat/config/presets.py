"""Where the YAML presets are. Apart from config.py because ``--help`` must not wait for pydantic."""

from pathlib import Path


def config_dir() -> Path:
    """The folder of YAML files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def presets_of(group: str) -> list[str]:
    """The presets of one group: ``hmc``, ``nuts``, ... of ``sampler``."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))
