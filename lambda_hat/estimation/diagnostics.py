"""ArviZ's array layer, which is NumPy and SciPy only, without the rest of ArviZ and without most of SciPy.

A plain import runs the packages' ``__init__``, which load xarray, pandas and matplotlib, and SciPy's statistics, signal
processing and optimisers, of which R-hat, ESS and MCSE need two functions: a second of every process that makes an
estimate. So the layer is imported below stand-ins for its packages and for SciPy's; nothing of that stays in
``sys.modules``, and whoever imports ArviZ or SciPy later gets all of it. A function of SciPy that the layer does call
is imported at that call.
"""

import functools
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

_PACKAGE = "arviz_stats"
_DEFERRED = ("fftpack", "interpolate", "optimize", "signal", "signal.windows", "sparse", "stats")


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
    deferred = {name: _Module(name) for name in (f"scipy.{part}" for part in _DEFERRED) if name not in sys.modules}
    sys.modules.update(deferred)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name in deferred or name.partition(".")[0] == _PACKAGE]:
            del sys.modules[name]


class _Module(ModuleType):
    """A module of SciPy that is imported when one of its functions is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _LIGHT.get((self.__name__, name)) or functools.partial(_call, self.__name__, name)


def _call(module: str, name: str, *arguments: Any, **options: Any) -> Any:
    return getattr(importlib.import_module(module), name)(*arguments, **options)


def _rankdata(values: np.ndarray, method: str, nan_policy: str) -> np.ndarray:
    """``scipy.stats.rankdata`` of finite values, in the one way that ArviZ calls it: ties share their mean rank."""
    if (method, nan_policy) != ("average", "omit"):
        raise NotImplementedError(f"rankdata: needs method=average and nan_policy=omit, got {method} and {nan_policy}")
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (0.5 * (last - counts + 1 + last))[place].reshape(values.shape)


def _ppf(probability: np.ndarray) -> np.ndarray:
    """``scipy.stats.norm.ppf``."""
    from scipy.special import ndtri

    return ndtri(probability)


# What every estimate calls of ``scipy.stats``, whose import takes half a second.
_LIGHT: dict[tuple[str, str], Any] = {
    ("scipy.stats", "rankdata"): _rankdata,
    ("scipy.stats", "norm"): SimpleNamespace(ppf=_ppf),
}
