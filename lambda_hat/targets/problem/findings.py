"""What the jaxpr of a user's loss tells about it before it is run."""

from typing import Any

import jax
import numpy as np
from jax.extend import core

from lambda_hat.targets.problem.identity import all_jaxprs
from lambda_hat.targets.problem.tracing import Shape, UserFunction, default_settings, type_of

# What makes zeros of zeros.
_MOVES = ("broadcast_in_dim", "convert_element_type", "copy", "neg", "reshape", "transpose")
# A constant of the size of a data set is hardly there by chance.
_MANY_ROWS = 100


def ignored(loss: UserFunction, shape: Shape) -> list[str]:
    """The paths of the parameters in which the gradient is 0 whatever they are: unused ones, and those behind a
    ``stop_gradient``. What a jitted part of the loss ignores is not found."""
    coordinates = loss.coordinates
    leaves = [jax.ShapeDtypeStruct(leaf_shape, shape.w.dtype) for leaf_shape in coordinates.shapes]

    def gradient(leaves: Any, state: Any, rows: Any) -> Any:
        params = jax.tree.unflatten(coordinates.treedef, leaves)
        return jax.grad(lambda params: loss.of_tree(params, state, rows)[0].sum())(params)

    with default_settings(is_x64=shape.is_x64):
        jaxpr = jax.make_jaxpr(gradient)(leaves, shape.state, shape.rows).jaxpr
    zeros: set[core.Var] = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name in _MOVES and _is_zero(equation.invars[0], zeros):
            zeros.update(equation.outvars)
    pairs = zip(coordinates.paths, coordinates.sizes, jaxpr.outvars, strict=True)
    return [path for path, size, out in pairs if size and _is_zero(out, zeros)]


def _is_zero(variable: core.Var | core.Literal, zeros: set[core.Var]) -> bool:
    return _is_number(variable, 0) if isinstance(variable, core.Literal) else variable in zeros


def computes_in_less(closed: core.ClosedJaxpr) -> bool:
    """Whether a trace in float64 goes through float32 or less."""
    return any(
        equation.primitive.name == "convert_element_type"
        and equation.params["new_dtype"] in (np.float32, np.float16, jax.numpy.bfloat16)
        and type_of(equation.invars[0]).dtype == np.float64
        for jaxpr, _ in all_jaxprs(closed.jaxpr, closed.consts)
        for equation in jaxpr.eqns
    )


def warnings_of(closed: core.ClosedJaxpr, num_data: int) -> list[str]:
    """What makes a loss of ``num_data`` rows doubtful."""
    if num_data < _MANY_ROWS or not _multiplies_by(closed, num_data):
        return []
    return [
        f"the loss multiplies by the constant {num_data}, which is n; nbeta multiplies by it already: "
        "return plain losses"
    ]


def _multiplies_by(closed: core.ClosedJaxpr, number: int) -> bool:
    """Whether a trace multiplies by ``number``, or divides by its inverse, written as a constant."""
    return any(
        _is_number(operand, number if equation.primitive.name == "mul" else 1 / number)
        for jaxpr, _ in all_jaxprs(closed.jaxpr, closed.consts)
        for equation in jaxpr.eqns
        if equation.primitive.name in ("mul", "div")
        for operand in equation.invars
    )


def _is_number(operand: Any, number: int | float) -> bool:
    return isinstance(operand, core.Literal) and np.shape(operand.val) == () and bool(operand.val == number)
