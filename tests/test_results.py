"""lambda_hat.load: what a notebook gets of a store, and the example's three lines from a sweep to a plot."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pytest

import lambda_hat
from lambda_hat.results import LoadError
from lambda_hat.store.index import typed_column
from lambda_hat.store.layout import Store
from tests.report.stores import HMC, SGLD, fill, jobs_of, spoil

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two samplers on one target, four seeds each: a run of the second sampler and all of the first are finished."""
    root = tmp_path_factory.mktemp("loading") / "runs"
    jobs = fill(root, jobs_of(root, 1, 4, [SGLD, HMC]))
    spoil(root, jobs)
    return root


def test_a_sweep_is_one_row_a_run(root: Path) -> None:
    jobs = jobs_of(root, 1, 4, [SGLD, HMC])
    runs = lambda_hat.load("dev", root).runs
    assert list(runs["run"]) == [job.run_id for job in jobs]
    assert list(runs["seed"]) == [0, 1, 2, 3] * 2
    assert list(runs["sampler"]) == ["sgld"] * 4 + ["hmc"] * 4
    assert set(runs["model"]) == {"quadratic"}
    assert set(runs["data"]) == {"population"}
    assert list(runs["state"]) == [
        "failed",
        "failed",
        "cancelled",
        "running",
        "running",
        "queued",
        "damaged",
        "finished",
    ]
    assert len(runs.dropna(subset="llc")) == 1
    finished = runs.to_dict("records")[7]
    analysis = Store(root).read_analysis(jobs[7].target_id, jobs[7].run_id)
    assert analysis is not None
    assert float(finished["llc"]) == analysis["llc"]
    assert bool(finished["verdict.reliable"]) == analysis["verdict"]["reliable"]
    assert finished["config.sampler.num_warmup"] == HMC["num_warmup"]


def test_a_run_is_loaded_by_id_by_its_beginning_or_by_its_folder(root: Path) -> None:
    job = jobs_of(root, 1, 4, [SGLD, HMC])[7]
    folder = Store(root).run_dir(job.target_id, job.run_id)
    for name, store in ((job.run_id, root), (job.run_id[:14], root), (folder, "nowhere")):
        results = lambda_hat.load(name, store)
        assert list(results.runs["run"]) == [job.run_id]
        assert results.folders == {job.run_id: folder}
        trace = results.trace()
        draws = trace["posterior/llc"]
        assert draws.dims == ("chain", "draw")
        loss = np.asarray(trace["sample_stats/loss"])
        x = trace.attrs["nbeta"] * (loss - trace.attrs["loss_at_w0"])
        np.testing.assert_allclose(np.asarray(draws), x)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("tour", "it has dev-report"), ("run_hmc_", "4 begin so"), ("run_nuts_", "needs a run of the store")],
)
def test_what_is_not_there_is_named(root: Path, name: str, sentence: str) -> None:
    with pytest.raises(LoadError, match=sentence):
        lambda_hat.load(name, root)


def test_a_run_without_a_trace_says_so(root: Path) -> None:
    job = jobs_of(root, 1, 4, [SGLD, HMC])[0]
    results = lambda_hat.load("dev", root)
    with pytest.raises(LoadError, match="finish it first"):
        results.trace(job.run_id)
    with pytest.raises(LoadError, match="8 begin so"):
        results.trace()


def test_columns_keep_their_types_whatever_became_of_the_runs(root: Path) -> None:
    """Sees truth values that no longer select, and numbers that one missing or chosen value turned into objects."""
    runs = lambda_hat.load("dev", root).runs
    reliable = runs[runs["verdict.reliable"]]
    kept = [row["run"] for row in runs.to_dict("records") if row["verdict.reliable"] is True]
    assert list(reliable["run"]) == kept
    for name in ("llc", "llc_mcse", "exact_llc", "seed", "num_data", "config.sampler.num_warmup"):
        assert pandas.api.types.is_numeric_dtype(runs[name]), name
    assert str(runs["verdict.reliable"].dtype) == "boolean"


def test_no_result_at_all_keeps_the_types(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, 1, 7, [SGLD])
    spoil(tmp_path, fill(tmp_path, jobs))
    runs = lambda_hat.load("dev", tmp_path).runs
    assert runs[runs["verdict.reliable"]].empty
    assert runs["llc"].dtype == float


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0.1, "auto", 0.3], "float64"),
        ([1, "auto", None], "float64"),
        ([1, 2.5, None], "float64"),
        ([1, 2], "int64"),
        ([True, None], "boolean"),
        (["auto", None], "text"),
        ([0.5, "[0.1, 0.2]"], "text"),
    ],
)
def test_a_column_of_numbers_stays_one(values: list[object], dtype: str) -> None:
    """Sees `auto` of one run make text of the step sizes of all others; a list among numbers stays readable."""
    table = pyarrow.table({"column": typed_column(values)})
    column = table.to_pandas(types_mapper={pyarrow.bool_(): pandas.BooleanDtype()}.get)["column"]
    assert pandas.api.types.is_string_dtype(column.dropna()) if dtype == "text" else column.dtype == dtype
    assert column[0] == (str(values[0]) if dtype == "text" else values[0])


def _example(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "plot_sweep.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_example_draws_a_sweep(root: Path) -> None:
    done = _example(root.parent, "dev", "llc.png")
    assert done.returncode == 0, done.stderr
    assert (root.parent / "llc.png").read_bytes().startswith(b"\x89PNG")


def test_the_example_says_what_is_wrong(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sees a traceback, for each thing that a reader can get wrong."""
    main = runpy.run_path(str(ROOT / "examples" / "plot_sweep.py"))["main"]

    def told(sweep: str, picture: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main(sweep, picture)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    monkeypatch.chdir(root.parent)
    assert "it has dev-report" in told("nosuch", "llc.png")
    assert "nosuch/llc.png" in told("dev", "nosuch/llc.png")
    assert "cannot write llc.nosuch" in told("dev", "llc.nosuch")
    monkeypatch.chdir(tmp_path)
    assert "it has none" in told("dev", "llc.png")
    root = tmp_path / "runs"
    spoil(root, fill(root, jobs_of(root, 1, 7, [SGLD])))
    assert "7 runs and no result" in told("dev", "llc.png")
    (Store(root).sweep_dir("dev-report") / "manifest.json").write_text("{")
    assert "manifest.json" in told("dev", "llc.png")
    done = _example(tmp_path)
    assert (done.returncode, done.stderr[:6]) == (1, "usage:")


def test_importing_the_package_is_light() -> None:
    program = "import sys, lambda_hat; print([name for name in ('numpy', 'pandas', 'yaml') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        lambda_hat.lode  # noqa: B018
