"""Arguments of llc, Budget and the samplers that are wrong: one sentence each, with what was probably meant."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import lambda_hat as lh
from lambda_hat.config.schema import ConfigError
from tests.test_api import SHORT

# A type checker would refuse what these tests give it.
BUDGET: Any = lh.Budget


@pytest.fixture(scope="module")
def problem() -> lh.Problem:
    return lh.Problem(lambda p: (p["w"] ** 2).sum(), {"w": jnp.ones(2)}, None, num_data=5000, examine="none")


@pytest.mark.parametrize(
    ("sampler", "arguments", "sentence"),
    [
        ("hcm", {}, r"sampler: needs one of .*, got 'hcm'; did you mean hmc\?"),
        ("hmc", {"step_sise": 0.1}, r"sampler\.step_sise: no such key; sampler .*did you mean step_size\?"),
        ("hmc", {"gama": 0.1}, r"gama: no such argument; did you mean gamma\?"),
        ("hmc", {"beta": 0.1}, r"beta: no such argument; did you mean nbeta\?"),
        ("hmc", {"num_chain": 2}, r"num_chain: no such argument; did you mean num_chains\?"),
        ("hmc", {"gamma": "a"}, r"posterior\.gamma: needs to be a valid number, got 'a'"),
        ("hmc", {"seed": -1}, r"seed: needs to be greater than or equal to 0, got -1"),
        ("hmc", {"seed": True}, r"seed: needs a number, not true or false, got True"),
        ("hmc", {"num_chains": 2.5}, r"num_chains: needs to be a valid integer, .*got 2\.5"),
        ("hmc", {"mass": "full"}, r"sampler\.mass: needs to be 'identity' or 'diagonal', got 'full'"),
        ("hmc", {"step_size": -1.0}, r"sampler\.step_size: .* greater than 0, got -1\.0"),
        ("hmc", {"gamma": -1.0}, r"posterior\.gamma: needs to be greater than or equal to 0, got -1\.0"),
        ("hmc", {"nbeta": math.nan}, r"posterior\.nbeta: .* finite number, got nan"),
        ("hmc", {"num_chains": 0}, r"num_chains: .* greater than 0, got 0"),
        ("hmc", {"budget": 100}, r"budget: needs a Budget such as Budget\(mcse=0\.02\), got 100"),
        ("sgld", {"batch_size": 5001}, r"sampler\.batch_size: needs at most the n = 5000 rows of the data, got 5001"),
        (SHORT, {"step_size": 0.1}, r"step_size: no such argument; set fields of a sampler in HMC\(\.\.\.\)"),
        (lh.samplers.HMC, {}, r"sampler: needs a preset's name .*, got the class HMC"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(problem: lh.Problem, sampler: Any, arguments: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as raised:
        lh.llc(problem, sampler, progress=False, **arguments)
    assert len(raised.value.faults) == 1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BUDGET(mcs=1), "Budget.mcs: no such key; Budget has draws, gradients, seconds, mcse; did you"),
        (lambda: BUDGET(5), "Budget: needs its fields by name, such as draws=..."),
        (lambda: BUDGET(), "Budget: needs at least one of draws, gradients, seconds, mcse; all are null"),
        (lambda: BUDGET(draws=-1), "Budget.draws: needs to be greater than 0, got -1"),
        (lambda: lh.samplers.HMC(step_size=0), "HMC.step_size: needs to be greater than 0, got 0"),
        (lambda: lh.samplers.SGLD(batch=9), "SGLD.batch: no such key; SGLD has "),
    ],
)  # fmt: skip
def test_wrong_arguments_of_a_budget_or_a_sampler_are_named(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make()
    assert str(raised.value).startswith(sentence)
    assert len(raised.value.faults) == 1


def test_gibbs_says_why_it_refuses_a_loss_of_ones_own(problem: lh.Problem) -> None:
    with pytest.raises(
        ConfigError, match=r"gibbs needs a square loss of a network .* but the problem is your own loss"
    ):
        lh.llc(problem, "gibbs", progress=False)


def test_a_loss_alone_is_no_problem() -> None:
    loss: Any = np.sum
    with pytest.raises(ConfigError, match=r"problem: needs a Problem\(loss, params, data\), got "):
        lh.llc(loss)
