"""A run whose owner was stopped beyond its lease: when it wakes, its failure is no news of the run any more."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lambda_hat.launch.element import _Recorded
from lambda_hat.launch.signals import Stop
from lambda_hat.run import loop
from lambda_hat.run.target import RunError
from lambda_hat.store.layout import Store, read_status, write_status
from lambda_hat.store.lease import Lease, LeaseLost, Owner
from tests.jobs import make_job


def finish_as_a_newer_owner(folder: Path, lease: Lease) -> None:
    lease.release()
    with Lease.claim(folder, Owner.current()) as newer:
        write_status(folder, newer, state="finished")


@pytest.mark.parametrize("error", [RunError("its files changed under it"), loop.Interrupted(15, Path("x"))])
def test_a_failure_of_an_owner_that_was_replaced_is_not_recorded(
    store_root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Its carry was pruned by the newer owner, say: *finished* became *failed*."""
    job, store = make_job(store_root), Store(store_root)
    folder = store.run_dir(job.target_id, job.run_id)

    def wakes(self: Any) -> None:
        finish_as_a_newer_owner(folder, self.lease)
        raise error

    monkeypatch.setattr(loop._Run, "to_the_end", wakes)
    with pytest.raises(LeaseLost):
        loop.execute(job, store)
    status = read_status(folder) or {}
    assert (status["state"], status["epoch"]) == ("finished", 2)


def test_an_element_does_not_speak_over_the_owner_at_work(store_root: Path) -> None:
    job, store = make_job(store_root), Store(store_root)
    folder = store.run_dir(job.target_id, job.run_id)
    another = dataclasses.replace(Owner.current(), machine="another boot", pid=1)
    with Lease.claim(folder, another) as lease:
        write_status(folder, lease, state="running")
        with _Recorded(folder, Stop()):
            raise RunError("a file was gone")
        assert (read_status(folder) or {})["state"] == "running"
    with _Recorded(folder, Stop()):
        raise RunError("a file was gone")
    assert (read_status(folder) or {})["state"] == "failed"
