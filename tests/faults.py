"""What goes wrong around a store, made to happen: a disk full, read-only or slow, a cached program cut short."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lambda_hat.config.job import Job
from lambda_hat.store.layout import Store

_SLOW = """\
import os, time

def late(function):
    return lambda *args, **more: (time.sleep(0.1), function(*args, **more))[1]

os.fsync, os.replace, os.rename = late(os.fsync), late(os.replace), late(os.rename)
open(os.path.join(os.path.dirname(__file__), f"{os.getpid()}.slowed"), "x").close()
"""


def files_of(store: Store, job: Job) -> dict[str, bytes]:
    """Every file of a run."""
    folder = store.run_dir(job.target_id, job.run_id)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@contextmanager
def filesystem(folder: Path) -> Iterator[Path]:
    """A filesystem of 64 MB at ``folder``; skips the test where none may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64M", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs to be allowed to mount a filesystem")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """``disk`` is read-only in the block, for root, too; files that are open for writing stay so."""
    # A second mount over the first: a filesystem with open files cannot be made read-only itself.
    subprocess.run(["mount", "--bind", disk, disk], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """``disk`` has no byte left in the block."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        yield
    finally:
        ballast.unlink()


def slowed(folder: Path) -> dict[str, str]:
    """The environment of processes in which every fsync and rename takes a tenth of a second."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SLOW)
    return {"PYTHONPATH": str(folder)}


def is_slowed(folder: Path, pid: int) -> bool:
    """Whether the process met the environment of :func:`slowed`."""
    return (folder / f"{pid}.slowed").exists()


def cut_cache_short(store: Store) -> list[Path]:
    """Truncate every entry of a store's own compilation cache, and return them."""
    from lambda_hat.sampling import (
        compilation_cache as cache,
    )  # conftest imports this file before it sets JAX's variables

    entries = sorted((store.cache_dir / cache.cpu_type()).glob("*-cache"))
    assert entries
    for path in entries:
        os.truncate(path, path.stat().st_size // 2)
    assert not any(map(cache._decodes, entries))
    return entries


def are_whole(entries: list[Path]) -> bool:
    """Whether entries of a compilation cache can be read."""
    from lambda_hat.sampling import compilation_cache as cache

    return all(map(cache._decodes, entries))
