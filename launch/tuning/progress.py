"""The status line of a session: what is going on, how far it has come, and the best so far. Loads no Optuna."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from lambda_hat.launch.tuning.problems import Method
from lambda_hat.launch.tuning.trial import LiveTrial


class StudySeen(Protocol):
    """What the line says of a :class:`lambda_hat.launch.tuning.study.Study`."""

    method: Method
    live: list[LiveTrial]

    @property
    def num_ended(self) -> int: ...
    @property
    def best(self) -> float | None: ...


def progress_line(references: Sequence[bool], studies: Sequence[StudySeen], max_trials: int) -> str:
    """One line.

    Args:
        references: Of each problem, whether its reference is still to be made.
        studies: All studies of the session.
        max_trials: How many trials each has in the end.
    """
    parts = [f"{sum(references)} of {len(references)} references to be made"] if any(references) else []
    parts.append(f"{sum(study.num_ended for study in studies)} of {len(studies) * max_trials} trials have ended")
    live = sum(len(study.live) for study in studies)
    parts += [f"{live} in flight"] if live else []
    best = ", ".join(f"{name} {value:.3g}" for name, value in _best(studies).items())
    parts += [f"best objective: {best}"] if best else []
    return "; ".join(parts)


def _best(studies: Iterable[StudySeen]) -> dict[str, float]:
    """The smallest objective of each method, over all problems."""
    best: dict[str, float] = {}
    for study in studies:
        if study.best is not None:
            best[study.method.name] = min(study.best, best.get(study.method.name, study.best))
    return best
