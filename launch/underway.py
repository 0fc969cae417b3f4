"""Which folders of a store are still to be worked on: submitted, and without a last word since."""

from collections.abc import Sequence
from pathlib import Path

from lambda_hat.launch.manifest import SETTLED, Submission, news
from lambda_hat.launch.sweep import Tracker
from lambda_hat.store.layout import Store


def under_way(store: Store, folders: Sequence[Path]) -> dict[Path, str]:
    """What is known of those of ``folders`` (of runs, of targets) whose element is queued, running, held or unknown."""
    waiting: dict[Path, Submission] = {}
    for folder in folders:
        submission = Submission.read(folder)
        status = news(folder, submission)
        is_settled = status is not None and status["state"] in SETTLED
        if submission is not None and not is_settled and (store.sweep_dir(submission.sweep) / "manifest.json").exists():
            waiting[folder] = submission
    fates = Tracker(store).fates(waiting)
    busy = ("queued", "running", "held", "unknown")
    return {folder: f"{fate.state} {fate.reason}".strip() for folder, fate in fates.items() if fate.state in busy}
