"""Notices an element that hangs: stopped, or stuck in a computation while its heartbeat goes on."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lambda_hat.launch.manifest import Place, Task
from lambda_hat.run.progress import Reporter

# A run commits every few seconds, but its first step may have to be compiled, and a step of a large model is long.
QUIET_S = 300.0
HUNG_S = 3600.0
_SECONDS_BETWEEN_LOOKS = 5.0

_Sight = frozenset[tuple[str, int]]


@dataclass
class Watch:
    """Remembers when the files of each element last changed, by this process's own clock.

    Args:
        reporter: Is told of an element that was silent for :data:`QUIET_S`, once a silence.
    """

    reporter: Reporter
    _changed: dict[Place, tuple[_Sight, float]] = field(default_factory=dict)
    _told: set[Place] = field(default_factory=set)
    _looked: float = 0.0

    def silences(self, elements: Mapping[Place, Sequence[Task]]) -> dict[Place, float]:
        """For how many seconds each of the running ``elements`` has written nothing, if that is beyond HUNG_S."""
        now = time.monotonic()
        if now - self._looked < min(_SECONDS_BETWEEN_LOOKS, QUIET_S):
            return {}
        self._looked = now
        self._changed = {place: seen for place, seen in self._changed.items() if place in elements}
        silent: dict[Place, float] = {}
        for place, tasks in elements.items():
            sight = frozenset(_files(tasks))
            before, since = self._changed.get(place, (None, now))
            if sight != before:
                self._changed[place] = sight, now
                self._told.discard(place)
                continue
            if now - since >= QUIET_S and place not in self._told:
                self._told.add(place)
                name = tasks[0].run_id or tasks[0].target_id
                more = "" if len(tasks) == 1 else f" and {len(tasks) - 1} more"
                self.reporter.line(
                    f"element {place.array}_{place.index} ({name}{more}): nothing committed for {_minutes(now - since)}"
                )
            if now - since >= HUNG_S:
                silent[place] = now - since
        return silent


def hung(seconds: float) -> str:
    """Why an element was ended."""
    return f"it hung: its process committed nothing for {_minutes(seconds)}, and was ended"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _files(tasks: Sequence[Task]) -> Iterator[tuple[str, int]]:
    """What changes with the work on ``tasks``: a lease does not, because a heartbeat is no work."""
    for task in tasks:
        try:
            with os.scandir(task.folder) as entries:
                for entry in entries:
                    if not entry.name.startswith(("lease-", ".", "run_")):
                        yield entry.path, entry.stat(follow_symlinks=False).st_mtime_ns
        except FileNotFoundError:  # not begun, or replaced at this moment
            continue
