"""Chains that several devices share out are those of one device, to the last bit. The tests run on two."""

import dataclasses
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lambda_hat.posterior import Posterior, localise
from lambda_hat.samplers.base import group_size
from lambda_hat.samplers.hmc import HMC
from lambda_hat.samplers.sgld import SGLD
from lambda_hat.samplers.vi import VI
from lambda_hat.sampling import ensemble as chain
from lambda_hat.targets.base import Rows, Target
from lambda_hat.targets.mlp import MLP
from lambda_hat.targets.row_data import regression
from tests.samplers.problem import Problem, Run


class Both:
    """Two runs of the same chains, on two devices and on one; each of the two has one group of chains."""

    def __init__(self, sampler: Any, posterior: Posterior, monkeypatch: pytest.MonkeyPatch):
        num_chains = 2 * group_size(4, posterior.dim, in_pairs=sampler.traits.in_pairs)
        self.two = Run(sampler, posterior, num_chains)
        assert self.two.ensemble._sharing is not None
        monkeypatch.setattr(chain, "_num_devices", lambda *_: 1)
        self.one = Run(sampler, posterior, num_chains)
        assert self.one.ensemble._sharing is None

    def advance(self, phase: chain.Phase, length: int) -> None:
        two, one = (run.advance(phase, length) for run in (self.two, self.one))
        for name in one:
            np.testing.assert_array_equal(one[name], two[name], err_msg=f"{phase} {name}")
        for left, right in zip(*(jax.tree.leaves(run.state) for run in (self.one, self.two)), strict=True):
            np.testing.assert_array_equal(np.asarray(left), np.asarray(right), err_msg=phase)

    def finish(self) -> None:
        self.one.finish()
        self.two.finish()


@pytest.mark.everyday("hmc", "sgld")  # one of each kind of grouping
def test_two_devices_make_the_chains_of_one(
    sampler: Any, preset: Any, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sees keys that depend on the device, warm-up that pools one device's chains alone, and a checkpoint of one number
    of devices that another cannot continue."""
    del preset  # that of the sampler
    # As many parameters as it takes for devices to share the chains.
    large = Problem(h=300 * problem.h, c=300 * problem.c)
    short = dataclasses.replace(sampler, steps_per_draw=4)
    both = Both(short, large.posterior(sampler.dtype), monkeypatch)
    both.advance("warmup", 5)
    both.finish()
    both.advance("sampling", 3)
    both.one.state, both.two.state = both.two.state, both.one.state
    both.advance("sampling", 3)


@pytest.mark.parametrize(
    "sampler",
    [
        SGLD(batch_size=100, steps_per_draw=4, num_warmup=20),
        pytest.param(HMC(dtype="float32", num_warmup=20), marks=pytest.mark.slow),
        pytest.param(VI(num_warmup=20), marks=pytest.mark.slow),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_a_network_has_the_same_chains_on_two_devices(sampler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sees sums whose order depends on how many chains a device has."""
    model, rng = MLP(widths=(26, 24)), np.random.default_rng(0)
    data = regression(Rows(rng.standard_normal((500, 8)), rng.standard_normal((500, 3)), None, 1.0))
    w0 = jnp.asarray(model.initial(rng, 8, 3), "float32")
    target = Target(w0, data, model, 500).astype("float32")
    both = Both(sampler, localise(target, 80.0, 100.0), monkeypatch)
    both.advance("warmup", 10)
    both.finish()
    both.advance("sampling", 3)


# What a command has imported once it has read its job.
_SCHEMAS = """
import importlib, os, pkgutil
import jax
from jax._src import xla_bridge
import lambda_hat.samplers, lambda_hat.targets
from lambda_hat.sampling.devices import one_a_core
for package in (lambda_hat.samplers, lambda_hat.targets):
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(found.name)
"""


def _printed(code: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _in_a_process(num_cores: int, argument: str, told: str) -> str:
    """What a process prints that may use so many cores, and calls ``one_a_core(argument)`` once all schemas are
    imported."""
    cores = sorted(os.sched_getaffinity(0))[:num_cores]
    return _printed(
        f"import os; os.sched_setaffinity(0, {cores}){_SCHEMAS}"
        f"one_a_core({argument}); devices = jax.devices(); print({told})"
    )


@pytest.mark.parametrize("num_cores", [1, 2])
def test_a_process_has_a_device_for_each_core(num_cores: int) -> None:
    """Sees the cores of the machine counted instead of those that the process may use."""
    usable = min(num_cores, len(os.sched_getaffinity(0)))
    assert int(_in_a_process(num_cores, "", "len(devices)")) == usable


@pytest.mark.parametrize(("dim", "expected"), [(899, 1), (900, 2)])
def test_a_target_of_few_parameters_has_one_device_and_one_thread(dim: int, expected: int) -> None:
    """Sees threads between which XLA hands small operations over and back."""
    usable = min(expected, len(os.sched_getaffinity(0)))
    names = "(open(f'/proc/self/task/{task}/comm').read() for task in os.listdir('/proc/self/task'))"
    told = f"len(devices), sum('XLAEigen' in name for name in {names})"
    assert _in_a_process(2, f"{{'dim': {dim}}}", told) == f"{usable} {usable}"


def test_a_backend_that_runs_keeps_its_devices() -> None:
    """Sees JAX asked too late for another number of devices, an error, and an environment changed for nothing."""
    told = "[name for name in ('NPROC', 'XLA_FLAGS', 'OPENBLAS_NUM_THREADS') if name in os.environ]"
    assert _printed(f"{_SCHEMAS}jax.devices(); one_a_core(); print(len(jax.devices()), {told})") == "1 []"


def test_importing_samplers_and_targets_starts_no_backend() -> None:
    """Sees planning take a GPU, or the number of devices settled before one_a_core asks for it."""
    assert _printed(f"{_SCHEMAS}print(xla_bridge.backends_are_initialized())") == "False"


@pytest.mark.parametrize("dim", [899, 900])
def test_lapack_has_one_thread(dim: int) -> None:
    """Sees devices that wait for LAPACK's threads."""
    library = "next(line.split()[-1] for line in open('/proc/self/maps') if 'scipy_openblas-' in line)"
    told = f"__import__('scipy.linalg') and __import__('ctypes').CDLL({library}).scipy_openblas_get_num_threads()"
    assert _in_a_process(2, f"{{'dim': {dim}}}", told) == "1"
