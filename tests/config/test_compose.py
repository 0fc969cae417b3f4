"""Overrides to jobs: the same values as Hydra's own composition gives, in a fraction of its time."""

from collections.abc import Iterator

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from lambda_hat.config.compose import Composer, compose_jobs, deferred
from lambda_hat.config.presets import config_dir
from lambda_hat.config.schema import ConfigError


@pytest.fixture
def composer() -> Iterator[Composer]:
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield Composer(GlobalHydra.instance().config_loader(), "sample")


def test_values_are_set_as_hydra_sets_them(composer: Composer) -> None:
    """Sees lists, dictionaries, null, quotes and nested keys that arrive otherwise than in a single run."""
    arguments = [
        "model=quadratic",
        "model.curvatures=[1,2.5]",
        "posterior.beta=null",
        "store={root: 'a b', plots: none}",
        "store.experiment='c=d'",
        "++budget.draws=7",
    ]
    (overrides,) = composer.expand(arguments)
    config = composer.composed(overrides)
    hydras = hydra.compose("sample", arguments)
    assert config == hydras
    assert config["store"] == {"root": "a b", "experiment": "c=d", "plots": "none", "keep_state": True}


@pytest.mark.parametrize(
    "value",
    [
        "'r_ünï'",
        '"a,b"',
        "'1e-3'",
        "'null'",
        "''",
        "a b",
        "'it\\'s: {x}'",
        "['1',2,'c d']",
        "[[1,'a,b'],{k: 'v w'}]",
        "1e-3",
    ],
)
@pytest.mark.parametrize("key", ["store.root", "model.curvatures", "budget.seconds"])
def test_a_sweep_takes_every_spelling_that_a_single_run_takes(composer: Composer, key: str, value: str) -> None:
    """Sees quotes that are lost between `-m` and the sweeper: a lexer error, or a text that becomes a number."""
    argument = f"{key}={value}"
    (overrides,) = composer.expand(deferred(["-m", "model=quadratic", argument])[1:])
    node, _, name = key.partition(".")
    expected = hydra.compose("sample", ["model=quadratic", argument])[node][name]
    assert composer.config(overrides)[node][name] == expected
    many = composer.expand(["model=quadratic", f"{key}={value},{value}"])
    assert [composer.config(overrides)[node][name] for overrides in many] == [expected] * 2


@pytest.mark.parametrize(
    "more",
    [
        ["seed=3", "posterior.gamma=2"], ["store={root: x}"], ["model.curvatures=[1,2]"],
        ["++new.key.deep=1"], ["+posterior.new=1"], ["store.root=${sampler.step_size}"],
        ["budget.draws=[1,'${seed}']"], ["++store.a=1", "++store.a={b: 2}", "++store.a.c=3"],
    ],
)  # fmt: skip
def test_setting_values_quickly_changes_nothing(
    composer: Composer, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    (overrides,) = composer.expand(["model=quadratic", *more])
    quickly = composer.config(overrides)
    monkeypatch.setattr("lambda_hat.config.compose.set_plainly", lambda presets, overrides: None)
    assert composer.config(overrides) == quickly


def test_the_reference_brings_its_budget(composer: Composer) -> None:
    """Sees a preset whose budget is lost, or cannot be overruled by a preset or a value."""
    budgets = [
        composer.config(composer.expand(["sampler=reference", *more])[0])["budget"]
        for more in ([], ["budget=quick"], ["budget.seconds=5"])
    ]
    found = [(budget["mcse"], budget["seconds"]) for budget in budgets]
    assert found == [(0.0025, 3600), (0.02, 30), (0.0025, 5)]


@pytest.mark.parametrize(
    ("field", "value"),
    [("exclude", "n1,n2"), ("+additional_parameters.mail-type", "END,FAIL"), ("gres", "gpu:1,tmp:5")],
)
def test_a_comma_in_a_field_of_a_preset_is_part_of_it(composer: Composer, field: str, value: str) -> None:
    """Hydra takes it for a sweep over its own configuration, and refuses."""
    key = field.removeprefix("+")
    argument = f"{'+' * field.startswith('+')}hydra.launcher.{key}={value}"
    late = deferred(["-m", "hydra/launcher=slurm_cpu", argument])
    launcher = hydra.compose("sample", late[1:], return_hydra_config=True).hydra.launcher
    assert OmegaConf.select(launcher, key) == value


def test_deferring_changes_no_value(composer: Composer) -> None:
    arguments = [
        "model=quadratic",
        "model.curvatures=[1,2.5]",
        "store.root='a,b c'",
        "seed=3",
        "store.experiment='c=d'",
        "budget.seconds=null",
        "data.label=null",
    ]
    late = deferred(["-m", *arguments, "hydra/launcher=local", "sampler=hmc,sgld"])
    assert late[0] == "-m"
    assert late[1] == "model=quadratic"
    assert late[-2:] == ["hydra/launcher=local", "sampler=hmc,sgld"]
    assert "seed=choice(3)" in late
    plain, again = (composer.expand(texts) for texts in (arguments, late[1:-2]))
    assert [composer.config(one) for one in plain] == [composer.config(one) for one in again]


def test_presets_are_composed_once_per_choice(composer: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a second each: at one a run, a plan of a thousand takes minutes."""
    loader = GlobalHydra.instance().config_loader()
    calls: list[object] = []
    load = loader.load_configuration
    monkeypatch.setattr(loader, "load_configuration", lambda *a, **k: calls.append(a) or load(*a, **k))
    jobs = compose_jobs(composer, composer.expand(["model=quadratic", "sampler=hmc,sgld", "seed=range(0,40)"]))
    assert len(jobs) == 80
    assert len(calls) == 2
    assert len({id(job.model) for job, _ in jobs}) == 1  # a data file would be read once


def test_globs_and_tags_sweep(composer: Composer) -> None:
    sets = composer.expand(["sampler=glob(*)"])
    assert [override[0].value() for override in sets] == sorted(
        path.stem for path in (config_dir() / "sampler").glob("*.yaml")
    )


def test_an_unreadable_interpolation_is_a_sentence(composer: Composer) -> None:
    (overrides,) = composer.expand(["model=quadratic", "seed=${no_such}"])
    with pytest.raises(ConfigError, match="no_such"):
        composer.config(overrides)
