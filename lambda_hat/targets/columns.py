"""Columns of a data file: found by name, and read as numbers or as labels.

Whatever is neither is refused in one sentence that names the column. Numbers are float64.
"""

import contextlib
import datetime
import io
import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from lambda_hat.config.schema import ConfigError

_DATES = "dates or times; save them as numbers, such as days since the first"
_DURATIONS = "durations; save them as numbers, such as seconds"
_COMPLEX = "complex numbers; save real and imaginary parts as two columns"
_LISTS = "lists; save each element as a column"
_RECORDS = "records; save each field as a column"
_KINDS = {"M": _DATES, "m": _DURATIONS, "c": _COMPLEX, "V": _RECORDS}
_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((datetime.date, datetime.time, np.datetime64), _DATES),
    ((datetime.timedelta, np.timedelta64), _DURATIONS),
    ((complex, np.complexfloating), _COMPLEX),
    ((list, tuple, np.ndarray), _LISTS),
    (Mapping, _RECORDS),
)
_REAL = bool | int | float | Decimal | Fraction | np.bool_ | np.integer | np.floating
# What the readers of damaged files raise; pyarrow's own errors are ValueErrors, OSErrors and NotImplementedErrors.
_UNREADABLE = (
    ValueError, OSError, EOFError, LookupError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error
)  # fmt: skip


class Table(NamedTuple):
    """A data file: the names of its columns in order, and what reads one of them as an array of n rows."""

    names: tuple[str, ...]
    read: Callable[[str], np.ndarray]


def open_table(content: bytes, path: str) -> Table:
    """The table in ``content``, the bytes of the file ``path``, whose ending tells the format.

    Raises:
        ConfigError: another format, a damaged file, no names, or one name twice.
    """
    readers = {".npz": _open_npz, ".parquet": _open_parquet}
    reader = next((readers[ending] for ending in readers if path.endswith(ending)), None)
    if reader is None:
        raise ConfigError([f"data.path: needs a .npz or .parquet file, got {path!r}"])
    with _one_sentence(path):
        table = reader(content, path)

    def read(name: str) -> np.ndarray:
        with _one_sentence(path, f"column {name} of "):
            column = table.read(name)
        if column.ndim == 0 or 0 in column.shape:
            got = f"an array of shape {column.shape}"
            raise ConfigError([f"data: column {name} of {path} needs one or more numbers in each row, got {got}"])
        return column.reshape(len(column), -1)

    return Table(table.names, read)


@contextlib.contextmanager
def _one_sentence(path: str, column: str = "") -> Iterator[None]:
    """What reading a file raises as a :class:`ConfigError`."""
    try:
        yield
    except ConfigError:
        raise
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "allow_pickle" in reason:
            raise ConfigError(
                [f"data.path: {column}{path} holds pickled Python objects, which are not loaded; save numbers or text"]
            ) from error
        raise ConfigError([f"data.path: {column}{path} cannot be read; is it whole? ({reason})"]) from error


def _open_npz(content: bytes, path: str) -> Table:
    archive = np.load(io.BytesIO(content))
    if isinstance(archive, np.ndarray):
        raise ConfigError([f"data.path: {path} is one array without a name; use numpy.savez(path, x=..., y=...)"])

    def read(name: str) -> np.ndarray:
        column = archive[name]
        if not isinstance(column, np.ndarray):
            raise ConfigError([f"data: {name} in {path} is no array; set data.inputs and data.targets to columns"])
        return column

    return Table(_distinct(archive.files, path), read)


def _open_parquet(content: bytes, path: str) -> Table:
    from pyarrow import parquet

    table = parquet.ParquetFile(io.BytesIO(content)).read()
    _distinct(table.column_names, path)  # pandas would lose one of two
    frame = table.to_pandas()
    names = _distinct(map(str, frame.columns), path)

    def read(name: str) -> np.ndarray:
        column = frame.iloc[:, names.index(name)]
        values = column.to_numpy()
        if values.dtype.kind == "O":
            values = values.copy()
            values[column.isna().to_numpy()] = None  # None, NaN, NaT and NA alike
        return values

    return Table(names, read)


def _distinct(names: Iterable[str], path: str) -> tuple[str, ...]:
    names = tuple(names)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(
            [f"data.path: {path} has {names.count(twice[0])} columns called {twice[0]}; rename all but one"]
        )
    return names


def numbers(column: np.ndarray, where: str) -> np.ndarray:
    """A column (n, k) as float64.

    Args:
        column: Booleans, numbers of any width, or objects and text that are numbers.
        where: What a sentence calls it: ``column a of rows.npz``.

    Raises:
        ConfigError: it holds something else, or numbers that are not finite or missing.
    """
    if column.dtype.kind in _KINDS:
        raise ConfigError([f"data: {where} needs numbers, got {_KINDS[column.dtype.kind]}"])
    if column.dtype.kind in "OUS":
        found = [_number(value, where, row) for row, values in enumerate(column) for value in values]
        values = np.array(found, float).reshape(column.shape)
    else:
        with np.errstate(over="ignore"):  # a long double beyond float64 becomes infinite, which is refused below
            values = column.astype(float)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        what = f"{bad.size} rows with NaN or infinity, the first is row {bad[0]}"
        raise ConfigError([f"data: {where} needs finite numbers, got {what}; drop or fill them"])
    if column.dtype.kind in "iuf":
        is_lost = (values.max(0) == values.min(0)) & (column.max(0) != column.min(0))
        if is_lost.any():
            got = f"all alike in float64 ({values[0, np.argmax(is_lost)]:.6g})"
            raise ConfigError([f"data: {where} needs numbers that differ, got {got}; subtract the smallest and save"])
    return values


def _number(value: Any, where: str, row: int) -> float:
    if value is None:
        return np.nan
    if _refused(value) is None:
        with contextlib.suppress(ValueError, OverflowError):
            return float(value)
    raise ConfigError([f"data: {where} needs numbers, got {_refused(value) or repr(value)[:40]} in row {row}"])


def _refused(value: Any) -> str | None:
    """What an object is that is neither a number nor text, and what to do with it."""
    # A duration of NumPy's is an integer too, so the named types come first.
    known = next((words for types, words in _TYPES if isinstance(value, types)), None)
    if known is not None:
        what, _, remedy = known.partition("; ")
        return f"{what} ({remedy})"
    return None if isinstance(value, _REAL | str | bytes) else f"an object of type {type(value).__name__}"


def labels(column: np.ndarray, where: str) -> np.ndarray:
    """A column (n, 1) of labels as one (n,).

    Args:
        column: Text, booleans, or whole numbers.
        where: What a sentence calls it: ``column kind of rows.npz``.

    Raises:
        ConfigError: labels of another kind, one that is missing, all the same, or so many that most are of one row.
    """
    if column.dtype.kind in _KINDS:
        raise ConfigError([f"data.targets: {where} needs labels, got {_KINDS[column.dtype.kind]}"])
    if column.shape[1] > 1:
        got = f"{column.shape[1]} numbers a row; of one-hot rows take the argmax"
        raise ConfigError([f"data.targets: {where} needs to be one column of labels, got {got}"])
    found = column[:, 0]
    if found.dtype.kind == "f":
        numbers(column, where)
    if found.dtype.kind in "fO":
        for row, label in enumerate(found):
            _check_label(label, where, row)
    found = found.astype(str) if found.dtype.kind == "O" else found
    num_classes = np.unique(found).size
    if num_classes == 1:
        raise ConfigError([f"data.targets: {where} needs labels of 2 classes or more, got {found[0]} in every row"])
    if num_classes > 2 and 2 * num_classes > len(found):
        raise ConfigError(
            [
                f"data.targets: {where} needs labels with 2 rows or more each on average, got {num_classes} different "
                f"ones in {len(found)} rows; for numbers to predict set data.task=regression"
            ]
        )
    return found


def _check_label(label: Any, where: str, row: int) -> None:
    if label is None:
        raise ConfigError([f"data.targets: {where} needs a label in every row, got none in row {row}"])
    refused = _refused(label)
    if refused is not None:
        raise ConfigError([f"data.targets: {where} needs labels, got {refused} in row {row}"])
    if isinstance(label, float | Decimal | np.floating) and not (math.isfinite(label) and label % 1 == 0):
        raise ConfigError(
            [
                f"data.targets: {where} needs labels that are text or whole numbers, got {label} in row {row}; "
                "for numbers to predict set data.task=regression"
            ]
        )


def standardised(columns: np.ndarray) -> np.ndarray:
    """Columns (n, k) with mean 0 and standard deviation 1; a constant column becomes 0.

    Constant means that its values are equal, or that their deviation is within n eps of their mean: a mean over n
    rows errs by as much, so that less is rounding.
    """
    # Squares of 1e160 or 1e-170 leave float64's range. A power of two scales without rounding.
    columns = columns * _power_of_two(columns)
    mean, deviation = columns.mean(0), columns.std(0)
    rounding = len(columns) * np.finfo(float).eps * np.abs(mean)
    is_constant = (columns.max(0) == columns.min(0)) | (deviation <= rounding)
    return np.where(is_constant, 0.0, (columns - mean) / np.where(is_constant, 1.0, deviation))


def _power_of_two(columns: np.ndarray) -> np.ndarray:
    """For each column the power of two that brings its largest number into [1/2, 1), as far as float64 has it."""
    exponent = np.frexp(np.abs(columns).max(0))[1]
    return np.ldexp(1.0, np.clip(-exponent, -1022, 1023))


def check_scales(column: np.ndarray, where: str) -> None:
    """Refuse numbers (n, k) so large that their column's others are rounded away beside them.

    Raises:
        ConfigError: there is one, mostly a code for a missing number: 1.8e308, 3.4e38, 1e30.
    """
    scaled = np.abs(column * _power_of_two(column))
    is_small = scaled < 0.5 * scaled.max(0)
    least = np.min(column, axis=0, where=is_small, initial=np.inf)
    greatest = np.max(column, axis=0, where=is_small, initial=-np.inf)
    limit = np.finfo(float).eps * np.abs(column).max(0)
    bad = np.flatnonzero((greatest > least) & (greatest - least <= limit))
    if bad.size:
        row = int(np.argmax(scaled[:, bad[0]]))
        raise ConfigError(
            [
                f"data: {where} needs numbers of one scale, got {column[row, bad[0]]:.4g} in row {row}, beside which "
                f"those from {least[bad[0]]:.4g} to {greatest[bad[0]]:.4g} are rounded away; drop or fill it"
            ]
        )
