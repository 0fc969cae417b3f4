"""The LLC of a Flax NNX module with dropout, which is off: trained here, estimated by HMC, judged."""

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_iris

import lambda_hat as lh

x, y = load_iris(return_X_y=True)
data = {"x": np.float32((x - x.mean(0)) / x.std(0)), "y": np.int32(y)}


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(4, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(jnp.tanh(self.hidden(x))))


def row_losses(net, batch):
    return optax.softmax_cross_entropy_with_integer_labels(net(batch["x"]), batch["y"])


@nnx.jit
def step(net, optimizer):
    optimizer.update(net, nnx.grad(lambda net: row_losses(net, data).mean())(net))


net = Net(nnx.Rngs(0))
optimizer = nnx.Optimizer(net, optax.adam(optax.cosine_decay_schedule(0.02, 2000)), wrt=nnx.Param)
step = nnx.cached_partial(step, net, optimizer)  # 2000 steps in a second
for _ in range(2000):
    step()

net.eval()
graphdef, params, rest = nnx.split(net, nnx.Param, ...)
problem = lh.Problem(lambda p, rest, batch: row_losses(nnx.merge(graphdef, p, rest), batch), params, data, state=rest)
print(lh.llc(problem, gamma=10.0, num_warmup=300, budget=lh.Budget(draws=800)))
