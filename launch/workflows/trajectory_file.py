"""The file of a trajectory: its schema, and what it asks for at each of its checkpoints."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, NamedTuple, cast

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from lambda_hat.config.override_values import override_text
from lambda_hat.config.schema import STRICT, ConfigError, Document, Node, Words
from lambda_hat.config.sentences import validation_sentences
from lambda_hat.config.yaml_file import flatten
from lambda_hat.launch.workflows.llc_file import HydraEntry

# Keys of the file that a command line sets as `--set` does; all others are of the runs.
KEYS = ("problem", "args", "checkpoints", "metrics", "name", "experiment", "store_root", "hydra")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Trajectory:
    """The whole file.

    Args:
        problem: The dotted path of a function that returns a problem.
        args: Of the function.
        checkpoints: A glob, or ``checkpoint.*`` as on the command line of `lambda_hat.sample`, or several of these by
            the name of their series.
        metrics: Dotted paths of functions of the parameters, by the name of their column.
        sampler: A preset of conf/sampler, or several, each a curve.
        overrides: Keys as on the command line of `lambda_hat.sample`, and their values.
        name: Of the curve's folder; null: that of the file.
        experiment: ``store.experiment``; null: the name.
        store_root: ``store.root``.
        hydra: ``launcher`` only.
    """

    problem: str
    args: dict[str, Any] = field(default_factory=dict[str, Any])
    checkpoints: dict[str, dict[str, Any]]
    metrics: dict[str, str] = field(default_factory=dict[str, str])
    sampler: Words = ("hmc",)
    overrides: dict[str, Any] = field(default_factory=dict[str, Any])
    name: str | None = None
    experiment: str | None = None
    store_root: str = "runs"
    hydra: HydraEntry = field(default_factory=HydraEntry)

    def arguments(self) -> list[str]:
        """What every run has, as on the command line of `lambda_hat.sample -m`."""
        values = {
            "model": "own",
            "model.problem": self.problem,
            "model.args": self.args,
            "store.root": self.store_root,
            "store.experiment": self.experiment or self.name,
            "store.plots": "none",
            "store.keep_state": False,
        }
        given = [override_text(key, value) for key, value in {**values, **dict(flatten(self.overrides))}.items()]
        return [*given, f"sampler={','.join(self.sampler)}"]


class Series(NamedTuple):
    """Checkpoints of one training: its name, empty where there is only one, and the node ``checkpoint``."""

    name: str
    checkpoint: Document


def parse_trajectory(document: Node, path: Path) -> Trajectory:
    """Validate what the file at ``path`` holds.

    Raises:
        ConfigError: every unknown key and wrong type.
    """
    found = {"name": path.stem, **document}
    if "checkpoints" in found:
        found["checkpoints"] = dict(_series(found["checkpoints"]))
    try:
        return TypeAdapter(Trajectory).validate_python(found)
    except ValidationError as error:
        raise ConfigError(validation_sentences(path.name, error, Trajectory)) from error


def series_of(trajectory: Trajectory) -> list[Series]:
    """Its trainings, in their order."""
    return [Series(name, node) for name, node in trajectory.checkpoints.items()]


def _series(node: Any) -> list[tuple[str, Any]]:
    """The name and the checkpoints of each training of a file."""
    if isinstance(node, Mapping) and "path" not in node:
        named = cast(Mapping[str, Any], node)
        return [(str(name), entry if isinstance(entry, Mapping) else {"path": entry}) for name, entry in named.items()]
    return [("", node if isinstance(node, Mapping) else {"path": node})]
