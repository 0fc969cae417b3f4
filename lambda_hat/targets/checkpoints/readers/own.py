"""A reader of the user's own: a function of a path that returns a pytree of arrays."""

import importlib
from collections.abc import Callable
from typing import Any

from lambda_hat.targets.checkpoints.arrays import Arrays, CheckpointError, flat

Load = Callable[[str], Any]


def function_of(load: Load | str) -> Load:
    """The function, or what a dotted path such as ``my_pkg.read`` leads to.

    Raises:
        CheckpointError: nothing is there that can be called.
    """
    if not isinstance(load, str):
        if not callable(load):
            raise CheckpointError([f"load: needs a function of a path, or its dotted path, got {type(load).__name__}"])
        return load
    module, _, name = load.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise CheckpointError(
            [f"load: needs the dotted path of a function, such as my_pkg.read, got {load!r} ({error})"]
        ) from error
    if not callable(found):
        raise CheckpointError([f"load: {load} needs to be a function of a path, got {type(found).__name__}"])
    return found


def reader_of(load: Load) -> Callable[[str], Arrays]:
    """Calls ``load``, and takes the arrays of what it returns."""

    def read(path: str) -> Arrays:
        try:
            tree = load(path)
        except Exception as error:
            name = getattr(load, "__name__", type(load).__name__)
            told = (str(error).strip().splitlines() or [""])[0]
            raise ValueError(f"{name} raised {type(error).__name__}: {told}") from error
        found = flat(tree)
        if not found:
            raise CheckpointError([f"{path}: load needs to return a pytree of arrays, got {type(tree).__name__}"])
        return found

    return read
