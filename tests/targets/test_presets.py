"""The laws of every preset: a new YAML is tested with no test edited."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from lambda_hat.config.schema import PosteriorConfig
from lambda_hat.targets.base import Built, Model
from tests.targets.conftest import CONF, fields_of, load, schema_of, target_of

GROUPS = ("model", "data", "teacher", "training")
PRESETS = [path for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
POSTERIORS = sorted((CONF / "posterior").glob("*.yaml"))
Preset = tuple[Any, Built]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_preset_lists_every_field(preset: Path) -> None:
    """Hydra refuses to override a field that the YAML omits."""
    fields = fields_of(preset)
    listed = {field.name for field in dataclasses.fields(schema_of(fields)) if "planned" not in field.metadata}
    assert set(fields) == {"_target_", *listed}
    if "???" not in fields.values():
        hash(load(preset))


@pytest.mark.parametrize("preset", POSTERIORS, ids=lambda path: path.stem)
def test_a_posterior_preset_lists_every_field(preset: Path) -> None:
    fields = fields_of(preset)
    assert set(fields) == {field.name for field in dataclasses.fields(PosteriorConfig)}
    PosteriorConfig(**fields)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A primary config with the groups in the order of conf/sample.yaml, and conf/ beside it."""
    groups = ("data: digits", "teacher: _null", "training: adam", "posterior: base", "model: base")
    listed = "\n".join(f"  - {group}" for group in groups)
    searched = f"hydra:\n  searchpath:\n    - file://{CONF}\n"
    (tmp_path / "primary.yaml").write_text(f"defaults:\n{listed}\n  - _self_\n{searched}")
    return tmp_path


@pytest.mark.parametrize(
    ("overrides", "data", "key", "value"),
    [
        ([], "Sklearn", "data.name", "digits"),
        (["model=quadratic", "model.curvatures=[0.01,0.1,1,10]", "data.n=5000"], "Population", "data.n", 5000),
        (["model=quadratic", "model.dim=10"], "Population", "model.dim", 10),
        (["model=normal_crossing", "model.exponents=[1,2]"], "Population", "model.exponents", [1, 2]),
        (["model=deep_linear", "model.widths=[2,2,2]", "model.rank=1"], "Population", "model.rank", 1),
        (["model=deep_linear", "data=base", "data.n=70"], "Synthetic", "data.n", 70),
        (["data=base", "model=deep_linear"], "Synthetic", "data.n", 5000),
    ],
)
def test_a_formula_brings_its_data_and_the_user_wins(
    scratch: Path, overrides: list[str], data: str, key: str, value: Any
) -> None:
    """Sees a preset's ``override /data`` that is lost, or that beats the command line."""
    with initialize_config_dir(str(scratch), version_base="1.3"):
        config = compose("primary", overrides)
    assert config.data._target_.endswith(f".{data}")
    node, _, name = key.partition(".")
    assert config[node][name] == value


def test_the_functions_of_a_model(preset_target: Preset) -> None:
    """Sees a loss, an unravel or a report that disagree about w."""
    model, built = preset_target
    assert isinstance(model, Model)
    with jax.enable_x64(True):
        target = target_of(*preset_target)
        parts = [np.ravel(part) for part in target.unravel(target.w0).values()]
        loss, gradient = jax.device_get(jax.jit(jax.value_and_grad(target.loss))(target.w0))
    np.testing.assert_array_equal(np.concatenate(parts), built.w0)
    assert loss == pytest.approx(built.report["loss"])
    assert np.linalg.norm(gradient) == pytest.approx(built.report["gradient_norm"], abs=1e-12)
    assert built.report["dim"] == built.w0.size


def test_minibatch_gradients_are_unbiased(preset_target: Preset) -> None:
    """Within 5 standard errors along a random direction, in float32. Sees a sum for a mean, a wrong scale of noise."""
    model, built = preset_target
    target = target_of(model, built).astype("float32")
    w = target.w0 + 0.1 * jax.random.normal(jax.random.key(0), target.w0.shape)
    direction = jax.random.normal(jax.random.key(1), w.shape)

    @jax.jit
    def gradients(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        def along(key: jax.Array) -> jax.Array:
            return jax.grad(target.minibatch_loss)(w, target.minibatch(key, 8)) @ direction

        return jax.vmap(along)(keys), jax.grad(target.loss)(w) @ direction

    along, full = jax.device_get(gradients(jax.random.split(jax.random.key(2), 1000)))
    assert along.dtype == np.float32
    assert abs(along.mean() - full) < 5 * along.std() / np.sqrt(along.size)
    if not built.data.has_rows:
        assert along.std() == pytest.approx(0.1 * np.linalg.norm(direction), rel=0.1)
