"""The peer's side of curve.py, run by the peer's own Python: devinterp 1.3.2, one checkpoint after the other.

python curve_devinterp.py CURVE        answers {"seed": ...}, one JSON line each, until stdin ends
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path

# Before torch is loaded: its threads would wait in a busy loop, which is CPU time for nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from devinterp.optim import SGLD
from devinterp.slt.llc import LLCEstimator
from devinterp.slt.sampler import sample
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from benchmarks.curve_problems import CURVES, HEADS, MLP, NUM_CHAINS, Curve, spread
from benchmarks.peer_devinterp import Sliced


class Transformer(nn.Module):
    """One layer: attention over three tokens, then an MLP; the last token's logits."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed[tokens] + self.position
        query, key, value = (
            (x @ weight).unflatten(-1, (HEADS, -1)).transpose(1, 2) for weight in (self.query, self.key, self.value)
        )
        weights = torch.softmax(query @ key.transpose(-1, -2) / key.shape[-1] ** 0.5, -1)
        x = x + (weights @ value).transpose(1, 2).flatten(2) @ self.mix
        x = x + torch.relu(x @ self.up) @ self.down
        return x[:, -1] @ self.unembed


def network(curve: Curve) -> nn.Module:
    if curve.name == MLP.name:
        return nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10))
    return Transformer(curve.shapes)


def evaluate(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    inputs, labels = batch
    return cross_entropy(model(inputs), labels)


def answer(curve: Curve, model: nn.Module, loader: Sliced, seed: int) -> dict:
    found = []
    tensors = loader.dataset.tensors
    nbeta = curve.nbeta(len(tensors[0]))
    for path in curve.checkpoints:
        model.load_state_dict({name: torch.from_numpy(array) for name, array in np.load(path).items()})
        with torch.no_grad():
            init_loss = evaluate(model, tensors).item()
        llc = LLCEstimator(NUM_CHAINS, curve.draws, init_loss=init_loss, nbeta=nbeta)
        sample(
            model=model, loader=loader, callbacks=[llc], evaluate=evaluate, sampling_method=SGLD,
            optimizer_kwargs={"lr": curve.step_size, "localization": curve.gamma, "nbeta": nbeta},
            num_draws=curve.draws, num_burnin_steps=curve.warmup, num_chains=NUM_CHAINS, init_loss=init_loss,
            seed=seed, verbose=False,
        )  # fmt: skip
        found.append(spread(llc.llc_per_chain.numpy()))
    return {"llcs": found}


def main() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # devinterp warns at each chain that its own default sampler is deprecated
    curve = CURVES[sys.argv[1]]
    rows = curve.rows()
    dataset = TensorDataset(*(torch.from_numpy(rows[name]) for name in ("x", "y")))
    model, loader = network(curve), Sliced(dataset, batch_size=curve.batch_size)
    spent = 0.0
    for line in sys.stdin:
        found = answer(curve, model, loader, json.loads(line)["seed"])
        # The first has what it takes to begin, too.
        spent, before = time.process_time(), spent
        print(json.dumps({**found, "cpu_seconds": spent - before}), flush=True)


if __name__ == "__main__":
    main()
