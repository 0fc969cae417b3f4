"""What a loss, or another function, computes, as text: two of one text are one, whatever their source looks like.

The text is that of the function and of its gradient in StableHLO, with every array as an argument, lowered for the CPU
under JAX's default settings. Comments, names and formatting are not in it; formulas, constants, helpers in other
modules and the rules of a ``custom_vjp`` are.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core

from lambda_hat.targets.problem.parameters import ProblemError
from lambda_hat.targets.problem.tracing import Program, Shape, content, default_settings, told, type_of

# Beyond this an array inside of a jitted part of the loss would be copied into every program.
_LARGEST_BAKED = 1 << 20
_CALLBACKS = ("pure_callback", "io_callback", "debug_callback")
# Names of functions, which say nothing; but those of custom calls say what is called.
_SYMBOL = re.compile(r"(custom_call )?@([\w.$-]+|\"[^\"]*\")")


def program_text(name: str, program: Program, shape: Shape, consts: tuple[jax.ShapeDtypeStruct, ...]) -> str:
    """A program and its gradient as text, with what its text does not show; ``name`` is what errors call it.

    Raises:
        ProblemError: it has no gradient, calls Python, or holds a large array in a jitted part.
    """

    def value_and_gradient(consts: Any, w: Any, state: Any, rows: Any, cotangent: Any) -> Any:
        def first(w: Any) -> tuple[Any, Any]:
            values, *weights = program(consts, w, state, rows)
            return values, weights

        try:
            values, pullback, weights = jax.vjp(first, w, has_aux=True)
            return values, weights, pullback(cotangent)
        except Exception as error:
            raise ProblemError([f"{name}: has no gradient: {told(error)}"]) from error

    with default_settings(is_x64=shape.is_x64):
        cotangent = type_of(program.jaxpr.outvars[0])
        jitted = jax.jit(value_and_gradient, keep_unused=True)
        traced = jitted.trace(consts, shape.w, shape.state, shape.rows, cotangent)
        baked = _baked(name, traced.jaxpr)
        text = traced.lower(lowering_platforms=("cpu",)).as_text()
    return "\n".join([_without_names(text), *(f"{dtype}{shape}{hashed}" for dtype, shape, hashed in baked)])


def digest(*texts: str) -> str:
    """64 hex digits of SHA-256 over the texts, told apart by their lengths."""
    sha = hashlib.sha256()
    for text in texts:
        sha.update(f"{len(text)}:".encode())
        sha.update(text.encode())
    return sha.hexdigest()


def _baked(name: str, closed: core.ClosedJaxpr) -> list[tuple[str, tuple[int, ...], str]]:
    """The arrays that stay constants of the program: dtype, shape and a hash of the bytes."""
    found: list[tuple[str, tuple[int, ...], str]] = []
    for jaxpr, consts in all_jaxprs(closed.jaxpr, closed.consts):
        for equation in jaxpr.eqns:
            if equation.primitive.name in _CALLBACKS:
                raise ProblemError(
                    [
                        f"{name}: calls Python as it runs ({equation.primitive.name}), without a gradient; "
                        "write it in JAX"
                    ]
                )
        for dtype, shape, data in map(content, consts):
            if len(data) > _LARGEST_BAKED:
                raise ProblemError(
                    [
                        f"{name}: a jitted part of it holds an array {dtype}{list(shape)} of {len(data) / 1e6:.0f} MB, "
                        "which each program would copy; pass it as state"
                    ]
                )
            found.append((dtype, shape, hashlib.sha256(data).hexdigest()))
    return found


def all_jaxprs(jaxpr: core.Jaxpr, consts: Any) -> Iterator[tuple[core.Jaxpr, Any]]:
    """A jaxpr with its constants, and all those inside of it."""
    yield jaxpr, consts
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if isinstance(value, core.ClosedJaxpr):
                yield from all_jaxprs(value.jaxpr, value.consts)
            elif isinstance(value, core.Jaxpr):
                yield from all_jaxprs(value, ())


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, core.ClosedJaxpr | core.Jaxpr)


def _without_names(text: str) -> str:
    """The text with its functions numbered in the order in which they appear."""
    numbers: dict[str, int] = {}

    def numbered(match: re.Match[str]) -> str:
        if match[1]:
            return match[0]
        return f"@f{numbers.setdefault(match[2], len(numbers))}"

    return _SYMBOL.sub(numbered, text)
