"""Is a store what it says it is? Every id is hashed anew from the config beside it, every file checked that can be.

| file | held against |
|---|---|
| JSON documents | the digest that each carries; one of format 1 has none, and is counted as unchecked |
| a target's ``config.yaml`` | its id |
| ``meta.json`` | dim and num_data are those of the arrays and of ``config.yaml`` |
| ``data.npz``, ``params.npz`` | the sha256 in ``meta.json``, and the checksums inside |
| ``data/`` | the sha256 that is each file's name; each that a ``meta.json`` names is there |
| a run's ``config.yaml`` and the config in ``analysis.json`` | its id, and that of its target |
| ``trace.nc`` | the sha256 in ``trace.json``; the estimate of its draws, made anew, is that of ``analysis.json`` |
| ``carry-*.npz``, ``trace-*.npz`` | the checksums inside |
| ``.index/`` | its sha256, and a scan of the runs |

Nothing vouches for logs, pictures and ``tables/``, which no estimate is made from.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lambda_hat.config.schema import Document
from lambda_hat.store.checkpoint import read_checkpoint_file
from lambda_hat.store.consistency import check_target, config_fault
from lambda_hat.store.data_files import data_folder, fault_of, named_by
from lambda_hat.store.files import StoreError, explained, read_bytes, read_config, read_json
from lambda_hat.store.housekeeping import run_faults
from lambda_hat.store.housekeeping.named_data import targets_by_data
from lambda_hat.store.index import changed_rows
from lambda_hat.store.layout import Store, in_order_of_epochs
from lambda_hat.store.seal import is_unsealed
from lambda_hat.store.sweeps import read_manifest
from lambda_hat.store.trace_digest import is_unchecked

# Folders with documents that are nobody's run.
_BESIDE = ("pins", "promotion", "studies", "sweeps")
_NO_FILE = "needs to be a file, got a link or a folder"


class Damage(NamedTuple):
    """Something that is not what it was.

    Args:
        path: Which file.
        reason: What it needed to be, and what it is.
    """

    path: Path
    reason: str


@dataclass
class Count:
    """How much was checked.

    Args:
        targets, runs, files: Checked.
        unchecked: Documents of format 1 and traces without a digest: what nothing but their content vouches for.
        unnamed: Files of data that no target names.
    """

    targets: int = 0
    runs: int = 0
    files: int = 0
    unchecked: int = 0
    unnamed: int = 0


def verify(
    store: Store, progress: Callable[[str], None] = lambda line: None, count: Count | None = None
) -> Iterator[Damage]:
    """Check every target and every run; yields what is damaged.

    Args:
        store: What to check. Runs may be under way.
        progress: Called with the id of what is checked next.
        count: Counts what was checked.

    Raises:
        StoreError: the store does not exist, or its folders cannot be read.
    """
    count = count or Count()
    bad = list(_data(store, count))
    yield from bad
    lost = {damage.path.name for damage in bad}
    targets = _listed(store.root / "targets", "tgt_") if "targets" in _names(store.root) else []
    for folder in targets:
        progress(folder.name)
        count.targets += 1
        if not folder.is_dir():
            yield Damage(folder, "needs to be the folder of a target")
            continue
        runs = _listed(folder, "run_")
        yield from _files(folder, count)
        yield from _target(store, folder, lost, is_used=any((run / "analysis.json").exists() for run in runs))
        for run in runs:
            progress(run.name)
            count.runs += 1
            yield from _run(run, count) if run.is_dir() else [Damage(run, "needs to be the folder of a run")]
    yield from _beside(store, count)


def _names(folder: Path) -> list[str]:
    with explained("read", folder):
        return sorted(path.name for path in folder.iterdir())


def _listed(folder: Path, prefix: str) -> list[Path]:
    """The folders of targets or runs."""
    return [folder / name for name in _names(folder) if name.startswith(prefix)]


def _data(store: Store, count: Count) -> Iterator[Damage]:
    """The arrays that targets share."""
    folder, named, is_known = data_folder(store.root), dict[str, set[Path]](), True
    try:
        named = targets_by_data(store)
    except StoreError:  # its target is named later
        is_known = False
    names = [name for name in _names(folder) if not name.startswith(".")] if folder.is_dir() else []
    for name in names:
        count.files += 1
        if not _is_file(folder / name):
            yield Damage(folder / name, _NO_FILE)
        else:
            yield from _checked(folder / name, lambda name=name: fault_of(folder / name))
            count.unnamed += is_known and name not in named
    for name in sorted(named.keys() - names):
        yield Damage(folder / name, f"is missing, though {', '.join(sorted(one.name for one in named[name]))} needs it")


def _target(store: Store, folder: Path, lost: set[str], *, is_used: bool) -> Iterator[Damage]:
    """A target's files beside each other; ``lost`` are data that were named already."""
    if not (folder / "meta.json").exists():  # not built yet, or never will be
        if is_used or (_status(folder) or {}).get("state") == "finished":
            yield Damage(folder / "meta.json", "is missing, though the target was built")
        return
    if not (folder / "status.json").exists():
        yield Damage(folder / "status.json", "is missing, though the target is built")
    fault = config_fault(folder.name, _config(folder))
    if fault is not None:
        yield Damage(folder / "config.yaml", fault)
    if not lost.isdisjoint(_needs(folder)):
        return
    if fault is not None:
        yield from _checked(folder / "meta.json", lambda: store.load_target(folder.name) and None)
    else:
        yield from _checked(folder / "meta.json", lambda: check_target(folder, store.load_target(folder.name)))


def _needs(folder: Path) -> set[str]:
    """The data that a target names."""
    try:
        return named_by(read_json(folder / "meta.json") or {})
    except StoreError:  # named already
        return set()


def _run(folder: Path, count: Count) -> Iterator[Damage]:
    yield from _files(folder, count)
    yield from _checked(folder / "config.yaml", lambda: run_faults.config_fault(folder, read_config(folder)))
    path = folder / "analysis.json"
    try:
        analysis = read_json(path)
    except StoreError:  # named already
        return
    status = _status(folder)
    if not (folder / "status.json").exists() and any(folder.glob("carry-*.npz")):
        yield Damage(folder / "status.json", "is missing, though the run was begun")
    if analysis is not None:
        yield from _checked(path, lambda: run_faults.analysis_fault(folder, analysis))
        yield from _checked(path, lambda: _epochs_fault(folder, status or {}, analysis))
        yield from _needed(folder, analysis)
        if (folder / "trace.nc").exists():
            count.unchecked += is_unchecked(folder / "trace.nc")
            yield from _checked(folder / "trace.nc", lambda: run_faults.trace_fault(folder, analysis))
    elif (status or {}).get("state") == "finished":
        yield Damage(path, "is missing, though status.json says that the run is finished")


def _needed(folder: Path, analysis: Document) -> Iterator[Damage]:
    """What a finished run has."""
    names = ["trace.nc", *(["trace.json"] if "epoch" in analysis else [])]
    for name in names:
        if not (folder / name).exists():
            yield Damage(folder / name, "is missing, though there is an analysis.json")
    has_state = analysis["config"].get("store", {}).get("keep_state", True)
    for pattern in ("lease-*.json", *(["carry-*.npz"] if has_state else [])):
        if not any(folder.glob(pattern)):
            yield Damage(folder / pattern, "is missing, though there is an analysis.json")


def _files(folder: Path, count: Count) -> Iterator[Damage]:
    """Each file of a target or a run by itself."""
    for name in _names(folder):
        path = folder / name
        if name.startswith(("run_", ".")) or name == "diagnostics":
            continue
        count.files += 1
        if not _is_file(path):
            if path.exists() or path.is_symlink():  # else its run has gone on meanwhile
                yield Damage(path, _NO_FILE)
        elif path.suffix == ".json":
            yield from _document(path, count)
        elif path.suffix == ".npz" and name not in ("data.npz", "params.npz"):  # meta.json vouches for these
            yield from _checked(path, lambda path=path: _archive_fault(path))


def _beside(store: Store, count: Count) -> Iterator[Damage]:
    """Documents beside the targets, and the index."""
    for folder in _BESIDE:
        for path in sorted((store.root / folder).rglob("*.json")):
            count.files += 1
            yield from _document(path, count) if _is_file(path) else [Damage(path, _NO_FILE)]
    for name in _names(store.root / "sweeps") if (store.root / "sweeps").is_dir() else []:
        yield from _checked(store.root / "sweeps" / name / "manifest.json", lambda name=name: _sweep_fault(store, name))
    index = store.root / ".index"
    if index.is_dir():
        names = [name for name in _names(index) if not name.startswith(".")]
        count.files += len(names)
        replaced = [Damage(index / name, _NO_FILE) for name in names if not _is_file(index / name)]
        yield from replaced
        if not replaced:
            yield from _document(index / "sweeps.json", Count())
            yield from _checked(index / "runs.parquet", lambda: "; ".join(changed_rows(store)) or None)


def _sweep_fault(store: Store, name: str) -> str | None:
    runs = read_manifest(store.sweep_dir(name)).runs
    for run_id, run in runs.items():
        folder = store.run_dir(run.target, run_id)
        if (folder / "config.yaml").exists() and not (folder / "submitted.json").exists():
            return f"it submitted {run_id}, which has no submitted.json"
    return None


def _document(path: Path, count: Count) -> Iterator[Damage]:
    """A JSON document by its seal."""
    damages = list(_checked(path, lambda: _document_fault(path)))
    yield from damages
    if not damages:
        count.unchecked += is_unsealed(read_bytes(path) or b"{}")


def _document_fault(path: Path) -> None:
    read_json(path)


def _epochs_fault(folder: Path, status: Document, analysis: Document) -> None:
    in_order_of_epochs(folder, status, analysis)


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _status(folder: Path) -> Document | None:
    try:
        return read_json(folder / "status.json")
    except StoreError:  # named already
        return None


def _config(folder: Path) -> Document | None:
    try:
        return read_config(folder)
    except StoreError:  # it says what it found instead
        return {}


def _archive_fault(path: Path) -> str | None:
    if path.exists():  # else its run has gone on meanwhile
        for name in read_checkpoint_file(path).meta.get("trace_files", []):
            if not (path.parent / name).exists() and path.exists():
                return f"it needs {name}, which is missing"
    return None


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
