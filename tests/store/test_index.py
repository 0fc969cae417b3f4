"""The index of a store is what a scan of everything would make, whatever happened to the runs, and costs no scan."""

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from lambda_hat.config.job import Job
from lambda_hat.launch.manifest import Manifest
from lambda_hat.launch.workflows.collect import collect
from lambda_hat.store import index
from lambda_hat.store.files import read_json, write_json
from lambda_hat.store.layout import RunRef, Store, write_status
from lambda_hat.store.sweeps import SweepRun
from tests.old_store import ENTRIES, OLD_STORE, copy_old_store
from tests.shelf import finish, some_jobs, submit

_TICK_S = 0.02


class Shelf:
    """A store of finished runs and what a test does to it.

    Args:
        root: Where it is.
        jobs: Its runs.
    """

    def __init__(self, root: Path, jobs: list[Job]):
        self.store = Store(root)
        self.jobs = jobs
        self.read: list[str] = []

    def folder(self, number: int) -> Path:
        job = self.jobs[number]
        return self.store.run_dir(job.target_id, job.run_id)

    def table(self) -> pyarrow.Table:
        """By the index, once what was touched last has settled; ``read`` then holds the runs that it read."""
        time.sleep(2 * _TICK_S)
        self.read.clear()
        return index.runs_table(self.store)

    def scanned(self) -> pyarrow.Table:
        """The same without an index."""
        shutil.rmtree(self.store.root / ".index")
        return index.runs_table(self.store)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """10 finished runs."""
    root = tmp_path_factory.mktemp("filled") / "runs"
    jobs = some_jobs(root)
    submit(jobs, Store(root))
    for job in jobs:
        finish(job, Store(root))
    return Shelf(root, jobs)


@pytest.fixture
def shelf(filled: Shelf, store_root: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A copy, with a clock that is fine enough to tell changes apart within the milliseconds of a test."""
    shutil.copytree(filled.store.root, store_root, symlinks=True)
    monkeypatch.setattr(index, "_SETTLED_NS", int(_TICK_S * 1e9))
    made = Shelf(store_root, filled.jobs)
    read_row = index.read_row

    def counted(store: Store, ref: RunRef) -> index.Row:
        made.read.append(ref.run_id)
        return read_row(store, ref)

    monkeypatch.setattr(index, "read_row", counted)
    return made


def _fail(folder: Path) -> None:
    write_status(folder, state="failed", error="it broke")


def _finish_anew(folder: Path) -> None:
    write_json(folder / "analysis.json", {**(read_json(folder / "analysis.json") or {}), "llc": 7.5})


def _write_in_place(folder: Path) -> None:
    """As no code of ours does, but a hand may."""
    path = folder / "analysis.json"
    path.write_text(path.read_text().replace('"sampler": "', '"sampler": "my'))


def _other_type(folder: Path) -> None:
    """A field that is a number elsewhere: the column becomes text."""
    document: dict[str, Any] = read_json(folder / "analysis.json") or {}
    document["config"]["sampler"]["num_warmup"] = "many"
    write_json(folder / "analysis.json", document)


def _new_field(folder: Path) -> None:
    write_json(folder / "analysis.json", {**(read_json(folder / "analysis.json") or {}), "novel": None})


def _damage(folder: Path) -> None:
    write_json(folder / "analysis.json", {})
    (folder / "analysis.json").write_text("{")


def _set_aside(folder: Path) -> None:
    """`rerun=true`, `retry --finished`."""
    (folder / "analysis.json").unlink()
    (folder / "status.json").unlink()


CHANGES = (_fail, _finish_anew, _write_in_place, _other_type, _new_field, _damage, _set_aside, shutil.rmtree)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_a_change_of_one_run_reads_one_run(shelf: Shelf, change: Callable[[Path], None]) -> None:
    before = shelf.table()
    change(shelf.folder(3))
    after = shelf.table()
    is_gone = not shelf.folder(3).exists()
    assert shelf.read == ([] if is_gone else [shelf.jobs[3].run_id])
    assert not after.equals(before)
    assert after.equals(shelf.scanned())


def test_nothing_changed_nothing_is_read_and_no_file_is_written(shelf: Shelf) -> None:
    before = shelf.table()
    path = shelf.store.root / ".index" / "runs.parquet"
    inode = path.stat().st_ino
    assert shelf.table().equals(before)
    assert not shelf.read
    assert path.stat().st_ino == inode
    assert before.num_rows == 10


def test_what_one_change_brought_another_takes_away(shelf: Shelf, tmp_path: Path) -> None:
    """Sees a column that stays text, or stays at all, once the run is gone that made it so."""
    stranger = finish(some_jobs(shelf.store.root, 11)[10], shelf.store)
    shutil.copytree(stranger, tmp_path / "kept")
    before = shelf.table()
    _other_type(stranger)
    _new_field(stranger)
    mixed = shelf.table()
    assert mixed["config.sampler.num_warmup"].type == pyarrow.string()
    assert "novel" in mixed.column_names
    shutil.rmtree(stranger)
    shelf.table()
    shutil.copytree(tmp_path / "kept", stranger)
    assert shelf.table().equals(before)


def test_a_run_touched_a_moment_ago_is_read_again(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sees an index that trusts a clock which cannot tell two changes apart."""
    monkeypatch.setattr(index, "_SETTLED_NS", 3_000_000_000)
    path = shelf.folder(0) / "analysis.json"
    path.touch()
    shelf.table()
    seen = path.stat().st_mtime_ns
    path.write_text(path.read_text().replace('"reliable": true', '"reliable": false'))
    os.utime(path, ns=(seen, seen))
    assert shelf.table().equals(shelf.scanned())


def test_no_flipped_bit_of_the_index_is_believed(shelf: Shelf) -> None:
    """Sees an index without a digest: one bit of it would be another LLC in every list, and for good."""
    before = shelf.table()
    path = shelf.store.root / ".index" / "runs.parquet"
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0b100]) + whole[place + 1 :])
        assert shelf.table().equals(before), f"byte {place} of {len(whole)}"


def test_another_row_of_the_index_is_not_believed(shelf: Shelf) -> None:
    """A file whose pages are sound, but for one number of one run."""
    before = shelf.table()
    path = shelf.store.root / ".index" / "runs.parquet"
    rows = parquet.read_table(path).to_pylist()
    rows[4]["json"] = rows[4]["json"].replace('"llc":', '"llc":1')
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert shelf.table().equals(before)
    assert len(shelf.read) == 10
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    path.with_name("runs.parquet.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    assert shelf.table().equals(before)
    assert shelf.read == [rows[4]["run"]]


def test_an_index_of_older_code_is_made_anew(store_root: Path) -> None:
    store = Store(copy_old_store(store_root))
    made = index.runs_table(store)
    shutil.rmtree(store_root / ".index")
    shutil.copytree(OLD_STORE / ".index", store_root / ".index")
    assert index.runs_table(store).equals(made)
    assert made.num_rows == len(ENTRIES)


@pytest.mark.parametrize("ruin", [b"", b"PAR1 and nothing else"])
def test_a_damaged_index_is_made_anew(shelf: Shelf, ruin: bytes) -> None:
    before = shelf.table()
    for path in (shelf.store.root / ".index").iterdir():
        path.write_bytes(ruin)
    assert shelf.table().equals(before)
    assert len(shelf.read) == 10


def test_a_store_that_cannot_be_written_is_listed_all_the_same(shelf: Shelf) -> None:
    before = shelf.table()
    shutil.rmtree(shelf.store.root / ".index")
    (shelf.store.root / ".index").write_text("a file where the folder would be")
    assert shelf.table().equals(before)


def test_many_may_write_the_index_while_runs_change(shelf: Shelf) -> None:
    stop = threading.Event()
    faults: list[BaseException] = []

    def look() -> None:
        while not stop.is_set():
            try:
                index.runs_table(shelf.store)
            except (OSError, ValueError, RuntimeError) as error:
                faults.append(error)
                return

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number, change in enumerate((*CHANGES, _fail)):
        change(shelf.folder(number))
        time.sleep(_TICK_S)
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert shelf.table().equals(shelf.scanned())


def test_an_empty_store_has_an_empty_table(store_root: Path) -> None:
    assert index.runs_table(Store(store_root)).num_rows == 0


@pytest.fixture
def tagged(shelf: Shelf) -> Iterator[Callable[[], dict[str, str]]]:
    """Experiments by run."""
    yield lambda: {row["run"]: row["experiment"] for row in shelf.table().select(["run", "experiment"]).to_pylist()}


def test_a_run_has_the_tags_of_all_its_sweeps(shelf: Shelf, tagged: Callable[[], dict[str, str]]) -> None:
    job = shelf.jobs[0]
    assert set(tagged().values()) == {"dev"}
    Manifest("other", "paper", {}, {job.run_id: SweepRun(job.target_id, "hmc", "")}).save(shelf.store)
    assert tagged()[job.run_id] == "dev,paper"
    shutil.rmtree(shelf.store.root / "sweeps")
    assert tagged()[job.run_id] == "dev"  # its own config's


def test_collect_writes_what_the_index_holds(shelf: Shelf) -> None:
    _fail(shelf.folder(1))
    written = parquet.read_table(collect(shelf.store))
    assert written.equals(shelf.table())
    states = dict(zip(written["run"].to_pylist(), written["state"].to_pylist(), strict=True))
    assert states[shelf.jobs[1].run_id] == "failed"
    assert json.loads(written["config.num_chains"].to_pandas().to_json(orient="values")) == [3] * 10
