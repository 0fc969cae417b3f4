"""The LLC of a Flax linen network with BatchNorm, whose statistics stay as trained."""

import flax.linen as nn
import jax
from optax import adam, apply_updates, cosine_decay_schedule
from optax import softmax_cross_entropy_with_integer_labels as losses_of
from sklearn.datasets import load_wine

import lambda_hat as lh

x, y = load_wine(return_X_y=True)
data = {"x": x, "y": y}  # as measured: the BatchNorm normalises


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(3)(nn.tanh(nn.Dense(2)(x)))


def loss(params, stats, batch):
    """One cross-entropy a row, shape (B,)."""
    return losses_of(net.apply({"params": params, "batch_stats": stats}, batch["x"]), batch["y"])


@jax.jit
def step(params, stats, state):
    def mean(params):
        variables = {"params": params, "batch_stats": stats}
        logits, moved = net.apply(variables, data["x"], train=True, mutable=["batch_stats"])
        return losses_of(logits, data["y"]).mean(), moved["batch_stats"]

    slope, stats = jax.grad(mean, has_aux=True)(params)
    updates, state = optimizer.update(slope, state)
    return apply_updates(params, updates), stats, state


net, optimizer = Net(), adam(cosine_decay_schedule(0.02, 2000))
params, stats = map(net.init(jax.random.key(0), data["x"]).get, ["params", "batch_stats"])
state = optimizer.init(params)
for _ in range(2000):
    params, stats, state = step(params, stats, state)
print(lh.llc(lh.Problem(loss, params, data, state=stats), gamma=10.0, num_warmup=300, budget=lh.Budget(draws=800)))
