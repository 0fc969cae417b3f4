"""Plateaus of made-up grids: what counts as one, and which of its steps is recommended."""

import math

import numpy as np
import pytest

from lambda_hat.estimation.plateau import Cell, Plateau, agree, best_plateau, find_plateau, posteriors


def cell(
    step_size: float, llc: float, mcse: float = 0.1, *reasons: str, gamma: float = 1.0, nbeta: float = 100.0
) -> Cell:
    return Cell(step_size, gamma, nbeta, llc, mcse, reasons, f"run_sgld_{step_size:g}_{gamma:g}_{nbeta:g}")


def found(*cells: Cell) -> Plateau:
    plateau = find_plateau(cells)
    assert plateau is not None
    return plateau


def test_agreement_is_within_three_errors_or_one_percent() -> None:
    assert agree(cell(1e-5, 10.0), cell(1e-4, 10.42))
    assert not agree(cell(1e-5, 10.0), cell(1e-4, 10.43))
    assert agree(cell(1e-5, 10.0, 1e-6), cell(1e-4, 10.1, 1e-6))
    assert not agree(cell(1e-5, 10.0, 1e-6), cell(1e-4, 10.11, 1e-6))


def test_a_plateau_is_between_what_does_not_mix_and_what_is_biased() -> None:
    plateau = found(
        cell(1e-6, 8.0, 1.0, "R-hat is 1.1"),
        cell(3e-6, 10.0, 0.3),
        cell(1e-5, 10.1, 0.15),
        cell(3e-5, 10.0, 0.1),
        cell(1e-4, 12.0, 0.1),
        cell(3e-4, math.nan, math.nan, "failed"),
    )
    assert [one.step_size for one in plateau.cells] == [3e-6, 1e-5, 3e-5]
    assert plateau.recommended.step_size == 3e-5


def test_every_two_steps_must_agree_and_not_only_neighbours() -> None:
    """A slow climb, each step within three errors of the last: three of the five agree with each other."""
    climb = [cell(10.0**-power, 10 + 0.2 * index) for index, power in enumerate((7, 6, 5, 4, 3))]
    assert len(found(*climb).cells) == 3


def test_an_unreliable_run_splits_a_plateau_and_the_larger_steps_win_a_tie() -> None:
    plateau = found(
        cell(1e-6, 10.0), cell(3e-6, 10.0), cell(1e-5, 10.0, 0.1, "why not"), cell(3e-5, 10.0), cell(1e-4, 10.0)
    )
    assert [one.step_size for one in plateau.cells] == [3e-5, 1e-4]


@pytest.mark.parametrize(
    "cells",
    [
        [cell(1e-5, 10.0)],
        [cell(1e-5, 10.0), cell(3e-5, 12.0)],
        [cell(1e-5, 10.0), cell(3e-5, 10.0, 0.1, "no"), cell(1e-4, 10.0)],
        [cell(1e-5, 10.0), cell(3e-5, math.nan, math.nan)],
        [cell(1e-5, 10.0), cell(3e-5, 10.0, math.nan)],
    ],
)
def test_no_plateau(cells: list[Cell]) -> None:
    assert find_plateau(cells) is None
    assert best_plateau(cells) is None


def test_the_bias_of_a_step_counts_as_far_as_it_is_known() -> None:
    """LLC = 10 + 5e3 eps with errors that shrink with eps: the largest step is precise and 0.5 off."""
    steps = (1e-5, 2e-5, 4e-5, 1e-4)
    plateau = found(*(cell(step, 10 + 5e3 * step, 4e-4 / math.sqrt(step)) for step in steps))
    assert plateau.slope.llc == pytest.approx(5e3)
    assert plateau.bias.llc == pytest.approx(5e3 * plateau.recommended.step_size)
    flat = found(*(cell(step, 10.0, 4e-4 / math.sqrt(step)) for step in steps))
    assert flat.recommended.step_size == 1e-4
    steep = found(*(cell(step, 100 + 9e3 * step, 0.01) for step in steps))
    assert steep.recommended.step_size == 1e-5


def test_the_error_of_the_slope_is_that_of_its_noise() -> None:
    rng = np.random.default_rng(0)
    steps, errors = (1e-5, 3e-5, 1e-4), (0.3, 0.2, 0.1)
    drawn = [
        found(
            *(cell(step, 100 + error * rng.standard_normal(), error) for step, error in zip(steps, errors, strict=True))
        )
        for _ in range(300)
    ]
    assert np.std([plateau.slope.llc for plateau in drawn]) == pytest.approx(drawn[0].slope.mcse, rel=0.15)


def test_the_best_posterior_has_the_widest_plateau_then_the_smallest_gamma() -> None:
    grid = [cell(step, 10.0, gamma=gamma) for step in (1e-5, 3e-5, 1e-4) for gamma in (10.0, 1.0)]
    assert [*posteriors(grid)] == [(100.0, 1.0), (100.0, 10.0)]
    best = best_plateau(grid)
    assert best is not None
    assert best.recommended.gamma == 1.0
    # One step less at gamma = 1.
    spoilt = [one._replace(llc=20.0) if one.gamma == 1.0 and one.step_size == 1e-4 else one for one in grid]
    best = best_plateau(spoilt)
    assert best is not None
    assert best.recommended.gamma == 10.0
