"""What a loss of rows promises, looked at before anything is sampled: finite at w0, each row by itself, not summed."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from lambda_hat.targets.problem.frozen_loss import (
    Block,
    FrozenLoss,
    FrozenOutputs,
    Kind,
    OwnPopulation,
    OwnRows,
    blocks,
)
from lambda_hat.targets.problem.parameters import ProblemError

# Rows that are evaluated beside strangers.
_FEW = 8
# How far the losses of one row may lie apart, as a share of the largest loss: by rounding in float64, and where the
# loss computes in less.
_ROUNDING, _COARSE_ROUNDING = 1e-8, 1e-3
_NAMED = 5


class NotFiniteAtW0(ProblemError):
    """The loss or the outputs are not finite at w0. They may be so at another w0, unlike what else is wrong here."""


class AllRows(NamedTuple):
    """The losses at w0: of rows, with their weights, or the means of blocks."""

    losses: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"] | None


def look_at_rows(
    model: FrozenLoss, data: OwnRows | OwnPopulation, w0: Float[Array, " d"], *, is_coarse: bool
) -> AllRows:
    """The losses at w0 of all rows, which keep the contract.

    Args:
        model: The loss.
        data: Its arrays, float64, on the device.
        w0: Flat, float64.
        is_coarse: Whether the loss computes in less than float64.

    Raises:
        ProblemError: they do not, in one sentence.
    """
    if isinstance(data, OwnPopulation):
        values = np.asarray(results_at(model, data, w0, ()))
        _check_finite(values.reshape(1), None)
        return AllRows(values.reshape(1), None)
    found = _all_rows(model, data, w0)
    _check_finite(found.losses, found.weights)
    if found.weights is not None:
        _check_weights(model, data, w0, found.weights)
    tolerance = _COARSE_ROUNDING if is_coarse else _ROUNDING
    if _half(len(data.rows[0]), model.kind) == 0:
        return found
    if model.kind == "mean":
        _check_mean(model, data, w0, tolerance)
    else:
        _check_rows(model, data, w0, found, tolerance)
    return found


def look_at_outputs(model: FrozenOutputs, data: OwnRows, w0: Float[Array, " d"], *, is_coarse: bool) -> None:
    """Refuse outputs that are not finite at w0, or that change with the rest of their batch.

    Args:
        model: The outputs.
        data: Their arrays, float64, on the device.
        w0: Flat, float64.
        is_coarse: Whether they are computed in less than float64.

    Raises:
        ProblemError: in one sentence.
    """
    n = len(data.rows[0])
    sets = _few_rows(n) if _half(n, "rows") else []
    block, wanted = blocks(n, "rows"), np.unique(np.concatenate([*sets, [0]])).astype(int)
    bad: list[int] = []
    kept: dict[int, np.ndarray] = {}
    scale = 0.0
    for index in range(block.count):
        first, outputs = int(block.start(index)), np.asarray(_block(model, block, data, w0, index)[0])
        is_finite = np.isfinite(outputs.reshape(len(outputs), -1)).all(1)
        bad += (first + np.flatnonzero(~is_finite)).tolist()
        kept |= {row: outputs[row - first] for row in wanted.tolist() if first <= row < first + len(outputs)}
        scale = max(scale, float(np.abs(outputs).max(initial=0.0)))
    if bad:
        raise NotFiniteAtW0([f"outputs: need to be finite at w0, got others in {_rows(np.unique(bad))} of {n}"])
    for indices in sets:
        outputs = np.asarray(results_at(model, data, w0, some_rows(data, indices)))
        apart = np.abs(outputs - np.stack([kept[row] for row in indices])).max(initial=0.0)
        if apart > (_COARSE_ROUNDING if is_coarse else _ROUNDING) * scale:
            raise ProblemError(
                [
                    "outputs: a row's outputs change with the rest of its batch; BatchNorm in train mode and dropout, "
                    "even with a fixed key, do that: evaluate the network in eval mode"
                ]
            )


def all_outputs(model: FrozenOutputs, data: OwnRows, w: Float[Array, " d"]) -> Float[np.ndarray, "n ..."]:
    """The outputs of all rows at ``w``, in the dtype of the arrays."""
    block = blocks(len(data.rows[0]), "rows")
    return _joined([np.asarray(_block(model, block, data, w, index)[0]) for index in range(block.count)], block)


def _few_rows(num_rows: int) -> list[list[int]]:
    """The rows that are evaluated beside others: the first few, and the first of them in reverse beside the last."""
    half = _half(num_rows, "rows")
    return [[*range(2 * half)], [*range(half - 1, -1, -1), *range(num_rows - half, num_rows)]]


def sizes_looked_at(num_rows: int, kind: Kind) -> tuple[int, ...]:
    """Numbers of rows that :func:`look_at_rows` evaluates at once, beside all of them."""
    half = _half(num_rows, kind)
    sizes = (2 * half, half) if kind == "mean" else (2 * half, min(_FEW, num_rows))
    return tuple(size for size in sizes if size)


def _half(num_rows: int, kind: Kind) -> int:
    """Half of the rows that are looked at: fewer than half of all, where there are enough; 0 of a single one."""
    return min(_FEW // 2, num_rows // 2 if kind == "mean" else -(-num_rows // 4), num_rows // 2)


def _all_rows(model: FrozenLoss, data: OwnRows, w0: Float[Array, " d"]) -> AllRows:
    block = blocks(len(data.rows[0]), model.kind)
    parts = [[np.asarray(part) for part in _block(model, block, data, w0, index)] for index in range(block.count)]
    if model.kind == "mean":
        return AllRows(np.array([losses for losses, *_ in parts]), None)
    joined = [_joined(same, block) for same in zip(*parts, strict=True)]
    return AllRows(joined[0], joined[1] if len(joined) == 2 else None)


def _joined(parts: Sequence[np.ndarray], block: Block) -> np.ndarray:
    """What all blocks gave, row by row: the last one begins earlier than the one before it ends."""
    last = block.num_rows - (block.count - 1) * block.size
    return np.concatenate([*parts[:-1], parts[-1][-last:]])


@functools.partial(jax.jit, static_argnames=("model", "block"))
def _block(
    model: FrozenLoss | FrozenOutputs, block: Block, data: OwnRows, w0: Float[Array, " d"], index: Any
) -> list[Array]:
    return model.block_results(data, w0, block, index)


@functools.partial(jax.jit, static_argnames="model")
def results_at(model: FrozenLoss | FrozenOutputs, data: Any, w0: Float[Array, " d"], rows: Sequence[Any]) -> Array:
    return model.results(data, w0, rows)[0]


@functools.partial(jax.jit, static_argnames="model")
def _slope_of_weights(model: FrozenLoss, data: OwnRows, w0: Float[Array, " d"], rows: Sequence[Any]) -> Array:
    """The largest entry of the weights' gradient."""
    return jnp.abs(jax.grad(lambda w: model.results(data, w, rows)[1].sum())(w0)).max()


def some_rows(data: OwnRows, indices: Sequence[int] | range) -> list[Shaped[Array, "m ..."]]:
    return [jnp.asarray(leaf)[np.array(indices)] for leaf in data.rows]


def _check_finite(losses: np.ndarray, weights: np.ndarray | None) -> None:
    (bad,) = np.nonzero(~np.isfinite(losses))
    if not len(bad):
        return
    if len(losses) == 1:
        raise NotFiniteAtW0([f"loss: needs to be finite at w0, got {losses[0]}"])
    where = f"{_rows(bad)} of {len(losses)}"
    if weights is not None and not weights[bad].any():
        raise ProblemError(
            [f"loss: is not finite at w0 in {where}, whose weights are 0; set it to 0 there: 0 times NaN is NaN"]
        )
    raise NotFiniteAtW0([f"loss: needs to be finite at w0, got {losses[bad[0]]} in {where}"])


def _rows(indices: np.ndarray) -> str:
    named = ", ".join(map(str, indices[:_NAMED]))
    more = f" and {len(indices) - _NAMED} more" if len(indices) > _NAMED else ""
    return f"row{'s' if len(indices) > 1 else ''} {named}{more}"


def _check_weights(model: FrozenLoss, data: OwnRows, w0: Float[Array, " d"], weights: np.ndarray) -> None:
    (bad,) = np.nonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise ProblemError([f"loss: weights need to be finite and not negative, got {weights[bad[0]]} in {_rows(bad)}"])
    if not weights.any():
        raise ProblemError(["loss: the weights of all rows are 0, which leaves nothing to average"])
    if float(_slope_of_weights(model, data, w0, some_rows(data, range(min(_FEW, len(weights)))))) > 0:
        raise ProblemError(
            ["loss: weights depend on params, but L = sum(w l) / sum(w) needs fixed ones; stop_gradient is not enough"]
        )


def _check_rows(model: FrozenLoss, data: OwnRows, w0: Float[Array, " d"], found: AllRows, tolerance: float) -> None:
    """The losses of a few rows, in another order and beside others, against those of the pass over all rows."""
    n = len(found.losses)
    scale = np.abs(found.losses).max()
    for indices in _few_rows(n):
        losses = np.asarray(results_at(model, data, w0, some_rows(data, indices)))
        expected = found.losses[indices]
        if np.abs(losses - expected).max() > tolerance * scale:
            raise ProblemError([_why_rows_differ(losses, expected, blocks(n, model.kind).size)])


def _why_rows_differ(losses: np.ndarray, expected: np.ndarray, size: int) -> str:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = losses / expected
    told = f"the first of {len(losses)} rows has {losses[0]:.6g} among them and {expected[0]:.6g} among {size}"
    if np.ptp(losses) == 0:
        return f"loss: returns the mean of its batch for each row ({told}); return the losses before the mean"
    if np.allclose(ratios, size / len(losses), rtol=1e-3):
        return f"loss: divides by the number of rows of its batch ({told}); return one loss a row, not divided"
    return (
        f"loss: a row's loss changes with the rest of its batch ({told}); "
        "BatchNorm in train mode and dropout, even with a fixed key, do that: evaluate the network in eval mode"
    )


def _check_mean(model: FrozenLoss, data: OwnRows, w0: Float[Array, " d"], tolerance: float) -> None:
    """That a scalar is the mean over its batch: the mean of its values on the two halves."""
    half = _half(len(data.rows[0]), model.kind)
    whole = float(results_at(model, data, w0, some_rows(data, range(2 * half))))
    halves = [
        float(results_at(model, data, w0, some_rows(data, part))) for part in (range(half), range(half, 2 * half))
    ]
    mean = sum(halves) / 2
    if abs(whole - mean) <= tolerance * max(map(abs, halves)):
        return
    if abs(whole - 2 * mean) <= 1e-3 * abs(whole):
        raise ProblemError(["loss: is the sum over its batch, not the mean; return one loss a row, shape (B,)"])
    raise ProblemError(
        [
            f"loss: needs to be the mean over its batch, but {2 * half} rows have {whole:.6g} and their halves "
            f"{mean:.6g} on average; return one loss a row, or (losses, weights) where rows are masked"
        ]
    )
