"""The file of an N x M workflow: its schema, and the overrides of each run.

Every value that the file sets keeps its place (``targets[2].overrides.training.steps``), so that a fault of a composed
job can name the entry that caused it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import field, fields
from typing import Annotated, Any, NamedTuple, cast

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from lambda_hat.config.override_values import override_text
from lambda_hat.config.schema import STRICT, ConfigError, Document, Node, Seed, near_miss
from lambda_hat.config.yaml_file import OVERRIDES, flatten

_OF_TARGETS = ("model", "data", "teacher", "training", "posterior", "budget", "num_chains")
_OF_SAMPLERS = ("sampler", "posterior", "budget", "num_chains")
_OF_ALL = (*dict.fromkeys((*_OF_TARGETS, *_OF_SAMPLERS)), "seed", "store.plots", "rerun")
# These may not be set in `overrides`, because entries have keys for them.
_HAVE_A_KEY = {"model": "model", "data": "data", "teacher": "teacher", "sampler": "name"}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TargetEntry:
    """One of ``targets``.

    Args:
        model: A preset of conf/model.
        data: A preset of conf/data; null: the model's own default.
        teacher: A preset of conf/teacher; null: the default.
        seed: ``training.seed``; null: the default.
        overrides: Keys as on the command line of `lambda_hat.sample`, and their values.
    """

    model: str
    data: str | None = None
    teacher: str | None = None
    seed: Seed | None = None
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SamplerEntry:
    """One of ``samplers``.

    Args:
        name: A preset of conf/sampler.
        seed: The run's ``seed``; null: the default.
        overrides: Keys as on the command line of `lambda_hat.sample`, and their values.
    """

    name: str
    seed: Seed | None = None
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HydraEntry:
    """``hydra``.

    Args:
        launcher: Fields of the backend's preset: ``partition``, ``timeout_min``, ...
    """

    launcher: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Workflow:
    """The whole file.

    Args:
        experiment: ``store.experiment``; null: the default.
        store_root: ``store.root``; null: the default.
        jax_enable_x64: true: every sampler in float64; false: in float32; null: each in its own ``dtype``. An entry's
            ``sampler.dtype`` takes precedence.
        overrides: For every run; an entry's own overrides take precedence.
        targets: N of them.
        samplers: M of them.
        hydra: ``launcher`` only.
    """

    experiment: str | None = None
    store_root: str | None = None
    jax_enable_x64: bool | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    targets: Annotated[tuple[TargetEntry, ...], Field(min_length=1)]
    samplers: Annotated[tuple[SamplerEntry, ...], Field(min_length=1)]
    hydra: HydraEntry = field(default_factory=HydraEntry)


class Setting(NamedTuple):
    """A value of the file: its place there, the key of a job that it sets, and the override."""

    place: str
    key: str
    text: str


def parse_workflow(document: Node) -> Workflow:
    """Validate the file.

    Raises:
        ConfigError: every unknown key and wrong type, each named with its entry.
    """
    try:
        workflow = TypeAdapter(Workflow).validate_python(_flattened(document))
    except ValidationError as error:
        raise ConfigError([_sentence(item["loc"], item) for item in error.errors()]) from error
    faults = list(_foreign("", workflow.overrides, _OF_ALL))
    for index, target in enumerate(workflow.targets):
        faults += _foreign(f"targets[{index}].", target.overrides, _OF_TARGETS)
    for index, sampler in enumerate(workflow.samplers):
        faults += _foreign(f"samplers[{index}].", sampler.overrides, _OF_SAMPLERS)
    if faults:
        raise ConfigError(faults)
    return workflow


def run_settings(workflow: Workflow, target: int, sampler: int) -> list[Setting]:
    """The settings of the run of one target by one sampler; of two values for a key, the more specific one."""
    chosen = {setting.key: setting for setting in _all_settings(workflow, target, sampler)}
    return list(chosen.values())


def blame(fault: str, settings: list[Setting]) -> str | None:
    """``fault`` of a composed job under the place of the value that caused it; None if no value of the file did."""
    key, _, message = fault.partition(": ")
    around = [setting for setting in settings if f"{key}.".startswith(f"{setting.key}.")]
    inside = [setting for setting in settings if setting.key.startswith(f"{key}.")]
    cause = max(around or inside, key=lambda setting: len(setting.key), default=None)
    if cause is None:
        return None
    return f"{cause.place}: {message if cause.key == key else fault}"


def _all_settings(workflow: Workflow, target: int, sampler: int) -> Iterator[Setting]:
    one, other = workflow.targets[target], workflow.samplers[sampler]
    here, there = f"targets[{target}].", f"samplers[{sampler}]."
    yield from _given("", workflow, {"store_root": "store.root", "experiment": "store.experiment"})
    if workflow.jax_enable_x64 is not None:
        dtype = "float64" if workflow.jax_enable_x64 else "float32"
        yield Setting("jax_enable_x64", "sampler.dtype", f"sampler.dtype={dtype}")
    yield from _overrides("", workflow.overrides)
    yield from _given(here, one, {"model": "model", "data": "data", "teacher": "teacher", "seed": "training.seed"})
    yield from _overrides(here, one.overrides)
    yield from _given(there, other, {"name": "sampler", "seed": "seed"})
    yield from _overrides(there, other.overrides)


def _given(place: str, entry: Any, keys: Mapping[str, str]) -> Iterator[Setting]:
    for name, key in keys.items():
        value = getattr(entry, name)
        if value is not None:
            yield Setting(place + name, key, override_text(key, value))


def _overrides(place: str, overrides: Node) -> Iterator[Setting]:
    for key, value in overrides.items():
        yield Setting(f"{place}{OVERRIDES}.{key}", key, override_text(key, value))


def _foreign(place: str, overrides: Node, known: tuple[str, ...]) -> Iterator[str]:
    """A sentence for each key that is not allowed there."""
    for key in overrides:
        name = f"{place}{OVERRIDES}.{key}"
        if key in _HAVE_A_KEY:
            other = "samplers" if key == "sampler" else "targets"
            yield f"{name}: is a choice of the entries; say {other}[...].{_HAVE_A_KEY[key]}"
        elif not any(key == node or key.startswith(node + ".") for node in known):
            yield f"{name}: no such key; needs one of {', '.join(known)}, or a field of theirs"


def _flattened(document: Node) -> Document:
    """``document`` with the overrides of every entry as one level of dotted keys."""

    def entry(node: Any) -> Any:
        if isinstance(node, Mapping) and isinstance(node.get(OVERRIDES), Mapping):
            return {**node, OVERRIDES: dict(flatten(node[OVERRIDES]))}
        return node

    flat = dict(entry(document))
    for name in ("targets", "samplers"):
        if isinstance(flat.get(name), list):
            flat[name] = [entry(node) for node in cast(list[Any], flat[name])]
    return flat


def _sentence(loc: tuple[int | str, ...], item: Any) -> str:
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")
    if item["type"] == "unexpected_keyword_argument":
        schemas = {"targets": TargetEntry, "samplers": SamplerEntry, "hydra": HydraEntry}
        schema = schemas.get(str(loc[0]), Workflow) if len(loc) > 1 else Workflow
        near = near_miss(str(item["loc"][-1]), [one.name for one in fields(schema)])
        return f"{key}: no such key; {'the keys are' if schema is Workflow else 'it has'} {_names(schema)}{near}"
    if item["type"] == "missing":
        return f"{key}: is missing"
    message = item["msg"][:1].lower() + item["msg"][1:]
    return f"{key}: {message}, got {item['input']!r}"


def _names(schema: type) -> str:
    return ", ".join(one.name for one in fields(schema))
