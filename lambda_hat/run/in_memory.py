"""An estimate without a store, in a session that is not ours: what we change of JAX and of signals ends with the call.

The numbers are those of the run that a store would make of the same target, posterior, sampler, chains and seed.
"""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import jax
import numpy as np

from lambda_hat.config.job import ModelConfig, name_of
from lambda_hat.config.schema import Budget, ConfigError, Document
from lambda_hat.config.settings import Settings
from lambda_hat.estimation.estimate import Estimate, Setting, estimate
from lambda_hat.estimation.reason import Reason, sampling
from lambda_hat.posterior import localise
from lambda_hat.run.accounting import Ledger
from lambda_hat.run.chunks import Chunks, setting_of
from lambda_hat.run.displaced import displaced
from lambda_hat.run.document import Facts, document_of
from lambda_hat.run.memory import give_back
from lambda_hat.run.progress import Reporter
from lambda_hat.run.provenance import provenance
from lambda_hat.run.signals import Stop
from lambda_hat.run.sink import Memory, with_columns
from lambda_hat.run.target import on_device
from lambda_hat.samplers.base import Sampler
from lambda_hat.sampling.devices import fits_one_core, usable_cores
from lambda_hat.sampling.ensemble import Ensemble
from lambda_hat.store.files import plain
from lambda_hat.targets.base import Built, Loss, Target

# Settings of JAX that could change a number; a session's own value is noted. Some are set for the time of a run: a
# trace has NaN where a column is not defined, and draws must be those of a run of the store.
_DEFAULTS = {
    "jax_disable_jit": False,
    "jax_default_matmul_precision": None,
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_threefry_partitionable": True,
}


class Sampled(NamedTuple):
    """What a run in memory leaves: its estimate, its traces (chain, draw), and all of it as one document."""

    found: Estimate
    trace: dict[str, np.ndarray]
    warmup: dict[str, np.ndarray]
    setting: Setting
    document: Document


class Source(Protocol):
    """What is sampled: its loss, the target as built, and which rows the gradient at its w0 comes from."""

    @property
    def model(self) -> Loss: ...
    def built(self) -> Built: ...
    def gradient_groups(self) -> list[Document]: ...


class _Drawn(NamedTuple):
    ledger: Ledger
    setting: Setting
    tuned: dict[str, float]
    sink: Memory
    is_whole: bool


def sample(
    source: Source,
    settings: Settings,
    reporter: Reporter,
    known: ModelConfig | None = None,
    stop: Stop | None = None,
) -> Sampled:
    """Sample a target until the budget is spent, or until Ctrl-C.

    Ctrl-C ends the run after the current chunk; the estimate of what was drawn has that among its reasons.

    Args:
        source: The problem, or a part of it.
        settings: What is asked of it.
        reporter: Receives the progress.
        known: What may know the LLC of this target; None: nothing does.
        stop: Shared with whoever calls, who then learns of a Ctrl-C that came too late for this run.

    Raises:
        ConfigError: the settings do not fit the target, or JAX compiles nothing in this session.
        RunError: the loss is not finite, at w0 or at every chain.
        KeyboardInterrupt: Ctrl-C came before the first draw, or twice.
    """
    refuse_without_compiler()
    changed = _changed_settings()
    with own_settings(settings.sampler.dtype):
        started = time.monotonic()
        built = source.built()
        build_seconds = time.monotonic() - started
        settings.check(built.num_data, built.w0.size)
        _tell_devices(built.w0.size, reporter)
        drawn = _draw(built, source, settings, reporter, stop or Stop())
        give_back()
        device = jax.devices()[0]
    made = {**provenance(device.platform, device.device_kind, settings.sampler.dtype), "jax_settings": changed}
    return _estimated(drawn, settings, build_seconds, made, known)


def _estimated(
    drawn: _Drawn, settings: Settings, build_seconds: float, made: Document, known: ModelConfig | None
) -> Sampled:
    ledger, setting = drawn.ledger, drawn.setting
    phases = drawn.sink.trace(ledger, "sampling"), drawn.sink.trace(ledger, "warmup")
    trace, warmup = with_columns(*phases, settings.num_chains)
    found = estimate(trace, setting)
    if not drawn.is_whole:
        found = dataclasses.replace(found, against=(_interrupted(ledger.draws, settings.budget), *found.against))
    names = {"sampler": name_of(settings.sampler)}
    exact, asymptotic = None, (None, None)
    if known is not None:
        exact = known.exact_llc(setting.nbeta, setting.gamma, setting.report)
        asymptotic = known.known_lambda() or asymptotic
    facts = Facts(
        names, settings.to_dict(), settings.budget, setting, made, drawn.tuned, build_seconds, exact, *asymptotic
    )
    return Sampled(found, trace, warmup, setting, plain(document_of(ledger, found, facts)))


def _tell_devices(dim: int, reporter: Reporter) -> None:
    """How chains run side by side, where they would: a session's devices are not ours to change."""
    is_one = jax.default_backend() == "cpu" and len(jax.devices()) == 1
    if is_one and len(usable_cores()) > 1 and not fits_one_core({"dim": dim}):
        reporter.line(
            "the chains take turns on one device: call lambda_hat.sampling.devices.one_a_core() before JAX computes "
            "anything, and they run side by side"
        )


def _draw(built: Built, source: Source, settings: Settings, reporter: Reporter, stop: Stop) -> _Drawn:
    """The chains, which end here: on a large model they are most of the memory."""
    sampler, dtype = settings.sampler, settings.sampler.dtype
    if not isinstance(sampler, Sampler):
        raise ConfigError([f"sampler: needs a sampler (lambda_hat.samplers.base), got {type(sampler).__name__}"])
    data = jax.tree.map(lambda array: on_device(array, dtype), built.data)
    target = Target(on_device(built.w0, dtype), data, source.model, built.num_data)
    nbeta, gamma = settings.posterior.resolve_nbeta(built.num_data), settings.posterior.gamma
    ensemble = Ensemble(sampler, localise(target, nbeta, gamma), settings.num_chains, settings.seed)
    sink = Memory(name_of(settings.sampler))
    setting = setting_of(sink.name, ensemble, nbeta, gamma, built.report, settings.posterior.quantity)
    setting = dataclasses.replace(setting, displaced=displaced(target, setting, source.gradient_groups))
    with stop.listening([signal.SIGINT]):
        chunks = Chunks(setting, ensemble, settings.budget, sink, stop, reporter)
        ended = chunks.to_the_end()
    if ended.signum is not None and chunks.ledger.draws == 0:
        raise KeyboardInterrupt("llc: interrupted before the first draw, so there is no estimate")
    return _Drawn(chunks.ledger, setting, ensemble.tuned(ended.state), sink, ended.signum is None)


def _interrupted(draws: int, budget: Budget) -> Reason:
    of = "" if budget.draws is None else f" of {budget.draws:,}"
    return sampling(
        f"interrupted after {draws:,} draws{of} a chain: its budget was not spent; run it again for all of it"
    )


def refuse_without_compiler() -> None:
    """
    Raises:
        ConfigError: JAX compiles nothing in this session.
    """
    if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        raise ConfigError(["llc: needs compiled programs, but jax_disable_jit is set; unset it for this call"])


@contextlib.contextmanager
def own_settings(dtype: str) -> Iterator[None]:
    """JAX as a run needs it, while the block lasts."""
    with (
        jax.enable_x64(dtype == "float64"),
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.threefry_partitionable(True),
    ):
        yield


def _changed_settings() -> Document:
    """The noted settings that this session has changed."""
    values = {name: getattr(jax.config, name) for name in _DEFAULTS}
    plain = {name: getattr(value, "value", value) for name, value in values.items()}  # one of them is an enum
    return {name: value for name, value in plain.items() if value != _DEFAULTS[name]}
