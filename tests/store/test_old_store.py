"""A store that older code made is listed, checked and reported as what it is."""

from pathlib import Path

import pytest
from pyarrow import parquet

from lambda_hat.launch.sweep import Sweep
from lambda_hat.launch.workflows.collect import collect
from lambda_hat.report.page_data import Heading, make_page
from lambda_hat.results import load
from lambda_hat.store.housekeeping.listing import list_runs
from lambda_hat.store.housekeeping.verify import verify
from lambda_hat.store.layout import Store
from lambda_hat.store.records import read_record
from lambda_hat.store.runs import finished, read_frozen_config
from tests.old_store import ENTRIES, copy_old_store, job_of

STATES = {"half": "interrupted", "finished": "finished", "failed": "failed"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(copy_old_store(tmp_path_factory.mktemp("old") / "runs"))


def test_every_run_is_listed_with_its_state_and_its_llc(store: Store) -> None:
    listed = {entry["run"]: (entry["state"], entry["llc"]) for entry in list_runs(store)}
    assert listed == {entry["run"]: (STATES[entry["state"]], entry["llc"]) for entry in ENTRIES}
    table = parquet.read_table(collect(store)).to_pylist()
    assert {row["run"]: (row["state"], row["llc"]) for row in table} == listed


def test_nothing_is_damaged(store: Store) -> None:
    assert not list(verify(store))


def test_its_configs_are_read_without_schema_classes(store: Store) -> None:
    for entry in ENTRIES:
        frozen = read_frozen_config(store.run_dir(entry["target"], entry["run"]))
        assert frozen is not None
        job = job_of(entry, store.root)
        assert frozen.ref[:2] == (entry["target"], entry["run"]) == (job.target_id, job.run_id)
        assert frozen.ref.sampler == entry["sampler"] == job.sampler_name
        assert frozen.budget == job.budget
        is_finished = finished(store, frozen.ref.target_id, frozen.ref.run_id, frozen.budget) is not None
        assert is_finished == (entry["state"] == "finished")


def test_its_sweeps_have_their_states(store: Store) -> None:
    for name in sorted({entry["sweep"] for entry in ENTRIES if "sweep" in entry}):
        states = {state.run_id: state.to_dict()["state"] for state in Sweep(store, name).states()}
        assert states == {entry["run"]: entry["state"] for entry in ENTRIES if entry.get("sweep") == name}
        assert set(load(name, store.root).runs["run"]) == set(states)


def test_it_is_reported(store: Store, tmp_path: Path) -> None:
    records = [read_record(store, ref) for ref in store.iter_runs()]
    make_page(tmp_path / "report.html", Heading("All runs", "of an old store"), store, records)
    page = (tmp_path / "report.html").read_text()
    assert all(entry["run"] in page for entry in ENTRIES)
