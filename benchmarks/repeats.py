"""Many independent repeats of one small run, in one compiled program: what coverage.py and verdicts.py share.

A repeat is a whole run: its own key, its own warm-up, its own chains. They are advanced side by side by ``vmap``, which
costs far less than one after another, and changes none of them.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from lambda_hat.config.job import parse_job
from lambda_hat.config.schema import schema
from lambda_hat.estimation.statistics import Setting
from lambda_hat.estimation.trace import Trace
from lambda_hat.posterior import Posterior, localise
from lambda_hat.samplers.base import Sampler, StepInfo, sampler_of
from lambda_hat.targets.base import Target, build, model_of
from lambda_hat.targets.quadratic import Curvatures, Quadratic

SIDE_BY_SIDE = 100
TARGETS = "lambda_hat.targets"
SAMPLERS = "lambda_hat.samplers"


@schema("benchmarks.repeats.Lifted")
class Lifted(Quadratic):
    """A quadratic whose least loss is 10,000, as that of an unscaled regression may be."""

    def loss(self, data: Curvatures, w: Float[Array, " d"]) -> Float[Array, ""]:
        return 1e4 + super().loss(data, w)


class Problem(NamedTuple):
    """A posterior, what an estimate must know of it, and the exact value, where one is known."""

    posterior: Posterior
    setting: Setting
    exact: float | None


class Shape(NamedTuple):
    """How large a repeat is."""

    num_chains: int = 4
    num_draws: int = 500


def make_problem(
    model: Mapping[str, Any], data: Mapping[str, Any], posterior: Mapping[str, Any], sampler: Mapping[str, Any]
) -> tuple[Problem, Sampler]:
    """The problem in the sampler's dtype, and the sampler; call it, and all that uses it, under its ``enable_x64``."""
    job = parse_job(
        {
            "model": model,
            "data": data,
            "teacher": {"_target_": f"{TARGETS}.mlp.Teacher"},
            "training": {"_target_": f"{TARGETS}.training.Training"},
            "posterior": posterior,
            "sampler": sampler,
            "num_chains": 4,
            "seed": 0,
            "budget": {"draws": 1},
            "store": {},
        }
    )
    with jax.enable_x64(True):
        built = build(job)
    target = Target(jnp.asarray(built.w0), built.data, model_of(job), built.num_data).astype(job.sampler.dtype)
    nbeta, gamma = job.posterior.resolve_nbeta(built.num_data), job.posterior.gamma
    where = localise(target, nbeta, gamma)
    loss_at_w0 = float(where.loss_at_w0)
    chosen = sampler_of(job)
    traits = chosen.traits
    setting = Setting(
        nbeta, gamma, target.dim, target.num_data, loss_at_w0, built.report, chosen.num_warmup, traits.batch_size,
        traits.bias_knob, traits.noise_gain, traits.columns,
    )  # fmt: skip
    return Problem(where, setting, job.model.exact_llc(nbeta, gamma, built.report)), chosen


def repeats(sampler: Sampler, problem: Problem, shape: Shape, count: int) -> Iterator[Trace]:
    """The trace of each of ``count`` repeats, arrays (chain, draw)."""
    for first in range(0, count, SIDE_BY_SIDE):
        keys = jax.vmap(lambda seed: jax.random.key(seed, impl="threefry2x32"))(jnp.arange(first, first + SIDE_BY_SIDE))
        infos = _side_by_side(sampler, shape, problem.posterior, keys)
        columns = {name: np.swapaxes(np.asarray(leaf), 1, 2) for name, leaf in infos._asdict().items()}
        for repeat in range(min(SIDE_BY_SIDE, count - first)):
            yield {name: column[repeat] for name, column in columns.items()}


@functools.partial(jax.jit, static_argnames=("sampler", "shape"))
def _side_by_side(sampler: Sampler, shape: Shape, posterior: Posterior, keys: Key[Array, " repeat"]) -> StepInfo:
    return jax.vmap(functools.partial(_one, sampler, shape, posterior))(keys)


def _one(sampler: Sampler, shape: Shape, posterior: Posterior, key: Key[Array, ""]) -> StepInfo:
    """What lambda_hat.sampling.ensemble does, without chunks."""
    kernel = sampler.build(posterior, shape.num_chains)
    start_key, init_key, warmup_key, key = jax.random.split(key, 4)
    scale = 0.1 / jnp.sqrt(posterior.nbeta + posterior.gamma)
    u0 = scale * jax.random.normal(start_key, (shape.num_chains, posterior.dim), posterior.nbeta.dtype)

    def warm(state: PyTree, key: Key[Array, ""]) -> tuple[PyTree, None]:
        return kernel.adapt(key, state)[0], None

    def draw(state: PyTree, key: Key[Array, ""]) -> tuple[PyTree, StepInfo]:
        return kernel.step(key, state)

    state = kernel.init(init_key, u0)[0]
    if sampler.num_warmup:
        state, _ = jax.lax.scan(warm, state, jax.random.split(warmup_key, sampler.num_warmup))
    return jax.lax.scan(draw, kernel.finish(state), jax.random.split(key, shape.num_draws))[1]
