"""Overrides to jobs: the same values as Hydra's own composition gives, in a fraction of its time."""

from collections.abc import Iterator

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

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
    config = composer.config(overrides)
    hydras = hydra.compose("sample", arguments)
    assert config == hydras
    assert config["store"] == {"root": "a b", "experiment": "c=d", "plots": "none"}


def test_the_reference_brings_its_budget(composer: Composer) -> None:
    """Sees a preset whose budget is lost, or cannot be overruled by a preset or a value."""
    budgets = [
        composer.config(composer.expand(["sampler=reference", *more])[0])["budget"]
        for more in ([], ["budget=quick"], ["budget.seconds=5"])
    ]
    found = [(budget["mcse"], budget["seconds"]) for budget in budgets]
    assert found == [(0.0025, 3600), (0.02, 30), (0.0025, 5)]


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
