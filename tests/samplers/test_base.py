"""The helpers that every sampler is built from."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lambda_hat.config.schema import ConfigError
from lambda_hat.estimation.trace import COLUMNS
from lambda_hat.samplers.base import StepInfo, check_batch, group_size, per_chain, step_info, thin
from lambda_hat.samplers.sghmc import SGHMC
from lambda_hat.samplers.sgld import SGLD


@pytest.mark.parametrize("sequential", [False, True])
def test_each_chain_has_its_own_key_whatever_their_number(sequential: bool) -> None:
    """Sees chains that share their noise: their starts differ, so their draws would too."""

    def noise(key: jax.Array, chain: jax.Array, shared: float) -> jax.Array:
        return chain + shared * jax.random.normal(key)

    key = jax.random.key(0)
    three = per_chain(noise, 3, 1, sequential=sequential)(key, jnp.zeros(3), 2.0)
    assert len(np.unique(three)) == 3
    alone = per_chain(noise, 1, 1, sequential=sequential)(key, jnp.zeros(1), 2.0)
    np.testing.assert_allclose(alone, three[:1], rtol=1e-6)


@pytest.mark.parametrize(
    ("num_chains", "dim", "in_pairs", "size"),
    [
        *[(8, 10_000, True, 2), (9, 10_000, True, 3), (7, 10_000, True, 7), (2, 10_000, True, 2), (8, 100, True, 8)],
        *[(8, 10_000, False, 1), (7, 10_000, False, 1), (1, 10_000, False, 1), (8, 100, False, 8)],
    ],
)
def test_groups_are_small_where_parameters_are_many(num_chains: int, dim: int, in_pairs: bool, size: int) -> None:
    """Sees chains in groups that do not divide them, and many loops over a few parameters."""
    assert group_size(num_chains, dim, in_pairs=in_pairs) == size


def test_a_gpu_has_all_chains_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sees the groups of a CPU's cores on a device that would run them one after another."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert group_size(8, 10_000, in_pairs=True) == 8


def test_a_draw_of_several_steps_adds_their_costs_and_keeps_their_alarms() -> None:
    """Sees the gradients of all but the last step forgotten, and a divergence in the middle of a draw."""

    def step(key: jax.Array, count: jax.Array) -> tuple[jax.Array, StepInfo]:
        del key
        loss = jnp.full(2, 1.0) * count
        return count + 1, step_info(loss, 10, virial=loss, acceptance=loss, diverged=loss == 1)

    count, info = thin(step, 4)(jax.random.key(0), jnp.asarray(0))
    assert int(count) == 4
    assert info.gradients.tolist() == [40, 40]
    assert info.diverged.all()
    assert info.loss.tolist() == [3, 3]
    assert info.virial.tolist() == info.acceptance.tolist() == [1.5, 1.5]
    assert np.isnan(info.energy).all()


def test_a_batch_larger_than_the_data_is_refused() -> None:
    check_batch(None, 10)
    check_batch(10, 10)
    with pytest.raises(ConfigError, match=r"sampler\.batch_size: needs at most the n = 10 rows of the data, got 11"):
        check_batch(11, 10)


def test_every_sampler_declares_what_others_ask_of_it(sampler: Any) -> None:
    """Sees minibatches counted as full gradients, and a verdict that names a field the sampler has not."""
    fields = {field.name for field in dataclasses.fields(sampler)}
    traits = sampler.traits
    assert sampler.kernel_version >= 1
    assert traits.batch_size == getattr(sampler, "batch_size", None)
    assert traits.in_pairs == ("batch_size" in fields)
    named = re.findall(r"sampler\.(\w+)", traits.bias_knob or "")
    assert (traits.bias_knob is None) == (not named)
    assert set(named) <= fields


def test_the_noise_of_sgld_is_bounded_where_the_formula_holds() -> None:
    """eps / 4 on a quadratic, for a fixed step that every parameter shares."""
    assert SGLD(step_size=1e-3).traits.noise_gain == 0.25 * 1e-3
    others = [SGLD(), SGLD(step_size=1e-3, decay=0.3), SGLD(step_size=1e-3, precond="rmsprop"), SGHMC(step_size=1e-3)]
    assert [sampler.traits.noise_gain for sampler in others] == [0.0] * 4


def test_a_step_fills_the_columns_of_the_trace() -> None:
    """Sees a column that the trace file, the statistics and the plots know by another name or kind."""
    info = step_info(jnp.zeros(3), 2)
    assert {name: leaf.dtype.kind for name, leaf in info._asdict().items()} == {
        name: column.kind for name, column in COLUMNS.items()
    }
