"""Every test that asks for a ``preset``, or for its ``sampler``, runs for every file of conf/sampler/.

Marked with ``everyday(names)``, it runs for those every day, and for the others with the slow tests.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
import yaml

from lambda_hat.config.presets import config_dir
from tests.samplers.problem import Problem


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "preset" in metafunc.fixturenames:
        paths = sorted((config_dir() / "sampler").glob("*.yaml"))
        everyday = metafunc.definition.get_closest_marker("everyday")
        slow = [pytest.mark.slow if everyday and path.stem not in everyday.args else () for path in paths]
        presets = [pytest.param(path, id=path.stem, marks=marks) for path, marks in zip(paths, slow, strict=True)]
        metafunc.parametrize("preset", presets, scope="module")


@pytest.fixture(scope="module")
def fields(preset: Path) -> dict[str, Any]:
    """The preset's fields, ``_target_`` among them."""
    found = yaml.safe_load(preset.read_text())
    found.pop("defaults", None)  # what a preset chooses elsewhere, such as a budget
    return found


@pytest.fixture(scope="module")
def schema(fields: dict[str, Any]) -> type:
    """The preset's schema class."""
    module, _, name = fields["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.fixture(scope="module")
def sampler(fields: dict[str, Any], schema: type) -> Iterator[Any]:
    """The preset's sampler, with its dtype in force."""
    with jax.enable_x64(fields["dtype"] == "float64"):
        yield schema(**{name: value for name, value in fields.items() if name != "_target_"})


@pytest.fixture(scope="session")
def problem() -> Problem:
    return Problem()
