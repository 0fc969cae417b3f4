"""Is a store what it says it is? Every id is hashed anew from the config beside it, every file checked that can be.

| file | held against |
|---|---|
| a target's ``config.yaml`` | its id |
| ``data.npz``, ``params.npz`` | the sha256 in ``meta.json``, and the checksums inside |
| a run's ``config.yaml`` and the config in ``analysis.json`` | its id, and that of its target |
| ``trace.nc`` | the checksum of each block of every column; the LLC of its draws is that of ``analysis.json`` |
| ``carry-*.npz``, ``trace-*.npz`` | the checksums inside |
| JSON documents | that they can be read |

What nothing vouches for, such as a digit of ``analysis.json`` that no draw determines, cannot be found damaged.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lambda_hat.config.job import canonical, digest
from lambda_hat.config.schema import Document
from lambda_hat.store.files import StoreError, read_config, read_json, read_npz
from lambda_hat.store.layout import Store

_OF_TARGET = ("model", "data", "teacher", "training")
_OF_RUN = ("posterior", "sampler", "num_chains", "seed")
_DOCUMENTS = ("status.json", "submitted.json")
# Sums of the same draws on another machine differ in the last digits.
_TOLERANCE = 1e-6


class Damage(NamedTuple):
    """Something that is not what it was.

    Args:
        path: Which file.
        reason: What it needed to be, and what it is.
    """

    path: Path
    reason: str


def verify(store: Store, progress: Callable[[str], None] = lambda line: None) -> Iterator[Damage]:
    """Check every target and every run; yields what is damaged.

    Args:
        store: What to check. Runs may be under way.
        progress: Called with the id of what is checked next.
    """
    for folder in sorted(store.root.glob("targets/tgt_*")):
        progress(folder.name)
        yield from _target(store, folder)
    for ref in store.iter_runs():
        progress(ref.run_id)
        yield from _run(ref.folder)


def _target(store: Store, folder: Path) -> Iterator[Damage]:
    yield from _documents(folder)
    meta_path = folder / "meta.json"
    if not meta_path.exists():  # not built yet, or never will be
        return
    yield from _checked(meta_path, lambda: store.load_target(folder.name) and None)
    yield from _checked(folder / "config.yaml", lambda: _target_fault(folder, read_config(folder)))


def _target_fault(folder: Path, config: Document | None) -> str | None:
    if config is None:
        return "is missing"
    found = "tgt_" + digest("target", {name: config[name] for name in _OF_TARGET})
    return None if found == folder.name else f"its id is {found}: it is not the config that this target was made from"


def _run(folder: Path) -> Iterator[Damage]:
    yield from _documents(folder)
    yield from _checked(folder / "config.yaml", lambda: _run_fault(folder, read_config(folder)))
    analysis: Document | None = None
    try:
        analysis = read_json(folder / "analysis.json")
    except StoreError as error:
        yield Damage(folder / "analysis.json", str(error))
    if analysis is not None:
        found = analysis
        yield from _checked(folder / "analysis.json", lambda: _analysis_fault(folder, found))
        yield from _checked(folder / "trace.nc", lambda: _trace_fault(folder, found))
    for path in sorted([*folder.glob("carry-*.npz"), *folder.glob("trace-*.npz")]):
        yield from _checked(path, lambda path=path: _archive_fault(path))


def _run_fault(folder: Path, config: Document | None) -> str | None:
    """Why ``config`` is not that of the run in ``folder``; a run that was never started may have none."""
    if config is None:
        return "is missing" if (folder / "analysis.json").exists() else None
    target_config = _with_file_hashed(folder, {name: config[name] for name in _OF_TARGET})
    target_id = folder.parent.name
    if target_config is not None and "tgt_" + digest("target", target_config) != target_id:
        return f"it is of target tgt_{digest('target', target_config)}, but stands in {target_id}"
    sampler = str(config["sampler"]["_target_"]).split(".")[-2]
    run_id = f"run_{sampler}_" + digest("run", {name: config[name] for name in _OF_RUN}, parents=[target_id])
    return None if run_id == folder.name else f"its id is {run_id}: it is not the config that this run was made from"


def _with_file_hashed(folder: Path, config: Document) -> Document | None:
    """``config`` as the target's id hashes it: a file of data by its bytes; None if these cannot be had.

    The target says which bytes it was made from; the file itself may have moved since.
    """
    path = config["data"].get("path")
    if path is None:
        return config
    hashed = (read_config(folder.parent) or {}).get("data", {}).get("path")
    if hashed is None:
        try:
            hashed = "sha256:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except OSError:
            return None
    return {**config, "data": {**config["data"], "path": hashed}}


def _analysis_fault(folder: Path, analysis: Document) -> str | None:
    if (analysis["run_id"], analysis["target_id"]) != (folder.name, folder.parent.name):
        return f"it is the analysis of {analysis['target_id']}/{analysis['run_id']}"
    return _run_fault(folder, canonical(analysis["config"]))


def _trace_fault(folder: Path, analysis: Document) -> str | None:
    from lambda_hat.estimation.statistics import llc_draws
    from lambda_hat.estimation.trace import averaged_loss
    from lambda_hat.store.trace_file import read_trace_file

    if not (folder / "trace.nc").exists():
        return "is missing, though there is an analysis.json"
    for name, is_sound in _columns(folder / "trace.nc"):
        if not is_sound:
            return f"its coordinate {name} does not count from 0"
    loss = averaged_loss(read_trace_file(folder / "trace.nc").trace)[:, : analysis["progress"]["draws"]]
    if analysis["llc"] is None or loss.shape[1] < analysis["progress"]["draws"]:
        return None if analysis["llc"] is None else f"it has {loss.shape[1]} draws, fewer than analysis.json used"
    llc = float(llc_draws(loss, analysis["nbeta"], analysis["loss_at_w0"]).mean())
    if math.isclose(llc, analysis["llc"], rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
        return None
    return f"the LLC of its draws is {llc:.8g}, but analysis.json says {analysis['llc']:.8g}: one of them was changed"


def _columns(path: Path) -> Iterator[tuple[str, bool]]:
    """Every variable, read whole; coordinates have no checksum, but are known: 0, 1, 2, ..."""
    import h5netcdf

    with h5netcdf.File(path, "r") as file:
        for group in file.groups.values():
            for name, variable in group.variables.items():
                values = variable[...]
                yield name, name not in group.dimensions or bool((values == np.arange(len(values))).all())


def _archive_fault(path: Path) -> str | None:
    if path.exists():  # else its run has gone on meanwhile
        read_npz(path)
    return None


def _documents(folder: Path) -> Iterator[Damage]:
    for name in _DOCUMENTS:
        yield from _checked(folder / name, lambda name=name: read_json(folder / name) and None)


def _checked(path: Path, fault: Callable[[], Any]) -> Iterator[Damage]:
    """What ``fault`` finds, or what keeps it from looking: a damaged file may read as anything."""
    try:
        reason = fault()
    except StoreError as error:
        reason = str(error)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        reason = f"cannot be read: {type(error).__name__}: {error}"
    if reason is not None:
        yield Damage(path, reason)
