"""What trials are compared with: the value that the model knows, or else an estimate whose doubts are passed on."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from lambda_hat.config.compose import Composer
from lambda_hat.config.yaml_file import presets_loader
from lambda_hat.launch.tuning import driver, results
from lambda_hat.launch.tuning.definition import definition
from lambda_hat.launch.tuning.driver import TuningFailed, drive
from lambda_hat.launch.tuning.parse import parse_tuning
from lambda_hat.launch.tuning.problems import Case, compose_cases
from lambda_hat.launch.tuning.progress import progress_line
from lambda_hat.launch.tuning.record import Reference, write_reference
from lambda_hat.launch.tuning.session import Session
from lambda_hat.store.layout import Store, read_json, write_json
from lambda_hat.targets.quadratic import Quadratic
from tests.launch.stub_runs import Kind, StubRuns
from tests.launch.tuning import tuners

ANALYSIS = {
    "run_id": "run_hmc_0", "target_id": "tgt_0", "llc": 2.022, "llc_mcse": 0.032, "exact_llc": 1.918,
    "verdict": {"reliable": False, "reasons": ["short"]}, "fge": 3.0, "progress": {"seconds": 1.0},
}  # fmt: skip


def test_the_exact_value_takes_the_place_of_an_estimate(tmp_path: Path) -> None:
    exact = Reference("run_hmc_0", 1.918, 0.0, is_exact=True)
    estimate = Reference("run_hmc_0", 2.022, 0.032, ["short"])
    assert write_reference(tmp_path / "new", ANALYSIS) == exact
    assert write_reference(tmp_path / "new", ANALYSIS) == exact
    assert write_reference(tmp_path / "unknown", {**ANALYSIS, "exact_llc": None}) == estimate
    assert write_reference(tmp_path / "lost", {**ANALYSIS, "llc": None, "exact_llc": None}) is None
    # Trials have been compared with the estimate, by a session that knew no other reference.
    write_json(tmp_path / "old" / "ref.json", {"schema": 1, "run_id": "run_hmc_0", "llc": 2.022})
    assert write_reference(tmp_path / "old", ANALYSIS) == estimate


class StubSweep(StubRuns):
    """Stands where the driver's sweep stands."""

    name = "tune-test"

    def __enter__(self) -> "StubSweep":
        return self

    def __exit__(self, *exc: object) -> None: ...


def stubbed(monkeypatch: pytest.MonkeyPatch, kinds: Sequence[Kind]) -> None:
    """Drivers make no run, and do not wait."""

    def sweep(store: Store, *_: object) -> StubSweep:
        return StubSweep(store, kinds)

    monkeypatch.setattr(driver, "TrialSweep", sweep)
    monkeypatch.setattr("lambda_hat.launch.tuning.loop._SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr("lambda_hat.launch.tuning.loop._SECONDS_BETWEEN_STEPS", 0.01)


def known(session: Session) -> Session:
    """The session with exact references, whose targets are built."""
    (case,) = session.cases
    (method,) = case.methods
    reference = method.job(method.preset())
    meta = {"num_data": 5000, "report": {}}
    write_json(session.store.target_dir(reference.target_id) / "meta.json", meta)
    return dataclasses.replace(session, cases=[dataclasses.replace(case, reference=reference, is_exact=True)])


def test_a_known_value_needs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stubbed(monkeypatch, ("good",))
    document = tuners.config(tmp_path / "runs", execution__reference="exact", optuna__max_trials_per_method=2)
    session = known(tuners.session(document))
    drive(session)
    (case,) = session.cases
    job = case.reference
    exact = job.model.exact_llc(job.posterior.resolve_nbeta(5000), job.posterior.gamma, {})
    reference = read_json(tmp_path / "runs" / "studies" / "test" / case.name / "ref.json") or {}
    assert (reference["llc"], reference["llc_mcse"], reference["is_exact"]) == (exact, 0.0, True)
    metrics = read_json(tmp_path / "runs" / "studies" / "test" / case.name / "sgld/trial-00000/metrics.json") or {}
    assert (metrics["ref"], metrics["run_id"]) == (exact, job.run_id)
    assert not list((tmp_path / "runs").glob("targets/*/run_hmc_*"))


def test_a_model_that_does_not_know_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stubbed(monkeypatch, ("good",))
    monkeypatch.setattr(Quadratic, "exact_llc", lambda *_: None)
    document = tuners.config(tmp_path / "runs", execution__reference="exact")
    with pytest.raises(TuningFailed, match=r"execution\.reference: exact needs a model that knows its LLC at nbeta"):
        drive(known(tuners.session(document)))


def test_an_exact_reference_names_the_problem_whatever_is_tuned_on_it(tmp_path: Path) -> None:
    """Else another method in front would begin new studies."""
    draws = {"draws": {"dist": "categorical", "choices": [10]}}
    space = {"sgld": dict(tuners.SPACE), "vi": {**draws, "rank": {"dist": "categorical", "choices": [1, 2]}}}
    found: list[Case] = []
    with presets_loader() as loader:
        composer = Composer(loader, "sample")
        for methods, reference in ((["sgld", "vi"], "exact"), (["vi", "sgld"], "exact"), (["sgld", "vi"], "hmc")):
            document = tuners.config(
                tmp_path, methods=methods, search_space={**space, "sgld": {**space["sgld"], **draws}},
                execution__reference=reference,
            )  # fmt: skip
            found += compose_cases(composer, parse_tuning(document))
    one, other, estimated = found
    assert one.name == other.name != estimated.name
    assert [case.is_exact for case in found] == [True, True, False]
    assert one.reference.run_id == one.methods[0].job(one.methods[0].preset()).run_id
    tuning = parse_tuning(document)
    assert definition(tuning, one, one.methods[0])["reference"] == {"exact": True}


def test_a_preset_says_that_its_reference_is_unreliable(tmp_path: Path) -> None:
    document = tuners.config(tmp_path / "runs", optuna__max_trials_per_method=2)
    tuners.drive(document)
    here = tuners.session(document)
    doubtful = Reference("run", 2.0, 0.5, ["w0 is a saddle,\nperhaps", "too short"])
    study: Any = SimpleNamespace(method=here.cases[0].methods[0])
    tuned = tuners.TunedProblem(here.cases[0], tmp_path, [study], reference=doubtful)
    found = results.gather(here.store, here.tuning.store.namespace, [tuned])
    best = found.best["quadratic", "sgld"]
    assert best is not None
    text = best.preset.read_text()
    assert (
        "# Doubtful: the reference is unreliable: w0 is a saddle, perhaps (and 1 more reasons in its ref.json)" in text
    )
    assert yaml.safe_load(text)["step_size"] == best.metrics["params"]["step_size"]


CAUSES = [("raises", "failed: a bug"), ("dead", "failed: killed by SIGKILL"), ("diverges", "diverged: not finite")]


@pytest.mark.parametrize(("kind", "cause"), CAUSES)
def test_trials_that_all_fail_are_counted_by_cause_and_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, cause: str
) -> None:
    stubbed(monkeypatch, (kind,))
    changes: dict[str, Any] = {"optuna__max_trials_per_method": 3, "execution__max_retries": 0}
    with pytest.raises(TuningFailed) as caught:
        drive(tuners.session(tuners.config(tmp_path / "runs", **changes)))
    assert f"quadratic, sgld: none of 3 trials has ended well (3 x {cause})" in str(caught.value)
    shown = capsys.readouterr()
    assert "presets in" not in shown.out
    assert "use one:" not in shown.out
    assert "quadratic: sgld trial" in shown.err or kind == "diverges"


def test_the_status_line_has_phase_total_and_best(tmp_path: Path) -> None:
    def study(name: str, ended: int, live: int, best: float | None) -> Any:
        return SimpleNamespace(method=SimpleNamespace(name=name), num_ended=ended, live=[None] * live, best=best)

    begun = [study("sgld", 0, 0, None), study("vi", 0, 0, None)]
    assert progress_line([True, False], begun, 16) == "1 of 2 references to be made; 0 of 32 trials have ended"
    later = [study("sgld", 7, 2, 0.5), study("sgld", 3, 0, 0.03125), study("vi", 0, 1, None)]
    assert progress_line([False, False], later, 16) == (
        "10 of 48 trials have ended; 3 in flight; best objective: sgld 0.0312"
    )
