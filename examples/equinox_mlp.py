"""The LLC of an Equinox network that predicts a number: trained here, estimated by HMC, judged."""

import equinox as eqx
import jax
import numpy as np
import optax
from sklearn.datasets import load_diabetes

import lambda_hat as lh

x, y = load_diabetes(return_X_y=True)
data = {"x": np.float32(x / x.std(0)), "y": np.float32((y - y.mean()) / y.std())}
net = eqx.nn.MLP(10, "scalar", width_size=3, depth=1, activation=jax.nn.tanh, key=jax.random.key(0))
params, static = eqx.partition(net, eqx.is_inexact_array)


def loss(params, batch):
    """Half of the squared error of each row, shape (B,)."""
    predictions = jax.vmap(eqx.combine(params, static))(batch["x"])
    return 0.5 * (predictions - batch["y"]) ** 2


optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 2000))
state = optimizer.init(params)


@jax.jit
def step(params, state):
    updates, state = optimizer.update(jax.grad(lambda params: loss(params, data).mean())(params), state)
    return optax.apply_updates(params, updates), state


for _ in range(2000):
    params, state = step(params, state)
print(lh.llc(lh.Problem(loss, params, data), sampler="hmc", num_warmup=300, budget=lh.Budget(draws=800)))
