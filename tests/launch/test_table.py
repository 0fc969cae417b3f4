"""Tables: what the store holds of a sweep, and whether its samplers agree."""

from pathlib import Path

import pytest

from lambda_hat.config.job import Job, parse_job
from lambda_hat.launch.table import agreements, read_rows, results_table
from lambda_hat.run.summary import duration, with_error
from lambda_hat.store.layout import Store, write_status
from tests.jobs import make_job
from tests.results import publish


@pytest.fixture
def two_runs(store_root: Path) -> tuple[Job, Job]:
    return make_job(store_root), make_job(store_root, sampler={"_target_": "lambda_hat.samplers.vi.VI"})


@pytest.mark.parametrize(
    ("other", "exact", "sentences"),
    [
        (2.0, None, ["hmc, vi (unreliable) agree within their errors (largest z = 0.9)"]),
        (2.9, None, ["1 of 1 pairs differ", "differ by 0.912 (z = 64.9; vi (unreliable) is higher)"]),
        (1.99, 1.99, ["hmc, vi (unreliable), the exact value agree within their errors"]),
        (
            1.99,
            3.0,
            ["2 of 3 pairs differ", "hmc and the exact value differ", "vi (unreliable) and the exact value differ"],
        ),
        (None, None, []),
    ],
)
def test_agreement_is_said_for_each_posterior(
    two_runs: tuple[Job, Job], store_root: Path, other: float | None, exact: float | None, sentences: list[str]
) -> None:
    store = Store(store_root)
    hmc, vi = two_runs
    changes = {"llc": other, "llc_mcse": 0.0068, "verdict": {"reliable": False, "reasons": ["k-hat is 2"]}}
    for job, more in ((hmc, {}), (vi, changes)):
        publish(job, store, exact_llc=exact, **more)
    said = list(agreements(read_rows([hmc, vi], store)))
    assert len(said) == len(sentences)
    for sentence in sentences:
        assert any(sentence in line for line in said), said


def test_posteriors_that_differ_are_not_compared(store_root: Path, two_runs: tuple[Job, Job]) -> None:
    store = Store(store_root)
    first = two_runs[0]
    second = parse_job({**first.to_dict(), "posterior": {"gamma": 50.0}})
    for job in (first, second):
        publish(job, store)
    assert not list(agreements(read_rows([first, second], store)))


def test_a_run_without_a_result_shows_the_last_word_on_it(store_root: Path, two_runs: tuple[Job, Job]) -> None:
    """Its own status, or, of a run that was killed and could not say, what the cluster knows."""
    store = Store(store_root)
    first, second = two_runs
    write_status(store.run_dir(first.target_id, first.run_id), state="failed", error="a\nb")
    write_status(store.run_dir(second.target_id, second.run_id), state="running")
    rows = read_rows(two_runs, store, {second.run_id: ("lost", "its node went down")})
    assert [row.verdict for row in rows] == ["failed", "lost"]
    assert [row.notes for row in rows] == [["a"], ["its node went down"]]
    assert results_table(rows).row_count == 2


def test_a_result_that_falls_short_of_the_budget_is_none(store_root: Path, two_runs: tuple[Job, Job]) -> None:
    store = Store(store_root)
    job = two_runs[0]
    publish(job, store, progress={"draws": 1, "gradients": 1, "seconds": 0.1, "mcse": None})
    assert read_rows([job], store)[0].analysis is None


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (12.3456, 0.0512, "12.346 ± 0.051"),
        (154.7, 3.21, "154.7 ± 3.2"),
        (1234.5, 56.7, "1234 ± 57"),
        (0.5, None, "0.5"),
        (0.5, 0.0, "0.5"),
        (None, None, "-"),
    ],
)
def test_a_value_is_shown_to_the_digits_of_its_error(value: float | None, error: float | None, text: str) -> None:
    assert with_error(value, error) == text


@pytest.mark.parametrize(("seconds", "text"), [(4.21, "4.2 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 05 min")])
def test_a_duration_is_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text
