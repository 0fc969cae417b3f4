"""Every kind of file of a small store, damaged in every way: does a reader take a wrong number, does `verify` find it?

A store is made with a target, a finished and a half-done run, a sweep, a pin, a promotion and an index. Then one file
at a time is flipped in one bit, cut, emptied, deleted, or replaced by a folder or by a link to another file, all that
the store says is read, ``artifacts verify`` looks at it, and the file is put back. A corruption is *silent* if a value
was read that differs from the one before. Exits 1 if one was, or if `verify` missed one that is not harmless.

    python -m benchmarks.corruptions --count 4000
"""

import argparse
import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lambda_hat.config.job import parse_job
from lambda_hat.config.schema import ConfigError
from lambda_hat.launch.manifest import Array, Manifest
from lambda_hat.run.loop import Interrupted, Stop, execute
from lambda_hat.store.checkpoint import load_carry, read_checkpoint_file
from lambda_hat.store.consistency import check_target
from lambda_hat.store.files import StoreError, read_config, read_json
from lambda_hat.store.housekeeping.pins import pin, pins, promoted_runs, record_promotion
from lambda_hat.store.housekeeping.verify import verify
from lambda_hat.store.index import runs_table
from lambda_hat.store.layout import Store
from lambda_hat.store.records import read_record
from lambda_hat.store.sweeps import SweepRun, read_manifest
from lambda_hat.store.trace_file import read_trace_file
from tests.jobs import make_job

HOW = ("flipped", "cut", "emptied", "deleted", "a folder", "a link")
# No number is read from these, and nothing vouches for them.
HARMLESS = ("log.txt", "sweeps.json")
# Without these a run or a target is one that nobody pinned, promoted or works on, or that begins again, bit by bit; and
# an index is made again.
MAY_BE_DELETED = (
    "pin.json",
    "promotion.json",
    "lease-N.json",
    "target lease-N.json",
    "carry-N-N.npz",
    "runs.parquet",
    "runs.parquet.sha256",
)
# A zip has times, versions and attributes of its members, which no reader of the store looks at: flipped there, every
# array and the meta are read as before. (The sha256 of a target's arrays covers these bytes, too.)
HAS_UNREAD_BYTES = ("carry-N-N.npz", "trace-N-warmup-N-N.npz")
_COUNTED = ("is_refused", "is_found", "is_missed", "silent")
_OLD = 1.7e9
_CRASHES = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError)
_COLUMNS = ("run", "target", "llc", "llc_mcse", "verdict.reliable", "num_data", "dim", "config.budget.draws")


class Corruption(NamedTuple):
    """What was done to which kind of file, and what became of it.

    Args:
        kind: The file's name, its numbers left out.
        how: One of :data:`HOW`.
        silent: What was read with another value than before.
        is_refused: Whether some reader refused, or no longer found, what it read before.
        is_found: Whether `verify` named damage.
    """

    kind: str
    how: str
    silent: tuple[str, ...]
    is_refused: bool
    is_found: bool

    @property
    def is_missed(self) -> bool:
        is_lost = self.how == "deleted" and self.kind in MAY_BE_DELETED
        is_unread = self.how == "flipped" and self.kind in HAS_UNREAD_BYTES and not self.is_refused and not self.silent
        return not self.is_found and self.kind not in HARMLESS and not is_lost and not is_unread


def make_store(root: Path) -> Store:
    """A store with every kind of file that numbers are read from."""
    store = Store(root)
    finished, half = make_job(root, budget={"draws": 40}), make_job(root, seed=1, budget={"draws": 40})
    execute(finished, store)
    with contextlib.suppress(Interrupted):  # after its first commit
        execute(half, store, stop=Stop(signal.SIGTERM))
    runs = {job.run_id: SweepRun(job.target_id, "hmc", "q") for job in (finished, half)}
    Manifest("dev-0", "dev", {}, runs).enter(Array("runs", [[run_id] for run_id in runs]), store)
    pin(store, finished.run_id, "a reason")
    record_promotion(store, root / "promotion" / "dev", [finished.run_id])
    for path in root.glob("targets/**/*"):
        os.utime(path, (_OLD, _OLD))  # the index looks again at what was touched a moment ago
    return store


def files(store: Store) -> list[Path]:
    """Every file that may be damaged: what is being written, and compiled programs, are no part of the results."""
    found = (path for path in store.root.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path for path in found if not {".cache", ".tmp", ".trash"} & {*path.relative_to(store.root).parts})


def kind_of(path: Path) -> str:
    """The file's name without its numbers."""
    folder = "target" if path.parent.name.startswith("tgt_") else ""
    if path.name.startswith("run_") or path.parent.name == ".records":
        return "promotion.json" if path.parent.name == ".records" else "pin.json"
    return f"{folder} {re.sub(r'-[0-9]{6,}', '-N', path.name)}".strip()


def numbers(store: Store) -> dict[tuple[str, ...], str]:
    """All that the store says, as the readers of the package read it: a digest of each value, by what it is.

    A value that a reader refuses, or no longer finds, is left out; any other error is a value, because it is a fault.
    """
    found: dict[tuple[str, ...], str] = {}
    for name, read in _readings(store):
        try:
            value = read()
        except (StoreError, ConfigError):
            continue
        except _CRASHES as error:  # what no reader should let through
            value = f"{type(error).__name__}: {error}"
        if value is not None:
            found[name] = hashlib.sha256(repr(value).encode()).hexdigest()
    return found


def _readings(store: Store) -> Iterator[tuple[tuple[str, ...], Callable[[], Any]]]:
    for target in sorted(store.root.glob("targets/tgt_*")):
        yield (target.name,), lambda target=target: _target(store, target)
    for ref in store.iter_runs():
        yield (ref.run_id, "config"), lambda ref=ref: _job(ref.folder)
        yield (ref.run_id, "status"), lambda ref=ref: read_json(ref.folder / "status.json")
        yield (ref.run_id, "submitted"), lambda ref=ref: read_json(ref.folder / "submitted.json")
        yield (ref.run_id, "analysis"), lambda ref=ref: read_record(store, ref).analysis
        yield (ref.run_id, "trace"), lambda ref=ref: _trace(ref.folder / "trace.nc")
        for path in sorted([*ref.folder.glob("carry-*"), *ref.folder.glob("trace-*")]):
            yield (ref.run_id, path.name), lambda path=path: _arrays(*read_checkpoint_file(path))
        yield (ref.run_id, "carry"), lambda ref=ref: load_carry(ref.folder) and None
    yield ("sweep",), lambda: read_manifest(store.sweep_dir("dev-0"))
    yield ("pins",), lambda: pins(store) or None
    yield ("promoted",), lambda: promoted_runs(store) or None
    for run in ("run", "target"):
        yield ("rows", run), lambda run=run: sorted(runs_table(store, [run])[run].to_pylist())
    for row in runs_table(store, list(_COLUMNS)).to_pylist():
        yield ("row", row["run"]), lambda row=row: None if row["llc"] is None else row


def _target(store: Store, folder: Path) -> Any:
    stored = store.load_target(folder.name)
    check_target(folder, stored)
    return _arrays({**stored.arrays, "w0": stored.w0}, stored.meta)


def _arrays(arrays: Mapping[str, np.ndarray], meta: Any) -> Any:
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in sorted(arrays.items())}, meta


def _job(folder: Path) -> Any:
    """The job, if an element would run it."""
    config = read_config(folder)
    job = None if config is None else parse_job(config)
    if job is None or (job.target_id, job.run_id) != (folder.parent.name, folder.name):
        return None
    return job.to_dict()


def _trace(path: Path) -> Any:
    if not path.exists():
        return None
    trace, warmup, attributes = read_trace_file(path)
    return _arrays(trace, attributes), _arrays(warmup, None)


def damage(path: Path, how: str, rng: random.Random, others: list[Path]) -> None:
    """Do one of :data:`HOW` to ``path``; a link leads to one of ``others`` of its suffix, or to nothing."""
    data = bytearray(path.read_bytes())
    if how == "flipped":
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        return
    if how in ("cut", "emptied"):
        path.write_bytes(data[: rng.randrange(len(data)) if how == "cut" and data else 0])
        return
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how == "a link":
        same = [other for other in others if other.suffix == path.suffix and other != path]
        path.symlink_to(rng.choice(same) if same else "nothing")


def restore(path: Path, data: bytes, folder_time: int) -> None:
    """Undo :func:`damage`, times included."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(data)
    os.utime(path, (_OLD, _OLD))
    os.utime(path.parent, ns=(folder_time, folder_time))


def corruptions(store: Store, count: int, seed: int = 0) -> Iterator[Corruption]:
    """Damage ``count`` files, each way and each kind in turn; what changed nothing is drawn again."""
    rng = random.Random(seed)
    runs_table(store)
    kinds: dict[str, list[Path]] = {}
    for path in files(store):
        kinds.setdefault(kind_of(path), []).append(path)
    before = numbers(store)
    cases = [(kind, how) for kind in sorted(kinds) for how in HOW]
    weights = [8 if how in ("flipped", "cut") else 1 for _, how in cases]
    waiting = rng.sample(cases, min(count, len(cases)))
    done = 0
    while done < count:
        kind, how = waiting.pop() if waiting else rng.choices(cases, weights)[0]
        corruption = _corruption(store, kind, how, rng.choice(kinds[kind]), rng, before)
        if corruption is not None:
            done += 1
            yield corruption


def _corruption(
    store: Store, kind: str, how: str, path: Path, rng: random.Random, before: dict[tuple[str, ...], str]
) -> Corruption | None:
    """Damage one file, look, and put it back; None if nothing was damaged, as where an empty file is emptied."""
    data, folder_time = path.read_bytes(), path.parent.stat().st_mtime_ns
    damage(path, how, rng, files(store))
    try:
        if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
            return None
        found = [one.path for one in verify(store)]
        after = numbers(store)
    finally:
        restore(path, data, folder_time)
        shutil.rmtree(store.root / ".index", ignore_errors=True)
        runs_table(store)
    silent = tuple("/".join(name) for name, value in after.items() if before.get(name, value) != value)
    return Corruption(kind, how, silent, before.keys() - after.keys() != set(), bool(found))


def table(done: list[Corruption]) -> str:
    """What became of all corruptions, a line a kind of file."""
    lines = [f"{'file':34} {'tried':>6} {'refused':>8} {'verified':>9} {'missed':>7} {'silent':>7}"]
    for kind in sorted({one.kind for one in done}):
        of = [one for one in done if one.kind == kind]
        counts = [len(of), *(sum(bool(getattr(one, name)) for one in of) for name in _COUNTED)]
        lines.append(f"{kind:34} {counts[0]:6} {counts[1]:8} {counts[2]:9} {counts[3]:7} {counts[4]:7}")
    ways = ", ".join(f"{count} {how}" for how, count in Counter(one.how for one in done).items())
    return "\n".join([*lines, f"{len(done)} corruptions: {ways}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "runs")
        started = time.monotonic()
        done: list[Corruption] = []
        with contextlib.suppress(KeyboardInterrupt):  # the table of what was done until then
            done.extend(corruptions(store, arguments.count, arguments.seed))
    print(table(done))
    print(f"seed {arguments.seed}, {time.monotonic() - started:.0f} s")
    for one in done:
        if one.silent or one.is_missed:
            what = f"read as another value: {', '.join(one.silent)}" if one.silent else "missed"
            print(f"{one.kind} {one.how}: {what}")
    sys.exit(int(any(one.silent or one.is_missed for one in done)))


if __name__ == "__main__":
    main()
