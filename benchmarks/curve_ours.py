"""Our side of curve.py, in a process of its own: `lh.trajectory` in memory.

python -m benchmarks.curve_ours CURVE --train    trains the network and saves its rows and checkpoints
python -m benchmarks.curve_ours CURVE            answers {"seed": ...}, one JSON line each, until stdin ends
"""

import functools
import json
import os
import sys
import time
from typing import Any

# Before JAX is loaded: it makes as many threads as it may use cores.
if __name__ == "__main__":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lambda_hat as lh
from benchmarks.curve_problems import (
    CHECKPOINTS,
    CURVES,
    HEADS,
    MLP,
    NUM_CHAINS,
    PRIME,
    STEPS_A_DRAW,
    Answer,
    Curve,
    spread,
)
from benchmarks.own_cost import digits

_UPDATES = {"mlp": 2_000, "transformer": 400}


def mlp(params: Any, x: Any) -> Any:
    hidden = jnp.tanh(x @ params["0.weight"].T + params["0.bias"])
    return hidden @ params["2.weight"].T + params["2.bias"]


def transformer(params: Any, tokens: Any) -> Any:
    """One layer: attention over three tokens, then an MLP; the last token's logits."""
    x = params["embed"][tokens] + params["position"]
    query, key, value = (
        (x @ params[name]).reshape(*x.shape[:2], HEADS, -1).swapaxes(1, 2) for name in ("query", "key", "value")
    )
    weights = jax.nn.softmax(query @ key.swapaxes(-1, -2) / key.shape[-1] ** 0.5, -1)
    x = x + (weights @ value).swapaxes(1, 2).reshape(x.shape) @ params["mix"]
    x = x + jax.nn.relu(x @ params["up"]) @ params["down"]
    return x[:, -1] @ params["unembed"]


def loss(network: Any, params: Any, batch: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(network(params, batch["x"]), batch["y"])


def rows_of(curve: Curve) -> dict[str, Any]:
    if curve.name == MLP.name:
        rows = digits()
        return {"x": rows.inputs.astype(np.float32), "y": rows.outputs.astype(np.int64)}
    one, other = (axis.ravel() for axis in np.meshgrid(np.arange(PRIME), np.arange(PRIME)))
    tokens = np.stack([one, other, np.full_like(one, PRIME)], 1)
    kept = np.random.default_rng(0).permutation(len(tokens))[: len(tokens) // 3]
    return {"x": tokens[kept], "y": ((one + other) % PRIME)[kept]}


def train(curve: Curve) -> None:
    """Adam in minibatches, and CHECKPOINTS checkpoints along the way."""
    curve.folder.mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(0), rows_of(curve)
    np.savez(curve.folder / "rows.npz", **rows)
    params: Any = {
        name: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in curve.shapes.items()
    }
    optimiser = optax.adam(3e-3)
    state, own = optimiser.init(params), functools.partial(loss, NETWORKS[curve.name])

    @jax.jit
    def update(params: Any, state: Any, batch: Any) -> Any:
        gradient = jax.grad(lambda at: own(at, batch).mean())(params)
        changes, state = optimiser.update(gradient, state)
        return optax.apply_updates(params, changes), state

    updates = _UPDATES[curve.name]
    for step in range(1, updates + 1):
        chosen = rng.integers(len(rows["y"]), size=256)
        params, state = update(params, state, {name: array[chosen] for name, array in rows.items()})
        if step % (updates // CHECKPOINTS) == 0:
            np.savez(curve.folder / f"step_{step:05}.npz", **params)


def answer(curve: Curve, problem: lh.Problem, seed: int) -> Answer:
    sampler = lh.samplers.SGLD(
        step_size=curve.step_size, batch_size=curve.batch_size, num_warmup=curve.warmup // STEPS_A_DRAW,
        steps_per_draw=STEPS_A_DRAW, measure_bias=False,
    )  # fmt: skip
    budget = lh.Budget(draws=curve.draws // STEPS_A_DRAW)
    asked: dict[str, Any] = {"gamma": curve.gamma, "budget": budget, "num_chains": NUM_CHAINS, "seed": seed}
    found: list[tuple[float, float]] = []
    for checkpoint in lh.checkpoints(curve.folder / "step_*.npz"):
        estimate = lh.llc(problem.at(checkpoint), sampler, progress=False, **asked)
        chains = estimate.draws["loss"].mean(1, dtype=float) - estimate.setting.loss_at_w0
        found.append(spread(estimate.setting.nbeta * chains))
    return {"llcs": found}


NETWORKS = {"mlp": mlp, "transformer": transformer}


def main() -> None:
    curve = CURVES[sys.argv[1]]
    if sys.argv[2:] == ["--train"]:
        return train(curve)
    first = dict(np.load(curve.checkpoints[0]))
    problem = lh.Problem(functools.partial(loss, NETWORKS[curve.name]), first, curve.rows())
    spent = 0.0
    for line in sys.stdin:
        found = answer(curve, problem, json.loads(line)["seed"])
        # The first has what it takes to begin, too.
        spent, before = time.process_time(), spent
        print(json.dumps({**found, "cpu_seconds": spent - before}), flush=True)
    return None


if __name__ == "__main__":
    main()
