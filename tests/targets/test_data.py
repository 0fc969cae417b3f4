"""Data: files and their faults, real sets, synthetic inputs and noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lambda_hat.config.job import Job
from lambda_hat.config.schema import ConfigError
from lambda_hat.targets.base import MakeTruth, Rows, Truth
from lambda_hat.targets.data import File, Sklearn, Synthetic
from tests.jobs import SGLD, make_job


def _truth(num_inputs: int | None, num_outputs: int | None) -> Truth:
    del num_outputs
    return Truth(lambda inputs: np.zeros((len(inputs), 2)), num_inputs or 4, np.random.default_rng(9))


TRUTH: MakeTruth = _truth


@pytest.fixture
def columns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 30))
    return {"a": a, "b": 100 * b + 7, "y": 3 * a + 1, "kind": np.where(a > 0, "up", "down")}


@pytest.fixture
def parquet(tmp_path: Path, columns: dict[str, np.ndarray]) -> Path:
    path = tmp_path / "rows.parquet"
    pd.DataFrame(columns).to_parquet(path)
    return path


def test_npz_and_parquet_give_the_same_rows(tmp_path: Path, columns: dict[str, np.ndarray], parquet: Path) -> None:
    """Sees columns in another order, and outputs that are not standardised."""
    npz = tmp_path / "rows.npz"
    np.savez(npz, X=np.stack([columns["a"], columns["b"]], 1), y=columns["y"])
    first = File(path=str(npz)).rows(TRUTH)
    second = File(path=str(parquet), inputs=("a", "b")).rows(TRUTH)
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(first.inputs.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(first.inputs.std(0), 1)
    np.testing.assert_allclose(first.outputs, first.inputs[:, :1], atol=1e-12)
    raw = File(path=str(parquet), inputs=("b",), standardize=False, sigma=2.0).rows(TRUTH)
    np.testing.assert_array_equal(raw.inputs[:, 0], columns["b"])
    assert raw.sigma == 2.0


def test_labels_may_be_words(parquet: Path, columns: dict[str, np.ndarray]) -> None:
    rows = File(path=str(parquet), inputs=("a",), targets=("kind",), task="classification").rows(TRUTH)
    assert rows.num_classes == 2
    np.testing.assert_array_equal(rows.outputs, columns["a"] > 0)


def _file_job(root: Path, path: Path, sampler: dict[str, Any] = SGLD, **fields: Any) -> Job:
    mlp = {"_target_": "lambda_hat.targets.mlp.MLP", "widths": [4]}
    data = {"_target_": "lambda_hat.targets.data.File", "path": str(path), **fields}
    return make_job(root, model=mlp, data=data, sampler=sampler)


def test_the_bytes_are_the_identity(tmp_path: Path, parquet: Path) -> None:
    """Sees an id that depends on where the file lies, or does not depend on what it holds."""
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(parquet.read_bytes())
    ids = [_file_job(tmp_path, path, inputs=["a"]).target_id for path in (parquet, copy)]
    assert ids[0] == ids[1]
    frame = pd.read_parquet(copy)
    frame.loc[0, "a"] += 1
    frame.to_parquet(copy)
    assert _file_job(tmp_path, copy, inputs=["a"]).target_id != ids[0]


def test_every_fault_of_a_file_is_one_sentence(tmp_path: Path, parquet: Path, columns: dict[str, np.ndarray]) -> None:
    def sentence(path: Path, **fields: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            _file_job(tmp_path, path, **fields)
        (fault,) = caught.value.faults
        assert "\n" not in fault
        return fault

    def saved(name: str, **arrays: np.ndarray) -> Path:
        np.savez(tmp_path / name, **arrays)  # pyright: ignore[reportArgumentType]
        return tmp_path / name

    broken = columns["a"].copy()
    broken[[4, 9]] = np.nan
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(parquet.read_bytes()[:100])
    cut_npz = tmp_path / "cut.npz"
    cut_npz.write_bytes(saved("whole.npz", a=broken, y=broken).read_bytes()[:300])
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, a=np.array([{}], object), y=np.zeros(1))
    other = tmp_path / "rows.csv"
    other.write_text("a,y\n1,2\n")
    assert "no column z; it has a, b, y, kind" in sentence(parquet, inputs=["z"])
    assert "column a" in (fault := sentence(saved("nan.npz", a=broken, y=columns["y"])))
    assert "got 2 rows with NaN or infinity, the first is row 4" in fault
    assert "column kind" in sentence(parquet)
    assert "got 29 in a and 30 in y" in sentence(saved("lengths.npz", a=columns["a"][1:], y=columns["y"]))
    assert "one column of labels" in sentence(parquet, inputs=["a"], targets=["y", "b"], task="classification")
    assert "no column beside the targets" in sentence(saved("only.npz", y=columns["y"]))
    assert "needs a readable file" in sentence(tmp_path / "absent.npz")
    assert "is it whole?" in sentence(cut)
    assert "is it whole?" in sentence(cut_npz)
    assert "column a" in (fault := sentence(pickled))
    assert "pickled Python objects" in fault
    assert "needs a .npz or .parquet file" in sentence(other)
    large = {**SGLD, "batch_size": 31}
    assert "at most the n = 30 rows of the data, got 31" in sentence(parquet, inputs=["a"], sampler=large)


@pytest.mark.parametrize(("name", "shape", "classes"), [("digits", (1797, 64), 10), ("diabetes", (442, 10), None)])
def test_real_sets(name: Any, shape: tuple[int, int], classes: int | None, tmp_path: Path) -> None:
    """Sees a table of sizes, used before anything is loaded, that is wrong."""
    rows = Sklearn(name=name).rows(TRUTH)
    assert rows.inputs.shape == shape
    assert rows.num_classes == classes
    assert np.isfinite(rows.inputs).all()
    mlp = {"_target_": "lambda_hat.targets.mlp.MLP", "widths": [4]}
    data = {"_target_": "lambda_hat.targets.data.Sklearn", "name": name}
    with pytest.raises(ConfigError, match=f"at most the n = {shape[0]} rows"):
        make_job(tmp_path, model=mlp, data=data, sampler={**SGLD, "batch_size": shape[0] + 1})


@pytest.mark.parametrize("inputs", ["gauss_iso", "gauss_aniso", "mixture", "lowdim_manifold", "heavy_tail"])
def test_inputs(inputs: Any) -> None:
    """Sees inputs of another size than 1, which would change every curvature."""
    rows = Synthetic(n=20_000, num_inputs=8, inputs=inputs).rows(TRUTH)
    expected = np.logspace(0, -1, 8) if inputs == "gauss_aniso" else 1.0
    spread = np.sqrt(np.mean(rows.inputs**2, 0))
    # A mixture's centres and a manifold's directions are draws too: only their mean size is 1.
    np.testing.assert_allclose(spread / expected, 1, atol=0.6 if inputs in ("mixture", "lowdim_manifold") else 0.15)


@pytest.mark.parametrize("noise", ["gauss", "hetero", "student_t", "outliers"])
def test_noise(noise: Any) -> None:
    """Sees a scale that is not the noise's, and a sigma that is not the scale."""
    rows = Synthetic(n=20_000, noise=noise, noise_scale=0.5).rows(TRUTH)
    assert rows.sigma == 0.5
    bulk = (
        np.sort(np.abs(rows.outputs).ravel())[: int(0.95 * rows.outputs.size)] if noise == "outliers" else rows.outputs
    )
    assert np.std(rows.outputs) > 0.4
    assert np.sqrt(np.mean(bulk**2)) == pytest.approx(0.5, rel=0.25)


def test_a_seed_of_its_own_or_the_teachers_stream() -> None:
    """Sees two data seeds that give one data set, or a stream that starts anew."""

    def inputs(seed: int | None) -> np.ndarray:
        rows: Rows = Synthetic(n=3, seed=seed).rows(TRUTH)
        return rows.inputs

    np.testing.assert_array_equal(inputs(None), np.random.default_rng(9).standard_normal((3, 4)))
    assert not np.array_equal(inputs(0), inputs(1))
