"""The LLC of a small network of plain JAX: trained here, estimated by HMC, judged.

python examples/plain_jax.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import lambda_hat as lh

pixels, labels = load_digits(return_X_y=True)
data = {"x": np.float32(pixels / 16), "y": np.int32(labels)}
rng = np.random.default_rng(0)
params = {
    "hidden": {"w": np.float32(rng.normal(size=(64, 8)) / 8), "b": np.zeros(8, np.float32)},
    "out": {"w": np.float32(rng.normal(size=(8, 10)) / 3), "b": np.zeros(10, np.float32)},
}


def loss(params, batch):
    """One cross-entropy a row, shape (B,)."""
    hidden = jnp.tanh(batch["x"] @ params["hidden"]["w"] + params["hidden"]["b"])
    logits = hidden @ params["out"]["w"] + params["out"]["b"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])


optimizer = optax.adam(optax.cosine_decay_schedule(0.01, 2000))
state = optimizer.init(params)


@jax.jit
def step(params, state):
    updates, state = optimizer.update(jax.grad(lambda params: loss(params, data).mean())(params), state)
    return optax.apply_updates(params, updates), state


for _ in range(2000):
    params, state = step(params, state)

budget = lh.Budget(draws=500)
print(lh.llc(lh.Problem(loss, params, data), sampler="hmc", gamma=10.0, num_warmup=300, budget=budget))
