"""What may leave a store: old runs that nobody wants or works on, targets without runs, data without targets, sweeps
without runs, and leftovers.

Judging changes nothing, and says of everything why it stays. What goes is moved to .trash
(:mod:`lambda_hat.store.housekeeping.trash`) and is deleted for good once it has been there for :data:`TRASH_DAYS`.
A link is never followed: what it leads to may be anybody's.
"""

import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from lambda_hat.store.data_files import data_folder, is_data_file
from lambda_hat.store.files import StoreError
from lambda_hat.store.housekeeping.named_data import targets_by_data
from lambda_hat.store.housekeeping.pins import Kept
from lambda_hat.store.housekeeping.trash import discard, discard_data, discard_target, fingerprint, new_trash
from lambda_hat.store.layout import Store, read_status
from lambda_hat.store.lease import is_held
from lambda_hat.store.sweeps import SweepRecord, read_sweeps

TRASH_DAYS = 30.0
_TEMPORARY_DAYS = 1.0
# An owner that nobody can prove dead, and that was silent for so long, is.
_SILENT_S = 86400.0
_DAY_S = 86400.0

# Names of folders in which targets are staged; nothing else in .tmp is ours to delete.
_STAGING = re.compile(r"[0-9a-f]{32}")
_FOLDERS = ("targets", "data", "sweeps", ".trash", ".tmp")
_IS_LINK = "a link, which gc does not follow"

Kind = Literal["run", "target", "data file", "sweep", "trash", "temporary", "link"]
# Which of these folders SLURM, or a driver here, is still to work on, and what it says of them.
UnderWay = Callable[[Sequence[Path]], Mapping[Path, str]]


class Item(NamedTuple):
    """Something in the store.

    Args:
        kind: What it is.
        folder: Where; of data the file.
        days: How long ago somebody last did something to it.
        kept: Why it stays; empty if it goes.
        seen: Its fingerprint when it was judged.
    """

    kind: Kind
    folder: Path
    days: float
    kept: str
    seen: tuple[int, ...] = ()


class Collected(NamedTuple):
    """What was done.

    Args:
        trash: Where things were moved.
        gone: What went.
        busy: What stayed after all, since somebody came back to it meanwhile.
    """

    trash: Path
    gone: list[Item]
    busy: list[Item]


def judge(store: Store, ttl_days: float, under_way: UnderWay) -> list[Item]:
    """Everything in the store, and whether it stays.

    Args:
        store: What to look through.
        ttl_days: What was worked on more lately stays.
        under_way: Asks about submitted elements that have not said a last word.
    """
    links = _links(store)
    keeps, sweeps = Kept.read(store), [sweep for sweep in read_sweeps(store) if _is_folder(store.sweep_dir(sweep.name))]
    in_use = _runs_in_use(store, sweeps, ttl_days)
    folders = list(_folders(store.root / "targets", "tgt_"))
    runs = [_judge_run(run, keeps, in_use, ttl_days) for folder in folders for run in _folders(folder, "run_")]
    runs = _ask(runs, under_way)
    # A run behind a link may be wanted: its target stays.
    staying = {item.folder.parent for item in runs if item.kept} | {link.parent for link in links}
    targets = _ask([_judge_target(folder, keeps, staying, ttl_days) for folder in folders], under_way)
    left = {item.folder.name for item in runs if item.kept}
    staged = (folder for folder in _folders(store.root / ".tmp") if _STAGING.fullmatch(folder.name))
    return [
        *runs,
        *targets,
        *_judge_data(store, {item.folder for item in targets if not item.kept}, ttl_days),
        *(_judge_sweep(store, sweep, left, ttl_days) for sweep in sweeps),
        *(_judge_rest("trash", folder, TRASH_DAYS) for folder in _folders(store.root / ".trash")),
        *(_judge_rest("temporary", folder, _TEMPORARY_DAYS) for folder in staged),
        *(Item("link", link, _days_since(link.lstat().st_mtime), _IS_LINK) for link in links),
    ]


def collect_garbage(store: Store, items: Sequence[Item]) -> Collected:
    """Move what :func:`judge` found useless to .trash, and empty what has been there for long."""
    done = Collected(new_trash(store), [], [])
    for item in items:
        if item.kept or item.kind == "data file":
            continue
        if not _is_folder(item.folder):  # it is gone since it was judged, or somebody put a link in its place
            is_gone = False
        elif item.kind in ("trash", "temporary"):
            shutil.rmtree(item.folder, ignore_errors=True)
            is_gone = not item.folder.exists()
        elif item.kind == "target":
            is_gone = discard_target(store, item.folder, done.trash)
        else:
            is_gone = discard(store, item.folder, done.trash, item.seen)
        (done.gone if is_gone else done.busy).append(item)
    # Data go last, for by then it is known which targets have stayed after all.
    data = [item for item in items if item.kind == "data file" and not item.kept]
    moved = discard_data(store, {item.folder: item.seen for item in data}, done.trash) if data else set[Path]()
    for item in data:
        (done.gone if item.folder in moved else done.busy).append(item)
    return done


def size(folder: Path) -> tuple[int, int]:
    """How many files there are below ``folder``, and their bytes; of a file its own."""
    if not folder.is_dir():
        return 1, folder.lstat().st_size
    count = total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(f"{path}/{name}").st_size
            except FileNotFoundError:  # of a run that goes on meanwhile
                continue
            count += 1
    return count, total


def _runs_in_use(store: Store, sweeps: Sequence[SweepRecord], ttl_days: float) -> dict[str, str]:
    """Why a run stays by id: its sweep is driven now, or was asked for lately, if only to be found."""
    in_use: dict[str, str] = {}
    for sweep in sweeps:
        folder = store.sweep_dir(sweep.name)
        days = _days_since(_newest_file(folder))
        if is_held(folder, _SILENT_S):
            in_use |= dict.fromkeys(sweep.runs, "live: its sweep is being driven")
        elif days < ttl_days:
            in_use |= dict.fromkeys(sweep.runs, f"of a sweep of the last {ttl_days:g} days")
    return in_use


def _judge_run(folder: Path, keeps: Kept, in_use: Mapping[str, str], ttl_days: float) -> Item:
    seen = fingerprint(folder)
    days = _days_since(_recorded(folder))
    kept = keeps.reason(folder.name, folder.parent.name) or in_use.get(folder.name) or _lately(days, ttl_days)
    if not kept and is_held(folder, _SILENT_S):
        kept = "live: it is being worked on"
    return Item("run", folder, days, kept or "", seen)


def _judge_target(folder: Path, keeps: Kept, staying: set[Path], ttl_days: float) -> Item:
    days = _days_since(_recorded(folder))
    kept = keeps.reason(folder.name) or ("it has runs that stay" if folder in staying else _lately(days, ttl_days))
    if not kept and is_held(folder, _SILENT_S):
        kept = "live: it is being built"
    return Item("target", folder, days, kept or "")


def _judge_data(store: Store, going: set[Path], ttl_days: float) -> Iterator[Item]:
    """Data stay with any target that stays, and for a day with nobody: their target may be about to name them."""
    try:
        targets, unknown = targets_by_data(store), ""
    except StoreError as error:  # `verify` says so, too
        targets, unknown = {}, f"what it belongs to is not known: {error}"
    for path in _files(data_folder(store.root)):
        days = _days_since(path.stat().st_mtime)
        kept = unknown or ("" if targets.get(path.name, set()) <= going else "a target that stays needs it")
        kept = kept or _lately(days, max(ttl_days, _TEMPORARY_DAYS)) or ""
        yield Item("data file", path, days, kept, fingerprint(path))


def _judge_sweep(store: Store, sweep: SweepRecord, left: set[str], ttl_days: float) -> Item:
    folder = store.sweep_dir(sweep.name)
    days = _days_since(_newest_file(folder))
    kept = "it has runs that stay" if not left.isdisjoint(sweep.runs) else _lately(days, ttl_days)
    if not kept and is_held(folder, _SILENT_S):
        kept = "live: it is being driven"
    return Item("sweep", folder, days, kept or "", fingerprint(folder))


def _judge_rest(kind: Kind, folder: Path, most_days: float) -> Item:
    days = _days_since(folder.stat().st_mtime)
    return Item(kind, folder, days, _lately(days, most_days) or "")


def _ask(items: list[Item], under_way: UnderWay) -> list[Item]:
    """Keep what is queued somewhere, too: its element is still to read its config."""
    busy = under_way([item.folder for item in items if not item.kept])
    return [item._replace(kept=f"live: {busy[item.folder]}") if item.folder in busy else item for item in items]


def _lately(days: float, ttl_days: float) -> str | None:
    return f"worked on in the last {ttl_days:g} days" if days < ttl_days else None


def _recorded(folder: Path) -> float:
    """When a run or a target last said something of itself, or else when its newest file was written."""
    try:
        status = read_status(folder)
    except StoreError:  # damaged: `verify` says so
        status = None
    return _newest_file(folder) if status is None else float(status["time"])


def _newest_file(folder: Path) -> float:
    """Leases do not count: looking at a folder may have claimed it."""
    with os.scandir(folder) as entries:
        names = [entry for entry in entries if not entry.name.startswith(("lease-", "run_"))]
        return max((entry.stat(follow_symlinks=False).st_mtime for entry in names), default=folder.lstat().st_mtime)


def _days_since(moment: float) -> float:
    return (time.time() - moment) / _DAY_S


def _is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder itself, and neither a link to one nor below a link of the store's."""
    return all(_is_plain_folder(each) for each in (path, *_above(path)))


def _above(path: Path) -> Iterator[Path]:
    """The folders of the store that hold ``path``, up to one of :data:`_FOLDERS`."""
    for parent in path.parents:
        yield parent
        if parent.name in _FOLDERS:
            return


def _is_plain_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _folders(folder: Path, prefix: str = "") -> Iterator[Path]:
    """The folders in ``folder``, links left out; none if ``folder`` is a link."""
    if _is_plain_folder(folder):
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name.startswith(prefix)]
            yield from sorted(Path(entry.path) for entry in found if entry.is_dir(follow_symlinks=False))


def _files(folder: Path) -> list[Path]:
    """The data files in ``folder``, links left out; none if it is a link."""
    if not _is_plain_folder(folder):
        return []
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if is_data_file(entry.name) and entry.is_file(follow_symlinks=False)]
        return sorted(Path(entry.path) for entry in found)


def _links(store: Store) -> list[Path]:
    """Every link where gc would look for a folder."""
    tops = [store.root / name for name in _FOLDERS]
    targets = _folders(store.root / "targets", "tgt_")
    inside = [path for folder in (*tops, *targets) if _is_plain_folder(folder) for path in sorted(folder.iterdir())]
    return [path for path in (*tops, *inside) if path.is_symlink()]
