"""Memory: what was freed goes back to the system, and what stays is not searched for garbage."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager


def give_back() -> None:
    """Return what was freed, where the C library can (glibc).

    It keeps it otherwise, and a node counts that against the job: compiling a large model frees over 100 MB at once.
    """
    # The library that this process has loaded already: looking for it by name starts two processes.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def nothing_freed() -> Iterator[None]:
    """For what a process makes once and keeps, as imports do: Python looks through it again and again for garbage."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
