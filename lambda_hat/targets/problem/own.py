"""``model=own``: a problem that a function of the user's returns, known by what planning has found of it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import field, fields
from typing import Any

import jax
from jaxtyping import PyTree
from pydantic.dataclasses import dataclass

from lambda_hat.config.job import DataConfig, TeacherConfig, canonical
from lambda_hat.config.schema import (
    NOT_HASHED,
    PLANNED,
    STRICT,
    ConfigError,
    Distance,
    Document,
    Dtype,
    Node,
    NonNegativeInt,
    PositiveInt,
    schema,
)
from lambda_hat.config.user_module import UserFunction
from lambda_hat.targets.base import Built, DataSet, StoredLoss, Target
from lambda_hat.targets.checkpoints.saved import Saved
from lambda_hat.targets.problem.imported import as_planned
from lambda_hat.targets.problem.probes import Probes, probes
from lambda_hat.targets.problem.problem import NO_OUTPUTS, Problem
from lambda_hat.targets.problem.self_loss import SelfLoss, SelfRows

# Problems of this process by what was planned of them: those made in a session, and those imported.
_known: dict[str, Problem] = {}
# The one at the checkpoint that was asked for last: each holds its arrays, and there may be thousands.
_newest: dict[str, Problem] = {}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Content:
    """What makes a problem another than the next one.

    Args:
        loss: 16 hex digits: what the loss computes (:mod:`lambda_hat.targets.problem.identity`).
        params: SHA-256 over paths, dtypes, shapes and bytes of the parameters.
        state: The same of the state.
        data: The same of the data.
        outputs: What the outputs compute, where there are any.
        polish: How w0 was moved from the parameters, where it was.
    """

    loss: str
    params: str
    state: str
    data: str
    outputs: str | None = None
    polish: str | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Facts:
    """What planning has found beside: nothing of it makes another target.

    Args:
        parameters: The shapes of the parameters by path.
        computes: ``Content.loss`` as this version of JAX writes it.
        jax: The version.
        probes: A few numbers of the loss (:mod:`lambda_hat.targets.problem.probes`).
        file: Of the user's module.
        sources: The SHA-256 of the user's files that were imported with it.
    """

    parameters: dict[str, tuple[NonNegativeInt, ...]]
    computes: str
    jax: str
    probes: Probes
    file: str | None = None
    sources: dict[str, str] = field(default_factory=dict[str, str])


@schema("lambda_hat.targets.problem.own.Own")
class Own:
    """A problem of one's own: ``problem(**args)`` returns a :class:`lambda_hat.Problem` (docs/own_models.md).

    Args:
        problem: The dotted path of a function, or of a Problem. Null: it was made in a session.
        args: Arguments of the function.
        folder: Where its module is; set by planning.
        content: What identifies the problem; set by planning.
        facts: What else is known of it; set by planning.
        checkpoint: Where its w0 was saved; set by planning. Null: its params are the function's.
    """

    problem: str | None = field(default=None, metadata=NOT_HASHED)
    args: dict[str, Any] = field(default_factory=dict[str, Any], metadata=NOT_HASHED)
    folder: str | None = field(default=None, metadata=NOT_HASHED | PLANNED)
    content: Content | None = field(default=None, metadata=PLANNED)
    facts: Facts | None = field(default=None, metadata=NOT_HASHED | PLANNED)
    checkpoint: Saved | None = field(default=None, metadata=NOT_HASHED | PLANNED)

    @classmethod
    def of(cls, problem: Problem) -> "Own":
        """The schema of a problem that was made in this process, which alone can run it."""
        return cls(content=content_of(problem), facts=facts_of(problem))

    def known_as(self, problem: Problem) -> "Own":
        """The same, whose problem is at hand."""
        _known[self.key] = problem
        return self

    def forget(self) -> None:
        """Leave the problem to whoever has it: a long curve must not keep one for each checkpoint."""
        _known.pop(self.key, None)

    def faults(self, data: DataConfig, teacher: TeacherConfig) -> list[str]:
        del data, teacher
        if self.content is None or self.facts is None:
            return ["model.content: is set when a command plans its runs; leave it out of a command line"]
        return []

    def parameters(self, data: DataConfig) -> dict[str, tuple[int, ...]]:
        del data
        return dict(self._facts.parameters)

    def known_lambda(self) -> None:
        """Nothing is known of it."""
        return

    def exact_llc(self, nbeta: float, gamma: float, report: Node) -> None:
        """Nothing is known of it."""
        del nbeta, gamma, report

    def self_faults(self, data: DataConfig, distance: Distance) -> list[str]:
        """That it has no outputs; whether these are logits is seen when they are made."""
        del data, distance
        return [NO_OUTPUTS] if self.content is not None and self.content.outputs is None else []

    def self_loss(self, distance: Distance) -> SelfLoss:
        """The loss with the outputs at w0 as labels, which is refused where these are others than planned."""
        problem, planned = self._found(), self.content
        # Of a target that another version of JAX has planned, the ids cannot be compared.
        if planned and planned.loss == self._facts.computes and content_of(problem).outputs != planned.outputs:
            raise ConfigError([f"model.problem: the outputs of {self._name} have changed since its runs were planned"])
        return problem.self_loss(distance)

    def self_data(self, target: Target, data: DataSet, distance: Distance) -> SelfRows:
        """The data of that loss."""
        return self._found().self_data(target, data, distance)

    @property
    def _facts(self) -> Facts:
        if self.facts is None:
            raise ConfigError(["model.facts: is set when a command plans its runs; leave it out of a command line"])
        return self.facts

    def value_of(self, function: Callable[[PyTree], Any]) -> float:
        """The number that a function of the parameters is at w0, in float64."""
        problem = self._found()
        with jax.enable_x64(True):
            return float(function(problem.unravel(problem.first_rows(1).w0)))

    def loss_functions(self) -> StoredLoss:
        """The loss, which is refused where it computes anything but what was planned."""
        return self._imported().model

    def built(self) -> Built:
        """The target, which is refused where it is another than the one planned."""
        problem = self._found()
        found, planned = content_of(problem), self.content
        names = [f.name for f in fields(Content) if f.name != "loss"]
        others = [name for name in names if getattr(found, name) != getattr(planned, name)]
        if self.checkpoint is not None and others and {*others} <= {"params", "state"}:
            raise ConfigError(
                [
                    f"{self.checkpoint.path}: holds other {' and '.join(others)} than when its runs were planned; "
                    "submit the sweep again for what it holds now"
                ]
            )
        if others:
            raise ConfigError(
                [
                    f"model.problem: {self._name} gives other {' and '.join(others)} than when its runs were planned: "
                    "it draws random numbers without a seed, or reads a file that has changed; submit the sweep again"
                ]
            )
        return problem.built()

    def described(self, target: Target) -> Document:
        """What w0 is, of a target of this loss that has some weights or all."""
        return self._found().described(target, target.data).report

    def gradient_groups(self, target: Target) -> list[Document]:
        """Which rows its gradient comes from, of a target of this loss that has some weights or all."""
        return self._found().gradient_groups(target)

    def provenance(self) -> Document:
        """Where it came from, and every array's hash."""
        arrays = {name: self._found().id_content[name] for name in ("params", "state", "data")}
        return {**canonical(self), "arrays": arrays}

    @property
    def program(self) -> str | None:
        """What runs at all checkpoints of a problem share, compiled programs among it; None: at no checkpoint."""
        return None if self.checkpoint is None else self._base_key

    @property
    def key(self) -> str:
        """Of all that was planned."""
        return _digest({"content": canonical(self.content), "computes": self._facts.computes})

    @property
    def _name(self) -> str:
        return "the problem" if self.problem is None else self.problem

    @property
    def _base_key(self) -> str:
        """Of what all its checkpoints share."""
        return _digest([self.problem, canonical(self.args), self.folder, self._facts.computes])

    def _found(self) -> Problem:
        """The problem; at its checkpoint, where it has one."""
        if self.checkpoint is None or self.key in _known:
            return self._imported()
        if self.key not in _newest:
            found = self._imported().at(self.checkpoint.checkpoint())
            _newest.clear()
            _newest[self.key] = found
        return _newest[self.key]

    def _imported(self) -> Problem:
        """The problem as its function returns it, wherever its checkpoint is."""
        facts = self._facts
        if self.key in _known:
            return _known[self.key]
        if self.problem is None:
            raise ConfigError(
                [
                    "model.problem: this problem was made in a session, and no dotted path leads to it: call lh.llc "
                    "there again, or move it into a function of a module and name that (model.problem=module.function)"
                ]
            )
        known = self.key if self.checkpoint is None else self._base_key
        if known not in _known:
            _known[known] = as_planned(self.problem, self.args, self.folder, facts.computes, facts.jax)
        return _known[known]


@schema("lambda_hat.targets.problem.own.GivenData")
class GivenData:
    """The data that a problem brings.

    Args:
        n: The number of rows, or what stands for it; set by planning.
    """

    n: PositiveInt | None = None

    def count_rows(self) -> int:
        if self.n is None:
            raise ConfigError(["data: data=own is the data of model=own; choose another"])
        return self.n

    def fingerprint(self) -> dict[str, str]:
        """Nothing: the model's content holds it."""
        return {}


@schema("lambda_hat.targets.problem.own.GivenTeacher")
class GivenTeacher:
    """No teacher: a problem brings its data."""

    @property
    def widths(self) -> None:
        """None were asked for."""
        return


@schema("lambda_hat.targets.problem.own.GivenTraining")
class GivenTraining:
    """No training: a problem brings its w0."""

    @property
    def dtype(self) -> Dtype:
        """In which w0 is kept."""
        return "float64"


def content_of(problem: Problem) -> Content:
    """What identifies a problem."""
    found = problem.id_content
    parts = {name: _digest(found[name]) for name in ("params", "state", "data")}
    return Content(loss=problem.loss_id, **parts, outputs=found.get("outputs"), polish=found.get("polish"))


def facts_of(problem: Problem, function: UserFunction | None = None) -> Facts:
    """What else a job needs to know of it; ``function``: what returned it, where a dotted path leads there."""
    return Facts(
        parameters=problem.shapes,
        computes=problem.loss_id,
        jax=jax.__version__,
        probes=probes(problem),
        file=None if function is None else function.file,
        sources={} if function is None else function.sources(),
    )


def _digest(part: Any) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()
