"""Random numbers that are drawn in a way of our own."""

import jax
import numpy as np
import pytest
from scipy import stats

from lambda_hat.targets.base import draw_normals, draw_rows


@pytest.mark.parametrize("num_data", [1, 7, 10_000])
def test_rows_are_drawn_evenly(num_data: int) -> None:
    rows = np.asarray(jax.jit(lambda key: draw_rows(key, num_data, 500_000))(jax.random.key(0)))
    counts = np.bincount(rows, minlength=num_data)
    assert len(counts) == num_data
    assert num_data == 1 or stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("size", [1, 2, 3, 200_001, 300_001])
def test_normals_are_normal_and_independent(size: int) -> None:
    like = np.zeros(size, np.float32)
    keys = jax.random.split(jax.random.key(1), 2 + 200_000 // size)
    draws = np.asarray(jax.jit(jax.vmap(lambda key: draw_normals(key, jax.numpy.asarray(like))))(keys)).ravel()
    assert stats.kstest(draws, "norm").pvalue > 1e-3
    assert len(np.unique(draws)) > 0.95 * len(draws)
    pairs = np.corrcoef(draws[:-1], draws[1:])[0, 1] * np.sqrt(len(draws))
    assert abs(pairs) < 4
