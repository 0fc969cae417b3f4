"""Who decides that a run is finished, who moves it to the archive, and who works on it: the one place for each.

Planning, entry points, the host loop and the commands that only look ask here, with ids and a budget. None of it
imports a sampler.
"""

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lambda_hat.config.schema import Budget, ConfigError, Document, Node, Progress
from lambda_hat.store.files import explained, read_config, sync_dir
from lambda_hat.store.layout import RunRef, Store, StoreError
from lambda_hat.store.lease import Lease, LeaseHeld, Owner

_SECONDS_BETWEEN_POLLS = 1.0


class FrozenConfig(NamedTuple):
    """A run's config.yaml, read without its schema classes.

    Args:
        ref: The run's ids, which its folder bears, and its folder.
        budget: How far the run was asked to go.
        config: The whole document, as :func:`lambda_hat.config.job.parse_job` takes it.
    """

    ref: RunRef
    budget: Budget
    config: Document


def read_frozen_config(folder: Path) -> FrozenConfig | None:
    """What a run's folder says of its job, or None if its config.yaml was never written.

    Raises:
        StoreError: the file is damaged.
    """
    config = read_config(folder)
    if config is None:
        return None
    return FrozenConfig(RunRef.of(folder), _budget(folder, config), config)


def _budget(folder: Path, config: Node) -> Budget:
    try:
        return Budget(**config["budget"])
    except (KeyError, TypeError, ConfigError) as error:
        raise StoreError(
            f"cannot read {folder / 'config.yaml'}: its budget is damaged ({error}); remove it and submit again"
        ) from error


def finished(store: Store, target_id: str, run_id: str, budget: Budget) -> Path | None:
    """The run's analysis.json if it is published and covers ``budget``, else None.

    A job's ``rerun`` plays no part: who submits archives the old run first, so that an element that SLURM restarts
    does not begin again.
    """
    analysis = store.read_analysis(target_id, run_id)
    if analysis is None or budget.spent(Progress(**analysis["progress"])) is None:
        return None
    return store.run_dir(target_id, run_id) / "analysis.json"


def archive(store: Store, target_id: str, run_id: str) -> None:
    """Move all that a run has done to ``.trash/`` (``rerun=true``), so that it starts again.

    Raises:
        LeaseHeld: another process is working on the run.
    """
    folder = store.run_dir(target_id, run_id)
    if folder.is_dir():
        with Lease.claim(folder, Owner.current()):
            move_to_trash(store, folder)


def move_to_trash(store: Store, folder: Path, *patterns: str) -> Path:
    """Move the files of a run that match ``patterns`` (none: all files) to ``.trash/``. Hold the run's lease.

    Returns the new place.
    The leases stay, because they fence off an owner that may still be at work on the moved files.
    """
    trash = store.trash_dir(f"{folder.parent.name}-{folder.name}-{uuid.uuid4().hex[:8]}")
    with explained("archive", folder):
        trash.mkdir(parents=True)
        found = {path for pattern in patterns or ("*",) for path in folder.glob(pattern)}
        # The result goes first: a run that is half moved is an unfinished run.
        for path in sorted(found, key=lambda path: path.name != "analysis.json"):
            if not path.name.startswith(("lease-", ".")):
                os.rename(path, trash / path.name)
        sync_dir(folder)
    return trash


def claim(folder: Path, is_made: Callable[[], bool], tell: Callable[[str], None]) -> Lease | None:
    """Become the owner of ``folder``, waiting while another process is; None once that one has made the thing.

    Args:
        folder: Of a run or a target; made if it is missing.
        is_made: Whether the thing that the folder is for is there.
        tell: Called once with one sentence if this has to wait.

    Raises:
        StoreError: the folder cannot be written.
    """
    is_waiting = False
    while True:
        try:
            return Lease.claim(folder, Owner.current())
        except LeaseHeld as held:
            if not is_waiting:
                tell(f"waiting: {held}")
                is_waiting = True
        time.sleep(_SECONDS_BETWEEN_POLLS)
        if is_made():
            return None
