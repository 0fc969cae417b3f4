"""Where a result came from: versions, commit, machine. Stands in every meta.json and analysis.json."""

import functools
import platform
import socket
import subprocess
from importlib import metadata
from pathlib import Path

from lambda_hat.config.schema import Document
from lambda_hat.sampling.devices import usable_cores

_PACKAGES = ("lambda-hat", "jax", "jaxlib", "blackjax", "optax", "numpy", "scipy", "scikit-learn", "arviz-stats")


@functools.cache
def versions() -> dict[str, str]:
    """The installed versions of what can change a number."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


@functools.cache
def commit() -> Document:
    """The git commit of the code and whether the tree was dirty; nulls outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        head = _git(here, "rev-parse", "HEAD")
        inside = _git(here, "ls-files", "--error-unmatch", __file__)
        dirty = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return {"commit": None, "dirty": None}
    return {"commit": head if inside else None, "dirty": bool(dirty)}


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def place(backend: str, device: str) -> Document:
    """Where and by what a stretch of a run was computed; a trace is bit-identical only within one such place."""
    cores = len(usable_cores())
    machine = {"host": socket.gethostname(), "backend": backend, "device": device, "cpu": cpu_model(), "cores": cores}
    return {**machine, "versions": versions(), **commit()}


@functools.cache
def cpu_model() -> str:
    """The processor's name, as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def provenance(backend: str, device: str, dtype: str) -> Document:
    """Everything above, with the dtype of the computation."""
    return {**place(backend, device), "dtype": dtype}
