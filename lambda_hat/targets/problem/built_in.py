"""A built-in model as a problem: the target that ``model=... data=...`` names on a command line, in a session."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from lambda_hat.config.cross_faults import cross_faults
from lambda_hat.config.job import Job, ModelConfig
from lambda_hat.config.restriction import is_whole
from lambda_hat.config.schema import ConfigError, Document, StoreConfig
from lambda_hat.config.settings import Settings
from lambda_hat.targets.base import Built, StoredLoss, Target, build, loss_of, training_of
from lambda_hat.targets.problem.checked import Checked
from lambda_hat.targets.problem.part import Part, chosen
from lambda_hat.targets.w0_report import report_of

# The groups that make a target.
_GROUPS = ("model", "data", "teacher", "training")


class BuiltIn:
    """A built-in model with its data, trained when it is first needed; :func:`built_in` makes one."""

    def __init__(self, job: Job):
        self._job = job

    def __repr__(self) -> str:
        return f"<BuiltIn {self._job.target_id}: {type(self._job.model).__name__}, {type(self._job.data).__name__}>"

    @property
    def model(self) -> StoredLoss:
        """The loss of the target."""
        return loss_of(self._job)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays of the parameters by path, in their order within the flat w."""
        return self._job.model.parameters(self._job.data)

    def built(self) -> Built:
        """The target: w0 in float64, the arrays, n, and what w0 is."""
        return self._built

    @functools.cached_property
    def _built(self) -> Built:
        with jax.enable_x64(True):
            return build(self._job)

    @property
    def checked(self) -> Checked:
        """The target in float64, and its data on the host."""
        built = self.built()
        with jax.enable_x64(True):
            target = Target(jnp.asarray(built.w0), built.data, self.model, built.num_data).astype("float64")
        return Checked(target, built.data)

    def described(self, target: Target, data: PyTree) -> Built:
        """A target of this loss that has some of the weights, with what its w0 is.

        Args:
            target: In float64.
            data: Its data on the host.
        """
        whole = self.built()
        with jax.enable_x64(True):
            report = report_of(target, training_of(self._job), whole.report["training"])
        return Built(np.asarray(target.w0), data, whole.num_data, report)

    def gradient_groups(self, target: Target | None = None) -> list[Document]:
        """None: the rows of a built-in model are not told apart."""
        del target
        return []

    def part(self, restrict: Sequence[str] | PyTree) -> "BuiltIn | Part":
        """The problem of some weights, the others staying at w0: see :meth:`lambda_hat.Problem.part`."""
        words, free = chosen(restrict, self.shapes)
        return self if is_whole(free) else Part(self, words, free)

    def job(self, settings: Settings, store: StoreConfig | None = None) -> Job:
        """The run of these settings.

        Raises:
            ConfigError: they do not fit the target.
        """
        nodes = {name: getattr(settings, name) for name in ("posterior", "sampler", "num_chains", "seed", "budget")}
        job = dataclasses.replace(self._job, store=store or StoreConfig(), **nodes)
        faults = cross_faults(job)
        if faults:
            raise ConfigError(faults)
        return job

    def known(self, settings: Settings) -> ModelConfig | None:
        """What may know the LLC of such a run: the model, unless some weights stay at w0, or the labels are others.

        Raises:
            ConfigError: the settings do not fit the target.
        """
        job = self.job(settings)
        return job.model if job.free is None and job.posterior.quantity == "llc" else None


def built_in(*overrides: str) -> BuiltIn:
    """A built-in model as a problem for :func:`lambda_hat.llc`: the target that the same words name on a command line.

    Args:
        overrides: ``"model=deep_linear"``, ``"data=digits"``, ``"training.steps=500"``: presets of the groups model,
            data, teacher and training, and their fields (docs/configuration.md). None: the default model and data.

    Raises:
        lambda_hat.config.schema.ConfigError: there is no such preset or field, or they do not fit together.
    """
    # With it comes Hydra, which nothing else in a session needs.
    from lambda_hat.config.compose import Composer, compose_jobs
    from lambda_hat.config.yaml_file import presets_loader

    strangers = [text for text in overrides if text.lstrip("+~").partition("=")[0].partition(".")[0] not in _GROUPS]
    if strangers:
        raise ConfigError(
            [
                f"{text}: a built-in problem has {', '.join(_GROUPS)}; give the rest to lambda_hat.llc"
                for text in strangers
            ]
        )
    if any(text.replace(" ", "") == "model=own" for text in overrides):
        raise ConfigError(["model=own: is a problem of one's own; make a lambda_hat.Problem(loss, params, data)"])
    with presets_loader() as loader:
        composer = Composer(loader, "sample")
        sets = composer.expand(overrides)
        if len(sets) > 1:
            raise ConfigError([f"{' '.join(overrides)}: needs one problem, got {len(sets)}; make one of each"])
        return BuiltIn(compose_jobs(composer, sets)[0].job)
