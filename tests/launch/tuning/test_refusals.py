"""What a session is refused for, by one set of checks for the dry run and the real run, and what is never shown."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lambda_hat.config.compose import Composer
from lambda_hat.config.schema import ConfigError
from lambda_hat.config.yaml_file import presets_loader, read_document
from lambda_hat.launch.tuning.command import tune_file
from lambda_hat.launch.tuning.database import Database
from lambda_hat.launch.tuning.driver import check, drive, tuned_problems
from lambda_hat.launch.tuning.parse import parse_tuning
from lambda_hat.launch.tuning.problems import compose_cases
from lambda_hat.launch.tuning.record import make_identity
from lambda_hat.launch.tuning.session import Session, prepare
from lambda_hat.launch.tuning.study import Study
from lambda_hat.launch.tuning.url import database_url, masked
from lambda_hat.run.progress import PlainReporter
from lambda_hat.store.lease import Lease, Owner
from tests.launch.drive import LOCAL, backend
from tests.launch.tuning import tuners

DOORS = pytest.mark.parametrize("door", [check, drive])
Door = Callable[[Session], None]


def refused(document: dict[str, Any]) -> str:
    """Why nothing is begun with ``document``, before the studies are looked at."""
    with presets_loader() as loader, pytest.raises(ConfigError) as caught:
        prepare(parse_tuning(document), backend(LOCAL), Composer(loader, "sample"))
    return str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "-x", ".x", "x\n", "ü", "x" * 200])
def test_a_name_that_no_folder_can_have_is_refused_under_its_own_key(tmp_path: Path, name: str) -> None:
    assert refused(tuners.config(tmp_path, store__namespace=name)).startswith("store.namespace: needs letters, digits")
    assert not list(tmp_path.iterdir())


SPACE = {"dist": "float", "low": 1e-6, "high": 1e-4}
LENGTH = {"draws": {"dist": "int", "low": 1, "high": 2}}
NEAR_MISSES = [
    ({"methods": ["sgdl"]}, "methods: no such sampler: sgdl; did you mean sgld?"),
    ({"methods": ["mlcmc"]}, "methods: no such sampler: mlcmc; did you mean mclmc?"),
    ({"methods": ["sgldd"], "search_space__sgldd": LENGTH}, "methods: no such sampler: sgldd; did you mean sgld?"),
    ({"methods": ["vi"]}, "search_space.vi: needs at least one field, got none; search_space has sgld"),
    ({"execution__reference": "hcm"}, "execution.reference: no such sampler: hcm; did you mean hmc?"),
    ({"execution__reference": "exakt"}, "execution.reference: no such sampler: exakt; did you mean exact?"),
    ({"search_space__sgld__stepsize": {"low": 1.0}}, "search_space.sgld.stepsize: sgld has no such field;"),
    ({"search_space__sgld__stepsize": SPACE}, "sgld.stepsize: sgld has no such field; did you mean step_size?"),
    ({"search_space__sgld__batchsize": 3}, "sgld.batchsize: sgld has no such field; did you mean batch_size?"),
    ({"search_space__sgld__drawz": {}}, "search_space.sgld.drawz: sgld has no such field; did you mean draws?"),
    ({"optuna__max_trial_per_method": 3}, "did you mean max_trials_per_method?"),
    ({"store__name_space": "x"}, "store.name_space: no such key; did you mean namespace?"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), NEAR_MISSES, ids=[sentence for _, sentence in NEAR_MISSES])
def test_a_near_miss_is_answered_with_what_was_meant(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    document = tuners.config(tmp_path, **changes)
    assert sentence in refused(document)


CHOICES = [
    ("draws", [200, "300"], "search_space.sgld.draws: needs 300 as it is, without quotes, got '300'"),
    ("batch_size", ["16", 32], "search_space.sgld.batch_size: needs 16 as it is, without quotes, got '16'"),
    ("step_size", [1e-4, "0.001"], "search_space.sgld.step_size: needs 0.001 as it is, without quotes, got '0.001'"),
    ("batch_size", [[16], 32], "search_space.sgld.batch_size: categorical needs choices that are numbers, words"),
    ("draws", [{"low": 1}], "search_space.sgld.draws: categorical needs choices that are numbers, words"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "choices", "sentence"), CHOICES)
def test_choices_are_refused_that_a_search_could_not_keep_apart(
    tmp_path: Path, field: str, choices: list[Any], sentence: str
) -> None:
    document = tuners.config(tmp_path)
    document["search_space"]["sgld"][field] = {"dist": "categorical", "choices": choices}
    assert sentence in refused(document)


@DOORS
def test_what_forbids_going_on_is_told_before_anything_runs(tmp_path: Path, door: Door) -> None:
    document = tuners.config(tmp_path / "runs", optuna__max_trials_per_method=1)
    with pytest.raises(ConfigError, match=r"--resume: needs the stud.*, which do(es)? not exist; leave --resume out"):
        door(dataclasses.replace(tuners.session(document), resume=True))
    tuners.drive(document)
    document["execution"]["budget"]["trial_gradients"] = 20000
    with pytest.raises(ConfigError, match=r"trial budget\.gradients was 10000, is now 20000"):
        door(tuners.session(document))


@DOORS
def test_a_second_driver_on_sqlite_is_told_of_postgresql(tmp_path: Path, door: Door) -> None:
    here = tuners.session(tuners.config(tmp_path / "runs"))
    other = dataclasses.replace(Owner.current(), machine="another machine", host="node7")
    with Lease.claim(tmp_path / "runs" / "studies" / "test", other), pytest.raises(ConfigError) as caught:
        door(here)
    assert "on node7" in str(caught.value)
    assert "optuna.storage=postgresql://" in str(caught.value)


@DOORS
@pytest.mark.parametrize(
    "storage", ["mysql://me:pa55@host/db", "postgresql://me:pa55@127.0.0.1:1/db", "sqlite:///x.db"]
)
def test_a_database_that_cannot_be_used_is_told(tmp_path: Path, door: Door, storage: str) -> None:
    with pytest.raises(ConfigError, match=r"^optuna\.storage: ") as caught:
        door(tuners.session(tuners.config(tmp_path / "runs", optuna__storage=storage)))
    assert "pa55" not in str(caught.value)


@DOORS
def test_a_damaged_database_is_told(tmp_path: Path, door: Door) -> None:
    folder = tmp_path / "runs" / "studies" / "test"
    folder.mkdir(parents=True)
    (folder / "study.db").write_bytes(b"no database, but long enough to be read as one" * 100)
    with pytest.raises(ConfigError, match=r"^optuna\.storage: cannot open sqlite:///.*study\.db: .*not a database"):
        door(tuners.session(tuners.config(tmp_path / "runs")))


def test_a_dry_run_leaves_nothing_and_states_the_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [f"store.root={tmp_path / 'runs'}", "optuna.max_trials_per_method=7", "store.namespace=mine"]
    tune_file(Path("conf/tune/demo.yaml"), "local", sets, dry_run=True)
    assert not list(tmp_path.iterdir())
    shown = capsys.readouterr().out
    assert "at most 42 trials x 60,000,000 row gradients = 2,520,000,000 row gradients" in shown
    assert "at most 2 references x 3,000,000,000 row gradients = 6,000,000,000 row gradients" in shown
    assert "widths=[5,2,2,4]" in shown
    assert "widths=[4,3,3,3]" in shown


def test_a_study_of_another_store_in_one_database_is_refused(tmp_path: Path) -> None:
    """As on PostgreSQL, which several stores can reach."""
    document = tuners.config(tmp_path / "one", optuna__max_trials_per_method=1)
    tuners.drive(document)
    one, other = (make_identity(tuners.session(tuners.config(tmp_path / name)).store) for name in ("one", "other"))
    assert one["id"] != other["id"]
    assert make_identity(tuners.session(document).store) == one
    opened = Database(database_url(None, tmp_path / "one" / "studies" / "test"), PlainReporter())
    opened.is_shared = True
    ((study,),) = (tuned.studies for tuned in tuned_problems(tuners.session(document), opened))
    assert study.faults() == []
    for store in (other, None):
        foreign = Study(opened, study.name, study.method, study._settings, study._definition, store)
        (fault,) = foreign.faults()
        assert f"belongs to another store, {tmp_path / 'one'} on " in fault
    opened.close()


SECRETS = [
    "postgresql://me:pa55@host/db", "postgresql+psycopg://me:pa55@host:5432/db?connect_timeout=3",
    "postgresql://me@host/db?password=pa55", "postgresql://me@/db?host=/tmp&password=pa55",
    "postgresql://me@host/db?sslmode=require&PASSWORD=pa55", "postgresql://host/db?user=me&sslpassword=pa55",
    "postgresql://me:a@pa55@host/db", "postgresql://me:a/pa55@host/db", "postgresql://me:pa55@host:port/db",
    "postgresql://me:%70pa55@host/db", "postgresql:me:pa55@host", "host=h password=pa55", "me:pa55@host/db",
]  # fmt: skip


@pytest.mark.parametrize("url", SECRETS)
def test_a_password_is_never_shown(tmp_path: Path, url: str) -> None:
    assert "pa55" not in masked(url)
    try:
        assert masked(database_url(url, tmp_path)) == masked(url).replace("postgresql://", "postgresql+psycopg://")
    except ConfigError as error:
        assert "pa55" not in str(error)


SPELLINGS = [
    "optuna.storage=postgresql://me:pa55{@h/db", "optuna.storage.x=postgresql://me:pa55@h/db",
    "optuna.storge=postgresql://me:pa55@h/db", "optuna.storage=postgresql://me:a,pa55@h/db",
    "optuna.storage=[postgresql://me:pa55@h/db]", "optuna=postgresql://me:pa55@h/db",
    "optuna.storage=postgresql://me@h/db?password=pa55", "optuna.storage='mysql://h/db?password=pa55'",
]  # fmt: skip


@pytest.mark.parametrize("text", SPELLINGS)
def test_a_password_is_not_shown_by_a_key_or_value_that_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tune_file(Path("conf/tune/demo.yaml"), "local", [f"store.root={tmp_path}", text], dry_run=True)
    assert "pa55" not in str(caught.value)


def test_the_shipped_files_name_their_problems_by_what_differs(tmp_path: Path) -> None:
    document = read_document("conf/tune/demo.yaml")
    document["store"]["root"] = str(tmp_path)
    with presets_loader() as loader:
        cases = compose_cases(Composer(loader, "sample"), parse_tuning(document))
    assert [case.title for case in cases] == [
        "deeplinear-synthetic model.widths=[5,2,2,4]", "deeplinear-synthetic model.widths=[4,3,3,3]",
    ]  # fmt: skip
