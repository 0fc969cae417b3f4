"""Compiled programs that a later process runs as they are, without tracing, lowering or compiling anything.

JAX's own cache (:mod:`lambda_hat.sampling.compilation_cache`) finds a program by its text, which every process must
first make: with the imports of what it is made of, most of a short run. Here it is found by what its text is made
from: the source of the core, the installed versions, JAX's settings, the devices, the static half of the run (sampler,
model, chains, phase), and the shapes and dtypes of the arguments. Whatever of these differs, the program is another
one and is made anew. A sampler or model of somebody else's module has sources that are not known here: its programs
are JAX's alone.

An entry appears whole, under its checksum; one that is damaged or cannot be loaded is removed and made anew. Like
JAX's own entries they are code: whoever can write the store can run code in the processes that read it.
"""

import functools
import hashlib
import inspect
import json
import logging
import os
import pickle
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from lambda_hat.config.job import canonical
from lambda_hat.run.provenance import versions
from lambda_hat.sampling.jit import compiler_options, consumed, jitted
from lambda_hat.store.files import StoreError, read_bytes, write_bytes

# All that programs are traced from, below the package (a test holds it against the imports), and this file, whose
# format an entry has.
SOURCES = (
    *("config/presets.py", "config/job.py", "posterior.py"),
    *("sampling/ensemble.py", "sampling/jit.py", "sampling/programs.py"),
    *("samplers/*.py", "targets/*.py"),
)
_OURS = ("lambda_hat.samplers", "lambda_hat.targets")
# Where programs are kept, not what they are.
_OF_CACHES = ("jax_compilation_cache", "jax_persistent_cache", "jax_enable_compilation_cache")
_CHECKSUM_BYTES = hashlib.sha256().digest_size
_log = logging.getLogger(__name__)

Program = Callable[..., Any]
# Of this process, by their keys: packed runs share them. They take the leaves of their arguments.
_loaded: dict[str, Program] = {}


def make_room() -> None:
    """Forget the process's programs, JAX's own among them, where they fill half of the memory map that Linux allows.

    A program is some 200 mappings, a run of a new sampler or shape up to 1,000, and the limit 65,530, where XLA can do
    nothing but end the process. What is needed again is read again.
    """
    if is_crowded():
        _log.info("compiled programs: %d are forgotten, and what JAX holds", len(_loaded))
        _loaded.clear()
        jax.clear_caches()


def is_crowded() -> bool:
    """Whether the process has half of the mappings that it may have; elsewhere than on Linux they are not bounded."""
    try:
        limit = int(Path("/proc/sys/vm/max_map_count").read_bytes())
        return Path("/proc/self/maps").read_bytes().count(b"\n") > limit // 2
    except FileNotFoundError:
        return False


class Programs:
    """Calls compiled functions, keeping their programs in ``folder``: one for each type of CPU."""

    def __init__(self, folder: Path):
        self._folder = folder

    def __call__(self, function: Any, plan: Any, *arguments: Any) -> Any:
        """As :func:`lambda_hat.sampling.jit.jitted`; the plan has a ``model`` too."""
        if not all(type(schema).__module__.rpartition(".")[0] in _OURS for schema in (plan.sampler, plan.model)):
            return jitted(function, plan, *arguments)
        leaves, structure = jax.tree.flatten(arguments)
        key = _key(function, plan, leaves, structure)
        if key not in _loaded:
            path = self._folder / f"{key}-program"
            _loaded[key] = _load(path) or _make(path, _flat(function, plan, arguments), leaves)
        return _loaded[key](*leaves)


def _key(function: Any, plan: Any, leaves: list[Any], structure: Any) -> str:
    avals = [jax.typeof(leaf) for leaf in leaves]
    document = {
        "function": function.__qualname__,
        "plan": canonical(plan),
        "structure": str(structure),
        "arguments": [(aval.shape, str(aval.dtype), aval.weak_type) for aval in avals],
        "placed": [str(getattr(leaf, "sharding", None)) for leaf in leaves],
        "settings": _settings(),
        "devices": [(device.platform, device.device_kind, device.id) for device in jax.devices()],
        "flags": os.environ.get("XLA_FLAGS"),
        "versions": versions(),
        "source": _source(),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def _settings() -> dict[str, str]:
    """JAX's settings, as they are in this thread."""
    known = {name: value for name, value in jax.config.values.items() if not name.startswith(_OF_CACHES)}
    return {name: repr(getattr(jax.config, name, value)) for name, value in known.items()}


@functools.cache
def _source() -> str:
    package = Path(__file__).parents[1]
    files = sorted(path for pattern in SOURCES for path in package.glob(pattern))
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()


def _load(path: Path) -> Program | None:
    """The program that is kept at ``path``; None if there is none that works."""
    try:
        entry = read_bytes(path)
        if entry is None:
            return None
        if hashlib.sha256(entry[_CHECKSUM_BYTES:]).digest() == entry[:_CHECKSUM_BYTES]:
            executable, taken, given, ids = pickle.loads(zlib.decompress(entry[_CHECKSUM_BYTES:]))
            devices = {device.id: device for device in jax.devices()}
            where = [devices[number] for number in ids]
            return serialize_executable.deserialize_and_load(executable, taken, given, execution_devices=where)
        fault = "it is truncated or damaged"
    except (StoreError, jax.errors.JaxRuntimeError) as error:
        fault = str(error)
    _log.warning("compiled programs: cannot use %s (%s); it is made anew", path, fault)
    path.unlink(missing_ok=True)
    return None


def _flat(function: Any, plan: Any, arguments: tuple[Any, ...]) -> Any:
    """The function, jitted, of the leaves of its arguments: what is kept holds no type of ours."""
    structure = jax.tree.structure(arguments)
    names = list(inspect.signature(function).parameters)[1:]
    owners = [name for name, value in zip(names, arguments, strict=True) for _ in jax.tree.leaves(value)]
    donated = [number for number, name in enumerate(owners) if name in consumed(function)]

    def flat(*leaves: Any) -> Any:
        return function(plan, *jax.tree.unflatten(structure, leaves))

    return jax.jit(flat, donate_argnums=donated, compiler_options=compiler_options(plan.sampler.dtype, plan.dim))


def _make(path: Path, function: Any, leaves: list[Any]) -> Program:
    """Compile, and keep it where that can be."""
    lowered = function.lower(*leaves)
    if "lapack" in lowered.as_text():
        # Lowering tells a process where LAPACK is; without it the program would jump to nowhere. JAX's cache keeps it.
        return function
    with _without_jax_cache():
        program = lowered.compile()
    executable, taken, given = serialize_executable.serialize(program)
    ids = [device.id for device in program.runtime_executable().local_devices()]
    body = zlib.compress(pickle.dumps((executable, taken, given, ids)), 1)
    try:
        write_bytes(path, hashlib.sha256(body).digest() + body)
    except StoreError as error:  # a run is worth more than its compile time
        _log.warning("compiled programs: %s", error)
    return program


@contextmanager
def _without_jax_cache() -> Iterator[None]:
    """Compile in fact: what JAX reads from its cache lacks the code when it is written out again."""
    before = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_compilation_cache", False)
    jax_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        jax_cache.reset_cache()
