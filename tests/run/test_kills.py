"""Processes that are killed, stopped, doubled and deceived: every number is that of an undisturbed run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kills import faults, strike, table
from benchmarks.kills_case import KINDS, Sweep
from benchmarks.kills_zygote import Zygote

ALL = 1000


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    with Zygote() as zygote:
        yield zygote


def _assert_identical(sweep: Sweep, zygote: Zygote, count: int, seed: int) -> None:
    results = strike(sweep, zygote, count, seed)
    assert not faults(results), faults(results)
    assert sum(one.strikes for one in results) >= count, table(results)
    assert {one.kind for one in results if one.strikes} == {*KINDS}, table(results)


@pytest.mark.timeout(300)
def test_a_run_that_is_struck_in_each_way_has_the_same_numbers(zygote: Zygote, tmp_path: Path) -> None:
    _assert_identical(Sweep(zygote, tmp_path, count=2, most=1), zygote, len(KINDS), seed=1)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_a_thousand_strikes_change_no_number(zygote: Zygote, tmp_path: Path) -> None:
    _assert_identical(Sweep(zygote, tmp_path), zygote, ALL, seed=2)
