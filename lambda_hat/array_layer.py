"""ArviZ's array layer, which is NumPy and SciPy only, without the rest of ArviZ.

A plain import runs the packages' ``__init__``, which load xarray, pandas and matplotlib: half a second of every
process that makes an estimate. So the layer is imported below stand-ins for its packages; nothing of that stays in
``sys.modules``, and whoever imports ArviZ later gets all of it.
"""

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_PACKAGE = "arviz_stats"


@functools.cache
def array_stats() -> Any:
    """``array_stats`` of ``arviz_stats.base``, whose methods are its diagnostics."""
    if _PACKAGE in sys.modules:
        from arviz_stats.base.array import array_stats
    else:
        with _stand_ins():
            from arviz_stats.base.array import array_stats
    return array_stats


@contextmanager
def _stand_ins() -> Iterator[None]:
    spec = find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {_PACKAGE!r}", name=_PACKAGE)
    folders = list(spec.submodule_search_locations)
    for name, path in ((_PACKAGE, folders), (f"{_PACKAGE}.base", [f"{folder}/base" for folder in folders])):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = path
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
            del sys.modules[name]
