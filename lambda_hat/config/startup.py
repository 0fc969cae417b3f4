"""What a command does once, while it starts."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Import and compose in this block: all it allocates stays, so that searching it for garbage is wasted.

    It saves a sixth of the CPU seconds of a run of 30 draws.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
