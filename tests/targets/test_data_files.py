"""Data files at the edge: columns of every type, scale and shape give right numbers, or one sentence that says why not.

What a file is refused for, planning refuses: nothing here builds a target.
"""

import datetime
import io
import pickle
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from lambda_hat.config.job import Job
from lambda_hat.config.schema import ConfigError
from lambda_hat.targets.base import Rows
from lambda_hat.targets.columns import standardised
from lambda_hat.targets.data import File
from tests.jobs import SGLD, make_job

N = 12
X = np.random.default_rng(3).standard_normal(N)
DAY = datetime.date(2026, 1, 31)


def npz(folder: Path, **columns: Any) -> Path:
    arrays: dict[str, Any] = {"x": X, "y": X, **columns}
    np.savez(folder / "rows.npz", **arrays)
    return folder / "rows.npz"


def arrow(folder: Path, **columns: Any) -> Path:
    parquet.write_table(pa.table({"x": X, "y": X, **columns}), folder / "rows.parquet")
    return folder / "rows.parquet"


def _job(root: Path, path: Path, **fields: Any) -> Job:
    mlp = {"_target_": "lambda_hat.targets.mlp.MLP", "widths": [2]}
    data = {"_target_": "lambda_hat.targets.data.File", "path": str(path), **fields}
    return make_job(root, model=mlp, data=data, sampler=SGLD | {"batch_size": 2})


def read(path: Path, **fields: Any) -> Rows:
    source = _job(path.parent, path, **fields).data
    assert isinstance(source, File)
    rows = source.rows(lambda p, q: pytest.fail("real data ask for no truth"))
    assert source.widths() == (rows.inputs.shape[1], rows.num_classes or rows.outputs.shape[1])
    return rows


def refused(path: Path, **fields: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        _job(path.parent, path, **fields)
    (fault,) = caught.value.faults
    assert "\n" not in fault
    return fault


@pytest.mark.parametrize("n", [2, 3, 100, 4_999, 100_003])
@pytest.mark.parametrize("constant", [0.0, 0.1, -0.3, 1 / 3, 1e-3, 123.456, 1e8 + 0.1, 1e160, -7e-170, 1.7e308, 5e-324])
def test_a_constant_column_becomes_zero(constant: float, n: int) -> None:
    """Sees a deviation that is only the rounding of the mean, and so a column of plus or minus one."""
    jitter = np.full(n, constant)
    jitter[::2] = np.nextafter(constant, 2 * constant) if 1e-300 < abs(constant) < 1e300 else constant
    columns = np.stack([np.full(n, constant), jitter, np.linspace(1, 2, n)], 1)
    found = standardised(columns)
    assert (found[:, :2] == 0).all()
    assert found[:, 2].std() == pytest.approx(1)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "u2", "i8", "?", "g"])
def test_constants_of_every_dtype(tmp_path: Path, dtype: str) -> None:
    rows = read(npz(tmp_path, c=np.full(N, 0.1).astype(dtype)), inputs=["x", "c"])
    assert (rows.inputs[:, 1] == 0).all()


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e-30, 1.0, 1e30, 1e160, 1e300])
def test_a_scale_changes_nothing(tmp_path: Path, scale: float) -> None:
    """Sees squares that over- or underflow, inputs and outputs alike."""
    rows = read(npz(tmp_path, x=scale * X, y=scale * (X + 5)))
    expected = (X - X.mean()) / X.std()
    np.testing.assert_allclose(rows.inputs[:, 0], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(rows.outputs[:, 0], expected, rtol=1e-12, atol=1e-12)


def test_ordinary_columns_keep_their_bits() -> None:
    """Sees another order of sums: the targets of old stores would get other numbers under their ids."""
    rng = np.random.default_rng(0)
    columns = rng.standard_normal((1000, 5)) * [1e-8, 0.3, 1.0, 77.0, 1e12] + [0.0, 1.0, -1e6, 0.0, 1e13]
    for layout in (columns, np.asfortranarray(columns), columns[::-1]):
        expected = (layout - layout.mean(0)) / layout.std(0)
        np.testing.assert_array_equal(standardised(layout), expected)


@pytest.mark.parametrize(
    "column", [2**60 + np.arange(N), 2**63 + np.arange(N, dtype="u8"), 1 + np.arange(N) * np.longdouble(2e-19)]
)
def test_digits_beyond_float64_are_named(tmp_path: Path, column: np.ndarray) -> None:
    """Sees a column that becomes constant on its way in."""
    assert len(np.unique(column)) == N
    assert "column c" in (fault := refused(npz(tmp_path, c=column)))
    assert "all alike in float64" in fault


@pytest.mark.parametrize("sentinel", [1.79e308, -1.79e308, 3.4028235e38, 1e20])
@pytest.mark.parametrize("rows", [[7], [3, 7]])
def test_a_sentinel_is_named(tmp_path: Path, sentinel: float, rows: list[int]) -> None:
    """Sees a column of which one value is left."""
    for name in ("x", "y"):
        column = 1000 + X
        column[rows] = sentinel
        fault = refused(npz(tmp_path, **{name: column}))
        assert f"column {name}" in fault
        assert f"got {sentinel:.4g} in row {rows[0]}" in fault
    both = X.copy()
    both[[3, 7]] = sentinel, -sentinel
    assert "in row 3" in refused(npz(tmp_path, x=both))
    binary = np.where(X > 0, sentinel, 0.0)
    assert set(np.sign(read(npz(tmp_path, x=binary)).inputs[:, 0])) == {-1.0, 1.0}


NUMBERS = {
    "int8": pa.array(range(N), pa.int8()),
    "uint64": pa.array(range(N), pa.uint64()),
    "half": pa.array(np.arange(N, dtype="f2")),
    "single": pa.array(np.arange(N, dtype="f4")),
    "bool": pa.array([i > 5 for i in range(N)]),
    "decimal": pa.array([Decimal(i) for i in range(N)], pa.decimal128(9, 2)),
    "dictionary": pa.array(range(N)).dictionary_encode(),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_every_type(tmp_path: Path, kind: str) -> None:
    rows = read(arrow(tmp_path, c=NUMBERS[kind]), inputs=["c"], standardize=False)
    np.testing.assert_array_equal(rows.inputs[:, 0], np.arange(N) > 5 if kind == "bool" else np.arange(N))


@pytest.mark.parametrize("dtype", ["Int16", "Float32", "boolean", "UInt8", "category"])
def test_nullable_types(tmp_path: Path, dtype: Any) -> None:
    """Sees NA that is no number and no label, and a whole column that is refused for its type."""
    path = tmp_path / "rows.parquet"
    column = pd.Series([0, 1] * (N // 2)).astype(dtype)
    pd.DataFrame({"x": X, "y": X, "c": column}).to_parquet(path)
    np.testing.assert_array_equal(read(path, inputs=["c"], standardize=False).inputs[:, 0], [0, 1] * (N // 2))
    assert read(path, inputs=["x"], targets=["c"], task="classification").num_classes == 2
    column = column.copy()
    column[4] = None
    pd.DataFrame({"x": X, "y": X, "c": column}).to_parquet(path)
    assert "got 1 rows with NaN or infinity, the first is row 4" in refused(path, inputs=["c"])
    assert "row 4" in refused(path, inputs=["x"], targets=["c"], task="classification")


HOLED = [None, *["a", "b"] * 5, "b"]
MOMENT = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)
NO_NUMBERS = {
    "date32": (pa.array([DAY] * N), "dates or times"),
    "date64": (pa.array([DAY] * N, pa.date64()), "dates or times"),
    "timestamp": (pa.array([MOMENT] * N, pa.timestamp("us")), "dates or times"),
    "zoned": (pa.array([MOMENT] * N, pa.timestamp("ns", "Europe/Paris")), "dates or times"),
    "nat": (pa.array([None, *[MOMENT] * (N - 1)], pa.timestamp("ns")), "dates or times"),
    "time": (pa.array([datetime.time(1)] * N), "dates or times"),
    "duration": (pa.array([datetime.timedelta(1)] * N), "durations"),
    "list": (pa.array([[1.0, 2.0]] * N), "lists"),
    "fixed list": (pa.array([[1.0, 2.0]] * N, pa.list_(pa.float64(), 2)), "lists"),
    "struct": (pa.array([{"a": 1}] * N), "records"),
    "map": (pa.array([[("a", 1)]] * N, pa.map_(pa.string(), pa.int8())), "lists"),
}
WORDS = {
    "string": pa.array(["up"] * N),
    "large string": pa.array(["up"] * N, pa.large_string()),
    "binary": pa.array([b"up"] * N),
    "categories": pa.array(["up"] * N).dictionary_encode(),
}


@pytest.mark.parametrize("kind", [*NO_NUMBERS, *WORDS, "null"])
def test_what_is_no_number_is_named(tmp_path: Path, kind: str) -> None:
    """Sees nanoseconds taken for numbers, and the error of a conversion that names nothing."""
    column, words = NO_NUMBERS.get(kind) or (
        WORDS.get(kind, pa.nulls(N)),
        "'up'" if kind in WORDS else "12 rows with NaN",
    )
    fault = refused(arrow(tmp_path, c=column))
    assert "column c" in fault
    assert words in fault
    if kind in NO_NUMBERS:
        assert words in refused(arrow(tmp_path, y=column))
        assert words in (fault := refused(arrow(tmp_path, y=column), inputs=["x"], task="classification"))
        assert "column y" in fault


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (X + 1j, "complex numbers"),
        (X.astype("c8"), "complex numbers"),
        (np.arange(N).astype("M8[D]"), "dates or times"),
        (np.array(["NaT"] * N, "M8[ns]"), "dates or times"),
        (np.arange(N).astype("m8[s]"), "durations"),
        (np.zeros(N, [("a", float)]), "records"),
        (np.array(["up"] * N), "'up'"),
    ],
)
def test_arrays_that_are_no_numbers_are_named(tmp_path: Path, column: np.ndarray, words: str) -> None:
    """Sees an imaginary part that is dropped."""
    for fields in ({"c": column}, {"y": column}):
        fault = refused(npz(tmp_path, **fields))
        assert f"column {next(iter(fields))}" in fault
        assert words in fault
    if column.dtype.kind != "U":
        assert words in refused(npz(tmp_path, y=column), task="classification")


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (N, 0), (N, 2, 0)])
def test_arrays_without_rows_are_named(tmp_path: Path, shape: tuple[int, ...]) -> None:
    fault = refused(npz(tmp_path, c=np.zeros(shape)))
    assert "column c" in fault
    assert f"shape {shape}" in fault


def test_images_and_layouts(tmp_path: Path) -> None:
    """Sees pixels in another order for another order in memory."""
    images = np.random.default_rng(0).standard_normal((N, 2, 3))
    expected = read(npz(tmp_path, x=images), standardize=False).inputs
    np.testing.assert_array_equal(expected, images.reshape(N, 6))
    for layout in (np.asfortranarray(images), images.astype(">f8"), images[::-1][::-1]):
        np.testing.assert_array_equal(read(npz(tmp_path, x=layout), standardize=False).inputs, expected)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    with path.open("wb") as file:
        np.save(file, X)
    assert "is one array without a name" in refused(path)
    path.write_bytes(pickle.dumps({"x": X}))
    assert "holds pickled Python objects" in refused(path)
    np.savez(path)
    assert "it has none" in refused(path)
    assert "column o" in (fault := refused(npz(tmp_path, o=np.array([None] * N))))
    assert "pickled Python objects" in fault
    assert read(path, inputs=["x"]).inputs.shape == (N, 1)  # what is not asked for is not read
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readme", "words")
    assert "readme" in refused(path, inputs=["readme"])


def test_a_name_is_one_columns(tmp_path: Path) -> None:
    """Sees one of two columns lost."""
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_arrays([pa.array(X)] * 3, names=["x", "x", "y"]), path)
    assert "2 columns called x" in refused(path)
    path = npz(tmp_path)
    buffer = io.BytesIO()
    np.save(buffer, X)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("x.npy", buffer.getvalue())
    assert "2 columns called x" in refused(path)
    frame = pd.DataFrame(np.stack([X, X], 1), columns=pd.MultiIndex.from_tuples([("a", 1), ("y", 1)]))
    frame.to_parquet(path := tmp_path / "multi.parquet")
    assert read(path, targets=["('y', 1)"]).inputs.shape == (N, 1)


def test_columns_asked_for_twice(tmp_path: Path) -> None:
    """Sees the answer among the questions."""
    path = npz(tmp_path, z=X)
    assert "no targets, got y" in refused(path, inputs=["x", "y"])
    assert "each column once, got x, x" in refused(path, inputs=["x", "x"])
    assert "each column once, got y, y" in refused(path, targets=["y", "y"])
    assert "data.targets" in refused(path, inputs=["x"], targets=["y", "z"], task="classification")
    assert "got 12 in x and 3 in z" in refused(npz(tmp_path, z=X[:3]))


LABELS: dict[str, Any] = {
    "text": ["up", "down"] * 6,
    "whole": [1.0, 2.0] * 6,
    "integers": [10**18, 10**18 + 1] * 6,
    "truth": [True, False] * 6,
    "bytes": [b"a", b"b"] * 6,
}
NO_LABELS: dict[str, tuple[Any, str]] = {
    "numbers": (X, "text or whole numbers"),
    "few numbers": (np.array([0.5, 1.5] * 6), "text or whole numbers"),
    "decimals": ([Decimal("0.5"), Decimal("1.5")] * 6, "text or whole numbers"),
    "ids": (np.arange(N), "12 different ones in 12 rows"),
    "names": ([f"row {i}" for i in range(N)], "12 different ones in 12 rows"),
    "whole ids": (np.arange(float(N)), "12 different ones in 12 rows"),
    "one": (np.ones(N, int), "got 1 in every row"),
    "one word": (["up"] * N, "got up in every row"),
    "one truth": ([True] * N, "got True in every row"),
    "nan": (np.array([np.nan, *[1.0, 2.0] * 5, 1.0]), "the first is row 0"),
    "infinite": (np.array([np.inf, *[1.0, 2.0] * 5, 1.0]), "the first is row 0"),
    "none": (HOLED, "got none in row 0"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels(tmp_path: Path, kind: str) -> None:
    for path in (arrow(tmp_path, y=LABELS[kind]), npz(tmp_path, y=np.array(LABELS[kind]))):
        rows = read(path, task="classification")
        assert rows.num_classes == 2
        assert set(rows.outputs[::2]) == {int(LABELS[kind][0] > LABELS[kind][1])}


@pytest.mark.parametrize("kind", NO_LABELS)
def test_what_is_no_label_is_named(tmp_path: Path, kind: str) -> None:
    """Sees as many classes as rows, one class whose loss is 0, and NA that is neither equal nor unequal."""
    column, words = NO_LABELS[kind]
    assert words in refused(arrow(tmp_path, y=pa.array(column)), task="classification")
    if isinstance(column, np.ndarray):
        assert words in refused(npz(tmp_path, y=column), task="classification")
    if kind == "none":
        path = tmp_path / "rows.parquet"
        pd.DataFrame({"x": X, "y": pd.array(column, "string")}).to_parquet(path)
        assert words in refused(path, task="classification")
    assert "one-hot" in refused(npz(tmp_path, y=np.eye(N)), task="classification")


@pytest.mark.parametrize("wrong", [{"targets": [3]}, {"inputs": [3]}, {"inputs": ["x", None]}, {"targets": "y"}])
def test_a_wrong_list_is_one_fault(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """Sees a list called too short after its entries were refused."""
    assert refused(npz(tmp_path), **wrong).startswith(f"data.{next(iter(wrong))}")


MCLMC = {"_target_": "lambda_hat.samplers.mclmc.MCLMC"}
ADJUSTED = {"_target_": "lambda_hat.samplers.adjusted_mclmc.AdjustedMCLMC"}
POPULATION, SYNTHETIC = "lambda_hat.targets.data.Population", "lambda_hat.targets.data.Synthetic"
LINE = {"_target_": "lambda_hat.targets.mlp.MLP", "depth": 0, "bias": False}
ONE_PARAMETER: list[dict[str, Any]] = [
    {"model": {"_target_": "lambda_hat.targets.quadratic.Quadratic", "curvatures": [1.0]}},
    {"model": {"_target_": "lambda_hat.targets.quadratic.Quadratic", "dim": 1}},
    {"model": {"_target_": "lambda_hat.targets.normal_crossing.NormalCrossing", "exponents": [2]}},
    {"model": {"_target_": "lambda_hat.targets.deep_linear.DeepLinear", "widths": [1, 1]}},
    {"model": LINE, "data": {"_target_": SYNTHETIC, "num_inputs": 1}},
    {"model": LINE, "data": {"_target_": "lambda_hat.targets.data.File", "inputs": ["x"]}},
]


@pytest.mark.parametrize("sampler", [MCLMC, ADJUSTED], ids=["mclmc", "adjusted_mclmc"])
@pytest.mark.parametrize("nodes", ONE_PARAMETER)
def test_planning_refuses_one_parameter(tmp_path: Path, nodes: dict[str, Any], sampler: dict[str, Any]) -> None:
    """Sees a dry run that promises what the run refuses: a momentum is a direction and needs two parameters."""
    if "inputs" in nodes.get("data", {}):
        nodes = {**nodes, "data": {**nodes["data"], "path": str(npz(tmp_path))}}
    with pytest.raises(ConfigError, match="mclmc needs at least 2 parameters that are free, got 1"):
        make_job(tmp_path, sampler=sampler, **nodes)
    assert make_job(tmp_path, **nodes).sampler_name == "hmc"


@pytest.mark.parametrize("kind", [POPULATION, SYNTHETIC, "file"])
def test_planning_refuses_one_row(tmp_path: Path, kind: str) -> None:
    """Sees a dry run that promises a run at beta = 1 / log 1."""
    model = {} if kind == POPULATION else {"model": LINE}
    data = {"_target_": kind, "n": 1}
    if kind == "file":
        path = npz(tmp_path, x=X[:1], y=X[:1])
        data = {"_target_": "lambda_hat.targets.data.File", "path": str(path)}
    with pytest.raises(ConfigError, match="needs n >= 2, got n = 1"):
        make_job(tmp_path, data=data, **model)
    for posterior in ({"nbeta": 3.0}, {"beta": 1.0}):
        make_job(tmp_path, data=data, posterior=posterior, **model)
