"""Freed memory goes back to the system."""

import ctypes


def give_back() -> None:
    """Return what was freed, where the C library can (glibc).

    It keeps it otherwise, and a node counts that against the job: compiling a large model frees over 100 MB at once.
    """
    # The library that this process has loaded already: looking for it by name starts two processes.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
