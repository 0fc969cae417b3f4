"""trace.nc: one run's trace as ArviZ lays it out, readable by xarray, ArviZ and anything that reads NetCDF-4.

Groups ``posterior`` (nbeta (L_n(w) - L_n(w0)) per draw, as ``llc`` or what else is estimated), ``sample_stats`` and
``warmup_sample_stats`` (the columns of the trace, under ArviZ's names), all over (chain, draw). Written through
h5netcdf alone: xarray and pandas would cost most of a second, which must not stand before publishing. Atomic publishing
is the caller's.
"""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5netcdf
import h5py
import numpy as np
from jaxtyping import Shaped

from lambda_hat.estimation.statistics import Setting, llc_draws
from lambda_hat.estimation.trace import COLUMNS, Draws, Trace, WarmupTrace, averaged_loss
from lambda_hat.store.trace_digest import check

_ARVIZ_NAMES = {"acceptance": "acceptance_rate", "diverged": "diverging"}
_NAMES = {name: _ARVIZ_NAMES.get(name, name) for name in COLUMNS}
_GROUPS = ("sample_stats", "warmup_sample_stats")
# Draws a block of the file holds: small enough to read a part, large enough for the compressor.
_BLOCK = 16384


class TraceFile(NamedTuple):
    """What trace.nc holds: the traces of both phases, and what the file says of itself."""

    trace: dict[str, Shaped[np.ndarray, "chain draw"]]
    warmup: dict[str, Shaped[np.ndarray, "chain warmup_draw"]]
    attrs: dict[str, Any]


def write_trace_file(
    path: Path, trace: Trace, warmup: WarmupTrace, setting: Setting, attrs: Mapping[str, str | int | float]
) -> None:
    """Write trace.nc.

    Args:
        path: Where to; an existing file is replaced, not atomically.
        trace: The draws: COLUMNS over (chain, draw). Columns that are all NaN are left out.
        warmup: The same of warm-up. Either may have no draws, but has its columns.
        setting: nbeta, gamma and L_n(w0) become attributes of the file.
        attrs: What else the file should say of itself: ids, versions.
    """
    # HDF5 does not bear a write that fails: a full disk ends the process by SIGSEGV. So it writes into memory.
    path.write_bytes(trace_image(trace, warmup, setting, attrs).getbuffer())


def trace_image(
    trace: Trace, warmup: WarmupTrace, setting: Setting, attrs: Mapping[str, str | int | float]
) -> io.BytesIO:
    """The bytes of trace.nc."""
    image = io.BytesIO()
    known = {"nbeta": setting.nbeta, "gamma": setting.gamma, "loss_at_w0": setting.loss_at_w0}
    with h5netcdf.File(image, "w") as file:
        # ArviZ looks for these two when it names a file's origin and its dimensions.
        file.attrs.update({"creation_library": "lambda_hat", "sample_dims": ["chain", "draw"], **known, **attrs})
        llc = llc_draws(trace["loss"], setting.nbeta, setting.loss_at_w0)
        _write_group(file, "posterior", {setting.quantity: llc})
        for phase, group in zip((trace, warmup), _GROUPS, strict=True):
            kept = {name: values for name, values in phase.items() if name == "loss" or not _is_undefined(values)}
            _write_group(file, group, {_NAMES[name]: values for name, values in kept.items()})
    return image


def read_trace_file(path: Path) -> TraceFile:
    """Read trace.nc back; columns that were left out return as NaN, in the dtype of the loss."""
    check(path)
    with h5netcdf.File(path, "r") as file:
        trace, warmup = (_read_group(file.groups[group]) for group in _GROUPS)
        attrs = dict(file.attrs).items()
    plain = {key: value.tolist() if isinstance(value, np.generic | np.ndarray) else value for key, value in attrs}
    return TraceFile(trace, warmup, plain)


def read_columns(path: Path, names: Iterable[str]) -> dict[str, Shaped[np.ndarray, "chain draw"]]:
    """Some columns of the sampling phase that the sampler defines, by h5py alone: ten times as quick as all of them.

    Raises:
        StoreError: it is not the file that was published.
        OSError: it is no HDF5 file, or a damaged one.
        KeyError: a column was left out.
    """
    check(path)
    with h5py.File(path, "r") as file:
        return {name: np.asarray(file[f"{_GROUPS[0]}/{_NAMES[name]}"]) for name in names}


def read_loss(path: Path) -> Draws:
    """What the LLC is the mean of (:func:`lambda_hat.estimation.trace.averaged_loss`) alone, in a tenth of the time."""
    check(path)
    with h5py.File(path, "r") as file:
        places = {name: f"{_GROUPS[0]}/{name}" for name in ("loss", "expected_loss")}
        return averaged_loss({name: np.asarray(file[place]) for name, place in places.items() if place in file})


def _is_undefined(values: Shaped[np.ndarray, "chain draw"]) -> bool:
    # A phase of no draws keeps its columns: there is nothing to save, and their dtypes stay known.
    return values.dtype.kind == "f" and values.size > 0 and bool(np.isnan(values).all())


def _write_group(file: h5netcdf.File, name: str, columns: Mapping[str, Draws]) -> None:
    num_chains, num_draws = next(iter(columns.values())).shape
    group = file.create_group(name)
    group.dimensions = {"chain": num_chains, "draw": num_draws}
    for dimension, size in {"chain": num_chains, "draw": num_draws}.items():
        group.create_variable(dimension, (dimension,), data=np.arange(size))
    for column, values in columns.items():
        is_bool = values.dtype == bool
        variable = group.create_variable(
            column,
            ("chain", "draw"),
            data=values.astype(np.int8) if is_bool else values,
            chunks=(num_chains, min(num_draws, _BLOCK)) if num_draws else None,
            # Counts and flags shrink to nothing; floats hardly shrink, and are not worth the time.
            compression="gzip" if num_draws and values.dtype.kind != "f" else None,
            fletcher32=bool(num_draws),  # a checksum for each block: reading a damaged one is an error
        )
        if is_bool:
            variable.attrs["dtype"] = "bool"  # xarray's mark, as NetCDF has no such type


def _read_group(group: h5netcdf.Group) -> dict[str, Shaped[np.ndarray, "chain draw"]]:
    loss = group.variables[_NAMES["loss"]][...]
    return {name: _read_column(group, stored, loss) for name, stored in _NAMES.items()}


def _read_column(group: h5netcdf.Group, name: str, loss: Draws) -> Shaped[np.ndarray, "chain draw"]:
    if name not in group.variables:
        return np.full_like(loss, np.nan)
    variable = group.variables[name]
    values = variable[...]
    return values.astype(bool) if variable.attrs.get("dtype") == "bool" else values
