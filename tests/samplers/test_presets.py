"""The laws that every sampler keeps, over every file of conf/sampler/: a new preset is tested with no test edited."""

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lambda_hat.samplers.base import StepInfo
from tests.samplers.problem import TALLY, Problem, Run, assert_mean, float_fields

_LAW_DRAWS = 2000


def _leaves(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_yaml_lists_every_field_with_its_default(
    preset: Path, fields: dict[str, Any], schema: Any, sampler: Any
) -> None:
    """Sees a field that Hydra could not override, and a default that drifted apart from its preset."""
    assert set(fields) == {"_target_", *(field.name for field in dataclasses.fields(schema))}
    if preset.stem == schema.__module__.rpartition(".")[2]:
        assert sampler == schema()


def test_older_names_are_not_fields(sampler: Any) -> None:
    """Sees an older name that a field has taken over: it would be refused."""
    assert not set(getattr(sampler, "OLDER_NAMES", {})) & {field.name for field in dataclasses.fields(sampler)}


@pytest.mark.parametrize("num_chains", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_reported_gradients_are_those_taken(sampler: Any, problem: Problem, num_chains: int) -> None:
    """Sees a gradient that is not counted, in start, warm-up or sampling, or one counted twice."""
    posterior = problem.posterior(sampler.dtype, counted=True)

    def spent(act: Callable[[], Any]) -> tuple[int, Any]:
        before = TALLY.gradients
        result = jax.block_until_ready(act())
        jax.effects_barrier()
        return TALLY.gradients - before, result

    counted, run = spent(lambda: Run(sampler, posterior, num_chains))
    assert counted == int(np.sum(run.first.gradients))
    counted, trace = spent(lambda: run.advance("warmup", 3))
    assert counted == trace["gradients"].sum()
    counted, _ = spent(run.finish)
    assert counted == 0
    counted, trace = spent(lambda: run.advance("sampling", 3))
    assert counted == trace["gradients"].sum()
    assert trace["gradients"].shape == (3, num_chains)


def test_chunks_and_checkpoints_do_not_change_a_chain(sampler: Any, problem: Problem) -> None:
    """Sees a key that depends on the chunk, state kept outside the state, and a leaf that is no array."""
    posterior = problem.posterior(sampler.dtype)
    whole, parts = Run(sampler, posterior), Run(sampler, posterior)
    for phase in ("warmup", "sampling"):
        one, two = whole.advance(phase, 10), parts.advance(phase, 4, 6)
        assert set(one) == set(StepInfo._fields)
        for name in one:
            np.testing.assert_array_equal(one[name], two[name], err_msg=f"{phase} {name}")
        for left, right in zip(_leaves(whole.state), _leaves(parts.state), strict=True):
            np.testing.assert_array_equal(left, right)
        whole.finish()
        parts.finish()


def test_chains_differ_and_the_seed_decides(sampler: Any, problem: Problem) -> None:
    """Sees chains that share their key, and a seed that is not used."""
    posterior = problem.posterior(sampler.dtype)
    losses = [Run(sampler, posterior, seed=seed).advance("sampling", 4)["loss"] for seed in (0, 0, 1)]
    assert len(np.unique(losses[0][-1])) == 3
    np.testing.assert_array_equal(losses[0], losses[1])
    assert not np.array_equal(losses[0], losses[2])


def test_floats_are_arguments_of_the_compiled_program(sampler: Any, problem: Problem) -> None:
    """Sees a program that is compiled anew for every step size."""

    def losses(sampler: Any) -> np.ndarray:
        run = Run(sampler, problem.posterior(sampler.dtype))
        run.advance("warmup", 1)
        run.finish()
        return run.advance("sampling", 2)["loss"]

    first = losses(sampler)
    before = TALLY.traces
    changed = {name: 0.9 * value for name, value in float_fields(sampler).items()}
    other = losses(dataclasses.replace(sampler, **changed))
    assert TALLY.traces == before
    assert np.array_equal(first, other) == (not changed)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_everything_floats_in_the_posterior_s_dtype(sampler: Any, problem: Problem, dtype: str) -> None:
    """Sees a leaf narrowed to float32, a count that is not int32, and a state whose shape a phase changes."""
    with jax.enable_x64(dtype == "float64"):
        posterior = problem.posterior(dtype)

        def everything(key: Any, u0: Any) -> Any:
            kernel = sampler.build(posterior, 3)
            state, first = kernel.init(key, u0)
            warmed, warm = kernel.adapt(key, state)
            final, draw = kernel.step(key, kernel.finish(warmed))
            return (state, warmed, final), (first, warm, draw)

        states, infos = jax.eval_shape(everything, jax.random.key(0), jnp.zeros((3, posterior.dim), dtype))
    for leaf in jax.tree.leaves((states, infos)):
        assert leaf.dtype in (jnp.dtype(dtype), jnp.dtype("int32"), jnp.dtype(bool))
    assert states[0] == states[1] == states[2]
    for info in infos:
        assert all(leaf.shape == (3,) for leaf in info)
        assert info.gradients.dtype == jnp.dtype("int32")


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_a_loss_that_is_no_number_is_flagged(sampler: Any, problem: Problem, fault: float) -> None:
    """Sees a sampler that keeps quiet about it."""
    run = Run(sampler, problem.posterior(sampler.dtype, fault=fault))
    run.advance("warmup", 2)
    run.finish()
    trace = run.advance("sampling", 3)
    assert np.all(trace["diverged"] | ~np.isfinite(trace["loss"]))


def test_it_samples_the_posterior(sampler: Any, problem: Problem) -> None:
    """Sees a wrong sign, a wrong temperature, a localiser that is forgotten or doubled, and a loss of another state."""
    posterior = problem.posterior(sampler.dtype)
    trace = Run(sampler, posterior).sample(_LAW_DRAWS)
    loss, virial = trace["loss"].astype(float), trace["virial"]
    if not np.isnan(trace["coarse_loss"]).all():  # without the bias that it reports
        loss, virial = 2 * loss - trace["coarse_loss"], 2 * virial - trace["coarse_virial"]
    assert_mean(problem.nbeta * (loss - float(posterior.loss_at_w0)), problem.llc())
    if not np.isnan(virial).all():
        assert_mean(virial, len(problem.h))
    assert not trace["diverged"].any()


@pytest.mark.parametrize("name", ["hmc", "nuts", "mala", "mclmc", "sgld", "sghmc", "sgnht"])
def test_a_chain_does_not_depend_on_how_many_there_are(name: str, problem: Problem) -> None:
    """Sees keys that depend on the number of chains (before warm-up, which pools them)."""
    sampler = getattr(importlib.import_module(f"lambda_hat.samplers.{name}"), name.upper())()
    with jax.enable_x64(sampler.dtype == "float64"):
        posterior = problem.posterior(sampler.dtype)
        alone = Run(sampler, posterior, 1).advance("sampling", 3)
        together = Run(sampler, posterior, 3).advance("sampling", 3)
        np.testing.assert_allclose(alone["loss"][:, 0], together["loss"][:, 0], rtol=1e-5)
        np.testing.assert_array_equal(alone["gradients"][:, 0], together["gradients"][:, 0])
