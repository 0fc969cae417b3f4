"""A user's function as jaxprs, one for each shape it is used at. What runs is the jaxpr, never the function again."""

import contextlib
import dataclasses
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array

from lambda_hat.targets.problem.parameters import Coordinates, ProblemError, Structure

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
# Frames of these packages are not the user's.
_FOREIGN = ("jax", "jaxlib", "flax", "equinox", "haiku", "lambda_hat", "beartype", "jaxtyping", "importlib")
# What to do about errors of Flax, which do not say it, by the name of their class.
_REMEDIES = {
    "ModifyScopeVariableError": "evaluate the network in eval mode",
    "TraceContextError": (
        "merge the network inside the loss, nnx.merge(graphdef, params, state), after net.eval() and nnx.split"
    ),
}
# Of the user's frames, so many are shown: the innermost.
_LINES = 3


class Shape(NamedTuple):
    """What a trace depends on beside the function: shapes and dtypes of its arrays, and whether 64 bits are on."""

    w: jax.ShapeDtypeStruct
    state: tuple[jax.ShapeDtypeStruct, ...]
    rows: tuple[jax.ShapeDtypeStruct, ...]
    is_x64: bool


def shape_of(w: Any, state: Sequence[Any], rows: Sequence[Any]) -> Shape:
    """The shape of these arrays or tracers, under the present setting of JAX."""

    def one(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

    is_x64 = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
    return Shape(one(w), tuple(map(one, state)), tuple(map(one, rows)), is_x64)


class UserFunction(NamedTuple):
    """A function of the user's, and how its arguments are made of flat arrays.

    name: Of the argument that it was given as. read: looks at what it returned of some rows (None: a population), and
    gives it as arrays. state: None where it takes none. rows: None for a population, whose function takes no batch.
    """

    name: str
    function: Callable[..., Any]
    read: Callable[[Any, Any], tuple[Array, ...]]
    coordinates: Coordinates
    state: Structure | None
    rows: Structure | None

    def __call__(self, w: Any, state: Sequence[Any], rows: Sequence[Any]) -> tuple[Array, ...]:
        """What ``read`` makes of the function's value."""
        return self.of_tree(self.coordinates.unravel(w), state, rows)

    def of_tree(self, params: Any, state: Sequence[Any], rows: Sequence[Any]) -> tuple[Array, ...]:
        """The same of the parameters' own tree."""
        arguments = [params]
        if self.state is not None:
            arguments.append(self.state.rebuild(state))
        if self.rows is not None:
            arguments.append(self.rows.rebuild(rows))
        try:
            value = self.function(*arguments)
        except jax.errors.InconclusiveDimensionOperation:
            raise
        except Exception as error:
            raise ProblemError([f"{self.name}: raised {told(error)}"]) from error
        return self.read(value, rows[0].shape[0] if rows else None)


@contextlib.contextmanager
def default_settings(*, is_x64: bool) -> Iterator[None]:
    """JAX as it is by default: what a session sets changes neither a loss nor its identity."""
    with (
        jax.enable_x64(is_x64),
        jax.default_matmul_precision(None),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.default_prng_impl("threefry2x32"),
        jax.threefry_partitionable(True),
        jax.disable_jit(False),
    ):
        yield


def trace(function: UserFunction, shape: Shape) -> core.ClosedJaxpr:
    """The jaxpr of the function: (w, *state, *rows) to its results; ``consts`` are the arrays that it closes over."""
    with default_settings(is_x64=shape.is_x64), warnings.catch_warnings():
        # A float64 array that the function closes over is rounded, as it must be in a float32 run.
        warnings.filterwarnings("ignore", "Explicitly requested dtype", UserWarning)
        return jax.make_jaxpr(function)(shape.w, shape.state, shape.rows)


class Program(NamedTuple):
    """A trace, run with its closed-over arrays as arguments.

    sources: of each of these, its index among ``Traces.consts``; or the array itself, where it is none of them because
    it depends on the number of rows.
    """

    jaxpr: core.Jaxpr
    sources: tuple[Any, ...]

    def __call__(self, consts: Sequence[Any], w: Any, state: Sequence[Any], rows: Sequence[Any]) -> list[Array]:
        values = [
            jnp.asarray(consts[source], jax.dtypes.canonicalize_dtype(type_of(variable).dtype))
            if isinstance(source, int)
            else source
            for source, variable in zip(self.sources, self.jaxpr.constvars, strict=True)
        ]
        return core.jaxpr_as_fun(core.ClosedJaxpr(self.jaxpr, values))(w, *state, *rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Traces:
    """The traces of a function. One of another shape is made when it is first asked for, after a look that it
    is still the one that was frozen.

    Args:
        function: The user's.
        shape: Of the first trace, in float64.
        first: The first trace.
        consts: Copies of the arrays that the function closes over.
        kept: The programs so far.
    """

    function: UserFunction
    shape: Shape
    first: core.ClosedJaxpr
    consts: tuple[np.ndarray, ...]
    kept: dict[Shape, Program]

    def at(self, shape: Shape) -> Program:
        """The program of this shape.

        Raises:
            ProblemError: the function raises, or is no longer what it was.
        """
        if shape not in self.kept:
            if not is_same(trace(self.function, self.shape), self.first):
                raise ProblemError(
                    [
                        f"{self.function.name}: has changed since its Problem was made (a variable that it reads); "
                        "make the Problem again"
                    ]
                )
            self.add(shape)
        return self.kept[shape]

    def add(self, shape: Shape) -> None:
        """Traces the function at ``shape``, without that look, unless it is already."""
        if shape in self.kept:
            return
        closed = trace(self.function, shape)
        sources = tuple(self._source(order, const) for order, const in enumerate(closed.consts))
        self.kept[shape] = Program(closed.jaxpr, sources)

    def _source(self, order: int, const: Any) -> Any:
        """Which of the kept arrays ``const`` is: the one of the same order if it may be."""
        orders = sorted(range(len(self.consts)), key=lambda index: index != order)
        return next((index for index in orders if _is_same_array(self.consts[index], const)), const)


def freeze(function: UserFunction, shape: Shape) -> Traces:
    """The function, traced twice at ``shape``.

    Raises:
        ProblemError: it raises, returns what it must not, or the two traces differ.
    """
    first = trace(function, shape)
    if not is_same(trace(function, shape), first):
        raise ProblemError(
            [
                f"{function.name}: two traces of it differ, so it draws random numbers while it is traced; "
                "take numpy.random and fresh PRNG keys out of it"
            ]
        )
    consts = tuple(np.array(const) for const in first.consts if not _is_key(const))
    traces = Traces(function, shape, first, consts, {})
    traces.add(shape)
    return traces


def is_size_independent(function: UserFunction, shape: Shape) -> bool:
    """Whether the function and its gradient can be traced for an unknown number of rows: then nothing in it depends on
    that number."""
    if not shape.rows:
        return True
    (size,) = jax.export.symbolic_shape("rows")
    rows = tuple(jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype) for leaf in shape.rows)

    def gradient(w: Any, state: Any, rows: Any) -> Any:
        losses, pullback = jax.vjp(lambda w: function(w, state, rows)[0], w)
        return pullback(losses)

    try:
        with default_settings(is_x64=shape.is_x64):
            jax.make_jaxpr(gradient)(shape.w, shape.state, rows)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False
    except jax.errors.InconclusiveDimensionOperation:
        return False
    return True


def is_same(one: core.ClosedJaxpr, other: core.ClosedJaxpr) -> bool:
    """Whether two traces are of the same operations on the same closed-over arrays."""
    if text_of(one) != text_of(other) or len(one.consts) != len(other.consts):
        return False
    return all(content(a) == content(b) for a, b in zip(one.consts, other.consts, strict=True))


def type_of(variable: core.Var | core.Literal) -> jax.ShapeDtypeStruct:
    """The shape and dtype of a jaxpr's variable."""
    aval: Any = variable.aval
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def text_of(closed: core.ClosedJaxpr) -> str:
    """A jaxpr as text, without the addresses of functions."""
    return _ADDRESS.sub("", str(closed.jaxpr))


def content(const: Any) -> tuple[str, tuple[int, ...], bytes]:
    """Of a closed-over array or PRNG key: its dtype, shape and bytes."""
    array = np.asarray(jax.random.key_data(const) if _is_key(const) else const)
    return str(const.dtype), array.shape, array.tobytes()


def _is_key(const: Any) -> bool:
    return bool(jnp.issubdtype(const.dtype, jax.dtypes.prng_key))


def _is_same_array(kept: np.ndarray, const: Any) -> bool:
    if _is_key(const) or kept.shape != const.shape:
        return False
    return kept.astype(const.dtype).tobytes() == np.asarray(const).tobytes()


def told(error: Exception) -> str:
    """The error with the user's own lines, which are those outside of the libraries'."""
    lines = [
        f"{_parts(frame.filename)[-1]} line {frame.lineno} in {frame.name}: {frame.line}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and not set(_FOREIGN).intersection(_parts(frame.filename))
    ]
    message = str(error).strip().split("\n")[0]
    kind = type(error).__name__
    remedy = f"; {_REMEDIES[kind]}" if kind in _REMEDIES else ""
    return "\n  ".join([f"{kind}: {message}{remedy}", *lines[-_LINES:]])


def _parts(filename: str) -> list[str]:
    return re.split(r"[\\/]", filename)
