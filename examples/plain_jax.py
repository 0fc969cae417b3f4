"""The LLC of a small network of plain JAX: trained here, estimated by HMC, judged."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_iris

import lambda_hat as lh

x, y = load_iris(return_X_y=True)
data = {"x": np.float32((x - x.mean(0)) / x.std(0)), "y": np.int32(y)}
rng = np.random.default_rng(0)
params = {
    "hidden": {"w": np.float32(rng.normal(size=(4, 3)) / 2), "b": np.zeros(3, np.float32)},
    "out": {"w": np.float32(rng.normal(size=(3, 3))), "b": np.zeros(3, np.float32)},
}


def loss(params, batch):
    """One cross-entropy a row, shape (B,)."""
    hidden = jnp.tanh(batch["x"] @ params["hidden"]["w"] + params["hidden"]["b"])
    logits = hidden @ params["out"]["w"] + params["out"]["b"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])


optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 2000))
state = optimizer.init(params)


@jax.jit
def step(params, state):
    updates, state = optimizer.update(jax.grad(lambda params: loss(params, data).mean())(params), state)
    return optax.apply_updates(params, updates), state


for _ in range(2000):
    params, state = step(params, state)
print(lh.llc(lh.Problem(loss, params, data), sampler="hmc", num_warmup=300, budget=lh.Budget(draws=800)))
