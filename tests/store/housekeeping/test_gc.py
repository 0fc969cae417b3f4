"""`artifacts gc`: what it keeps, moves and brings back, also while others work on the store."""

import dataclasses
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lambda_hat.store.files import write_json
from lambda_hat.store.housekeeping.gc import TRASH_DAYS, collect_garbage, judge
from lambda_hat.store.housekeeping.pins import pin
from lambda_hat.store.housekeeping.trash import undo
from lambda_hat.store.layout import write_status
from lambda_hat.store.lease import Lease, LeaseLost, Owner, lease_path
from tests.shelf import DAY, OLD, Shelf, age_sweep, at, finish, submit


@pytest.fixture
def shelf(store_root: Path) -> Shelf:
    return Shelf(store_root)


def elsewhere() -> Owner:
    """A process of another machine, of which nobody here can know whether it lives."""
    return dataclasses.replace(Owner.current(), machine="elsewhere", host="elsewhere", job=None)


def _work(shelf: Shelf, number: int) -> None:
    Lease.claim(shelf.folder(number), elsewhere())


def _drive(shelf: Shelf, number: int) -> None:
    """A sweep of long ago, which somebody goes on with."""
    submit([shelf.jobs[number]], shelf.store)
    age_sweep(shelf)
    Lease.claim(shelf.store.sweep_dir("dev-0"), elsewhere())


def _ask_for(shelf: Shelf, number: int) -> None:
    """A sweep of today found the run."""
    submit([shelf.jobs[number]], shelf.store)


def _promote(shelf: Shelf, number: int) -> None:
    record = shelf.store.root / "promotion" / ".records" / "0123456789ab.json"
    write_json(record, {"outdir": "/elsewhere", "runs": [shelf.jobs[number].run_id]})


def _study(shelf: Shelf, number: int) -> None:
    trial = shelf.store.root / "studies" / "ns" / "problem" / "hmc" / "trial-3.json"
    write_json(trial, {"deep": [{"run": shelf.jobs[number].run_id}]})


KEPT: Mapping[str, Callable[[Shelf, int], None]] = {
    "live: it is being worked on": _work,
    "live: its sweep is being driven": _drive,
    "of a sweep of the last 30 days": _ask_for,
    "worked on in the last 30 days": lambda shelf, number: at(shelf.folder(number), time.time() - 29 * DAY),
    "pinned": lambda shelf, number: pin(shelf.store, shelf.jobs[number].run_id),
    "promoted": _promote,
    "referenced by a study": _study,
}


@pytest.mark.parametrize("why", KEPT)
def test_gc_keeps_one_and_its_target_and_takes_the_others(shelf: Shelf, why: str) -> None:
    """Each reason alone: sees one that is not looked at, and one that keeps too much."""
    KEPT[why](shelf, 3)
    before = shelf.files()
    judged = shelf.judged()
    mine = shelf.jobs[3]
    assert judged.pop(mine.run_id) == why
    assert judged.pop(mine.target_id) == "it has runs that stay"
    assert judged.pop("dev-0", "it has runs that stay") == "it has runs that stay"
    assert set(judged.values()) == {""}
    collect_garbage(shelf.store, shelf.items())
    runs = [path.parent.name for path in shelf.store.root.glob("targets/*/run_*/analysis.json")]
    assert runs == [mine.run_id]
    assert [path.parent.name for path in shelf.store.root.glob("targets/*/meta.json")] == [mine.target_id]
    # Nothing is lost: what is not in its place is in .trash.
    assert {re.sub(r"^\.trash/[^/]+/", "", name): data for name, data in shelf.files().items()} == before


def test_an_element_that_is_queued_is_asked_for(shelf: Shelf) -> None:
    """Its run is in nobody's hands, its sweep neither: SLURM alone knows."""
    asked: list[Path] = []

    def slurm(folders: list[Path]) -> dict[Path, str]:
        asked.extend(folders)
        return {folder: "queued PENDING" for folder in folders if folder == shelf.folder(2)}

    items = judge(shelf.store, 30, slurm)  # pyright: ignore[reportArgumentType]
    assert {item.folder.name: item.kept for item in items}[shelf.jobs[2].run_id] == "live: queued PENDING"
    assert set(asked) >= {shelf.folder(number) for number in range(8)}


def test_a_run_whose_driver_died_before_it_started_may_go(shelf: Shelf) -> None:
    submit([shelf.jobs[0]], shelf.store)
    age_sweep(shelf)
    assert shelf.judged()[shelf.jobs[0].run_id] == ""
    assert shelf.judged()["dev-0"] == ""


def test_a_pinned_target_keeps_its_runs(shelf: Shelf) -> None:
    target_id = shelf.jobs[0].target_id
    shelf.command("pin", target_id, "--why", "the paper's")
    judged = shelf.judged()
    for job in shelf.jobs:
        assert judged[job.run_id] == ("pinned" if job.target_id == target_id else "")
    shelf.command("pin", target_id, "--remove")
    assert set(shelf.judged().values()) == {""}


def test_a_dry_run_changes_nothing(shelf: Shelf) -> None:
    before = {path: path.stat().st_mtime_ns for path in shelf.store.root.rglob("*") if ".index" not in path.parts}
    before.pop(shelf.store.root, None)
    told = shelf.command("gc")
    assert "10 would go; nothing was done" in told
    after = {path: path.stat().st_mtime_ns for path in shelf.store.root.rglob("*") if ".index" not in path.parts}
    assert after == before


def test_undo_brings_everything_back(shelf: Shelf) -> None:
    pin(shelf.store, shelf.jobs[0].run_id)
    submit(shelf.jobs[5:6], shelf.store)
    age_sweep(shelf)
    before = shelf.files()
    told = shelf.command("gc", "--apply")
    assert "9 went" in told
    assert len(list(shelf.store.root.glob("targets/*/run_*"))) == 1
    assert len(list(shelf.store.root.glob("targets/*"))) == 1
    assert not list(shelf.store.root.glob("sweeps/*"))
    told = shelf.command("gc", "--undo")
    assert "9 folders and files are back" in told
    assert shelf.files() == before
    assert not list((shelf.store.root / ".trash").iterdir())
    # They can be worked on at once.
    Lease.claim(shelf.folder(1), elsewhere())


def test_undo_leaves_what_was_made_anew(shelf: Shelf) -> None:
    collect_garbage(shelf.store, shelf.items())
    folder = finish(shelf.jobs[0], shelf.store, llc=7.0)
    new = (folder / "analysis.json").read_bytes()
    restored = undo(shelf.store)
    assert [path.name for path in restored.left] == [folder.name]
    assert (folder / "analysis.json").read_bytes() == new
    assert all(shelf.store.read_meta(job.target_id) is not None for job in shelf.jobs)


def _claim(shelf: Shelf) -> None:
    Lease.claim(shelf.folder(0), elsewhere())


def _go_on(shelf: Shelf) -> None:
    """It was worked on, and is done with again."""
    with Lease.claim(shelf.folder(0), elsewhere()):
        write_status(shelf.folder(0), state="finished")


def _submit_again(shelf: Shelf) -> None:
    submit(shelf.jobs[:1], shelf.store)


@pytest.mark.parametrize("come_back", [_claim, _go_on, _submit_again])
def test_somebody_who_comes_back_between_judgement_and_removal_keeps_the_run(
    shelf: Shelf, come_back: Callable[[Shelf], None]
) -> None:
    items = shelf.items()
    come_back(shelf)
    done = collect_garbage(shelf.store, items)
    assert sorted(item.folder.name for item in done.busy) == sorted([shelf.jobs[0].run_id, shelf.jobs[0].target_id])
    assert (shelf.folder(0) / "analysis.json").exists()
    assert shelf.store.load_target(shelf.jobs[0].target_id)
    assert not shelf.folder(1).exists()


def test_a_run_that_appears_in_a_target_keeps_it_whole(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the very moment in which its files are moved."""
    target = shelf.store.target_dir(shelf.jobs[0].target_id)
    rmdir = Path.rmdir

    def late(path: Path) -> None:
        if path == target:
            (target / "run_hmc_000000000000").mkdir()
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", late)
    done = collect_garbage(shelf.store, shelf.items())
    assert [item.folder for item in done.busy] == [target]
    assert shelf.store.load_target(target.name)


def test_an_owner_whose_run_was_taken_away_stops(shelf: Shelf) -> None:
    """One that was silent for days, and wakes."""
    sleeper = Lease.claim(shelf.folder(0), elsewhere())
    os.utime(lease_path(sleeper.folder, sleeper.epoch), (OLD, OLD))
    collect_garbage(shelf.store, shelf.items())
    assert not shelf.folder(0).exists()
    with pytest.raises(LeaseLost):
        sleeper.check()


def test_the_trash_is_emptied_late_and_temporary_files_soon(shelf: Shelf) -> None:
    old, young = "0123456789abcdef" * 2, "f" * 32
    ages = {".trash/old": TRASH_DAYS + 1, ".trash/young": TRASH_DAYS - 1, f".tmp/{old}": 2.0, f".tmp/{young}": 0.5}
    ages |= {".tmp/notes": 2.0, f".tmp/{old}-kept": 2.0}  # no names of ours
    for name, days in ages.items():
        (shelf.store.root / name).mkdir(parents=True)
        then = time.time() - days * DAY
        os.utime(shelf.store.root / name, (then, then))
    collect_garbage(shelf.store, shelf.items(days=1000))
    assert [name for name in ages if (shelf.store.root / name).exists()] == [
        ".trash/young", f".tmp/{young}", ".tmp/notes", f".tmp/{old}-kept",
    ]  # fmt: skip
    assert len(list(shelf.store.root.glob("targets/*/run_*"))) == 8
