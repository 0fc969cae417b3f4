"""What does a loss of one's own cost beside the built-in one of the same network, and how soon does it sample?

python -m benchmarks.own_cost
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import lambda_hat as lh
from benchmarks.kernels import cpu_seconds
from benchmarks.record import Row, publish
from benchmarks.speed import UPDATES, drawing, repeated
from lambda_hat.posterior import Posterior, localise
from lambda_hat.samplers.hmc import HMC
from lambda_hat.samplers.sgld import SGLD
from lambda_hat.targets.base import Rows, Target
from lambda_hat.targets.data import Sklearn
from lambda_hat.targets.mlp import MLP
from lambda_hat.targets.row_data import Classification

HIDDEN = 8
# The built-in network's full losses read rows as columns, and its gradients do not.
GRADIENTS_GOAL, LOSSES_GOAL = 1.1, 1.35
# Times its own compilation, and CPU seconds beside it.
COMPILATION, BESIDE = 1.2, 2.0
HMC_SAMPLER: Any = HMC(step_size=1e-6, num_integration_steps=10, num_warmup=0)
SGLD_SAMPLER = SGLD(step_size=1e-9, num_warmup=0, batch_size=256, steps_per_draw=10, measure_bias=False)


def digits() -> Rows:
    def refuse(*_: Any) -> Any:
        raise AssertionError("digits follow no teacher")

    return Sklearn(name="digits").rows(refuse)


def loss(params: Any, batch: Any) -> Any:
    """The cross-entropy of a network of two layers, as a user would write it."""
    logits = network(params, batch["x"])
    return jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, batch["y"][:, None], -1)[:, 0]


def masked(params: Any, batch: Any) -> Any:
    """The same without a gather, whose gradient is a scatter."""
    logits = network(params, batch["x"])
    return jax.nn.logsumexp(logits, -1) - jnp.where(batch["y"][:, None] == jnp.arange(10), logits, 0).sum(-1)


def network(params: Any, x: Any) -> Any:
    return jnp.tanh(x @ params["in"]["w"] + params["in"]["b"]) @ params["out"]["w"] + params["out"]["b"]


def problem(own: Callable[..., Any] = loss) -> lh.Problem:
    rng, rows = np.random.default_rng(0), digits()
    sizes = {"in": (64, HIDDEN), "out": (HIDDEN, 10)}
    params = {
        name: {"w": rng.standard_normal(size) / np.sqrt(size[0]), "b": np.zeros(size[1])}
        for name, size in sizes.items()
    }
    return lh.Problem(own, params, {"x": rows.inputs, "y": rows.outputs}, examine="none")


def posteriors(dtype: str, written: Callable[..., Any]) -> dict[str, Posterior]:
    """The same network, as one's own and as the built-in one."""
    own, rows = problem(written), digits()
    built = own.built()
    with jax.enable_x64(True):
        params = own.unravel(built.w0)
    w0 = np.concatenate([np.asarray(array).ravel() for name in ("in", "out") for array in both(params[name])])
    data = Classification(inputs=rows.inputs, outputs=rows.outputs, classes=np.arange(10, dtype=np.int32))
    targets = {
        "own": Target(jnp.asarray(built.w0), built.data, own.model, own.num_data),
        "built-in": Target(jnp.asarray(w0), data, MLP(widths=(HIDDEN,)), own.num_data),
    }
    nbeta = jnp.asarray(own.num_data / np.log(own.num_data), dtype)
    found = {name: localise(target.astype(dtype), nbeta, jnp.asarray(100.0, dtype)) for name, target in targets.items()}
    values = [float(posterior.loss_at_w0) for posterior in found.values()]
    assert np.isclose(*values, rtol=1e-5), values
    return found


def both(layer: Any) -> tuple[Any, Any]:
    """The weights (out, in) and biases of a layer."""
    return layer["w"].T, layer["b"]


def ratio(name: str, sampler: Any, written: Callable[..., Any], goal: float) -> Row:
    calls = {which: drawing(sampler, posterior, 10) for which, posterior in posteriors(sampler.dtype, written).items()}
    seconds = cpu_seconds(calls)
    note = f"{seconds['own'] * 100:.3g} against {seconds['built-in'] * 100:.3g} ms a draw of 4 chains"
    return Row(f"{name}, own over built-in", seconds["own"] / seconds["built-in"], "x", goal, False, note)


def parts(written: Callable[..., Any]) -> list[Row]:
    """The two parts of such a draw of SGLD: a full loss, and the gradient of a minibatch."""
    found = posteriors("float32", written)
    chains = jnp.zeros((4, next(iter(found.values())).dim), jnp.float32)
    batches = jnp.arange(4 * 256, dtype=jnp.int32).reshape(4, 256)

    def full_loss(key: Any, u: Array, posterior: Posterior) -> Array:
        del key
        return u + 1e-30 * jax.vmap(posterior.loss)(u)[:, None]

    def gradient(key: Any, u: Array, posterior: Posterior) -> Array:
        del key
        target = posterior.target
        slope = jax.grad(lambda u, batch: target.minibatch_loss(target.w0 + u, batch))
        return u - 1e-12 * jax.vmap(slope)(u, batches)

    rows: list[Row] = []
    for name, update in (("a full loss", full_loss), ("the gradient of 256 rows", gradient)):
        calls = {which: repeated(update, chains, posterior) for which, posterior in found.items()}
        seconds = {which: value / UPDATES for which, value in cpu_seconds(calls).items()}
        note = f"{seconds['own'] * 1e6:.3g} against {seconds['built-in'] * 1e6:.3g} us for 4 chains"
        rows.append(Row(f"{name}, own over built-in", seconds["own"] / seconds["built-in"], "x", note=note))
    return rows


class FirstDraw:
    """A reporter that notes the CPU time of the first line about sampling."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def line(self, text: str) -> None: ...

    def status(self, text: str) -> None:
        if not self.seconds and "sampling" in text:
            self.seconds = time.process_time()


def until_the_first_draw() -> float:
    """CPU seconds of ``Problem`` and ``llc`` up to their first draws."""
    import lambda_hat.api as api

    reporter = FirstDraw()
    api.session_reporter = lambda: contextlib.nullcontext(reporter)
    started = time.process_time()
    lh.llc(problem(), HMC_SAMPLER, gamma=100.0, budget=lh.Budget(draws=1))
    return reporter.seconds - started


def start() -> Row:
    """The second call compiles nothing, which tells what compilation takes of the first."""
    first, again = until_the_first_draw(), until_the_first_draw()
    compilation = first - again
    allowed = COMPILATION * compilation + BESIDE
    note = f"{first:.2f} CPU-s, of which compilation {compilation:.2f}; at most {allowed:.2f}"
    return Row(
        "Problem and llc to the first draw, beside compilation", again, "CPU-s", allowed - compilation, False, note
    )


def main() -> None:
    # Before JAX starts its threads. The last core: the first one serves the system.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    rows = [start()]
    for name, written in (("", loss), (", the label by a mask", masked)):
        rows.append(ratio(f"SGLD, 10 updates and a full loss a draw{name}", SGLD_SAMPLER, written, LOSSES_GOAL))
        rows += parts(written)
    with jax.enable_x64(True):
        rows.append(ratio("HMC-10", HMC_SAMPLER, loss, GRADIENTS_GOAL))
    publish("own_cost", rows)
    sys.exit(any(row.is_met is False for row in rows))


if __name__ == "__main__":
    main()
