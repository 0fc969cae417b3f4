"""A user's own model as a target: a loss, its parameters, its data."""

import copy
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from lambda_hat.config.restriction import is_whole
from lambda_hat.config.schema import Distance, Document
from lambda_hat.targets.base import Built, DataSet, Target
from lambda_hat.targets.checkpoints import Checkpoint
from lambda_hat.targets.problem import returned
from lambda_hat.targets.problem.checked import Checked, polished, weighted
from lambda_hat.targets.problem.elsewhere import elsewhere
from lambda_hat.targets.problem.findings import computes_in_less, ignored, warnings_of
from lambda_hat.targets.problem.frozen_function import FrozenFunction
from lambda_hat.targets.problem.frozen_loss import FrozenLoss, OwnRows
from lambda_hat.targets.problem.given import Given, checked_num_data, given
from lambda_hat.targets.problem.gradient_groups import gradient_groups
from lambda_hat.targets.problem.parameters import ProblemError
from lambda_hat.targets.problem.part import Part, chosen
from lambda_hat.targets.problem.row_contract import look_at_outputs, look_at_rows, results_at, some_rows
from lambda_hat.targets.problem.self_loss import SelfLoss, SelfRows, self_rows
from lambda_hat.targets.problem.tracing import UserFunction
from lambda_hat.targets.training import Training
from lambda_hat.targets.w0_report import Depth, report_of

# Parameters up to which w0 is looked at in full, and up to which its gradient is: 300 products with the Hessian take
# seconds for the first.
_FULL, _GRADIENT = 20_000, 10_000_000
NO_OUTPUTS = "posterior.loss: self needs the outputs of the network; give Problem(..., outputs=...), or set loss=data"
# Of w0's report: nothing is trained.
_AS_GIVEN = Training(steps=0, polish_steps=0)


class Problem:
    """A loss of one's own around parameters of one's own: what built-in targets are, too.

    All is copied and traced when it is made: later changes of the arrays, or of variables that the function reads,
    change nothing.

    Args:
        loss: ``loss(params, batch)``, or ``loss(params, state, batch)`` with a state, in JAX: the losses of the batch's
            rows, shape (B,); or (losses, weights), whose L_n is sum w l / sum w over all rows; or the batch's mean.
            Of a population ``loss(params)`` or ``loss(params, state)``: one number.
        params: A pytree of floating-point arrays: w0, as it is unless ``polish`` is set.
        data: A pytree of arrays with one leading axis of n rows; None: a population, which needs ``num_data``.
        state: A pytree that is not sampled, such as the statistics of a BatchNorm.
        num_data: n, where it is not the number of rows.
        outputs: ``outputs(params, batch)``, or with the state as the loss: shape (B, ...), such as logits. It does not
            change the LLC.
        polish: ``lbfgs`` moves w0 to a minimum of L_n nearby, before anything else is done with it; None: w0 is params.
        examine: How closely w0 is looked at: ``full``, ``gradient`` (no Hessian), ``none``; None: what its size allows.

    Raises:
        ProblemError: one of these is not what it needs to be, in one sentence.
    """

    def __init__(  # noqa: PLR0913 - each is a part of its own
        self,
        loss: Any,
        params: PyTree,
        data: PyTree,
        *,
        state: PyTree = None,
        num_data: int | None = None,
        outputs: Any = None,
        polish: str | None = None,
        examine: str | None = None,
    ):
        self._given = given(params, data, state)
        self._hashed_rows = functools.cache(self._given.hashed_rows)  # once for all w0 (`at`)
        self.num_data = checked_num_data(num_data, self._given.num_rows)
        if polish not in (None, "lbfgs"):
            raise ProblemError([f"polish: needs 'lbfgs' or None, got {polish!r}"])
        self._examine, self._polish = examine, polish
        _depth(examine, self._given.params.w0.size)
        self._loss = FrozenFunction(_function("loss", loss, returned.losses, self._given), self._given)
        self._outputs: FrozenFunction | None = None
        if outputs is not None:
            if self._given.num_rows is None:
                raise ProblemError(["outputs: needs rows, but data=None is a population"])
            self._outputs = FrozenFunction(_function("outputs", outputs, returned.outputs, self._given), self._given)

    @property
    def is_size_independent(self) -> bool:
        """Whether the loss computes the same for each row, however many rows there are."""
        return self._loss.is_size_independent

    @property
    def model(self) -> FrozenLoss:
        """The loss of a target. Compiled programs are shared by all that compute the same, whose arrays may differ.

        A loss that looks at the number of its rows shares none: it could compute something else for a minibatch.
        """
        return self._loss.loss

    @property
    def computes_in_less(self) -> bool:
        """Whether the loss rounds to float32 or less inside."""
        return computes_in_less(self._loss.traces.first)

    @property
    def loss_id(self) -> str:
        """16 hex digits: what the loss computes, with the arrays that it closes over; not how it is written."""
        return self._loss.id

    @functools.cached_property
    def id_content(self) -> Document:
        """All that makes this target another than the next one, as JSON types: arrays by dtype, shape and SHA-256."""
        content = {"loss": self.loss_id, "num_data": self.num_data, **self._given.hashed(), "data": self._hashed_rows()}
        if self._outputs is not None:
            content["outputs"] = self._outputs.id
        return content if self._polish is None else {**content, "polish": self._polish}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays of the parameters by path, in their order within the flat w."""
        return self._given.shapes

    @property
    def params(self) -> PyTree:
        """The parameters as given, before they are polished, all of one dtype."""
        return self.unravel(self._given.params.w0)

    def unravel(self, w: Float[Array, " d"] | Float[np.ndarray, " d"]) -> PyTree:
        """The parameters' pytree at the flat ``w``."""
        return self._given.params.coordinates.unravel(jnp.asarray(w))

    def outputs_at(self, w: Float[Array, " d"] | Float[np.ndarray, " d"], rows: Sequence[int]) -> np.ndarray:
        """The outputs (m, ...) of m rows at the flat ``w``, in float64.

        Raises:
            ProblemError: the problem has no outputs.
        """
        if self._outputs is None:
            raise ProblemError(["outputs: this problem has none; give Problem(..., outputs=...)"])
        # One row is evaluated as two, as in a minibatch.
        chosen = [*rows] * (2 if len(rows) == 1 else 1)
        with jax.enable_x64(True):
            data = self._target(self._outputs).data
            found = results_at(self._outputs.outputs, data, jnp.asarray(w, float), some_rows(data, chosen))
        return np.asarray(found)[: len(rows)]

    def first_rows(self, count: int) -> Target:
        """In float64, with no more than so many rows, before they have weights; nothing is checked."""
        w0 = self._given.params.w0 if self._polish is None else self.checked.target.w0
        data = self._given.first(count).data(self._loss.traces.consts)
        return Target(jnp.asarray(w0), data, self.model, self.num_data).astype("float64")

    def built(self) -> Built:
        """The target: w0 in float64, the arrays, n, and what w0 is.

        Raises:
            ProblemError: the loss does not keep its contract at w0.
        """
        return self._built

    def at(self, params: Checkpoint | PyTree, state: PyTree = None) -> "Problem":
        """The same loss and data around another w0. Nothing is traced or compiled again.

        Args:
            params: A checkpoint (:func:`lambda_hat.checkpoints`), or a pytree like the problem's own.
            state: Like the problem's own; None: the checkpoint's where it has one, or else the problem's own.

        Raises:
            ConfigError: names, shapes or kinds of numbers are others than the problem's, or a file cannot be read.
        """
        _ = self._ignored  # found once for all of them
        other = copy.copy(self)
        other._given = elsewhere(self._given, params, state)
        for name in ("id_content", "checked", "_built"):
            other.__dict__.pop(name, None)
        return other

    def self_loss(self, distance: Distance) -> SelfLoss:
        """The loss of the target whose labels are the outputs at w0 (``posterior.loss=self``)."""
        return SelfLoss(self._needed_outputs.outputs, distance)

    def self_data(self, target: Target, data: DataSet, distance: Distance) -> SelfRows:
        """Its data: see :class:`lambda_hat.targets.base.SelfLabelled`.

        Raises:
            ProblemError: the problem has no outputs, or none that fit.
        """
        assert isinstance(data, OwnRows)  # outputs need rows
        found = self._needed_outputs
        return self_rows(found.outputs, target, dataclasses.replace(data, consts=found.traces.consts), distance)

    @property
    def _needed_outputs(self) -> FrozenFunction:
        if self._outputs is None:
            raise ProblemError([NO_OUTPUTS])
        return self._outputs

    def part(self, restrict: Sequence[str] | PyTree) -> "Problem | Part":
        """The problem of some weights, the others staying at w0; the problem itself where that is all of them.

        Args:
            restrict: Words as of ``posterior.restrict`` (docs/estimator.md), or a pytree like the parameters with True
                for each array that is free, or with a mask of its entries.

        Raises:
            ConfigError: it names no parameter, or leaves nothing free.
        """
        words, free = chosen(restrict, self.shapes)
        return self if is_whole(free) else Part(self, words, free)

    @functools.cached_property
    def _built(self) -> Built:
        return self.described(self.checked.target, self.checked.data)

    @functools.cached_property
    def checked(self) -> Checked:
        """The target in float64, once the loss has kept its contract at w0, and its data as given."""
        with jax.enable_x64(True):
            found = self._check()
            return found if self._polish is None else polished(found)

    def _check(self) -> Checked:
        self._refuse_ignored()
        self._check_outputs()
        data, target = self._given.data(self._loss.traces.consts), self._target(self._loss)
        rows = look_at_rows(self.model, target.data, target.w0, is_coarse=self.computes_in_less)
        return weighted(target, data, rows.weights)

    def described(self, target: Target, data: Any) -> Built:
        """A target of this problem, all weights or some, of its loss or of its own labels, with what its w0 is.

        Args:
            target: In float64.
            data: Its data on the host.
        """
        with jax.enable_x64(True):
            report = report_of(target, _AS_GIVEN, self.checked.training, _depth(self._examine, target.dim))
        report["parameters"] = {path: list(shape) for path, shape in self.shapes.items()}
        if not isinstance(getattr(data, "whole", data), SelfRows):
            report["warnings"] += warnings_of(self._loss.traces.first, self.num_data)
        report["notes"] = self._notes()
        return Built(np.asarray(target.w0), data, self.num_data, report)

    def gradient_groups(self, target: Target | None = None) -> list[Document]:
        """Which rows, class or token the gradient comes from.

        Args:
            target: Of this loss, with some weights or all; None: all, at w0.
        """
        with jax.enable_x64(True):
            return gradient_groups(
                self.checked.target if target is None else target.astype("float64"), self._given.rows
            )

    def _target(self, function: FrozenFunction) -> Target:
        """In float64, with the data set of ``function``, before its rows have weights."""
        data = self._given.data(function.traces.consts)
        return Target(jnp.asarray(self._given.params.w0), data, self.model, self.num_data).astype("float64")

    def _check_outputs(self) -> None:
        if self._outputs is None:
            return
        target = self._target(self._outputs)
        is_coarse = computes_in_less(self._outputs.traces.first)
        look_at_outputs(self._outputs.outputs, target.data, target.w0, is_coarse=is_coarse)

    @functools.cached_property
    def _ignored(self) -> list[str]:
        return ignored(self._loss.traces.function, self._loss.traces.shape)

    def _refuse_ignored(self) -> None:
        if self._ignored:
            raise ProblemError(
                [f"{path}: the loss does not depend on it; leave it out, or put it in state" for path in self._ignored]
            )

    def _notes(self) -> list[str]:
        params = self._given.params
        notes: list[str] = []
        narrow = sorted(set(params.dtypes) - {"float64"})
        if self.checked.training is not None:
            notes.append(
                "w0 was polished: {polish_steps} steps of L-BFGS took |grad| from {gradient_norm:.2g} to "
                "{polished_gradient_norm:.2g}, and w0 {moved:.2g} away".format(**self.checked.training)
            )
        elif narrow:
            bits = max(jnp.finfo(dtype).nmant + 1 for dtype in narrow)
            notes.append(f"params are {' and '.join(narrow)}: w0 has {bits} bits, in a float64 run too")
        if self.computes_in_less:
            notes.append("the loss computes in float32 or less inside: sampler.dtype=float64 gains nothing")
        notes += [f"{paths} are one array, but are sampled as several: nothing ties them" for paths in params.tied]
        if self.checked.num_masked:
            notes.append(f"{self.checked.num_masked} of {self._given.num_rows} rows have weight 0")
        if not self.is_size_independent:
            notes.append(
                "the loss looks at the number of its rows: its compiled programs are not shared with other problems"
            )
        return notes


def _function(name: str, function: Any, read: Any, known: Given) -> UserFunction:
    """The user's function that was given as the argument ``name``."""
    if not callable(function):
        raise ProblemError([f"{name}: needs a function of params and a batch, got {type(function).__name__}"])
    # A jitted function may keep a trace from before a variable that it reads has changed.
    plain: Any = getattr(function, "__wrapped__", function) if isinstance(function, jax.stages.Wrapped) else function
    return UserFunction(name, plain, read, known.params.coordinates, known.state_tree, known.row_tree)


def _depth(examine: str | None, dim: int) -> Depth:
    """How closely w0 is looked at: as asked, or as ``dim`` parameters allow."""
    by_size = "full" if dim <= _FULL else "gradient" if dim <= _GRADIENT else "none"
    for depth in get_args(Depth):
        if depth == (examine or by_size):
            return depth
    raise ProblemError([f"examine: needs full, gradient, none or None, got {examine!r}"])
