"""Tables: what the store holds of a sweep, and whether its samplers agree."""

from pathlib import Path

import pytest

from lambda_hat.config.job import Job, parse_job
from lambda_hat.launch.table import agreements, print_results, read_rows, results_table
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


@pytest.mark.parametrize("reliable", [True, False])
def test_a_contradicted_result_stands_out(
    store_root: Path, two_runs: tuple[Job, Job], capsys: pytest.CaptureFixture[str], reliable: bool
) -> None:
    """Sees 97,416 called reliable, and the exact 10 beside it without a word."""
    store = Store(store_root)
    verdict = {"reliable": reliable, "reasons": [] if reliable else ["k-hat is 2: look"]}
    exact = {"value": 10.0, "error": 0.0, "z": 317.3, "contradicts": True}
    sound = {**exact, "value": 1.99, "z": -0.2, "contradicts": False}
    publish(two_runs[0], store, exact_llc=1.99, exact=sound)
    publish(two_runs[1], store, llc=97_416.0, llc_mcse=307.0, exact_llc=10.0, exact=exact, verdict=verdict)
    print_results(read_rows(two_runs, store))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(two_runs[1].run_id + ": exact")]
    assert "exact LLC 10: CONTRADICTED, the LLC is off by +9.741e+04 (+317.3 errors)" in line
    assert ("the verdict gives no reason" in line) == reliable


def test_an_rhat_of_stuck_chains_is_short(store_root: Path, two_runs: tuple[Job, Job]) -> None:
    store = Store(store_root)
    publish(two_runs[0], store, rhat=6135533749557314.0)
    table = results_table(read_rows(two_runs[:1], store))
    (column,) = [column for column in table.columns if column.header == "R-hat"]
    assert list(column.cells) == ["6.1e+15"]
