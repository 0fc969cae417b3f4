"""Every model preset, built once on data small enough for a second."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import yaml

from lambda_hat.config.schema import schema_class
from lambda_hat.targets.base import Built, Target
from lambda_hat.targets.data import Population, Synthetic
from lambda_hat.targets.mlp import MLP
from lambda_hat.targets.teacher import Teacher
from lambda_hat.targets.training import Training

CONF = Path(__file__).resolve().parent.parent.parent / "conf"
QUICK = Training(steps=20, polish_steps=20)


def fields_of(preset: Path) -> dict[str, Any]:
    fields = yaml.safe_load(preset.read_text())
    fields.pop("defaults", None)
    return fields


def schema_of(fields: dict[str, Any]) -> Any:
    return schema_class(fields["_target_"])


def load(preset: Path) -> Any:
    fields = fields_of(preset)
    return schema_of(fields)(**{name: value for name, value in fields.items() if name != "_target_"})


def build(model: Any, data: Any, training: Training = QUICK, teacher: Teacher | None = None) -> Built:
    with jax.enable_x64(True):
        return model.build(data, teacher or Teacher(), training)


# A preset that leaves a value to its user builds nothing by itself.
BUILT_IN = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if "???" not in path.read_text())


@pytest.fixture(scope="session", params=BUILT_IN)
def preset_target(request: pytest.FixtureRequest) -> tuple[Any, Built]:
    """(model, built) of each file in conf/model/, with gradient noise where the model has such a field."""
    model = load(CONF / "model" / f"{request.param}.yaml")
    if hasattr(model, "gradient_noise"):
        model = dataclasses.replace(model, gradient_noise=0.01)
    data = Synthetic(n=40, num_inputs=3) if isinstance(model, MLP) else Population(n=100)
    return model, build(model, data)


def target_of(model: Any, built: Built) -> Target:
    """On the device, in the caller's precision."""
    return Target(jnp.asarray(built.w0), jax.tree.map(jnp.asarray, built.data), model, built.num_data)
