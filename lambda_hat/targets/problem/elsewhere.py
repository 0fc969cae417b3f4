"""Other parameters and another state for a problem: from a checkpoint, or from pytrees like its own."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import PyTree

from lambda_hat.targets.checkpoints import Checkpoint
from lambda_hat.targets.checkpoints.fit import Wanted, fitted
from lambda_hat.targets.problem.given import Given
from lambda_hat.targets.problem.parameters import Leaf, Parameters, ProblemError, leaves_of, parameters


def elsewhere(known: Given, params: Checkpoint | PyTree, state: PyTree) -> Given:
    """What a problem was given, with other parameters and another state.

    Args:
        known: What it was given.
        params: A checkpoint, or a pytree with the paths and shapes of the parameters.
        state: A pytree like the state; None: the checkpoint's where it has one, or else the problem's own.

    Raises:
        ConfigError: something does not fit.
    """
    wanted_state = [Wanted(_below(leaf.path, "state"), leaf.array.shape, leaf.array.dtype) for leaf in known.state]
    held = known.state if state is None else _given_state(known.state, wanted_state, state)
    if not isinstance(params, Checkpoint):
        return known._replace(params=_given_params(known.params, params), state=held)
    coordinates = known.params.coordinates
    wanted = [
        Wanted(_below(path, "params"), shape, np.dtype(float))
        for path, shape in zip(coordinates.paths, coordinates.shapes, strict=True)
    ]
    found = params.onto(wanted, wanted_state)
    flat = np.concatenate([array.astype(np.float64).ravel() for array in found.params])
    moved = known.params._replace(w0=flat, dtypes=tuple(str(array.dtype) for array in found.params))
    if state is None and found.state is not None:
        held = tuple(leaf._replace(array=array) for leaf, array in zip(known.state, found.state, strict=True))
    return known._replace(params=moved, state=held)


def _below(path: str, root: str) -> str:
    return path.removeprefix(root).removeprefix("/")


def _given_params(own: Parameters, tree: PyTree) -> Parameters:
    found = parameters(tree)
    expected = dict(zip(own.coordinates.paths, own.coordinates.shapes, strict=True))
    got = dict(zip(found.coordinates.paths, found.coordinates.shapes, strict=True))
    if got != expected:
        raise ProblemError([_differ("params", expected, got)])
    # In the tree of the problem's own, whose types and order the loss was traced with.
    arrays, paths = found.coordinates.by_path(found.w0), own.coordinates.paths
    dtypes = dict(zip(found.coordinates.paths, found.dtypes, strict=True))
    flat = np.concatenate([arrays[path].ravel() for path in paths])
    return found._replace(coordinates=own.coordinates, w0=flat, dtypes=tuple(dtypes[path] for path in paths))


def _given_state(state: Sequence[Leaf], wanted: Sequence[Wanted], tree: PyTree) -> tuple[Leaf, ...]:
    found = {leaf.path: leaf for leaf in leaves_of("state", tree)[1]}
    expected = {leaf.path: leaf.array.shape for leaf in state}
    got = {path: leaf.array.shape for path, leaf in found.items()}
    if got != expected:
        raise ProblemError([_differ("state", expected, got)])
    arrays = fitted("state", wanted, [found[leaf.path].array for leaf in state], [False] * len(state))
    return tuple(leaf._replace(array=array) for leaf, array in zip(state, arrays, strict=True))


def _differ(what: str, expected: dict[str, tuple[int, ...]], got: dict[str, tuple[int, ...]]) -> str:
    """The first path at which two trees differ."""
    path = next(path for path in {**expected, **got} if expected.get(path) != got.get(path))
    needed = f"shape {expected[path]}" if path in expected else "no such array"
    found = f"shape {got[path]}" if path in got else "none"
    return f"{what}: needs the arrays of this problem; {path} needs {needed}, got {found}"
