"""`store.keep_state=false`: a finished run keeps no state of its chains, and a larger budget repeats it, to the bit."""

from pathlib import Path
from typing import Any

import numpy as np

from lambda_hat.config.job import Job
from lambda_hat.run.loop import execute
from lambda_hat.run.progress import Silent
from lambda_hat.store.housekeeping.verify import verify
from lambda_hat.store.layout import Store
from lambda_hat.store.trace_file import read_trace_file
from tests.jobs import make_job


class _Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def _run(job: Job) -> list[str]:
    reporter = _Lines()
    execute(job, Store(job.store.root), reporter)
    return reporter.lines


def _job(root: Path, draws: int, **store: Any) -> Job:
    return make_job(root, budget={"draws": draws}, store={"root": str(root), "plots": "none", **store})


def _folder(job: Job) -> Path:
    return Store(job.store.root).run_dir(job.target_id, job.run_id)


def _trace(job: Job) -> dict[str, np.ndarray]:
    return read_trace_file(_folder(job) / "trace.nc").trace


def test_a_larger_budget_says_so_and_repeats_the_run(tmp_path: Path) -> None:
    small, large = (_job(tmp_path / "one", draws, keep_state=False) for draws in (20, 50))
    _run(small)
    before = _trace(small)
    assert not [*_folder(small).glob("carry-*"), *_folder(small).glob("trace-*")]
    assert not list(verify(Store(tmp_path / "one")))

    told = _run(large)
    (line,) = [line for line in told if "repeated" in line]
    assert line.endswith("the state of its chains was not kept: it is repeated from its target")
    assert told.index(line) == 0, told
    assert not list(_folder(large).glob("carry-*"))
    from_the_start = _job(tmp_path / "two", 50)
    assert not [line for line in _run(from_the_start) if "repeated" in line]
    assert list(_folder(from_the_start).glob("carry-*"))
    for name, column in _trace(from_the_start).items():
        np.testing.assert_array_equal(_trace(large)[name], column, err_msg=name)
        np.testing.assert_array_equal(before[name], column[:, :20], err_msg=name)


def test_a_run_that_kept_its_state_goes_on_and_then_forgets_it(tmp_path: Path) -> None:
    kept, forgotten = _job(tmp_path, 20), _job(tmp_path, 50, keep_state=False)
    _run(kept)
    assert not [line for line in _run(forgotten) if "repeated" in line]
    assert not list(_folder(forgotten).glob("carry-*"))
    assert _trace(forgotten)["loss"].shape[1] == 50
