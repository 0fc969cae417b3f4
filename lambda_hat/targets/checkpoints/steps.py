"""The training step of a checkpoint, from its path, and which steps of many are wanted."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from lambda_hat.targets.checkpoints.arrays import CheckpointError

# Numbers of which a last integer would be a part only: 1e4, 0.25.
_NO_INTEGER = re.compile(r"\d+(?:\.\d+)?[eE][+-]?\d+|\d+\.\d+")
_SPACED = re.compile(r"(log|linear):(\d+)")
_NAMED = 5


def step_of(path: Path, pattern: re.Pattern[str] | None) -> int:
    """The step of one checkpoint.

    Args:
        path: Of it.
        pattern: Whose one group is the step, searched for in the whole path; None: the last integer of the last part.

    Raises:
        CheckpointError: there is none, or it cannot be told.
    """
    if pattern is not None:
        match = pattern.search(path.as_posix())
        if match is None:
            raise CheckpointError([f"{path}: step={pattern.pattern!r} matches nothing in it"])
        if not match[1].isdecimal():
            raise CheckpointError([f"{path}: step={pattern.pattern!r} needs to match an integer, got {match[1]!r}"])
        return int(match[1])
    name = _without_ending(path)
    doubtful = _NO_INTEGER.search(name)
    if doubtful is not None:
        raise CheckpointError([f"{path}: {doubtful[0]} in it is no integer; give step=, a regex with one group"])
    integers = re.findall(r"\d+", name)
    if not integers:
        raise CheckpointError([f"{path}: its last part has no number; give step=, a regex with one group"])
    return int(integers[-1])


def pattern_of(step: str | None) -> re.Pattern[str] | None:
    """The regex with one group.

    Raises:
        CheckpointError: it is another one, or none.
    """
    if step is None:
        return None
    try:
        pattern = re.compile(step)
    except re.error as error:
        raise CheckpointError([f"step: needs a regex, got {step!r} ({error})"]) from error
    if pattern.groups != 1:
        raise CheckpointError([rf"step: needs a regex with one group, such as step_(\d+), got {step!r}"])
    return pattern


def by_step(paths: Sequence[Path], pattern: re.Pattern[str] | None) -> dict[int, Path]:
    """The paths by their steps, in ascending order.

    Raises:
        CheckpointError: a path has none, or two have one step.
    """
    found: dict[int, Path] = {}
    faults: list[str] = []
    for path in paths:
        try:
            step = step_of(path, pattern)
        except CheckpointError as error:
            faults += error.faults
            continue
        if step in found:
            faults.append(f"{found[step]} and {path}: both have step {step}; give step=, a regex with one group")
        found.setdefault(step, path)
    if faults:
        more = [] if len(faults) <= _NAMED else [f"and {len(faults) - _NAMED} more like these"]
        raise CheckpointError([*faults[:_NAMED], *more])
    return dict(sorted(found.items()))


def selected(steps: Sequence[int], select: str | Sequence[int]) -> list[int]:
    """Those of the ascending ``steps`` that are wanted.

    Args:
        steps: All that there are, at least one.
        select: ``all``; ``log:30`` or ``linear:50``: so many, the first and the last among them, about evenly spaced
            in the step or its logarithm, all where there are no more; or a list of steps.

    Raises:
        CheckpointError: it is something else, or steps of a list are not there.
    """
    if not isinstance(select, str):
        return _listed(steps, select)
    if select == "all":
        return list(steps)
    match = _SPACED.fullmatch(select)
    if match is None or int(match[2]) < 2:
        raise CheckpointError([f"select: needs all, log:30, linear:50 (2 or more) or a list of steps, got {select!r}"])
    # log(1 + step), for step 0.
    places = [math.log1p(step) for step in steps] if match[1] == "log" else [float(step) for step in steps]
    return [steps[index] for index in _spaced(places, min(int(match[2]), len(steps)))]


def _listed(steps: Sequence[int], wanted: Sequence[int]) -> list[int]:
    known = set(steps)
    missing = [step for step in wanted if step not in known]
    if missing or not wanted:
        shown = ", ".join(map(str, missing[:_NAMED])) + (f" and {len(missing) - _NAMED} more" * (len(missing) > _NAMED))
        near = sorted({min(steps, key=lambda step: abs(step - one)) for one in missing[:_NAMED]})
        told = f"no checkpoint of step {shown}; the nearest are {', '.join(map(str, near))}" if missing else "no step"
        raise CheckpointError([f"select: {told}"])
    return sorted(set(wanted))


def _spaced(places: Sequence[float], count: int) -> list[int]:
    """``count`` different indices, ascending, whose places are near to evenly spaced ones; the first and the last are
    among them."""
    if count < 2:
        return [0]
    chosen: list[int] = []
    for order in range(count):
        target = places[0] + (places[-1] - places[0]) * order / (count - 1)
        # Each one after the one before it, with enough left for those that follow.
        allowed = range(chosen[-1] + 1 if chosen else 0, len(places) - (count - order) + 1)
        chosen.append(min(allowed, key=lambda index: abs(places[index] - target)))
    chosen[-1] = len(places) - 1
    return chosen


def _without_ending(path: Path) -> str:
    """The last part without an ending such as .npz, whose digits are no step; .10 is no ending."""
    return path.name if path.is_dir() or path.suffix[1:2].isdigit() else path.stem
