"""Which rows carry the gradient g of L_n at w0: a few of them, those of a class, those that hold a token.

L_n = sum_i w_i l_i, so g = sum_i w_i grad l_i, and row i has the share s_i = w_i grad l_i . g / |g|^2 of it. The shares
sum to 1; a row that pulls against g has a negative one. At a minimum they cancel, each far larger than 1: then nothing
is said. What is said of a group is how its rows' shares differ from the others', beyond chance; a row's loss cannot be
split by position, so of a token it is how well its number in a row explains the row's share.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lambda_hat.config.schema import Document
from lambda_hat.targets.base import Target
from lambda_hat.targets.problem.frozen_loss import Block, FrozenLoss, OwnRows, blocks
from lambda_hat.targets.problem.parameters import Leaf
from lambda_hat.targets.restricted import Restricted, RestrictedLoss
from lambda_hat.targets.w0_report import value_and_grad

# Groups whose shares cancel so far explain nothing: one of a few rows; classes together; a token by its line, which
# overshoots where the shares level off.
_MOST_SHARE, _MOST_ABSOLUTE = 1.5, 2.0
# What a few rows or a token need to carry, and what a class needs to carry beyond its rows.
_LEAST_SHARE, _LEAST_EXCESS = 0.5, 0.25
# A few rows are at most so many and such a part of all; those with less than this part of the largest are none of them.
_FEW, _FEW_PART, _PART_OF_LARGEST = 10, 0.01, 0.25
# Rows, by their effective number, of which a group needs to be.
_LEAST_ROWS = 5
_MOST_CLASSES = 64
# The part of the variance of the shares that a token must explain, and by how much it must lead the next one.
_LEAST_EXPLAINED, _LEAD = 0.5, 0.05
# The rows' shares are even below this spread, relative to their mean.
_EVEN = 0.1
# Standard errors, beyond those that the greatest of many comparisons reaches by chance.
_SIGNIFICANT = 4.0
# Tokens that are counted: rows enough to tell which of them it is, in little memory.
_MOST_TOKENS = 2**22


class Pulls(NamedTuple):
    """Of the rows with a weight, or some of them: which they are, their weights w_i, scaled to the sum 1, and their
    pulls s_i / w_i, whose weighted mean is 1 over all rows. by_weight: how their parts are counted, in words."""

    rows: np.ndarray
    weights: Float[np.ndarray, " n"]
    pulls: Float[np.ndarray, " n"]
    by_weight: str

    @property
    def shares(self) -> Float[np.ndarray, " n"]:
        return self.weights * self.pulls

    @property
    def mean(self) -> float:
        return float(self.weights @ self.pulls)

    @property
    def spread(self) -> float:
        """The variance of the pulls."""
        return float(self.weights @ np.square(self.pulls - self.mean))


def gradient_groups(target: Target, leaves: Sequence[Leaf]) -> list[Document]:
    """The groups of rows that the gradient at w0 comes from, as JSON types; none where there is nothing to say.

    ``kind``: ``rows`` (``value``: their indices, ``shares``: of each), ``class`` (``value``: the number), ``token``
    (``value``: the id) or ``position`` (``value``: the id, ``position``: where in a row). ``path``: of the data's leaf,
    None for rows. ``share``: of the gradient; of a token by the linear fit, with the part of the variance
    ``explained``. ``rows``: the rows that are meant, as a part of all, by weight. ``sentence``: says it.

    Args:
        target: Of a user's loss, with all weights or some, which then are the directions of the gradient; in float64.
        leaves: The data's leaves as they were given, in the order of the target's.
    """
    found = pulls_of(target)
    if found is None:
        return []
    few = _few_rows(found)
    groups = [] if few is None else [few]
    for leaf in leaves:
        if leaf.key is not None or leaf.array.dtype.kind not in "biu" or not leaf.array.size:
            continue
        values = leaf.array.reshape(len(leaf.array), -1)
        if values.shape[1] == 1:
            groups += _classes(found, leaf.path, values[found.rows, 0])
        elif few is None:
            groups += _tokens(found, leaf, values)
    return groups


def pulls_of(target: Target) -> Pulls | None:
    """The pulls of the rows; None of a loss without rows, or where there is no gradient.

    Args:
        target: In float64. Its arrays are arguments: targets of one loss share a program.
    """
    whole = target.data.whole if isinstance(target.data, Restricted) else target.data
    loss = target.model.model if isinstance(target.model, RestrictedLoss) else target.model
    if not isinstance(whole, OwnRows) or not isinstance(loss, FrozenLoss) or loss.kind == "mean":
        return None
    block = blocks(len(whole.rows[0]), loss.kind)
    gradient = value_and_grad(target, target.w0)[1]
    slopes = np.asarray(_slopes(target, gradient, block))
    # The last block begins earlier than the one before it ends.
    last = block.num_rows - (block.count - 1) * block.size
    slopes = np.concatenate([slopes[:-1].ravel(), slopes[-1, -last:]])
    weights = np.full(len(slopes), 1 / len(slopes)) if whole.shares is None else np.asarray(whole.shares)
    square = float(weights @ slopes)
    if not (np.isfinite(square) and square > 0):
        return None
    rows = np.flatnonzero(weights)
    return Pulls(rows, weights[rows], slopes[rows] / square, "" if whole.shares is None else " by weight")


@jax.jit(static_argnames="block")
def _slopes(target: Target, direction: Float[Array, " d"], block: Block) -> Float[Array, "count size"]:
    """grad l_i . direction of the rows, block by block."""

    def losses(w: Float[Array, " d"], index: Any) -> Float[Array, " size"]:
        model, data = target.model, target.data
        if isinstance(model, RestrictedLoss):
            w, data, model = model.merged(data, w), data.whole, model.model
        assert isinstance(model, FrozenLoss)
        return model.block_results(data, w, block, index)[0]

    def of_block(index: Any) -> Float[Array, " size"]:
        # The pullback's own: a user's custom_vjp has no derivative forward.
        found, pullback = jax.vjp(lambda w: losses(w, index), target.w0)
        return jax.vjp(lambda cotangent: pullback(cotangent)[0], jnp.zeros_like(found))[1](direction)[0]

    return jax.lax.map(of_block, jnp.arange(block.count))


def _few_rows(found: Pulls) -> Document | None:
    """The rows with large shares, where they are few and carry the gradient."""
    shares = found.shares
    (places,) = np.nonzero(shares >= _PART_OF_LARGEST * shares.max())
    total, part = float(shares[places].sum()), float(found.weights[places].sum())
    is_few = len(places) <= max(1, min(_FEW, int(_FEW_PART * len(shares))))
    if not (is_few and _LEAST_SHARE <= total <= _MOST_SHARE and total - part >= _LEAST_EXCESS):
        return None
    places = places[np.argsort(-shares[places])]
    indices = found.rows[places].tolist()
    who = f"row {indices[0]} is" if len(indices) == 1 else f"rows {', '.join(map(str, indices))} are"
    sentence = f"{who} {_percent(part)} of the rows{found.by_weight} and {_percent(total)} of the gradient"
    return _group("rows", None, indices, (total, part), sentence) | {"shares": shares[places].tolist()}


def _classes(found: Pulls, path: str, labels: np.ndarray) -> list[Document]:
    """The classes whose rows carry more of the gradient than others do.

    ``labels``: of the rows with a weight.
    """
    values, codes = np.unique(labels, return_inverse=True)
    if not 2 <= len(values) <= _MOST_CLASSES:
        return []
    shares, groups = np.bincount(codes, found.shares), list[Document]()
    if np.abs(shares).sum() > _MOST_ABSOLUTE:
        return []
    for code in np.argsort(-shares).tolist():
        share, part = float(shares[code]), float(found.weights[codes == code].sum())
        if share - part < _LEAST_EXCESS or not _stands_out(found, codes == code, len(values)):
            continue
        sentence = (
            f"rows of class {values[code]} of {path} are {_percent(part)} of the rows{found.by_weight} and "
            f"{_percent(share)} of the gradient"
        )
        groups.append(_group("class", path, values[code].item(), (share, part), sentence))
    return groups


def _stands_out(found: Pulls, is_in: np.ndarray, comparisons: int) -> bool:
    """Whether the mean pull of some rows exceeds that of the others beyond chance; both have the larger variance."""
    variance = error = difference = 0.0
    for places, sign in ((is_in, 1.0), (~is_in, -1.0)):
        weights, pulls = found.weights[places] / found.weights[places].sum(), found.pulls[places]
        mean, inverse_number = weights @ pulls, np.square(weights).sum()
        if inverse_number > 1 / _LEAST_ROWS:
            return False
        variance = max(variance, weights @ np.square(pulls - mean))
        error += inverse_number
        difference += sign * mean
    return bool(difference >= _threshold(comparisons) * math.sqrt(variance * error))


class _Fits(NamedTuple):
    """Lines through the pulls as functions of numbers x of a row, each of its own token: which token that is, and where
    it stands, the part of the variance that x explains, the share of the gradient that goes with x, and the weight of
    the rows in which x is not 0."""

    codes: np.ndarray
    places: np.ndarray
    explained: np.ndarray
    share: np.ndarray
    rows: np.ndarray


def _tokens(found: Pulls, leaf: Leaf, values: np.ndarray) -> list[Document]:
    """The token of a leaf whose number in a row explains the rows' shares, or one at a position that does better."""
    found = _some_of(found, max(1, _MOST_TOKENS // values.shape[1]))
    if math.sqrt(found.spread) < _EVEN:
        return []
    ids, codes = np.unique(values[found.rows], return_inverse=True)
    codes = codes.reshape(len(found.rows), -1)
    by_count, by_place = _by_count(found, codes, len(ids)), _by_place(found, codes, len(ids))
    best = _best(found, by_place, len(ids) * codes.shape[1])
    is_place = best is not None and by_place.explained[best] > by_count.explained.max() + _LEAD
    fits = by_place if is_place else by_count
    best = best if is_place else _best(found, by_count, len(ids))
    if best is None:
        return []
    token, explained = ids[fits.codes[best]], float(fits.explained[best])
    why, more = "its count in a row", {}
    if is_place:
        place = [int(index) for index in np.unravel_index(fits.places[best], leaf.array.shape[1:])]
        why, more = f"whether it stands at position {', '.join(map(str, place))}", {"position": place}
    word = "value" if leaf.array.dtype.kind == "b" else "token"
    sentence = (
        f"the gradient comes with the {word} {token} of {leaf.path}: {why} explains {_percent(explained)} of the "
        "variance of the rows' shares"
    )
    numbers = float(fits.share[best]), float(fits.rows[best])
    group = _group("position" if is_place else "token", leaf.path, token.item(), numbers, sentence)
    return [group | more | {"explained": explained}]


def _some_of(found: Pulls, most: int) -> Pulls:
    """At most so many of the rows, drawn at random."""
    number = len(found.rows)
    if number <= most:
        return found
    drawn = np.sort(np.random.default_rng(0).choice(number, most, replace=False))
    weights = found.weights[drawn]
    return Pulls(found.rows[drawn], weights / weights.sum(), found.pulls[drawn], found.by_weight)


def _by_count(found: Pulls, codes: np.ndarray, number: int) -> _Fits:
    """Of each of the tokens, x: how often it stands in a row."""
    pairs, counts = np.unique(codes + number * np.arange(len(codes))[:, None], return_counts=True)
    rows, tokens = np.divmod(pairs, number)
    return _fits(found, rows, tokens, counts, number)


def _by_place(found: Pulls, codes: np.ndarray, number: int) -> _Fits:
    """Of the two best tokens at each position, x: 1 where it stands there."""
    rows, ones = np.arange(len(codes)), np.ones(len(codes))
    best: list[_Fits] = []
    for place, tokens in enumerate(codes.T):
        fits = _fits(found, rows, tokens, ones, number)
        first = np.argsort(-fits.explained)[:2]
        best.append(_Fits(*(array[first] for array in fits))._replace(places=np.full(len(first), place)))
    return _Fits(*map(np.concatenate, zip(*best, strict=True)))


def _fits(found: Pulls, rows: np.ndarray, tokens: np.ndarray, x: np.ndarray, number: int) -> _Fits:
    """The lines of ``number`` tokens, from the numbers ``x`` that are not 0, of these rows and tokens."""
    weights, pulls = found.weights[rows], found.pulls[rows]
    mean, square, product, part = (
        np.bincount(tokens, values, number) for values in (weights * x, weights * x**2, weights * x * pulls, weights)
    )
    variance, covariance = square - mean**2, product - mean * found.mean
    # Those of too few rows, and such as are everywhere alike, explain nothing.
    least = _LEAST_ROWS * np.square(found.weights).sum()
    is_fit = (variance > 1e-9 * square) & (covariance > 0) & (part >= least)
    slope = np.divide(covariance, variance, out=np.zeros(number), where=is_fit)
    return _Fits(np.arange(number), np.zeros(number), slope * covariance / found.spread, slope * mean, part)


def _best(found: Pulls, fits: _Fits, comparisons: int) -> int | None:
    """The line that explains enough, beyond chance, and more than any other; None where there is none."""
    best, *others = np.argsort(-fits.explained)[:2].tolist()
    explained = min(float(fits.explained[best]), 1 - 1e-12)
    freedom = 1 / np.square(found.weights).sum() - 2
    if explained < _LEAST_EXPLAINED or explained / (1 - explained) * freedom < _threshold(comparisons) ** 2:
        return None
    if others and fits.explained[best] - fits.explained[others[0]] < _LEAD:
        return None
    return best if _LEAST_SHARE <= fits.share[best] <= _MOST_ABSOLUTE else None


def _threshold(comparisons: int) -> float:
    """Standard errors that the greatest of so many comparisons does not reach by chance."""
    return _SIGNIFICANT + math.sqrt(2 * math.log(comparisons))


def _group(kind: str, path: str | None, value: Any, numbers: tuple[float, float], sentence: str) -> Document:
    share, rows = numbers
    return {"kind": kind, "path": path, "value": value, "share": share, "rows": rows, "sentence": sentence}


def _percent(part: float) -> str:
    return f"{part:.0%}" if part >= 0.1 else f"{100 * part:.2g}%"
