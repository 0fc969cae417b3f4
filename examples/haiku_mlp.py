"""The LLC of a Haiku network: trained here, estimated by HMC, judged."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_iris

import lambda_hat as lh

x, y = load_iris(return_X_y=True)
data = {"x": np.float32((x - x.mean(0)) / x.std(0)), "y": np.int32(y)}
net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([3, 3], activation=jnp.tanh)(x)))
params = net.init(jax.random.key(0), data["x"])


def loss(params, batch):
    """One cross-entropy a row, shape (B,)."""
    return optax.softmax_cross_entropy_with_integer_labels(net.apply(params, batch["x"]), batch["y"])


optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 2000))
state = optimizer.init(params)


@jax.jit
def step(params, state):
    updates, state = optimizer.update(jax.grad(lambda params: loss(params, data).mean())(params), state)
    return optax.apply_updates(params, updates), state


for _ in range(2000):
    params, state = step(params, state)
print(lh.llc(lh.Problem(loss, params, data), sampler="hmc", num_warmup=300, budget=lh.Budget(draws=800)))
