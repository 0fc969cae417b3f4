"""The peer's side, run by the peer's own Python: devinterp 1.3.2 on one problem, fed as fast as its users can feed it.

    python peer_devinterp.py FOLDER THREADS                answers requests, one JSON line each, until stdin ends
    python peer_devinterp.py FOLDER THREADS REQUEST        answers one, and ends

A request is {"seed", "warmup", "draws"}, in updates; an answer has the seconds and CPU seconds of the sampling alone,
the LLC of each chain, and its mean over every 50 updates.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

# Before torch is loaded: its threads would wait in a busy loop, which is CPU time for nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from devinterp.optim import SGLD
from devinterp.slt.llc import LLCEstimator
from devinterp.slt.sampler import sample
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

BLOCK = 50


class Sliced(DataLoader):
    """Minibatches as slices of tensors: the rows of an epoch are drawn at once, with replacement, as ours are.

    devinterp wants a DataLoader, whose own way, an item at a time, would be the larger half of its time.
    """

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        tensors, size = self.dataset.tensors, self.batch_size
        rows = torch.randint(len(tensors[0]), (len(self) * size,))
        drawn = [tensor[rows] for tensor in tensors]
        for first in range(0, len(rows), size):
            yield tuple(tensor[first : first + size] for tensor in drawn)


def network(settings: dict, w0: np.ndarray) -> nn.Module:
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(settings["sizes"], settings["sizes"][1:], strict=False):
        layers.append(nn.Linear(fan_in, fan_out, bias=settings["has_bias"]))
        if settings["activation"] == "tanh":
            layers.append(nn.Tanh())
    model = nn.Sequential(*layers[:-1] if settings["activation"] == "tanh" else layers)
    nn.utils.vector_to_parameters(torch.from_numpy(w0), model.parameters())
    return model


def evaluate(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The mean over rows of 0.5 ||y - f(x)||^2, or of the cross-entropy where outputs are labels."""
    inputs, outputs = batch
    if outputs.ndim == 1:
        return cross_entropy(model(inputs), outputs)
    return 0.5 * outputs.shape[1] * mse_loss(model(inputs), outputs)


class Peer:
    """One problem, ready to be sampled."""

    def __init__(self, folder: Path) -> None:
        self.settings = json.loads((folder / "settings.json").read_text())
        rows = np.load(folder / "rows.npz")
        tensors = [torch.from_numpy(rows[name]) for name in ("inputs", "outputs")]
        self.model = network(self.settings, rows["w0"])
        self.loader = Sliced(TensorDataset(*tensors), batch_size=self.settings["batch_size"])
        with torch.no_grad():
            self.init_loss = evaluate(self.model, tensors).item()

    def answer(self, request: dict) -> dict:
        nbeta, num_chains = self.settings["nbeta"], self.settings["num_chains"]
        llc = LLCEstimator(num_chains, request["draws"], init_loss=self.init_loss, nbeta=nbeta)
        started, cpu = time.perf_counter(), time.process_time()
        sample(
            model=self.model, loader=self.loader, callbacks=[llc], evaluate=evaluate, sampling_method=SGLD,
            optimizer_kwargs={
                "lr": self.settings["step_size"], "localization": self.settings["gamma"], "nbeta": nbeta,
            },
            num_draws=request["draws"], num_burnin_steps=request["warmup"], num_chains=num_chains,
            init_loss=self.init_loss, seed=request["seed"], verbose=False,
        )  # fmt: skip
        return {
            "cpu_seconds": time.process_time() - cpu,
            "seconds": time.perf_counter() - started,
            "chain_steps": num_chains * (request["warmup"] + request["draws"]),
            "llcs": llc.llc_per_chain.tolist(),
            "blocks": (nbeta * (llc.losses.reshape(num_chains, -1, BLOCK).mean(-1) - self.init_loss)).tolist(),
        }


def main() -> None:
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # devinterp warns at each chain that its own default sampler is deprecated
    peer = Peer(folder)
    for line in sys.argv[3:] or sys.stdin:
        print(json.dumps(peer.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
