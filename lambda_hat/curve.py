"""``lambda_hat.trajectory``: the LLC at each checkpoint of a training, by one compiled program."""

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import PyTree

from lambda_hat.api import refuse_misspelt, refuse_nameless
from lambda_hat.config.job import SamplerConfig, name_of
from lambda_hat.config.schema import Budget, ConfigError, Document
from lambda_hat.config.settings import Settings, settings_of
from lambda_hat.report.curve import Curve, Point, refuse_taken
from lambda_hat.run import stored
from lambda_hat.run.in_memory import sample
from lambda_hat.run.progress import Reporter, Silent, session_reporter
from lambda_hat.run.signals import Stop
from lambda_hat.run.target import RunError
from lambda_hat.targets.checkpoints import Checkpoint
from lambda_hat.targets.checkpoints.items import Item, items_of
from lambda_hat.targets.problem import Part, Problem, part_of
from lambda_hat.targets.problem.row_contract import NotFiniteAtW0

Checkpoints = Sequence[Checkpoint] | Sequence[tuple[int, PyTree]]
Metric = Callable[[PyTree], Any]
# Of the runs that only tune.
_TRIAL = Budget(draws=4)


def trajectory(  # noqa: PLR0913 - each is a setting of its own
    problem: Problem,
    checkpoints: Checkpoints | Mapping[str, Checkpoints],
    sampler: str | SamplerConfig = "hmc",
    *,
    gamma: float = 1.0,
    nbeta: float | None = None,
    restrict: Sequence[str] | PyTree = None,
    loss: str = "data",
    self: str | None = None,
    control: bool = False,
    budget: Budget | None = None,
    num_chains: int = 4,
    seed: int = 0,
    store: str | PathLike[str] | None = None,
    progress: bool = True,
    metrics: Mapping[str, Metric] | None = None,
    tune: Literal["each", "once"] = "each",
    **settings: Any,
) -> Curve:
    r"""The LLC at each checkpoint of a training, or of several, with one posterior and one compiled program.

    Each point is what ``lambda_hat.llc(problem.at(checkpoint), ...)`` gives. With a store it is the same run, so that a
    second call makes only what is missing. A checkpoint at which the loss is not finite, which cannot be read, or whose
    run fails is a point without a result that says why; what is wrong with the first checkpoint's tree, or with the
    loss itself, is refused before anything is sampled.

    Ctrl-C ends the run after the current chunk. In memory the curve so far is returned; with a store everything is
    committed, and the same call goes on.

    Args:
        problem: The loss and its data (:class:`lambda_hat.Problem`). Its own w0 is no point of the curve.
        checkpoints: What :func:`lambda_hat.checkpoints` gives; or pairs (step, params), as a training loop has them;
            or a mapping of names to these: several networks or seeds in one curve.
        sampler: A preset's name (``hmc``, ``sgld``, ...), or a sampler such as ``lambda_hat.samplers.SGLD()``.
        gamma: Strength of the localiser around w0 (>= 0).
        nbeta: The product n beta; None: n / log n.
        restrict: Which weights are free, as of :func:`lambda_hat.llc`; None: all.
        loss: ``self`` estimates llc_self, of which every checkpoint is a minimum, as of :func:`lambda_hat.llc`.
        self: With ``loss="self"``: ``kl`` or ``square``.
        control: Whether to draw the localiser alone, as of :func:`lambda_hat.llc`.
        budget: When to stop each run; None: the default of the sampler's preset.
        num_chains: Chains side by side.
        seed: Of all random numbers, the same at each checkpoint.
        store: The folder of a store, such as ``runs``; None: in memory.
        progress: Whether to show how far the curve has come.
        metrics: Numbers of your own beside the LLC: functions of the parameters' pytree, by their names. They are
            evaluated for all checkpoints before anything is sampled.
        tune: ``each``: each run's warm-up tunes what the sampler leaves open. ``once``: what is ``auto`` is tuned at
            the first, the middle and the last checkpoint of each series, and the smallest value is held for all. The
            table's ``settings`` says which. To extend such a curve later, set the value itself: ``step_size=...``.
        settings: Fields of the sampler, beside a preset's name: ``step_size=1e-4``, ``num_warmup=200``.

    Raises:
        lambda_hat.config.schema.ConfigError: an argument is wrong, or does not fit the problem: one sentence each.
        KeyboardInterrupt: Ctrl-C came before the first point was finished, or twice; with a store, always.
    """
    if not isinstance(problem, Problem):
        raise ConfigError([f"problem: needs a Problem(loss, params, data), got {type(problem).__name__}"])
    refuse_misspelt(trajectory, sampler, settings)
    refuse_taken(metrics or {})
    items = items_of(checkpoints)
    part = problem if restrict is None else problem.part(restrict)
    words = list(part.words) if isinstance(part, Part) else None
    posterior = {"nbeta": nbeta, "gamma": gamma, "restrict": words, "loss": loss, "self": self, "control": control}
    asked = settings_of(sampler, settings, budget, posterior=posterior, num_chains=num_chains, seed=seed)
    open_names = _open_names(asked.sampler, tune)
    if store is not None:
        refuse_nameless(words or [])
    shown = session_reporter() if progress else contextlib.nullcontext(Silent())
    with shown as reporter, Stop().listening([signal.SIGINT]) as stop:
        runs = _Runs(problem, restrict, asked, None, _Numbered(reporter, len(items)), stop)
        measured = _measured(runs, items, metrics or {})
        if open_names:
            runs = dataclasses.replace(runs, asked=_held(runs, items, open_names))
        root = None if store is None else str(Path(store).absolute())
        return Curve(_points(dataclasses.replace(runs, store=root), items, measured))


@dataclass
class _Numbered:
    """A reporter that says at which checkpoint it is, and repeats no line."""

    beside: Reporter
    total: int
    where: str = ""
    said: set[str] = field(default_factory=set)

    def at(self, number: int, step: int) -> None:
        self.where = f"step {step:,}, checkpoint {number} of {self.total}"

    def line(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            self.beside.line(f"{self.where}: {text}" if self.where else text)

    def status(self, text: str) -> None:
        self.beside.status(f"{self.where}: {text}")


@dataclass(frozen=True)
class _Runs:
    """One estimate a checkpoint, all of the same settings; nothing is kept of them but their documents."""

    problem: Problem
    restrict: Any
    asked: Settings
    store: str | None
    reporter: _Numbered
    stop: Stop

    def document(self, params: Any) -> Document:
        """
        Raises:
            ConfigError: the checkpoint cannot be read, or does not fit.
            RunError: the run failed.
            KeyboardInterrupt: Ctrl-C, before there is anything to return.
        """
        problem = self.problem.at(params)
        part = part_of(problem, self.restrict, self.asked.posterior.self)
        if self.store is None:
            return sample(part, self.asked, self.reporter, stop=self.stop).document
        return stored.document(problem, self.asked, self.store, self.reporter, self.stop)


def _open_names(sampler: SamplerConfig, tune: str) -> list[str]:
    """The sampler's fields that are to be tuned once.

    Raises:
        ConfigError: there is no such field.
    """
    if tune not in ("each", "once"):
        raise ConfigError([f"tune: needs 'each' or 'once', got {tune!r}"])
    if tune == "each":
        return []
    fields: Any = sampler
    names = [one.name for one in dataclasses.fields(fields) if getattr(sampler, one.name) == "auto"]
    if not names:
        raise ConfigError(
            [
                f"tune: 'once' needs a sampler with a field that is auto, such as sgld, but {name_of(sampler)} has "
                "none here: what it was given is held, and what else its warm-up tunes is tuned at each checkpoint; "
                "leave tune= out"
            ]
        )
    return names


def _held(runs: _Runs, items: Sequence[Item], names: Sequence[str]) -> Settings:
    """The settings with the smallest of what warm-up chose at the first, middle and last checkpoint of each series.

    Raises:
        ConfigError: none of them could be sampled.
    """
    trial = dataclasses.replace(runs, asked=dataclasses.replace(runs.asked, budget=_TRIAL))
    found: list[Document] = []
    reason = ""
    for number in _spread(items):
        runs.reporter.at(number + 1, items[number].step)
        try:
            found.append(trial.document(items[number].params)["tuned"])
        except (ConfigError, RunError) as error:
            reason = str(error)
        _raise_if_stopped(runs.stop)
    if not found:
        raise ConfigError([f"tune: no first, middle or last checkpoint could be sampled; the last of them: {reason}"])
    smallest: Document = {name: min(tuned[name] for tuned in found) for name in names}
    runs.reporter.line("held for all: " + ", ".join(f"{name} = {value:.4g}" for name, value in smallest.items()))
    sampler: Any = runs.asked.sampler
    return dataclasses.replace(runs.asked, sampler=dataclasses.replace(sampler, **smallest))


def _spread(items: Sequence[Item]) -> list[int]:
    """The places of the first, the middle and the last item of each series, by their steps."""
    places: dict[str, list[int]] = {}
    for place in sorted(range(len(items)), key=lambda one: items[one].step):
        places.setdefault(items[place].series, []).append(place)
    return [place for own in places.values() for place in dict.fromkeys((own[0], own[len(own) // 2], own[-1]))]


def _measured(runs: _Runs, items: Sequence[Item], metrics: Mapping[str, Metric]) -> list[dict[str, float]]:
    """The metrics of every checkpoint; none where it cannot be read, as its point will say.

    Raises:
        ConfigError: the first checkpoint does not fit, or a metric is no number.
    """
    found: list[dict[str, float]] = []
    for number, item in enumerate(items):
        if not metrics and number:
            found.append({})
            continue
        runs.reporter.at(number + 1, item.step)
        try:
            params = runs.problem.at(item.params).params
        except ConfigError:
            if number == 0:
                raise
            found.append({})
            continue
        found.append({name: _number(name, metric(params)) for name, metric in metrics.items()})
        _raise_if_stopped(runs.stop)
    return found


def _number(name: str, value: Any) -> float:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise ConfigError([f"metrics: {name} needs to return a number, got {array.dtype}{list(array.shape)}"])
    return float(array.reshape(()))


def _points(runs: _Runs, items: Sequence[Item], measured: Sequence[dict[str, float]]) -> list[Point]:
    """A point for each item, or those before an interruption in memory."""
    points: list[Point] = []
    for number, (item, metrics) in enumerate(zip(items, measured, strict=True)):
        runs.reporter.at(number + 1, item.step)
        try:
            document = _document(runs, item, is_first=number == 0)
        except KeyboardInterrupt:
            if runs.store is not None or not points:
                raise
            break
        points.append(Point(item.step, item.path, document, metrics, item.series))
        if runs.stop.signum is not None and number + 1 < len(items):
            if runs.store is not None:
                _raise_if_stopped(runs.stop)
            break
    if len(points) < len(items):
        runs.reporter.line(f"interrupted: this curve has {len(points)} of its {len(items)} checkpoints")
    return points


def _document(runs: _Runs, item: Item, *, is_first: bool) -> Document:
    """What the run found, or why there is no result."""
    try:
        return runs.document(item.params)
    except (NotFiniteAtW0, RunError) as error:
        return _without(runs, error)
    except ConfigError as error:
        if is_first:
            raise
        return _without(runs, error)


def _without(runs: _Runs, error: Exception) -> Document:
    runs.reporter.line(str(error))
    return {"sampler": name_of(runs.asked.sampler), "gamma": runs.asked.posterior.gamma, "error": str(error)}


def _raise_if_stopped(stop: Stop) -> None:
    if stop.signum is not None:
        raise KeyboardInterrupt("trajectory: interrupted; what a store has is kept, and the same call goes on")
