"""Many claimants of one folder: exactly one wins, whatever was pruned or slept through."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lambda_hat.store import lease as lease_module
from lambda_hat.store.lease import Lease, LeaseHeld, LeaseLost, Owner, lease_path
from tests.hang import HANG

ROOT = Path(__file__).parents[2]
ELSEWHERE = Owner(host="node7", machine="another boot", pid=1, start=1, job=None, restart=0)


def test_leases_are_pruned_to_the_newest_two(tmp_path: Path) -> None:
    for epoch in range(1, 5):
        with Lease.claim(tmp_path, ELSEWHERE) as lease:
            assert lease.epoch == epoch
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lease-000003.json", "lease-000004.json"]


def test_a_pruned_owner_knows_that_it_lost(tmp_path: Path) -> None:
    sleeper = Lease.claim(tmp_path, ELSEWHERE)
    sleeper.release()
    for _ in range(3):
        with Lease.claim(tmp_path, ELSEWHERE):
            pass
    assert not lease_path(tmp_path, 1).exists()
    with pytest.raises(LeaseLost):
        sleeper.check()


def test_a_claimant_that_slept_through_several_owners_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look and its claim the name it wants was taken, released and pruned, so that it is free again."""
    with Lease.claim(tmp_path, ELSEWHERE):
        pass
    look = lease_module.newest_lease
    looks: list[object] = []

    def sleepy(folder: Path) -> object:
        seen = look(folder)
        looks.append(seen)
        if len(looks) == 1:
            for epoch in (2, 3, 4, 5):
                lease_path(folder, epoch).write_text(json.dumps(dataclasses.asdict(ELSEWHERE)))
            for epoch in (1, 2, 3):
                lease_path(folder, epoch).unlink()
        return seen

    monkeypatch.setattr(lease_module, "newest_lease", sleepy)
    with pytest.raises(LeaseHeld):
        Lease.claim(tmp_path, Owner.current())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lease-000004.json", "lease-000005.json"]


RACER = """
import sys, time
from pathlib import Path
from lambda_hat.store.lease import Lease, LeaseHeld, Owner

name, num_racers, num_rounds, root = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
owner = Owner.current()

def barrier(label):
    (root / f"{label}-{name}").touch()
    while len(list(root.glob(f"{label}-*"))) < num_racers:
        time.sleep(0.0005)

for number in range(num_rounds):
    barrier(f"at{number}")
    try:
        print(number, Lease.claim(root / f"run{number}", owner).epoch, flush=True)
    except LeaseHeld:
        pass
barrier("end")  # a dead owner would be replaced
"""


def test_of_many_claimants_at_once_one_wins(tmp_path: Path) -> None:
    """Eight processes, fresh folders and abandoned ones."""
    num_rounds, num_racers = 20, 8
    for number in range(1, num_rounds, 2):
        Lease.claim(tmp_path / f"run{number}", ELSEWHERE)
        os.utime(lease_path(tmp_path / f"run{number}", 1), (1000, 1000))
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(index), str(num_racers), str(num_rounds), str(tmp_path)],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for index in range(num_racers)
    ]  # fmt: skip
    try:
        output = "".join(racer.communicate(timeout=HANG)[0] for racer in racers)
    finally:
        for racer in racers:
            racer.kill()
    assert [racer.returncode for racer in racers] == [0] * num_racers
    wins = sorted(tuple(map(int, line.split())) for line in output.splitlines())
    assert wins == [(number, 1 + number % 2) for number in range(num_rounds)]
