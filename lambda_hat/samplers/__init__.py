"""The samplers, one a file. ``lambda_hat.samplers.HMC`` and its kin are imported at their first use."""

import importlib
import re
from typing import Any

from lambda_hat.config.presets import config_dir

_CLASS = re.compile(r"^_target_: (lambda_hat\.samplers\.\w+)\.(\w+)$", re.MULTILINE)


def _modules() -> dict[str, str]:
    """The module of each class. The presets name them: a new sampler is a file and its preset."""
    texts = [path.read_text() for path in sorted((config_dir() / "sampler").glob("*.yaml"))]
    return {found[2]: found[1] for text in texts if (found := _CLASS.search(text))}


def __getattr__(name: str) -> Any:
    modules = _modules() if name[:1].isupper() else {}
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(modules[name]), name)


def __dir__() -> list[str]:
    return sorted(_modules())
