"""The code is lambda_hat.launch: a launch.py or launch/ of the user's, beside their store, is never imported."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.launch.in_the_way import WAYS, put, run, sweep, sweep_through_every_door

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.slow  # a wheel's user meets it every day, in test_packaging
def test_every_door_with_both_in_the_way(tmp_path: Path) -> None:
    sweep_through_every_door(sys.executable, put(tmp_path, WAYS[-1]), CHECKOUT)


# A package comes before a module, so that a wheel's user, who has both, meets the package every day; the module alone
# is met by the doors of model=own (test_own_doors).
@pytest.mark.slow
@pytest.mark.parametrize("files", WAYS[:2], ids="+".join)
def test_a_sweep_with_one_of_them_in_the_way(tmp_path: Path, files: Sequence[str]) -> None:
    sweep(sys.executable, put(tmp_path, files), CHECKOUT)


@pytest.mark.parametrize(
    ("module", "says"), [("tune", "python -m launch.tune"), ("workflow", "N targets by M samplers")]
)
def test_the_modules_of_a_checkout(module: str, says: str) -> None:
    assert says in run(sys.executable, CHECKOUT, f"launch.{module}", "--help")


def test_a_plan_of_tuning_from_the_checkout(tmp_path: Path) -> None:
    words = ("launch.tune", "tune=demo", "dry_run=true", f"store.root={tmp_path / 'runs'}")
    assert "nothing was submitted" in run(sys.executable, CHECKOUT, *words)
