"""ArviZ's array layer, which is NumPy and SciPy only, without the rest of ArviZ and without most of SciPy.

A plain import runs the packages' ``__init__``, which load xarray, pandas and matplotlib, and SciPy's statistics, signal
processing and optimisers, of which R-hat, ESS and MCSE need three functions: a second of every process that makes an
estimate. So the layer is imported below stand-ins for its packages and for SciPy's; none of them stays in
``sys.modules``, and whoever imports ArviZ or SciPy later gets all of it. Any other function of SciPy that the layer
calls is imported at that call.
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

_ARVIZ = ("arviz_stats", "arviz_stats.base")
_SCIPY = (
    "scipy.fft", "scipy.fft._pocketfft", "scipy.fftpack", "scipy.interpolate", "scipy.optimize", "scipy.signal",
    "scipy.signal.windows", "scipy.sparse", "scipy.special", "scipy.stats",
)  # fmt: skip


@functools.cache
def array_stats() -> Any:
    """``array_stats`` of ``arviz_stats.base``, whose methods are its diagnostics."""
    if _ARVIZ[0] in sys.modules:
        from arviz_stats.base.array import array_stats
    else:
        with _stand_ins():
            from arviz_stats.base.array import array_stats
    return array_stats


@contextmanager
def _stand_ins() -> Iterator[None]:
    names = [name for name in (*_ARVIZ, *_SCIPY) if name not in sys.modules]
    sys.modules.update({name: _Package(name) for name in names})
    try:
        light = _light_functions()
        for name in set(names) & set(light):
            vars(sys.modules[name]).update(light[name])
        yield
    finally:
        for name in [name for name in sys.modules if name in names or name.partition(".")[0] == _ARVIZ[0]]:
            del sys.modules[name]


class _Package(ModuleType):
    """A package whose modules can be imported without it. It is imported itself when one of its functions is called."""

    def __init__(self, name: str):
        super().__init__(name)
        top, *inner = name.split(".")
        spec = find_spec(top)
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)
        self.__path__ = ["/".join([folder, *inner]) for folder in spec.submodule_search_locations]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return functools.partial(_call, self.__name__, name)


def _call(module: str, name: str, *arguments: Any, **options: Any) -> Any:
    return getattr(importlib.import_module(module), name)(*arguments, **options)


def _light_functions() -> dict[str, dict[str, Any]]:
    """What every estimate calls, by SciPy's public name for it; below the stand-ins, from SciPy's compiled modules."""
    from scipy.fft._pocketfft.pypocketfft import good_size
    from scipy.special._ufuncs import ndtri

    return {
        "scipy.fftpack": {"next_fast_len": lambda target: good_size(target, True)},
        "scipy.stats": {"norm": SimpleNamespace(ppf=ndtri), "rankdata": _rankdata},
    }


def _rankdata(values: np.ndarray, method: str, nan_policy: str) -> np.ndarray:
    """``scipy.stats.rankdata`` of finite values, in the one way that ArviZ calls it: ties share their mean rank."""
    if (method, nan_policy) != ("average", "omit"):
        raise NotImplementedError(f"rankdata: needs method=average and nan_policy=omit, got {method} and {nan_policy}")
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (0.5 * (last - counts + 1 + last))[place].reshape(values.shape)
