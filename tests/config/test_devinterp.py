"""Settings of devinterp in our words: the same chain, and a sentence on all that has no counterpart."""

from typing import Any

import pytest
import yaml

from lambda_hat.config.devinterp import DEFAULTS, converted
from lambda_hat.config.schema import ConfigError
from lambda_hat.config.settings import settings_of


def test_every_number_has_its_place() -> None:
    settings = {"lr": "1e-4", "nbeta": "300", "localization": "100", "batch_size": "64", "num_chains": "4",
                "num_draws": "500", "num_burnin_steps": "25", "num_steps_bw_draws": "10"}  # fmt: skip
    found = converted(settings)
    assert found.overrides == [
        "sampler=sgld", "sampler.step_size=0.0001", "sampler.batch_size=64", "sampler.steps_per_draw=10",
        "sampler.num_warmup=3", "sampler.measure_bias=True", "posterior.nbeta=300", "posterior.gamma=100",
        "num_chains=4", "budget.draws=500",
    ]  # fmt: skip
    assert found.arguments.startswith('lh.llc(problem, "sgld", nbeta=300, gamma=100, num_chains=4, ')
    assert "step_size=0.0001, batch_size=64, steps_per_draw=10, num_warmup=3, measure_bias=True)" in found.arguments
    assert not any("batch / log batch" in sentence for sentence in found.differences)


def test_its_defaults_are_said() -> None:
    """nbeta is that of a batch: accumulated ones count as one."""
    found = converted({"batch_size": "32", "gradient_accumulation_steps": "2"})
    assert "posterior.nbeta=15.3887" in found.overrides
    assert "sampler.batch_size=64" in found.overrides
    assert "budget.draws=100" in found.overrides
    told = " ".join(found.differences)
    assert "nbeta is 15.3887, which is batch / log batch with its batch of 64" in told
    assert "without burn-in" in told
    assert "gamma is 0" in told


@pytest.mark.parametrize("every", ["1", "10"])
def test_what_it_prints_is_a_setting_here(every: str) -> None:
    """Of the sampler and of the posterior, by their own schemas: a companion needs an even number of updates."""
    found = converted({"lr": "1e-4", "localization": "100", "batch_size": "64", "num_steps_bw_draws": every})
    pairs = dict(text.split("=") for text in found.overrides)
    fields = {name: yaml.safe_load(text) for name, text in pairs.items()}
    sampler = {name.removeprefix("sampler."): value for name, value in fields.items() if name.startswith("sampler.")}
    posterior = {name.removeprefix("posterior."): value for name, value in fields.items() if "posterior" in name}
    made: Any = settings_of("sgld", sampler, None, posterior=posterior, num_chains=10, seed=0)
    assert (made.sampler.step_size, made.sampler.batch_size, made.sampler.steps_per_draw) == (1e-4, 64, int(every))
    assert (made.posterior.gamma, made.sampler.decay, made.sampler.precond) == (100.0, 0.0, "none")
    assert made.sampler.measure_bias == (every == "10")
    assert any("even num_steps_bw_draws" in sentence for sentence in found.differences) == (every == "1")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"learning_rate": "1"}, "learning_rate: no such setting; they are lr, nbeta, "),
        ({"localisation": "1", "batch_size": "8"}, "did you mean localization?"),
        ({}, "batch_size: has no default"),
        ({"batch_size": "1"}, "nbeta: its default, batch / log batch, needs a batch of at least 2 rows"),
        ({"batch_size": "x"}, "batch_size: needs a whole number of at least 1, got x"),
        ({"batch_size": "8.5"}, "batch_size: needs a whole number of at least 1, got 8.5"),
        ({"batch_size": "8", "num_draws": "0"}, "num_draws: needs a whole number of at least 1, got 0"),
        ({"batch_size": "8", "lr": "nan"}, "lr: needs a number of at least 0, got nan"),
        ({"batch_size": "8", "lr": "0"}, "lr: needs to be above 0, got 0"),
        ({"batch_size": "8", "localization": "-1"}, "localization: needs a number of at least 0, got -1"),
        ({"batch_size": "8", "noise_level": "0.5"}, "noise_level: needs to be 1, got 0.5"),
        ({"batch_size": "8", "weight_decay": "1e-3"}, "weight_decay: needs to be 0, got 1e-3"),
    ],
)
def test_what_has_no_counterpart_is_refused(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        converted(settings)
    assert sentence in str(error.value)


def test_every_default_is_a_setting() -> None:
    given = {name: str(value) for name, value in DEFAULTS.items() if value is not None}
    assert converted({**given, "batch_size": "64"}).overrides == converted({"batch_size": "64"}).overrides
