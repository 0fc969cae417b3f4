"""What gc, undo, verify and du make of data that targets share."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from lambda_hat.store.data_files import LEAST_BYTES
from lambda_hat.store.housekeeping import trash
from lambda_hat.store.housekeeping.gc import collect_garbage
from lambda_hat.store.housekeeping.pins import pin
from lambda_hat.store.housekeeping.trash import undo
from lambda_hat.store.housekeeping.verify import Count, verify
from lambda_hat.store.layout import Store
from tests.shelf import DAY, OLD, Shelf, at

ROWS = np.arange(LEAST_BYTES // 8, dtype=np.float64)


class Library(Shelf):
    """Old targets: two of the same data, and one of its own. None has runs."""

    def __init__(self, root: Path):
        self.store = Store(root)
        for number in range(3):
            self.add(number)
        for path in (root / "data").iterdir():
            os.utime(path, (OLD, OLD))

    def add(self, number: int) -> None:
        rows = {"rows.0": ROWS + (number == 2)}
        self.store.publish_target(f"tgt_{number:012}", {}, {"dim": 2}, rows, np.zeros(2))
        at(self.target(number), OLD)

    def target(self, number: int) -> Path:
        return self.store.target_dir(f"tgt_{number:012}")

    def data(self, number: int) -> Path:
        meta = self.store.read_meta(self.target(number).name) or {}
        return self.store.root / "data" / f"{meta['data']['rows.0']}.npy"

    def rows(self, number: int) -> np.ndarray:
        return self.store.load_target(self.target(number).name).arrays["rows.0"]


@pytest.fixture
def library(store_root: Path) -> Library:
    return Library(store_root)


def test_data_go_with_their_last_target_and_come_back_with_it(library: Library) -> None:
    one, other = library.data(0), library.data(2)
    before = library.files()
    pin(library.store, library.target(1).name)
    assert library.judged()[one.name] == "a target that stays needs it"
    assert library.judged()[other.name] == ""
    assert "data file" in library.command("gc")
    assert other.exists(), "that was only a list"
    told = library.command("gc", "--apply")
    assert "3 went, 3 of them to" in told
    assert (one.exists(), other.exists()) == (True, False)
    np.testing.assert_array_equal(library.rows(1), ROWS)
    assert "3 folders and files are back" in library.command("gc", "--undo")
    np.testing.assert_array_equal(library.rows(2), ROWS + 1)
    assert {name: data for name, data in library.files().items() if not name.startswith("pins")} == before


def test_data_that_nobody_names_stay_for_a_day(library: Library) -> None:
    """They may be of a target that is about to be published."""
    path = library.data(2)
    shutil.rmtree(library.target(2))
    now = time.time()
    os.utime(path, (now, now))
    assert library.judged(days=0)[path.name] == "worked on in the last 1 days"
    os.utime(path, (now - 2 * DAY, now - 2 * DAY))
    assert library.judged(days=0)[path.name] == ""


def test_data_stay_while_a_meta_json_cannot_be_read(library: Library) -> None:
    path = library.data(2)
    (library.target(2) / "meta.json").write_text("{")
    assert library.judged()[path.name].startswith("what it belongs to is not known: cannot read")
    for item in library.items():
        collect_garbage(library.store, [item])
    assert path.exists()


def test_data_that_are_marked_after_they_were_judged_stay(library: Library) -> None:
    path = library.data(2)
    shutil.rmtree(library.target(2))
    items = library.items()
    os.utime(path)
    done = collect_garbage(library.store, items)
    assert [item.folder for item in done.busy] == [path]
    assert path.exists()


@pytest.mark.parametrize("when", ["before the move", "after the move"])
def test_a_target_that_names_data_while_gc_moves_them_has_them(
    library: Library, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Its builder found the data there, and so did not write them."""
    path = library.data(2)
    kept = {file.name: file.read_bytes() for file in library.target(2).iterdir()}
    shutil.rmtree(library.target(2))
    items, look, looks = library.items(), trash.targets_by_data, 0

    def looking(store: Store) -> dict[str, set[Path]]:
        nonlocal looks
        if when == "before the move" or looks:
            library.target(2).mkdir(exist_ok=True)
            for name, data in kept.items():
                (library.target(2) / name).write_bytes(data)
        looks += 1
        return look(store)

    monkeypatch.setattr(trash, "targets_by_data", looking)
    done = collect_garbage(library.store, items)
    assert [item.folder for item in done.busy] == [path]
    np.testing.assert_array_equal(library.rows(2), ROWS + 1)


def test_undo_finds_data_that_a_later_gc_has_moved(library: Library) -> None:
    """The first gc takes one target of two; its data go with the other one."""
    pin(library.store, library.target(1).name)
    first = collect_garbage(library.store, library.items()).trash.name
    library.command("pin", library.target(1).name, "--remove")
    collect_garbage(library.store, library.items())
    assert not list((library.store.root / "data").iterdir())
    undo(library.store, first)
    np.testing.assert_array_equal(library.rows(0), ROWS)
    assert not library.target(1).exists()


def test_a_link_for_data_is_named_and_left_alone(library: Library, tmp_path: Path) -> None:
    path = library.data(2)
    path.rename(tmp_path / "elsewhere.npy")
    path.symlink_to(tmp_path / "elsewhere.npy")
    assert library.judged()[path.name] == "a link, which gc does not follow"
    collect_garbage(library.store, library.items())
    assert path.is_symlink()


def test_verify_names_data_that_are_damaged_or_missing_once(library: Library) -> None:
    library.target(0).joinpath("config.yaml").unlink()
    known = {damage.path for damage in verify(library.store)}
    damaged, lost = library.data(0), library.data(2)
    data = bytearray(damaged.read_bytes())
    data[200] ^= 1
    damaged.write_bytes(data)
    lost.unlink()
    found = [damage for damage in verify(library.store) if damage.path not in known]
    assert [damage.path for damage in found] == [damaged, lost]
    assert "sha256" in found[0].reason
    assert found[1].reason == "is missing, though tgt_000000000002 needs it"


def test_verify_counts_data_that_no_target_names(library: Library) -> None:
    """They do no harm."""
    shutil.rmtree(library.target(2))
    count = Count()
    assert not [damage for damage in verify(library.store, count=count) if damage.path.parent.name == "data"]
    assert count.unnamed == 1


def test_du_weighs_data(library: Library) -> None:
    assert f"data | 2 | {2 * (ROWS.nbytes + 128) / 1000:.1f} kB" in " ".join(
        library.command("du").replace("│", "|").replace("┃", "|").split()
    )
