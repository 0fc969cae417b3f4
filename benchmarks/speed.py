"""How close to the machine's limit are the kernels? CPU seconds on one core, each part in turn with what it is held to.

python -m benchmarks.speed
"""

import dataclasses
import functools
import itertools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from benchmarks.kernels import cpu_seconds, posterior_of
from benchmarks.record import Row, publish
from lambda_hat.posterior import Posterior
from lambda_hat.samplers.base import Sampler
from lambda_hat.samplers.hmc import HMC
from lambda_hat.samplers.mclmc import MCLMC
from lambda_hat.samplers.sgld import SGLD
from lambda_hat.sampling.ensemble import Ensemble
from lambda_hat.sampling.jit import compiler_options
from lambda_hat.targets.deep_linear import DeepLinear
from lambda_hat.targets.mlp import MLP
from lambda_hat.targets.random_numbers import draw_normals, draw_rows

NUM_DATA, NUM_CHAINS, BATCH, STEPS_A_DRAW = 10_000, 4, 250, 50
STEP_GOAL, GEMM_GOAL, GRADIENT_GOAL, MOMENTS_GOAL = 1.3, 0.8, 1.1, 100.0
# Loop lengths, so that the call itself does not count.
UPDATES = 50
# As a minibatch: the rows as they are, without a gather.
ALL: Any = slice(None)


def jit(function: Callable[..., Any], dtype: str = "float32") -> Any:
    """What a kernel is held to is compiled as the kernel is."""
    return jax.jit(function, compiler_options=compiler_options(dtype, dim=10_000))


def repeated(update: Callable[..., Array], start: Array, *arrays: Any, times: int = UPDATES) -> Callable[[], Array]:
    """``times`` calls of update(key, value, *arrays), each fed the one before, in one compiled loop."""

    def loop(value: Array, arrays: Any) -> Array:
        def body(index: Array, value: Array) -> Array:
            return update(jax.random.fold_in(jax.random.key(0), index), value, *arrays)

        return jax.lax.fori_loop(0, times, body, value)

    compiled = jit(loop, str(start.dtype))
    return lambda: compiled(start, arrays)


def keys_of(key: Any) -> Any:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(NUM_CHAINS))


def drawing(sampler: Sampler, posterior: Posterior, draws: int) -> Callable[[], Any]:
    """``draws`` draws of the project's own ensemble; each call goes on where the last one ended."""
    ensemble = Ensemble(sampler, posterior, NUM_CHAINS, 0)
    state = ensemble.finish(ensemble.init()[0])

    def call() -> Any:
        nonlocal state
        state, trace = ensemble.advance(state, "sampling", 0, draws)
        return trace["loss"]

    return call


def sgld_step(name: str, posterior: Posterior) -> list[Row]:
    """An update of SGLD with its share of the full loss, against its gradient, its noise and its gather, alone."""
    chains = jnp.zeros((NUM_CHAINS, posterior.dim), jnp.float32)

    model, data, w0 = posterior.target.model, posterior.target.data, posterior.target.w0
    # Every chain its own rows, as in a step, but fetched once and for all.
    own = {name: jnp.stack([getattr(data, name)[:BATCH]] * NUM_CHAINS) for name in ("inputs", "outputs")}

    def gradient(key: Any, u: Array, own: dict[str, Array]) -> Array:
        del key
        loss = jax.vmap(lambda u, own: model.minibatch_loss(dataclasses.replace(data, **own), w0 + u, ALL))
        return u - 1e-9 * jax.grad(lambda u: loss(u, own).sum())(u)

    def noise(key: Any, u: Array) -> Array:
        return u + jax.vmap(draw_normals)(keys_of(key), u)

    def gather(key: Any, u: Array, posterior: Posterior) -> Array:
        data = posterior.target.data
        rows = jax.vmap(lambda key: draw_rows(key, NUM_DATA, BATCH))(keys_of(key))
        # Without the barrier XLA would fetch only what is used of them.
        inputs, outputs = jax.lax.optimization_barrier((data.inputs[rows], data.outputs[rows]))
        return u + inputs[0, 0, 0] + outputs[0, 0, 0]

    sampler = SGLD(step_size=1e-6, batch_size=BATCH, measure_bias=False, num_warmup=0, steps_per_draw=STEPS_A_DRAW)
    seconds = cpu_seconds(
        {
            "step": drawing(sampler, posterior, 4),
            "gradient": repeated(gradient, chains, own),
            "noise": repeated(noise, chains),
            "gather": repeated(gather, chains, posterior),
        }
    )
    parts = {part: seconds[part] / UPDATES / NUM_CHAINS * 1e6 for part in ("gradient", "noise", "gather")}
    step = seconds["step"] / 4 / STEPS_A_DRAW / NUM_CHAINS * 1e6
    said = " + ".join(f"{part} {value:.3g}" for part, value in parts.items())
    note = f"{step:.3g} µs against {said}; {1e6 / step:,.0f} chain-steps per CPU-s"
    return [Row(f"SGLD step over its parts, {name}", step / sum(parts.values()), "x", STEP_GOAL, False, note)]


def products(sizes: tuple[int, ...]) -> list[tuple[Array, Array, int, int]]:
    """The matrix products of one gradient, as operands and contracted axes: forwards, and for weights and inputs."""
    found: list[tuple[Array, Array, int, int]] = []
    for layer, (before, after) in enumerate(itertools.pairwise(sizes)):
        h, weight, g = jnp.ones((NUM_DATA, before)), jnp.ones((after, before)), jnp.ones((NUM_DATA, after))
        found += [(h, weight, 1, 1), (g, h, 0, 0)] + ([(g, weight, 1, 0)] if layer else [])
    return found


def multiply(operands: tuple[Array, Array, int, int]) -> Callable[[], Array]:
    left, right, i, j = operands
    product = jit(lambda left, right: jax.lax.dot_general(left, right, (((i,), (j,)), ((), ()))))
    return lambda: product(left, right)


def mlp_gradient(sizes: tuple[int, ...]) -> list[Row]:
    """All rows' gradient against its matrix products alone, of the same shapes, and against one large product."""
    posterior = posterior_of(MLP(widths=sizes[1:-1]), sizes, NUM_DATA, moments=False)
    gradient = jit(jax.grad(lambda u, posterior: posterior.loss(u)))
    u = jnp.zeros(posterior.dim)
    own = {str(index): multiply(operands) for index, operands in enumerate(products(sizes))}
    big = jnp.ones((1024, 1024))
    seconds = cpu_seconds({"gradient": lambda: gradient(u, posterior), "big": multiply((big, big, 1, 0)), **own})
    forward = sum(before * after for before, after in itertools.pairwise(sizes))
    flops = 2 * NUM_DATA * (3 * forward - sizes[0] * sizes[1])
    alone = sum(seconds[name] for name in own)
    rate, best = flops / seconds["gradient"] / 1e9, 2 * 1024**3 / seconds["big"] / 1e9
    note = (
        f"{rate:.0f} GFLOP/s; its products alone {flops / alone / 1e9:.0f}, "
        f"a 1024³ product {best:.0f} (share {rate / best:.2f})"
    )
    what = f"MLP gradient as a share of its products' rate, d = {posterior.dim:,}"
    return [Row(what, alone / seconds["gradient"], "", GEMM_GOAL, True, note)]


def moments(name: str, model: MLP | DeepLinear, sizes: tuple[int, ...]) -> list[Row]:
    """A full gradient from second moments against one from rows, and how far the two losses differ."""
    posterior = posterior_of(model, sizes, NUM_DATA)
    u = 0.1 * jax.random.normal(jax.random.key(0), (posterior.dim,))

    def by_rows(u: Array, posterior: Posterior) -> Array:
        return posterior.target.minibatch_loss(posterior.target.w0 + u, ALL)

    losses: dict[str, Callable[..., Array]] = {"rows": by_rows, "moments": lambda u, posterior: posterior.loss(u)}
    loops = {
        which: repeated(lambda _, u, posterior, loss=loss: u - 1e-9 * jax.grad(loss)(u, posterior), u, posterior)
        for which, loss in losses.items()
    }
    us = {which: seconds / UPDATES * 1e6 for which, seconds in cpu_seconds(loops).items()}
    rows, same = (float(jax.jit(loss)(u, posterior)) for loss in losses.values())
    note = f"{us['rows']:.0f} against {us['moments']:.3g} µs; losses differ by {abs(same / rows - 1):.1e}"
    return [Row(f"second moments instead of rows, {name}", us["rows"] / us["moments"], "x", MOMENTS_GOAL, True, note)]


def gradients(name: str, sampler: Sampler, posterior: Posterior) -> list[Row]:
    """A sampler's cost per gradient against a bare jitted value_and_grad of the same chains' log density."""
    chains = jnp.zeros((NUM_CHAINS, posterior.dim), posterior.nbeta.dtype)
    ensemble = Ensemble(sampler, posterior, NUM_CHAINS, 0)
    state = ensemble.finish(ensemble.init()[0])
    # Every call has the same keys, and so the same lengths of trajectories.
    draws = 4
    count = int(ensemble.advance(state, "sampling", 0, draws)[1]["gradients"][:, 0].sum()) / posterior.num_data

    def bare(key: Any, u: Array, posterior: Posterior) -> Array:
        del key
        value, gradient = jax.vmap(jax.value_and_grad(posterior.logdensity))(u)
        return u + 1e-12 * gradient + 1e-30 * value[:, None]

    seconds = cpu_seconds(
        {"sampler": drawing(sampler, posterior, draws), "bare": repeated(bare, chains, posterior, times=10)}
    )
    one, alone = seconds["sampler"] / count, seconds["bare"] / 10
    note = f"{one * 1e3:.3g} against {alone * 1e3:.3g} ms a gradient of {NUM_CHAINS} chains, with its L_n"
    return [Row(f"{name} per gradient over value_and_grad", one / alone, "x", GRADIENT_GOAL, False, note)]


def main() -> None:
    # Before JAX starts its threads. The last core: the first one serves the system.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    regression, deep = MLP(depth=0, bias=False), DeepLinear(widths=(10, 10, 10, 10), rank=3)
    mlp = functools.partial(posterior_of, MLP(widths=(90, 90)), (16, 90, 90, 10), moments=False)
    rows = [
        *sgld_step("linear regression, d = 100", posterior_of(regression, (100, 1), NUM_DATA)),
        *sgld_step("deep linear 10-10-10-10", posterior_of(deep, deep.widths, NUM_DATA)),
        *sgld_step("MLP 16-90-90-10", mlp(NUM_DATA)),
        *moments("linear regression, d = 100", regression, (100, 1)),
        *moments("linear regression, d = 300", regression, (300, 1)),
        *moments("deep linear 10-10-10-10", deep, deep.widths),
    ]
    for sizes in ((64, 32, 10), (16, 90, 90, 10), (64, 256, 256, 10)):
        rows += mlp_gradient(sizes)
    with jax.enable_x64():
        hmc = HMC(step_size=1e-6, num_integration_steps=10, num_warmup=0)
        mclmc = MCLMC(step_size=1e-4, L=1.0, num_warmup=0)
        for num_data in (1000, NUM_DATA):
            posterior = mlp(num_data, "float64")
            rows += gradients(f"HMC-10, n = {num_data:,},", hmc, posterior)
            rows += gradients(f"MCLMC, n = {num_data:,},", mclmc, posterior)
    publish("speed", rows)
    sys.exit(any(row.is_met is False for row in rows))


if __name__ == "__main__":
    main()
