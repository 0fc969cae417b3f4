"""The functions of the package: an LLC, from Python, in memory."""

import contextlib
import inspect
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from lambda_hat.config.job import Job, SamplerConfig
from lambda_hat.config.schema import Budget, ConfigError, Node, near_miss
from lambda_hat.config.settings import read_preset, settings_of
from lambda_hat.report.pictures import draw_missing
from lambda_hat.report.result import Result
from lambda_hat.run import stored
from lambda_hat.run.in_memory import sample
from lambda_hat.run.progress import Reporter, Silent, session_reporter
from lambda_hat.targets.problem import BuiltIn, Part, Problem, part_of


def llc(  # noqa: PLR0913 - each is a setting of its own
    problem: Problem | BuiltIn,
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
    **settings: Any,
) -> Result:
    r"""The local learning coefficient of ``problem`` at its w0, with its error and verdict.

    It is E1 = nbeta (E[L_n(w)] - L_n(w0)) under pi(w) ~ exp(-nbeta L_n(w) - gamma/2 ||w - w0||^2), estimated in this
    process. Without a store nothing is written to disk: Ctrl-C ends the run after the current chunk and returns the
    estimate so far, with the interruption among its reasons. With one it is the run that the command line would make:
    a finished one is found, a stopped one goes on where it last committed. The same arguments give the same draws.

    Args:
        problem: A loss with its parameters and data (:class:`lambda_hat.Problem`), or a built-in one
            (:func:`lambda_hat.built_in`).
        sampler: A preset's name (``hmc``, ``sgld``, ...), or a sampler such as ``lambda_hat.samplers.HMC()``.
        gamma: Strength of the localiser around w0 (>= 0).
        nbeta: The product n beta; None: n / log n.
        restrict: Which weights are free, the others staying at w0: paths or globs of the parameters such as
            ``["layer/*", "-*/bias"]`` (docs/estimator.md), or a pytree like ``params`` of True and False, for arrays or
            for their entries; None: all.
        loss: ``self`` puts the outputs at w0 in the place of the labels: the estimate is then llc_self, which is not
            the LLC (docs/estimator.md); needs ``Problem(..., outputs=...)``.
        self: With ``loss="self"``, the distance from those outputs: ``kl`` (of logits) or ``square``.
        control: Whether to draw the localiser alone, N(w0, I / gamma), exactly and without the sampler.
        budget: When to stop; None: the default of the sampler's preset, at most 300 seconds for most.
        num_chains: Chains side by side.
        seed: Of all random numbers.
        store: The folder of a store, such as ``runs``; None: in memory.
        progress: Whether to show how far the run has come.
        settings: Fields of the sampler, beside a preset's name: ``step_size=0.01``, ``num_warmup=200``.

    Raises:
        lambda_hat.config.schema.ConfigError: an argument is wrong, or does not fit the problem: one sentence each.
        lambda_hat.run.target.RunError: the loss is not finite, at w0 or at every chain.
        KeyboardInterrupt: Ctrl-C came before the first draw, or twice; with a store, once everything is committed.
    """
    if not isinstance(problem, Problem | BuiltIn):
        raise ConfigError([f"problem: needs a Problem(loss, params, data), got {type(problem).__name__}"])
    refuse_misspelt(llc, sampler, settings)
    part = problem if restrict is None else problem.part(restrict)
    words = list(part.words) if isinstance(part, Part) else None
    posterior = {"nbeta": nbeta, "gamma": gamma, "restrict": words, "loss": loss, "self": self, "control": control}
    asked = settings_of(sampler, settings, budget, posterior=posterior, num_chains=num_chains, seed=seed)
    with session_reporter() if progress else contextlib.nullcontext(Silent()) as reporter:
        if store is not None:
            refuse_nameless(words or [])
            return _in_store(stored.job_of(problem, asked, str(Path(store).absolute()), reporter), reporter)
        known = problem.known(asked) if isinstance(problem, BuiltIn) else None
        part = part_of(problem, restrict, asked.posterior.self)
        return Result.of(*sample(part, asked, reporter, known))


def refuse_misspelt(function: Callable[..., Any], sampler: object, settings: Node) -> None:
    """What is no field of the sampler may have been meant as an argument of ``function``.

    Raises:
        ConfigError: it is spelt nearly so.
    """
    fields = read_preset("sampler", sampler).fields if isinstance(sampler, str) else {}
    names = [name for name in inspect.signature(function).parameters if name != "settings"]
    for name in settings.keys() - fields.keys():
        if miss := near_miss(name, names):
            raise ConfigError([f"{name}: no such argument{miss}"])


def refuse_nameless(words: Sequence[str]) -> None:
    """A store keeps what is free as words; a mask of very many pieces has only a name.

    Raises:
        ConfigError: there is such a mask among ``words``.
    """
    masks = [word for word in words if "@mask:" in word]
    if masks:
        paths = ", ".join(word.partition("@")[0] for word in masks)
        raise ConfigError(
            [f"restrict: the mask of {paths} has too many pieces for a store to name; leave store= out, or free a box"]
        )


def _in_store(job: Job, reporter: Reporter) -> Result:
    outcome = stored.make(job, reporter)
    draw_missing(job, outcome.analysis, was_found=outcome.was_found)
    return Result.of(*stored.read(job))
