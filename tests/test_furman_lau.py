"""The field's benchmark on deep linear networks: its draws, its shipped workflows, its scores. Nothing is sampled."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.furman_lau import NAMES, Found, Result, is_met, order, table
from benchmarks.furman_lau_classes import CLASSES, LADDER, NETWORKS, Network, document, draw
from lambda_hat.config.presets import config_dir
from lambda_hat.estimation.estimate import LLC
from lambda_hat.estimation.temperatures import Asymptotics
from lambda_hat.targets.deep_linear import DeepLinear
from lambda_hat.targets.exact import deep_linear_lambda


@pytest.mark.parametrize("name", CLASSES)
def test_the_shipped_workflow_is_what_the_draw_makes(name: str) -> None:
    """Sees a draw, a step size or a budget that was changed in one place only."""
    path = config_dir() / "workflow" / f"furman_lau_{name.lower()}.yaml"
    assert path.read_text() == document(name), f"run `python -m benchmarks.furman_lau --class {name} --write`"


@pytest.mark.parametrize("name", CLASSES)
def test_networks_are_of_their_class(name: str) -> None:
    of = CLASSES[name]
    drawn = [draw(of, index) for index in range(NETWORKS)]
    for network in drawn:
        assert DeepLinear(widths=tuple(network.widths), rank=network.rank).known_lambda() is not None
        assert network.rank >= 1
    assert {len(network.widths) - 1 for network in drawn} == set(range(of.layers[0], of.layers[1] + 1))
    widths = [width for network in drawn for width in network.widths]
    assert of.widths[0] <= min(widths)
    assert max(widths) <= of.widths[1]
    # A layer keeps its rank half of the time, so one network in four to a thousand is of full rank.
    full = [network for network in drawn if network.rank == min(network.widths)]
    assert 0 < len(full) < NETWORKS / 2
    assert len({deep_linear_lambda(*network)[0] for network in drawn}) > 0.9 * NETWORKS


@pytest.mark.parametrize("name", CLASSES)
def test_gradients_fit_into_the_published_budget(name: str) -> None:
    """By their arithmetic, all five runs of HMC together."""
    of = CLASSES[name]
    for index, target in enumerate(yaml.safe_load(document(name))["targets"]):
        network = draw(of, index)
        a_run = target["overrides"]["budget.gradients"] / of.num_data
        cost = (len(LADDER) + 1) * a_run * network.rows_a_gradient
        assert cost <= of.steps * 500
        assert cost == pytest.approx(of.share * of.steps * 500, rel=0.01)


def test_a_second_moment_gradient_costs_the_cheapest_product() -> None:
    """Sees the order of the layers taken for the order of the multiplications."""
    assert Network([7, 5], 1).rows_a_gradient == 0.0
    assert Network([7, 5, 3], 1).rows_a_gradient == 7 * 5 * 3 / (7 * 5 + 5 * 3)
    wide = Network([100, 100, 2, 100, 100], 1)
    assert wide.rows_a_gradient == (2 * 100 * 100 * 2 + 100 * 2 * 100) / (2 * 100 * 100 + 2 * 2 * 100)


def test_order_is_the_share_of_pairs_that_differ_in_truth() -> None:
    assert order([1.0, 2.0, 3.0], [10.0, 20.0, 30.0]) == 1.0
    assert order([1.0, 3.0, 2.0], [10.0, 20.0, 30.0]) == pytest.approx(2 / 3)
    assert order([5.0, 4.0, 9.0], [10.0, 10.0, 30.0]) == 1.0
    assert order([2.0, 1.0], [1.0, 2.0]) == 0.0
    assert math.isnan(order([2.0], [1.0]))
    rng = np.random.default_rng(0)
    assert order(rng.random(200).tolist(), list(range(200))) == pytest.approx(0.5, abs=0.1)


def _result(known: float, fitted: float) -> Result:
    nothing: Any = None
    fit = Asymptotics(fitted, 1.0, (fitted - 1.6, fitted + 1.6), 1, (1.0,), (1.0,), 0.5, ())
    found = Found(LLC(fitted, 1.0), 500.0, 2500.0, 5e7)
    return Result(known, fit, dict.fromkeys(NAMES, found), nothing)


def test_the_table_and_the_goals() -> None:
    """Sees an error relative to the estimate, a mean for the median, or a goal that cannot be missed."""
    good = [_result(known, known * 1.01) for known in (10.0, 20.0, 40.0)]
    line = table(CLASSES["1K"], good).splitlines()[2]
    assert line == "| hmc, fitted lambda | 3 | 1.0% | 1.0% | 1.0000 | 0.05 | 0.00 | 10 |"
    assert is_met(good)
    assert is_met([*good[:2], _result(40.0, 80.0)])
    assert not is_met([_result(known, known * 1.03) for known in (10.0, 20.0, 40.0)])
    swapped = [_result(known, fitted) for known, fitted in itertools.zip_longest((10.0, 10.01), (10.01, 10.0))]
    assert not is_met(swapped)
