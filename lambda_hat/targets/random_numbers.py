"""Random numbers of minibatches and noise: rows with replacement, and standard normals.

They are the numbers of JAX's own Threefry, two out of each hash: where arrays may be split over devices JAX spends a
hash on each, but a chain's numbers stay on one.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl, threefry_2x32, threefry_prng_impl
from jaxtyping import Array, Float, Key, Shaped, UInt32

# Up to so many normals are made at once, more in blocks, which take a third less time for 3e5 and half for 1e7.
_MANY_NORMALS, _BLOCK_OF_NORMALS = 2**17, 2**14


def draw_rows(key: Key[Array, ""], num_data: int, batch_size: int) -> Shaped[Array, " batch"]:
    """Row indices with replacement: drawing without costs about 20 times as much (docs/benchmark.md).

    The upper half of 32 random bits times n: probabilities differ by n / 2^32 of themselves at most, and it takes half
    the time of ``randint``.
    """
    bits = jax.random.bits(two_for_one(key), (batch_size,), jnp.uint32)
    return _upper_half(bits, num_data).astype(jnp.int32)


def row_thresholds(shares: Float[np.ndarray, " n"]) -> UInt32[np.ndarray, " n-1"]:
    """What :func:`draw_weighted_rows` reads: the running sums of the rows' shares, times 2^32, without the last."""
    sums = np.cumsum(shares)[:-1] / np.sum(shares)
    return np.minimum(np.round(sums * 2.0**32), 2.0**32 - 1).astype(np.uint32)


def draw_weighted_rows(
    key: Key[Array, ""], thresholds: UInt32[Array, " m"], batch_size: int
) -> Shaped[Array, " batch"]:
    """Row indices with replacement, row i with the probability ``shares[i]``; a row of share 0 is never drawn.

    Probabilities are rounded to multiples of 2^-32.
    """
    bits = jax.random.bits(two_for_one(key), (batch_size,), jnp.uint32)
    return jnp.searchsorted(thresholds, bits, side="right").astype(jnp.int32)


def _upper_half(bits: Shaped[Array, " batch"], n: int) -> Shaped[Array, " batch"]:
    """The upper 32 of the 64 bits of ``bits`` times n, in pieces of 16: ``lax.mulhi`` does not compile for a mesh."""
    high, low = bits >> 16, bits & 0xFFFF
    n_high, n_low = n >> 16, n & 0xFFFF
    middle = high * n_low + (low * n_low >> 16)
    return high * n_high + (middle >> 16) + ((middle & 0xFFFF) + low * n_high >> 16)


def draw_normals(key: Key[Array, ""], like: Float[Array, " d"]) -> Float[Array, " d"]:
    """Standard normals, of the shape and dtype of ``like``.

    Many of them are made block by block, each from a key of its own: a hash goes over its numbers three times, which
    takes longer when they do not fit in the cache (docs/benchmark.md).
    """
    key = two_for_one(key)
    if like.size <= _MANY_NORMALS:
        return jax.random.normal(key, like.shape, like.dtype)

    def add(index: Array, normals: Array) -> Array:
        block = jax.random.normal(jax.random.fold_in(key, index), (_BLOCK_OF_NORMALS,), like.dtype)
        return jax.lax.dynamic_update_slice(normals, block, (index * _BLOCK_OF_NORMALS,))

    count = -(-like.size // _BLOCK_OF_NORMALS)
    nothing = jnp.zeros(count * _BLOCK_OF_NORMALS, like.dtype)
    return jax.lax.fori_loop(0, count, add, nothing)[: like.size]


def two_for_one(key: Key[Array, ""]) -> Key[Array, ""]:
    """The key, for the functions of ``jax.random`` to take their bits from :func:`_random_bits`."""
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_IMPLEMENTATION)


def _random_bits(key: UInt32[Array, " 2"], bit_width: int, shape: tuple[int, ...]) -> Shaped[Array, "..."]:
    """Those of ``jax.random.bits`` with ``jax_threefry_partitionable`` off, of 32 or 64 bits."""
    size = math.prod(shape)
    words = threefry_2x32(key, jnp.arange(size * bit_width // 32, dtype=jnp.uint32))
    if bit_width == 32:
        return words.reshape(shape)
    first, second = jnp.split(words.astype(jnp.uint64), 2)
    return (first << 32 | second).reshape(shape)


_IMPLEMENTATION = define_prng_impl(
    key_shape=threefry_prng_impl.key_shape,
    seed=threefry_prng_impl.seed,
    split=threefry_prng_impl.split,
    random_bits=_random_bits,
    fold_in=threefry_prng_impl.fold_in,
    name="threefry2x32_two_for_one",
    tag="fry2",
)
