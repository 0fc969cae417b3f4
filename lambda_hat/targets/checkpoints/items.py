"""What a curve is asked of: checkpoints, or parameters in memory, each with its step and its series."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from lambda_hat.targets.checkpoints.arrays import CheckpointError
from lambda_hat.targets.checkpoints.listing import Checkpoint


class Item(NamedTuple):
    """One checkpoint, or the parameters at a step.

    path: "" where they were in memory. params: A :class:`Checkpoint`, or a pytree. series: "" where there is one.
    """

    step: int
    path: str
    params: Any
    series: str


def items_of(checkpoints: Any) -> list[Item]:
    """Every checkpoint of every series, in the order given.

    Raises:
        CheckpointError: it is something else, or empty.
    """
    series: Any = checkpoints if isinstance(checkpoints, Mapping) else {"": checkpoints}
    found = [_item(one, str(name)) for name, own in series.items() for one in _sequence(own)]
    if not found:
        raise CheckpointError(["checkpoints: needs at least one, got none"])
    return found


def _sequence(own: Any) -> Iterator[Any]:
    if isinstance(own, str | bytes | os.PathLike | Checkpoint):
        raise CheckpointError([f"checkpoints: needs those of lambda_hat.checkpoints(...), got {own!r:.80}"])
    try:
        return iter(own)
    except TypeError:
        raise CheckpointError([f"checkpoints: needs a sequence of them, got {type(own).__name__}"]) from None


def _item(one: Any, series: str) -> Item:
    if isinstance(one, Checkpoint):
        return Item(one.step, one.path, one, series)
    match one:
        case (int() | np.integer(), _) if not isinstance(one[0], bool):
            return Item(int(one[0]), "", one[1], series)
        case _:
            got = f"{type(one).__name__} {one!r:.60}"
            raise CheckpointError([f"checkpoints: each needs to be a Checkpoint, or a pair (step, params), got {got}"])
