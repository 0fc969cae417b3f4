"""The adapters of docs/own_models.md, as they stand there, each with its library."""

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import lambda_hat as lh
from tests.frameworks.networks import row_losses

ROOT = Path(__file__).resolve().parents[2]
INPUTS, HIDDEN, CLASSES = 4, 3, 2
# Two layers' weights and biases.
DIM = INPUTS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES
_RNG = np.random.default_rng(0)
DATA = {"x": _RNG.standard_normal((24, INPUTS)), "y": _RNG.integers(CLASSES, size=24)}


class NNX(nnx.Module):
    def __init__(self, rngs: Any):
        self.hidden, self.out = nnx.Linear(INPUTS, HIDDEN, rngs=rngs), nnx.Linear(HIDDEN, CLASSES, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.out(self.dropout(jnp.tanh(self.hidden(x))))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> Any:
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(HIDDEN)(x))
        return nn.Dense(CLASSES)(jnp.tanh(x))


def names_of(framework: str) -> dict[str, Any]:
    """What a reader has defined before the block."""
    key, row = jax.random.key(0), jnp.zeros((1, INPUTS))
    match framework:
        case "Flax NNX":
            return {"nnx": nnx, "net": NNX(nnx.Rngs(0))}
        case "Flax linen":
            net = Linen()
            return {"net": net, "variables": net.init(key, row, train=False)}
        case "Equinox":
            return {"eqx": eqx, "net": eqx.nn.MLP(INPUTS, CLASSES, HIDDEN, depth=1, key=key)}
        case _:

            def forward(x: Any) -> Any:
                return hk.nets.MLP([HIDDEN, CLASSES])(x)

            return {"hk": hk, "forward": forward, "params": hk.transform(forward).init(key, row)}


@pytest.mark.parametrize(
    ("framework", "dim"), [("Flax NNX", DIM), ("Flax linen", DIM + 2 * HIDDEN), ("Equinox", DIM), ("Haiku", DIM)]
)
def test_an_adapter_of_the_page_makes_a_problem(framework: str, dim: int) -> None:
    page = (ROOT / "docs" / "own_models.md").read_text()
    block = re.search(rf"^{framework}: .*?```python\n(.*?)```", page, flags=re.DOTALL | re.MULTILINE)
    assert block is not None
    quick: Any = SimpleNamespace(Problem=partial(lh.Problem, examine="none"))
    names = {"lh": quick, "jax": jax, "data": DATA, "losses": lambda logits, batch: row_losses(logits, batch["y"])}
    names |= names_of(framework)
    exec(compile(block[1], f"docs/own_models.md, {framework}", "exec"), names)
    problem: Any = names["problem"]
    assert problem.built().w0.shape == (dim,)
