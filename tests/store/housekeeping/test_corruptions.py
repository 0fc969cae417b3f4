"""A store damaged in every way: no reader takes another number, and `verify` names the damage."""

from pathlib import Path

import pytest

from benchmarks.corruptions import HOW, corruptions, make_store, table
from lambda_hat.store.layout import Store

# Seed of a slice that fails can be given to `python -m benchmarks.corruptions`.
SLICE, ALL = 80, 4000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("corrupted") / "runs")


def _assert_all_seen(store: Store, count: int, seed: int) -> None:
    done = list(corruptions(store, count, seed))
    faults = [one for one in done if one.silent or one.is_missed]
    assert not faults, table(done)
    assert {one.how for one in done} == {*HOW}
    assert len(done) == count


def test_no_corruption_is_read_as_another_number(store: Store) -> None:
    _assert_all_seen(store, SLICE, seed=1)


@pytest.mark.slow
def test_no_corruption_of_thousands_is_read_as_another_number(store: Store) -> None:
    _assert_all_seen(store, ALL, seed=2)


def test_the_store_is_as_it_was(store: Store, tmp_path: Path) -> None:
    """What the harness restores is whole: else it would find its own damage."""
    before = {path: path.read_bytes() for path in store.root.glob("targets/**/*.json")}
    list(corruptions(store, 6, seed=3))
    assert {path: path.read_bytes() for path in store.root.glob("targets/**/*.json")} == before
