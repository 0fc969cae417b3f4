"""An owner that was stopped beyond its lease, and wakes: nothing that it still writes takes a newer owner's place."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lambda_hat.store import checkpoint, files
from lambda_hat.store.files import StoreError, read_config, read_json, write_bytes, write_config, write_json
from lambda_hat.store.index import read_row
from lambda_hat.store.layout import RunRef, Store, in_order_of_epochs, read_status, write_status
from lambda_hat.store.lease import Lease, LeaseLost, Owner, lease_path
from lambda_hat.store.records import read_record
from lambda_hat.store.trace_digest import check, published

RUN = Path("targets") / "tgt_0123456789ab" / "run_hmc_0123456789ab"


def _trace(folder: Path, lease: Lease, words: str) -> None:
    with published(folder / "trace.nc", lease) as temporary:
        temporary.write_bytes(words.encode())


PUBLISHED: dict[str, Callable[[Path, Lease, str], None]] = {
    "status.json": lambda folder, lease, words: write_status(folder, lease, state=words),
    "analysis.json": lambda folder, lease, words: write_json(folder / "analysis.json", {"llc": words}, guard=lease),
    "config.yaml": lambda folder, lease, words: write_config(folder, {"model": words}, lease),
    "trace.nc": _trace,
    "trace.json": _trace,
}
# Every step of a write at which the zombie may be stopped: before its temporary file is made, and in each call after.
STEPS = ("write_bytes", "fsync", "check", "replace")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / RUN


def takes_over(folder: Path) -> Lease:
    os.utime(lease_path(folder, 1), (0, 0))
    return Lease.claim(folder, Owner.current())


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_whenever_an_owner_is_stopped_its_write_does_not_replace_a_newer_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, step: str
) -> None:
    """Sees a fence that is further from the rename than it could be, and a rename after the last fence."""
    zombie = Lease.claim(folder, Owner.current())
    publish = PUBLISHED[name]
    publish(folder, zombie, "first")
    whole: list[dict[str, bytes]] = []

    earlier = [None] if (name, step != "write_bytes") == ("trace.nc", True) else []  # trace.json is published first

    def stopped(real: Callable[..., Any]) -> Callable[..., Any]:
        def stop(*arguments: Any, **more: Any) -> Any:
            if earlier:
                earlier.pop()
                return real(*arguments, **more)
            monkeypatch.undo()
            publish(folder, takes_over(folder), "newer")
            whole.append({path.name: path.read_bytes() for path in folder.iterdir()})
            return real(*arguments, **more)

        return stop

    where: Any = {"write_bytes": Path, "check": zombie}.get(step, files.os)
    monkeypatch.setattr(where, step, stopped(getattr(where, step)))
    with pytest.raises(LeaseLost):
        publish(folder, zombie, "of the zombie")
    assert len(whole) == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole[0]
    if name.startswith("trace"):
        check(folder / "trace.nc")


def _carry(folder: Path, lease: Lease, step: int) -> None:
    checkpoint.save_carry(folder, lease.epoch, step, [np.zeros(1)], {"trace_files": []})


def _chunk(folder: Path, lease: Lease, step: int) -> None:
    checkpoint.save_trace(folder, lease.epoch, "warmup", step, step + 1, {"loss": np.zeros((1, 1))})


@pytest.mark.parametrize("step", ["fsync", "fence", "replace"])
@pytest.mark.parametrize("save", [_carry, _chunk])
def test_no_checkpoint_of_an_owner_that_was_replaced_appears(
    folder: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[Path, Lease, int], None], step: str
) -> None:
    """It would be read by nobody and pruned by nobody, and would name chunks that the newer owner has removed."""
    zombie = Lease.claim(folder, Owner.current())
    whole: list[set[str]] = []
    where: Any = checkpoint if step == "fence" else files.os
    real = getattr(where, step)

    def stopped(*arguments: Any) -> Any:
        monkeypatch.undo()
        save(folder, takes_over(folder), 7)
        whole.append({path.name for path in folder.iterdir()})
        return real(*arguments)

    monkeypatch.setattr(where, step, stopped)
    with pytest.raises(LeaseLost):
        save(folder, zombie, 8)
    assert [{path.name for path in folder.iterdir()}] == whole


def test_what_has_no_owner_is_not_disturbed_by_a_claim(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submitter, an observer: a claim in the middle of their write must not make it fail."""
    folder.mkdir(parents=True)
    replace = os.replace

    def late(*arguments: Any) -> None:
        monkeypatch.undo()
        Lease.claim(folder, Owner.current())
        replace(*arguments)

    monkeypatch.setattr(os, "replace", late)
    write_json(folder / "submitted.json", {"sweep": "s"})
    assert read_json(folder / "submitted.json") == {"sweep": "s"}
    assert [path.name for path in folder.glob(".*")] == []


def test_the_owner_of_a_newer_epoch_may_still_write(folder: Path) -> None:
    first = Lease.claim(folder, Owner.current())
    write_status(folder, first, state="running")
    newer = takes_over(folder)
    write_status(folder, newer, state="finished")
    assert (read_status(folder) or {})["epoch"] == newer.epoch == 2
    write_status(folder, state="failed")  # an observer knows no epoch, and keeps that of the owner before
    assert (read_status(folder) or {})["epoch"] == 2


@pytest.mark.parametrize(
    ("said", "made", "state"), [(1, 2, "finished"), (2, 2, "failed"), (None, 1, "failed"), (1, None, "failed")]
)
def test_a_status_that_is_older_than_the_result_does_not_count(
    folder: Path, said: int | None, made: int | None, state: str
) -> None:
    status = {"state": "failed", "error": "it broke"} | ({} if said is None else {"epoch": said})
    analysis = {"llc": 1.0, "config": {}} | ({} if made is None else {"epoch": made})
    write_json(folder / "status.json", status)
    write_json(folder / "analysis.json", analysis)
    store, ref = Store(folder.parents[2]), RunRef.of(folder)
    assert read_record(store, ref).state == state
    assert read_row(store, ref)["state"] == state


def test_a_result_that_is_older_than_the_owner_who_finished_is_refused(folder: Path) -> None:
    write_json(folder / "status.json", {"state": "finished", "epoch": 2})
    write_json(folder / "analysis.json", {"llc": 1.0, "config": {}, "epoch": 1})
    store, ref = Store(folder.parents[2]), RunRef.of(folder)
    assert read_record(store, ref).state == "damaged"
    assert read_row(store, ref)["state"] == "damaged"
    write_json(folder / "status.json", {"state": "running", "epoch": 2})  # it goes on with a larger budget
    assert read_record(store, ref).state == "running"
    assert read_record(store, ref).analysis is not None
    with pytest.raises(StoreError, match="owner 2, who finished the run"):
        in_order_of_epochs(folder, {"state": "finished", "epoch": 2}, {"epoch": 1})


def test_an_owner_whose_store_was_moved_is_not_told_of_another_owner(folder: Path, tmp_path: Path) -> None:
    lease = Lease.claim(folder, Owner.current())
    (tmp_path / "targets").rename(tmp_path / "moved")
    with pytest.raises(LeaseLost, match="moved or removed while this ran") as told:
        lease.check()
    assert "newer owner" not in str(told.value)
    with pytest.raises(LeaseLost, match="moved or removed"):
        write_status(folder, lease, state="failed")
    lease = Lease.claim(folder, Owner.current())
    takes_over(folder)
    with pytest.raises(LeaseLost, match="taken over by a newer owner"):
        lease.check()


def test_the_heartbeat_stops_with_the_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A computation that hangs, while the thread of the heartbeat goes on."""
    from lambda_hat.store import lease as lease_module

    lease = Lease.claim(folder, Owner.current())
    beats: list[float] = []
    monkeypatch.setattr(lease_module.os, "utime", lambda *_: beats.append(1.0))
    waits = iter([False] * 3 + [True])
    monkeypatch.setattr(lease._stop, "wait", lambda _: next(waits))
    lease._beat(5.0)
    assert len(beats) == 3
    lease.moved()
    now = lease_module.time.monotonic()
    monkeypatch.setattr(lease_module.time, "monotonic", lambda: now + lease_module._HUNG_SECONDS + 1)
    waits = iter([False] * 3 + [True])
    lease._beat(5.0)
    assert len(beats) == 3
    lease.moved()
    waits = iter([False] * 3 + [True])
    lease._beat(5.0)
    assert len(beats) == 6


@pytest.mark.parametrize("near", ["# sha256 0", "# sha257 ", "#"])
def test_a_config_shows_that_it_was_changed(folder: Path, near: str) -> None:
    """Its budget and its store are in no id."""
    write_config(folder, {"budget": {"draws": 200}, "store": {"root": "a#b"}})
    path = folder / "config.yaml"
    text = path.read_text()
    assert read_config(folder) == {"budget": {"draws": 200}, "store": {"root": "a#b"}}
    for changed in (text.replace("200", "600"), text.replace("# sha256 ", near), text.replace("a#b", "a#c")):
        write_bytes(path, changed.encode())
        with pytest.raises(StoreError, match=r"config\.yaml"):
            read_config(folder)
    for length in range(len(text)):
        path.write_text(text[:length])
        with pytest.raises(StoreError, match=r"config\.yaml"):
            read_config(folder)
    path.write_text(text[text.index("\n") + 1 : text.rindex("#")])  # from before
    assert read_config(folder) == {"budget": {"draws": 200}, "store": {"root": "a#b"}}
