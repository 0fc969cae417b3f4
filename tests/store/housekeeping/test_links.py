"""gc never follows a link: what it leads to is not the store's. A link is named, and stays."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lambda_hat.cli.__main__ import app
from lambda_hat.store.housekeeping.gc import collect_garbage
from lambda_hat.store.housekeeping.trash import undo
from lambda_hat.store.layout import StoreError
from tests.shelf import OLD, Shelf, age_sweep, submit


@pytest.fixture
def shelf(store_root: Path) -> Shelf:
    return Shelf(store_root)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _moved_away(folder: Path, away: Path) -> Path:
    """A link in place of ``folder``, which is elsewhere now; returns the link."""
    away.mkdir(exist_ok=True)
    shutil.move(folder, away / folder.name)
    folder.symlink_to(away / folder.name)
    return folder


def _new(name: str) -> Callable[[Shelf, Path], Path]:
    """A link in the store to a folder of old files."""

    def make(shelf: Shelf, away: Path) -> Path:
        link = shelf.store.root / name
        (away / "mine").mkdir(parents=True)
        for path in (away / "mine" / "thesis.tex", away / "mine" / "meta.json"):
            path.write_text("{}")
            os.utime(path, (OLD, OLD))
        for folder in (away / "mine", away):
            os.utime(folder, (OLD, OLD))
        link.parent.mkdir(parents=True, exist_ok=True)
        if name == ".tmp":
            link.rmdir()  # of the targets that were built
        link.symlink_to(away)
        os.utime(link, (OLD, OLD), follow_symlinks=False)
        return link

    return make


def _sweep(shelf: Shelf, away: Path) -> Path:
    submit(shelf.jobs[:1], shelf.store)
    age_sweep(shelf)
    return _moved_away(shelf.store.sweep_dir("dev-0"), away)


LINKS: dict[str, Callable[[Shelf, Path], Path]] = {
    ".tmp": _new(".tmp"),
    "a folder in .tmp": _new(f".tmp/{'a' * 32}"),
    "a folder in .trash": _new(".trash/gc-20200101-000000-aaaaaaaa"),
    "a target from nowhere": _new("targets/tgt_aaaaaaaaaaaa"),
    "a run from nowhere": lambda shelf, away: _new(f"targets/{shelf.jobs[0].target_id}/run_hmc_aaaaaaaaaaaa")(
        shelf, away
    ),
    "a sweep from nowhere": _new("sweeps/dev-1"),
    "a target": lambda shelf, away: _moved_away(shelf.store.target_dir(shelf.jobs[0].target_id), away),
    "a run": lambda shelf, away: _moved_away(shelf.folder(0), away),
    "all targets": lambda shelf, away: _moved_away(shelf.store.root / "targets", away),
    "a sweep": _sweep,
    "a broken link": lambda shelf, away: _new("targets/tgt_bbbbbbbbbbbb")(shelf, away / "gone"),
}


@pytest.mark.parametrize("what", LINKS)
def test_what_a_link_leads_to_is_left_alone_and_the_link_is_named(shelf: Shelf, tmp_path: Path, what: str) -> None:
    away = tmp_path / "away"
    link = LINKS[what](shelf, away)
    if what == "a broken link":
        shutil.rmtree(away)
        away.mkdir()
    before, leads_to = _files(away), os.readlink(link)
    told = shelf.command("gc", "--apply")
    assert f"{link}: a link, which gc does not follow" in told
    assert _files(away) == before
    assert link.is_symlink()
    assert os.readlink(link) == leads_to


def test_a_link_put_in_place_of_a_run_after_it_was_judged_is_not_followed(shelf: Shelf, tmp_path: Path) -> None:
    items = shelf.items()
    link = _moved_away(shelf.folder(0), tmp_path / "away")
    before = _files(tmp_path / "away")
    done = collect_garbage(shelf.store, items)
    assert link in {item.folder for item in done.busy}
    assert _files(tmp_path / "away") == before


def test_nothing_is_moved_out_of_the_store_through_a_trash_that_is_a_link(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (shelf.store.root / ".trash").symlink_to(tmp_path / "away")
    before = shelf.files()
    with pytest.raises(StoreError, match=r"\.trash: it needs to be a folder, got a link"):
        collect_garbage(shelf.store, shelf.items())
    done = CliRunner().invoke(app, ["artifacts", "gc", "--apply", "--store", str(shelf.store.root)])
    assert (done.exit_code, "needs to be a folder, got a link" in done.stderr) == (1, True)
    assert shelf.files() == before
    assert not list((tmp_path / "away").iterdir())


@pytest.mark.parametrize("name", ["targets/tgt_aaaaaaaaaaaa", "sweeps/dev-1", "targets"])
def test_undo_brings_back_nothing_that_gc_did_not_move(shelf: Shelf, tmp_path: Path, name: str) -> None:
    away = tmp_path / "away"
    (away / "tgt_cccccccccccc").mkdir(parents=True)
    (away / "meta.json").write_text("{}")
    (away / "tgt_cccccccccccc" / "meta.json").write_text("{}")
    link = shelf.store.root / ".trash" / "gc-20200101-000000-aaaaaaaa" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(away)
    before = _files(away)
    assert undo(shelf.store).folders == []
    assert _files(away) == before


def test_undo_is_offered_for_what_was_moved_alone(shelf: Shelf) -> None:
    old = shelf.store.root / ".trash" / "gc-20200101-000000-aaaaaaaa"
    old.mkdir(parents=True)
    os.utime(old, (OLD, OLD))
    told = shelf.command("gc", "--apply", "--ttl-days", "1000")
    assert "1 went" in told
    assert "--undo" not in told
    told = shelf.command("gc", "--apply")
    assert "--undo` brings back" in told
