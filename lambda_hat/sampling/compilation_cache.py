"""Compiled programs, shared by processes and nodes through JAX's persistent compilation cache.

JAX writes an entry in place, so that a killed process leaves half of one, and it never repairs it: it warns and
compiles anew at every start. So a process works on a private folder, seeded from the shared one by hard links, and
publishes the entries it made by renaming; an entry that does not decode is removed. There is one shared folder for
each type of CPU, since a program compiled for one may be an illegal instruction on another. JAX's own keys tell apart
versions, devices and flags. A cache that cannot be written costs time, never a run.
"""

import contextlib
import functools
import hashlib
import logging
import os
import platform
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from jax._src import compilation_cache as jax_entries  # the codec depends on what is installed; JAX knows which
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from lambda_hat.config.schema import Document
from lambda_hat.store.files import temporary_name

_ENTRIES = "*-cache"
# What a killed process leaves; a living one needs its private folder only while it compiles.
_ABANDONED_SECONDS = 3 * 86400.0
_SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
    # XLA's own caches would lie in the private folder, whose path would then be part of every key: never a hit.
    "jax_persistent_cache_enable_xla_caches": "none",
}
_log = logging.getLogger(__name__)


class CompilationCache:
    """A private folder of compiled programs between JAX and the ``shared`` one.

    Args:
        shared: The shared folder of this type of CPU.
        private: Where JAX reads and writes; nobody else does.
    """

    def __init__(self, shared: Path, private: Path):
        self.shared = shared
        self.private = private
        self._known: set[str] = set()

    def seed(self) -> None:
        """Bring the shared entries into the private folder, and remove those that do not decode."""
        for entry in self.shared.glob(_ENTRIES):
            if _decodes(entry):
                _share(entry, self.private / entry.name)
                self._known.add(entry.name)
            else:
                _log.warning("compilation cache: removing %s, which is truncated or damaged", entry)
                entry.unlink(missing_ok=True)

    def publish(self) -> None:
        """Share the entries made since; call it once compiled, so that a run killed later has not lost them."""
        _attempt(self._publish)

    def _publish(self) -> None:
        for entry in self.private.glob(_ENTRIES):
            if entry.name not in self._known and _decodes(entry):
                _share(entry, self.shared / entry.name)
                self._known.add(entry.name)


@contextlib.contextmanager
def compilation_cache(shared: Path) -> Iterator[CompilationCache]:
    """Let JAX keep what it compiles in the block under ``shared``, and find there what others compiled.

    May be entered again and again in one process; where the process holds too many programs it drops them first.
    Restores JAX's settings at the end.
    """
    make_room()
    folder = shared / cpu_type()
    cache = CompilationCache(folder, _private_folder(folder))
    _attempt(cache.seed)
    settings = {**_SETTINGS, "jax_compilation_cache_dir": str(cache.private)}
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        _configure(settings)
        jax_cache.reset_cache()  # JAX opens its folder once, and would stay with the one before
        yield cache
    finally:
        _configure(before)
        jax_cache.reset_cache()
        cache.publish()
        shutil.rmtree(cache.private, ignore_errors=True)


def make_room() -> None:
    """Drop the process's compiled programs where they fill half of the memory mappings that Linux allows.

    A program takes some 200 mappings, a run of a new sampler or shape up to 1,000. The limit is 65,530, at which XLA
    ends the process. A dropped program that is needed again is read from the cache.
    """
    if is_crowded():
        _log.info("compiled programs: dropped, because the process has half of the memory mappings it may have")
        jax.clear_caches()


def is_crowded() -> bool:
    """Whether the process has half of the memory mappings that it may have; only Linux has a limit."""
    try:
        limit = int(Path("/proc/sys/vm/max_map_count").read_bytes())
        return Path("/proc/self/maps").read_bytes().count(b"\n") > limit // 2
    except FileNotFoundError:
        return False


@functools.cache
def cpu_type() -> str:
    """A name for the instruction set that programs are compiled for: equal on equal processors."""
    described = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        # The first processor speaks for all. `flags` on x86, `Features` on ARM.
        first = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
        described += [first.get(key, "") for key in ("model name", "flags", "Features", "CPU part")]
    return f"{platform.machine()}-{hashlib.sha256(repr(described).encode()).hexdigest()[:8]}"


def _configure(settings: Document) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)


def _attempt(action: Callable[[], None]) -> None:
    """Do without the cache where it cannot be read or written: a run is worth more than its compile time."""
    try:
        action()
    except OSError as error:
        _log.warning("compilation cache: cannot %s it (%s); programs are compiled anew", action.__name__, error)


def _private_folder(shared: Path) -> Path:
    """A new folder beside the shared entries, where links reach; else in the system's place for temporary files."""
    try:
        shared.mkdir(parents=True, exist_ok=True)
        for leftover in shared.glob("private-*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
                    shutil.rmtree(leftover, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix="private-", dir=shared))
    except OSError as error:
        _log.warning("compilation cache: cannot use %s (%s); programs are compiled anew", shared, error)
        return Path(tempfile.mkdtemp(prefix="lambda-hat-xla-"))


def _decodes(entry: Path) -> bool:
    """Whether JAX could read ``entry``."""
    try:
        stat = entry.stat()
        return _decompresses(entry, stat.st_size, stat.st_mtime_ns)
    except FileNotFoundError:
        return False


@functools.cache  # runs that share a process would check the same entries again
def _decompresses(entry: Path, size: int, modified: int) -> bool:
    """Whether ``entry``, as it was then, is whole: it is compressed, with a checksum at its end."""
    del size, modified
    zstd = jax_entries.zstd or jax_entries.zstandard  # pyright: ignore[reportPrivateImportUsage]
    faults = (zlib.error,) if zstd is None else (zlib.error, zstd.ZstdError)
    try:
        jax_entries.decompress_executable(entry.read_bytes())
    except faults:
        return False
    return True


def _share(source: Path, destination: Path) -> None:
    """Make ``destination`` the same file as ``source``, in one step; one that is there already is as good."""
    try:
        os.link(source, destination)
    except FileExistsError:
        return
    except OSError:  # another filesystem, or one without hard links
        temporary = temporary_name(destination)
        try:
            shutil.copyfile(source, temporary)
            os.replace(temporary, destination)
        finally:
            temporary.unlink(missing_ok=True)
