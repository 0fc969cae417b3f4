"""A user's own model as a target: a loss, its parameters, its data."""

import functools
import hashlib
import itertools
from collections.abc import Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from lambda_hat.config.restriction import free_weights, is_whole
from lambda_hat.config.schema import Document
from lambda_hat.targets.base import Built, Target
from lambda_hat.targets.problem.findings import computes_in_less, ignored, multiplies_by
from lambda_hat.targets.problem.frozen_loss import FrozenLoss, Kind, OwnData, OwnPopulation, OwnRows, blocks
from lambda_hat.targets.problem.identity import digest, program_text
from lambda_hat.targets.problem.parameters import Leaf, ProblemError, common_length, is_floating, leaves_of, parameters
from lambda_hat.targets.problem.part import Part, words_of
from lambda_hat.targets.problem.row_contract import look_at_rows, sizes_looked_at
from lambda_hat.targets.problem.tracing import Shape, UserLoss, content, freeze, is_size_independent
from lambda_hat.targets.random_numbers import row_thresholds
from lambda_hat.targets.training import Training
from lambda_hat.targets.w0_report import Depth, report_of

# Parameters up to which w0 is looked at in full, and up to which its gradient is: 300 products with the Hessian take
# seconds for the first.
_FULL, _GRADIENT = 20_000, 10_000_000
# Of w0's report: nothing is trained.
_AS_GIVEN = Training(steps=0, polish_steps=0)

# Of the traces that tell what a loss computes: in double and in single precision.
_PRECISIONS = (("float64", True), ("float32", False))
# Of losses that share no program.
_NUMBERS = itertools.count()
# The fewest rows that a minibatch is evaluated on.
_FEWEST_ROWS = 2
# A constant of the size of a data set is hardly there by chance.
_MANY_ROWS = 100


class Problem:
    """A loss of one's own around parameters of one's own: what built-in targets are, too.

    All is copied and traced when it is made: later changes of the arrays, or of variables that the function reads,
    change nothing.

    Args:
        loss: ``loss(params, batch)``, or ``loss(params, state, batch)`` with a state, in JAX: the losses of the batch's
            rows, shape (B,); or (losses, weights), whose L_n is sum w l / sum w over all rows; or the batch's mean.
            Of a population ``loss(params)`` or ``loss(params, state)``: one number.
        params: A pytree of floating-point arrays: w0, as it is.
        data: A pytree of arrays with one leading axis of n rows; None: a population, which needs ``num_data``.
        state: A pytree that is not sampled, such as the statistics of a BatchNorm.
        num_data: n, where it is not the number of rows.
        examine: How closely w0 is looked at: ``full``, ``gradient`` (no Hessian), ``none``; None: what its size allows.

    Raises:
        ProblemError: one of these is not what it needs to be, in one sentence.
    """

    def __init__(
        self,
        loss: Any,
        params: PyTree,
        data: PyTree,
        *,
        state: PyTree = None,
        num_data: int | None = None,
        examine: str | None = None,
    ):
        if not callable(loss):
            raise ProblemError([f"loss: needs a function of params and a batch, got {type(loss).__name__}"])
        self._params = parameters(params)
        rows, self._rows = (None, []) if data is None else leaves_of("data", data)
        held, self._state = (None, []) if state is None else leaves_of("state", state)
        self._num_rows = None if data is None else common_length(self._rows)
        self.num_data = _checked_num_data(num_data, self._num_rows)
        self._examine, self._masked = examine, (0, 0)
        _depth(examine, self._params.w0.size)
        # A jitted function may keep a trace from before a variable that it reads has changed.
        function: Any = getattr(loss, "__wrapped__", loss) if isinstance(loss, jax.stages.Wrapped) else loss
        user_loss = UserLoss(function, self._params.coordinates, held, rows)
        self._traces = freeze(user_loss, self._shape(self._block_size))
        self._kind: Kind = self._kind_of_loss()
        if self._num_rows is not None:
            for size in sizes_looked_at(self._num_rows, self._kind):
                self._traces.add(self._shape(size))
        self._texts = self._texts_of_loss()

    @property
    def _block_size(self) -> int:
        return 1 if self._num_rows is None else blocks(self._num_rows, "rows").size

    def _shape(self, num_rows: int, dtype: str = "float64", *, is_x64: bool = True) -> Shape:
        """Of the arrays in a run of ``dtype``, with a batch of ``num_rows``."""

        def like(leaf: Leaf, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
            kept = dtype if is_floating(leaf.array.dtype) else jax.dtypes.canonicalize_dtype(leaf.array.dtype)
            return jax.ShapeDtypeStruct(shape, kept)

        with jax.enable_x64(is_x64):
            state = tuple(like(leaf, leaf.array.shape) for leaf in self._state)
            rows = tuple(like(leaf, (num_rows, *leaf.array.shape[1:])) for leaf in self._rows)
            return Shape(jax.ShapeDtypeStruct(self._params.w0.shape, dtype), state, rows, is_x64)

    def _kind_of_loss(self) -> Kind:
        results = self._traces.first.out_avals
        if self._num_rows is None:
            return "population"
        if len(results) == 2:
            return "weighted"
        return "mean" if results[0].shape == () else "rows"

    def _texts_of_loss(self) -> tuple[str, ...]:
        """What the loss computes in both precisions, of a block of rows and of few: see
        :mod:`lambda_hat.targets.problem.identity`."""
        sizes = (0,) if self._num_rows is None else (blocks(self._num_rows, self._kind).size, _FEWEST_ROWS)
        shapes = dict.fromkeys(
            self._shape(size, dtype, is_x64=is_x64) for size in sizes for dtype, is_x64 in _PRECISIONS
        )
        texts: list[str] = []
        for shape in shapes:
            self._traces.add(shape)
            float_dtype = shape.w.dtype
            consts = tuple(
                jax.ShapeDtypeStruct(const.shape, float_dtype if is_floating(const.dtype) else const.dtype)
                for const in self._traces.consts
            )
            texts.append(program_text(self._traces.kept[shape], shape, consts))
        return tuple(texts)

    @functools.cached_property
    def is_size_independent(self) -> bool:
        """Whether the loss computes the same for each row, however many rows there are."""
        return is_size_independent(self._traces.loss, self._traces.shape)

    @functools.cached_property
    def model(self) -> FrozenLoss:
        """The loss of a target. Compiled programs are shared by all that compute the same, whose arrays may differ.

        A loss that looks at the number of its rows shares none: it could compute something else for a minibatch.
        """
        consts = [f"{const.dtype}{const.shape}" for const in self._traces.consts]
        own = [] if self.is_size_independent else [f"number {next(_NUMBERS)}"]
        fingerprint = digest(self._kind, *self._texts, *consts, *self._paths, *own)
        return FrozenLoss(fingerprint, self._kind, self._traces)

    @functools.cached_property
    def loss_id(self) -> str:
        """16 hex digits: what the loss computes, with the arrays that it closes over; not how it is written."""
        consts = [str(part) for const in self._traces.consts for part in content(const)]
        return digest(self._kind, *self._texts, *consts, *self._paths)[:16]

    @property
    def _paths(self) -> list[str]:
        return [*self._params.coordinates.paths, *(leaf.path for leaf in [*self._state, *self._rows])]

    @functools.cached_property
    def id_content(self) -> Document:
        """All that makes this target another than the next one, as JSON types: arrays by dtype, shape and SHA-256."""
        leaves = self._params.coordinates.by_path(self._params.w0).items()
        named = zip(leaves, self._params.dtypes, strict=True)
        params = {path: _hashed(array, dtype) for (path, array), dtype in named}
        return {
            "loss": self.loss_id,
            "num_data": self.num_data,
            "params": params,
            "state": {leaf.path: _hashed(leaf.array) for leaf in self._state},
            "data": {leaf.path: _hashed(leaf.array) for leaf in self._rows},
        }

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays of the parameters by path, in their order within the flat w."""
        coordinates = self._params.coordinates
        names = (path.removeprefix("params/") for path in coordinates.paths)
        return dict(zip(names, coordinates.shapes, strict=True))

    def unravel(self, w: Float[Array, " d"] | Float[np.ndarray, " d"]) -> PyTree:
        """The parameters' pytree at the flat ``w``."""
        return self._params.coordinates.unravel(jnp.asarray(w))

    def built(self) -> Built:
        """The target: w0 in float64, the arrays, n, and what w0 is.

        Raises:
            ProblemError: the loss does not keep its contract at w0.
        """
        return self._built

    def part(self, restrict: Sequence[str] | PyTree) -> "Problem | Part":
        """The problem of some weights, the others staying at w0; the problem itself where that is all of them.

        Args:
            restrict: Words as of ``posterior.restrict`` (docs/estimator.md), or a pytree like the parameters with True
                for each array that is free.

        Raises:
            ConfigError: it names no parameter, or leaves nothing free.
        """
        words = words_of(restrict, self.shapes)
        free = free_weights(words, self.shapes)
        return self if is_whole(free) else Part(self, tuple(words), free)

    @functools.cached_property
    def _built(self) -> Built:
        return self.described(*self.checked)

    @functools.cached_property
    def checked(self) -> tuple[Target, OwnData]:
        """The target in float64, once the loss has kept its contract at w0, and its data as given."""
        with jax.enable_x64(True):
            return self._check()

    def _check(self) -> tuple[Target, OwnData]:
        self._refuse_ignored()
        data = self._data()
        target = Target(jnp.asarray(self._params.w0), data, self.model, self.num_data).astype("float64")
        rows = look_at_rows(self.model, target.data, target.w0, is_coarse=self._is_coarse)
        if rows.weights is None or not isinstance(data, OwnRows):
            return target, data
        self._masked = int((rows.weights == 0).sum()), len(rows.weights)
        shares = rows.weights.astype(np.float64) / rows.weights.sum(dtype=np.float64)
        data = OwnRows(
            rows=data.rows, state=data.state, consts=data.consts, shares=shares, thresholds=row_thresholds(shares)
        )
        return Target(target.w0, data, self.model, self.num_data).astype("float64"), data

    def described(self, target: Target, data: Any) -> Built:
        """A target of this loss, all weights or some, with what its w0 is.

        Args:
            target: In float64.
            data: Its data on the host.
        """
        with jax.enable_x64(True):
            report = report_of(target, _AS_GIVEN, None, _depth(self._examine, target.dim))
        report["parameters"] = {path: list(shape) for path, shape in self.shapes.items()}
        report["warnings"] += self._warnings()
        report["notes"] = self._notes()
        return Built(np.asarray(target.w0), data, self.num_data, report)

    def _data(self) -> OwnData:
        state = tuple(leaf.array for leaf in self._state)
        if self._num_rows is None:
            return OwnPopulation(state=state, consts=self._traces.consts)
        rows = tuple(leaf.array for leaf in self._rows)
        return OwnRows(rows=rows, state=state, consts=self._traces.consts, shares=None, thresholds=None)

    def _refuse_ignored(self) -> None:
        paths = ignored(self._traces.loss, self._traces.shape)
        if paths:
            raise ProblemError(
                [f"{path}: the loss does not depend on it; leave it out, or put it in state" for path in paths]
            )

    def _warnings(self) -> list[str]:
        n = self.num_data
        if n < _MANY_ROWS or not multiplies_by(self._traces.first, n):
            return []
        return [
            f"the loss multiplies by the constant {n}, which is n; nbeta multiplies by it already: return plain losses"
        ]

    @property
    def _is_coarse(self) -> bool:
        return computes_in_less(self._traces.first)

    def _notes(self) -> list[str]:
        notes: list[str] = []
        narrow = sorted(set(self._params.dtypes) - {"float64"})
        if narrow:
            notes.append(f"params are {' and '.join(narrow)}: w0 has no more digits, in a float64 run either")
        if self._is_coarse:
            notes.append("the loss computes in float32 or less inside: sampler.dtype=float64 gains nothing")
        notes += [
            f"{paths} are one array, but are sampled as several: nothing ties them" for paths in self._params.tied
        ]
        if self._masked[0]:
            notes.append("{} of {} rows have weight 0".format(*self._masked))
        if not self.is_size_independent:
            notes.append(
                "the loss looks at the number of its rows: its compiled programs are not shared with other problems"
            )
        return notes


def _checked_num_data(num_data: int | None, num_rows: int | None) -> int:
    found = num_rows if num_data is None else num_data
    if found is None:
        raise ProblemError(["num_data: data=None is a population, which needs num_data=n to set nbeta = n beta"])
    if found < 1:
        raise ProblemError([f"num_data: needs a positive whole number, got {found}"])
    return found


def _depth(examine: str | None, dim: int) -> Depth:
    """How closely w0 is looked at: as asked, or as ``dim`` parameters allow."""
    by_size = "full" if dim <= _FULL else "gradient" if dim <= _GRADIENT else "none"
    for depth in get_args(Depth):
        if depth == (examine or by_size):
            return depth
    raise ProblemError([f"examine: needs full, gradient, none or None, got {examine!r}"])


def _hashed(array: np.ndarray, dtype: str | None = None) -> Document:
    """Of an array: the dtype that it was given in, its shape and the SHA-256 of its bytes in C order."""
    return {
        "dtype": dtype or str(array.dtype),
        "shape": list(array.shape),
        "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
    }
