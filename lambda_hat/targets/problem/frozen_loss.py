"""A user's loss as the :class:`lambda_hat.targets.base.Loss` of a target: every array is an argument of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree, Shaped, UInt32

from lambda_hat.targets.base import OPTIONAL, SEVERAL, Batch, DataSet, Leaf, Target, data_set_kind
from lambda_hat.targets.mean_over_rows import rows_a_block, sum_of_parts
from lambda_hat.targets.problem.tracing import Traces, shape_of
from lambda_hat.targets.random_numbers import draw_rows, draw_weighted_rows

# Rows that a loss is evaluated on at once.
_LARGEST_BLOCK = 1024
# What a loss returns: one number a row, these and the rows' weights, the mean over its batch; or it has no rows.
Kind = Literal["rows", "weighted", "mean", "population"]


@data_set_kind
class OwnRows:
    """The arrays that a user's loss reads, each as the leaves of its tree.

    rows: the data, one leading axis of n rows. state, consts: what is not sampled, and what the function closes over.
    shares: w_i / sum w of weighted rows, None where each is 1 / n. thresholds: (sum over j <= i of the shares) 2^32,
    without the last: see :func:`lambda_hat.targets.random_numbers.draw_weighted_rows`.
    """

    has_rows: ClassVar[bool] = True
    rows: tuple[Shaped[Leaf, "n ..."], ...] = field(metadata=SEVERAL)
    state: tuple[Shaped[Leaf, "..."], ...] = field(metadata=SEVERAL)
    consts: tuple[Shaped[Leaf, "..."], ...] = field(metadata=SEVERAL)
    shares: Float[Leaf, " n"] | None = field(metadata=OPTIONAL)
    thresholds: UInt32[Leaf, " m"] | None = field(metadata=OPTIONAL)

    def draw(self, key: Key[Array, ""], batch_size: int) -> Batch:
        """Indices of rows, those with weights by these: the plain mean over them is then unbiased."""
        if self.thresholds is not None:
            return draw_weighted_rows(key, jnp.asarray(self.thresholds), batch_size)
        return draw_rows(key, len(self.rows[0]), batch_size)

    def part_of_mean(self, losses: Float[Array, " size"], block: "Block", index: Any) -> Float[Array, ""]:
        """What the rows of one block, whose losses these are, add to the mean over all rows."""
        if self.shares is not None:
            shares = jax.lax.dynamic_slice_in_dim(jnp.asarray(self.shares), block.start(index), block.size)
            losses = losses * block.num_rows * shares
        own = block.own(index)
        return (losses if own is None else jnp.where(own, losses, 0)).sum() / block.num_rows


@data_set_kind
class OwnPopulation:
    """The arrays that a loss without rows reads."""

    has_rows: ClassVar[bool] = False
    state: tuple[Shaped[Leaf, "..."], ...] = field(metadata=SEVERAL)
    consts: tuple[Shaped[Leaf, "..."], ...] = field(metadata=SEVERAL)


OwnData = OwnRows | OwnPopulation


class Block(NamedTuple):
    """A stretch of rows as a loss is evaluated over all of them: all are of one size. Where this does not divide n, the
    last one begins earlier, and the rows that it shares with the one before count nothing in it."""

    size: int
    count: int
    num_rows: int

    def start(self, index: Any) -> Any:
        return jnp.minimum(index * self.size, self.num_rows - self.size)

    def own(self, index: Any) -> Any:
        """Which rows of the block count; None where all do."""
        if self.num_rows % self.size == 0:
            return None
        return self.start(index) + jnp.arange(self.size) >= index * self.size


def blocks(num_rows: int, kind: Kind) -> Block:
    """Blocks of at most 1024 rows. A mean over blocks asks for equal ones, whatever their size is."""
    size = rows_a_block(num_rows)
    if kind != "mean" and size > _LARGEST_BLOCK:
        size = -(-num_rows // -(-num_rows // _LARGEST_BLOCK))
    return Block(size, -(-num_rows // size), num_rows)


@dataclass(frozen=True, eq=False)
class _Frozen:
    """A function of a user's problem: hashable, and equal to any that computes the same.

    Args:
        fingerprint: Of what it computes at the shapes of its arrays.
        kind: What the user's function returns.
        traces: What runs.
    """

    data_kinds: ClassVar[tuple[type[DataSet], ...]] = (OwnPopulation, OwnRows)
    fingerprint: str
    kind: Kind
    traces: Traces

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def results(self, data: OwnData, w: Float[Array, " d"], rows: Sequence[Any]) -> list[Array]:
        """What the user's function returns of ``rows``."""
        state = [jnp.asarray(leaf) for leaf in data.state]
        return self.traces.at(shape_of(w, state, rows))(data.consts, w, state, rows)

    def block_results(self, data: OwnRows, w: Float[Array, " d"], block: Block, index: Any) -> list[Array]:
        """The same of one block of rows."""
        start = block.start(index)
        return self.results(
            data, w, [jax.lax.dynamic_slice_in_dim(jnp.asarray(leaf), start, block.size) for leaf in data.rows]
        )

    def drawn_results(self, data: OwnRows, w: Float[Array, " d"], batch: Batch) -> list[Array]:
        """The same of the rows of a minibatch."""
        # One row is evaluated as two: a function that squeezes its predictions would lose the axis of rows, too.
        drawn = jnp.repeat(batch, 2) if batch.shape == (1,) else batch
        return self.results(data, w, [jnp.asarray(leaf)[drawn] for leaf in data.rows])


class FrozenOutputs(_Frozen):
    """The outputs of a user's network: ``results`` is one array, rows first."""


class FrozenLoss(_Frozen):
    """The loss of a user's problem."""

    def loss(self, data: OwnData, w: Float[Array, " d"]) -> Float[Array, ""]:
        return sum_of_parts(self, data, w)

    def minibatch(self, key: Key[Array, ""], target: Target, batch_size: int) -> Batch:
        if not isinstance(target.data, OwnRows):
            return jnp.zeros(0, target.w0.dtype)
        return target.data.draw(key, batch_size)

    def minibatch_loss(self, data: OwnData, w: Float[Array, " d"], batch: Batch) -> Float[Array, ""]:
        if not isinstance(data, OwnRows):
            return self.results(data, w, ())[0]
        return self.drawn_results(data, w, batch)[0].mean()

    def unravel(self, data: OwnData, w: Float[Array, " d"]) -> PyTree:
        del data
        return self.traces.function.coordinates.unravel(w)

    def num_parts(self, data: OwnData) -> int:
        return blocks(len(data.rows[0]), self.kind).count if isinstance(data, OwnRows) else 1

    def part_loss(self, data: OwnData, w: Float[Array, " d"], index: Any) -> Float[Array, ""]:
        """What one block of rows adds to L_n."""
        if not isinstance(data, OwnRows):
            return self.results(data, w, ())[0]
        block = blocks(len(data.rows[0]), self.kind)
        losses = self.block_results(data, w, block, index)[0]
        if self.kind == "mean":
            return losses / block.count
        return data.part_of_mean(losses, block, index)
