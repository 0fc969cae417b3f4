"""Which classes a config may name, and by which path."""

import importlib
from dataclasses import field
from pathlib import Path
from typing import Any

import pytest

from lambda_hat.config.job import canonical, identity, parse_job
from lambda_hat.config.schema import ConfigError, _paths, schema, schema_class, schema_path
from tests.jobs import job_config
from tests.launch.toys import Toy
from tests.test_import_rule import FILES

HOLDERS = ("model", "data", "teacher", "training", "sampler")


@pytest.mark.parametrize("node", HOLDERS)
@pytest.mark.parametrize(
    "path", ["shutil.rmtree", "os.system", "pathlib.Path", "subprocess.Popen", "lambda_hat.config.schema.Budget"]
)
def test_what_is_no_schema_class_is_refused_and_never_called(node: str, path: str, tmp_path: Path) -> None:
    """Sees a config that calls whatever it names: shutil.rmtree would remove the folder."""
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    call = {"_target_": path, "path": str(treasure), "command": f"rmdir {treasure}", "args": ["rmdir", str(treasure)]}
    with pytest.raises(ConfigError) as raised:
        parse_job(job_config(tmp_path / "runs", **{node: call}))
    assert treasure.is_dir()
    (fault,) = raised.value.faults
    assert fault.startswith(f"{node}._target_: needs the dotted path of a schema class, got {path!r}")


@pytest.mark.parametrize("path", ["", "Nameless", ".relative.Name", "no.such.Module", "lambda_hat.samplers.hmc.Hmc"])
def test_a_path_that_leads_nowhere_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs the dotted path of a schema class"):
        parse_job(job_config(tmp_path, sampler={"_target_": path}))


def test_a_subclass_without_a_mark_of_its_own_is_none() -> None:
    class Unmarked(Toy):
        pass

    assert schema_path(Toy) == "tests.launch.toys.Toy"
    assert schema_path(Unmarked) is None


@schema("elsewhere.Moved")
class Lost:
    """Declares a path at which nothing is."""


@schema("tests.launch.toys.Toy")
class Pretender:
    """Declares the path of another class."""


@pytest.mark.parametrize("name", ["Lost", "Pretender"])
def test_a_class_that_its_own_path_does_not_find_is_refused(name: str) -> None:
    """Its run could be written under that path, and never be read again."""
    with pytest.raises(LookupError, match=r"elsewhere|another class"):
        schema_class(f"tests.config.test_schema.{name}")


def test_every_schema_class_is_found_by_the_path_that_it_declares() -> None:
    for module in FILES:
        if module.startswith(("lambda_hat.targets.", "lambda_hat.samplers.")):
            importlib.import_module(module)
    paths = [path for path in _paths.values() if path.startswith("lambda_hat.")]
    assert len(paths) == len(set(paths)) >= 20
    assert [path for path in paths if schema_path(schema_class(path)) != path] == []


def test_a_class_is_found_where_it_lives_and_keeps_the_id_of_where_it_lived(tmp_path: Path) -> None:
    moved = schema_class("lambda_hat.targets.analytic.Quadratic")
    here = f"{moved.__module__}.{moved.__qualname__}"
    config: dict[str, Any] = job_config(tmp_path)
    job, same = parse_job(config), parse_job({**config, "model": {**config["model"], "_target_": here}})
    assert canonical(same.model)["_target_"] == "lambda_hat.targets.analytic.Quadratic"
    assert (job.target_id, job.run_id) == (same.target_id, same.run_id)


@schema("tests.config.test_schema.Grown")
class Grown:
    """A schema that was given ``width`` after its first runs, all of which had 3, and another default since."""

    depth: int = 2
    width: int = field(default=5, metadata={"historic": 3})


def test_a_field_added_later_is_left_out_of_the_id_at_its_historic_value() -> None:
    """Sees ids that change with a new field, and ids that do not see its other values."""
    path = "tests.config.test_schema.Grown"
    assert identity(Grown(width=3)) == {"_target_": path, "depth": 2}
    assert identity(Grown()) == {"_target_": path, "depth": 2, "width": 5}
    assert canonical(Grown(width=3)) == {"_target_": path, "depth": 2, "width": 3}


@pytest.mark.parametrize(("node", "other"), [("model", "data"), ("data", "model"), ("sampler", "training")])
def test_a_schema_of_another_group_is_refused(node: str, other: str, tmp_path: Path) -> None:
    """Sees a job that fails later, with an AttributeError."""
    config = job_config(tmp_path)
    with pytest.raises(ConfigError, match=rf"{node}\._target_: needs a schema class of the group {node}"):
        parse_job({**config, node: config[other]})
