"""A user's function, traced at the shapes that a problem uses it at, and what it computes."""

import functools
import itertools

import jax

from lambda_hat.targets.problem.frozen_loss import FrozenLoss, FrozenOutputs, Kind, blocks
from lambda_hat.targets.problem.given import Given
from lambda_hat.targets.problem.identity import digest, program_text
from lambda_hat.targets.problem.parameters import is_floating
from lambda_hat.targets.problem.row_contract import sizes_looked_at
from lambda_hat.targets.problem.tracing import Traces, UserFunction, content, freeze, is_size_independent

# Of the traces that tell what a function computes: in double and in single precision.
_PRECISIONS = (("float64", True), ("float32", False))
# Of functions that share no program.
_NUMBERS = itertools.count()
# The fewest rows that a minibatch is evaluated on.
_FEWEST_ROWS = 2


class FrozenFunction:
    """What runs is its traces: later changes of what the function reads change nothing.

    Args:
        function: The user's.
        given: What it is evaluated on.

    Raises:
        ProblemError: it raises, is random, or returns something else than it must.
    """

    def __init__(self, function: UserFunction, given: Given):
        self._given = given
        self.traces: Traces = freeze(function, given.shape(self._first_size))
        self.kind: Kind = self._kind()
        if given.num_rows is not None:
            for size in sizes_looked_at(given.num_rows, self.kind):
                self.traces.add(given.shape(size))
        self._texts = self._texts_of()

    @property
    def _first_size(self) -> int:
        return 1 if self._given.num_rows is None else blocks(self._given.num_rows, "rows").size

    def _kind(self) -> Kind:
        results = self.traces.first.out_avals
        if self._given.num_rows is None:
            return "population"
        if len(results) == 2:
            return "weighted"
        return "mean" if results[0].shape == () else "rows"

    def _texts_of(self) -> tuple[str, ...]:
        """What it computes in both precisions, of a block of rows and of few: see
        :mod:`lambda_hat.targets.problem.identity`."""
        given, traces = self._given, self.traces
        sizes = (0,) if given.num_rows is None else (blocks(given.num_rows, self.kind).size, _FEWEST_ROWS)
        shapes = dict.fromkeys(
            given.shape(size, dtype, is_x64=is_x64) for size in sizes for dtype, is_x64 in _PRECISIONS
        )
        texts: list[str] = []
        for shape in shapes:
            traces.add(shape)
            float_dtype = shape.w.dtype
            consts = tuple(
                jax.ShapeDtypeStruct(const.shape, float_dtype if is_floating(const.dtype) else const.dtype)
                for const in traces.consts
            )
            texts.append(program_text(traces.function.name, traces.kept[shape], shape, consts))
        return tuple(texts)

    @functools.cached_property
    def is_size_independent(self) -> bool:
        """Whether it computes the same for each row, however many rows there are."""
        return is_size_independent(self.traces.function, self.traces.shape)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Equal for all that compute the same at shapes of arrays, which may differ themselves.

        A function that looks at the number of its rows has one of its own: it could compute something else for a
        minibatch.
        """
        consts = [f"{const.dtype}{const.shape}" for const in self.traces.consts]
        own = [] if self.is_size_independent else [f"number {next(_NUMBERS)}"]
        return digest(self.kind, *self._texts, *consts, *self._given.paths, *own)

    @functools.cached_property
    def id(self) -> str:
        """16 hex digits: what it computes, with the arrays that it closes over; not how it is written."""
        consts = [str(part) for const in self.traces.consts for part in content(const)]
        return digest(self.kind, *self._texts, *consts, *self._given.paths)[:16]

    @functools.cached_property
    def loss(self) -> FrozenLoss:
        """As the loss of a target."""
        return FrozenLoss(self.fingerprint, self.kind, self.traces)

    @functools.cached_property
    def outputs(self) -> FrozenOutputs:
        """As the outputs of a network."""
        return FrozenOutputs(self.fingerprint, self.kind, self.traces)
