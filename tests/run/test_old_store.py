"""Runs that older code began are continued as it would have continued them, and finished ones are found.

Sees a change of a sampler's numbers, of its state or of a checkpoint's format that does not raise ``kernel_version``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lambda_hat.run.loop import execute
from lambda_hat.store.layout import Store
from tests.old_store import ENTRIES, copy_old_store, job_of, same_place

# Elsewhere the same program may round otherwise. No run is long enough for a difference of one unit in the last place
# to grow beyond these: the dynamics are those of a stable quadratic, over at most 110 steps of 64 gradients.
_TOLERANCE = {"float64": 1e-9, "float32": 1e-3}

HALF_DONE = [entry for entry in ENTRIES if "uninterrupted" in entry]
LARGER = [entry for entry in ENTRIES if "larger" in entry]


def _name(entry: Mapping[str, Any]) -> str:
    return entry["run"].removeprefix("run_")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_old_store(tmp_path_factory.mktemp("old") / "runs")


def _assert_llc(analysis: Mapping[str, Any], expected: float) -> None:
    if same_place(analysis):
        assert analysis["llc"] == expected
    else:
        dtype = analysis["config"]["sampler"]["dtype"]
        assert analysis["llc"] == pytest.approx(expected, rel=_TOLERANCE[dtype])


@pytest.mark.parametrize("entry", HALF_DONE, ids=_name)
def test_a_half_done_run_ends_as_if_it_had_never_stopped(root: Path, entry: dict[str, Any]) -> None:
    job = job_of(entry, root)
    assert job.run_id == entry["run"]
    analysis = json.loads(execute(job, Store(root)).analysis.read_text())
    assert analysis["progress"]["draws"] == 60
    assert analysis["places"][0]["from"] == {"phase": "warmup", "step": 0}
    assert len(analysis["places"]) == 2, "it did not go on from where it was"
    _assert_llc(analysis, entry["uninterrupted"])


@pytest.mark.parametrize("entry", LARGER, ids=_name)
def test_a_finished_run_is_found_and_a_larger_budget_continues_it(root: Path, entry: dict[str, Any]) -> None:
    job, store = job_of(entry, root), Store(root)
    before = (store.run_dir(job.target_id, job.run_id) / "analysis.json").read_bytes()
    found = execute(job, store)
    assert found.was_found
    assert found.analysis.read_bytes() == before
    assert json.loads(before)["llc"] == entry["llc"]
    larger = job_of(entry, root, draws=entry["larger"]["draws"])
    analysis = json.loads(execute(larger, store).analysis.read_text())
    assert analysis["progress"]["draws"] == entry["larger"]["draws"]
    _assert_llc(analysis, entry["larger"]["llc"])
