"""The job: what is to be estimated, how, and how far. Its schema, its validation and its ids.

A job arrives as a plain nested mapping (Hydra composed it, or a frozen ``config.yaml`` was read) and leaves
as a frozen :class:`Job`. Nodes that can be of several kinds (``model``, ``data``, ``sampler``) carry
``_target_``, the dotted path of the schema dataclass that validates them; that path *is* the registry, so a
new sampler or target edits nothing here. This module imports no JAX."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import TypeAdapter, ValidationError

from lambda_hat.config.cross_faults import cross_faults
from lambda_hat.config.presets import config_dir as config_dir
from lambda_hat.config.restriction import Free, count_free, free_weights, is_whole
from lambda_hat.config.schema import (
    Budget,
    ConfigError,
    Document,
    Dtype,
    Node,
    PositiveInt,
    PosteriorConfig,
    Seed,
    StoreConfig,
    schema_class,
    schema_path,
)
from lambda_hat.config.sentences import validation_sentences

SCHEMA_VERSION = 1
LOCALISER = "lambda_hat.samplers.localiser.Localiser"


@runtime_checkable
class DataConfig(Protocol):
    """What a job needs of its data: :mod:`lambda_hat.targets.base` has the rest.

    ``count_rows``   n, or the n that a population stands for.
    ``fingerprint``  fields that count in the id by another value: a file by its bytes, not by its path.

    Both may read a file, and raise :class:`ConfigError` where it is at fault.
    """

    def count_rows(self) -> int: ...
    def fingerprint(self) -> dict[str, str]: ...


@runtime_checkable
class TeacherConfig(Protocol):
    """What synthetic data follow; ``widths`` is None where nothing was asked for."""

    @property
    def widths(self) -> tuple[int, ...] | None: ...


@runtime_checkable
class ModelConfig(Protocol):
    """What a job needs of its model: :class:`lambda_hat.targets.base.Model` adds the build and the loss.

    ``faults``        why these data and this teacher do not fit, one sentence each.
    ``parameters``    paths and shapes of the parameters, in their order within the flat w, for data without faults.
    ``known_lambda``  the asymptotic lambda and its multiplicity, or None.
    ``exact_llc``     the LLC at this n, nbeta and gamma, or None; ``report`` is what the build found of w0.
    """

    def faults(self, data: DataConfig, teacher: TeacherConfig) -> list[str]: ...
    def parameters(self, data: DataConfig) -> dict[str, tuple[int, ...]]: ...
    def known_lambda(self) -> tuple[float, int] | None: ...
    def exact_llc(self, nbeta: float, gamma: float, report: Node) -> float | None: ...


@runtime_checkable
class CheckpointedModel(Protocol):
    """A model whose w0 may be one of many checkpoints; ``program`` names what all of these share, which is compiled
    once: None at no checkpoint."""

    @property
    def program(self) -> str | None: ...


@runtime_checkable
class TrainingConfig(Protocol):
    """How w0 was found; ``dtype`` is that of the target that is kept."""

    @property
    def dtype(self) -> Dtype: ...


class SamplerTraits(Protocol):
    """``batch_size``: rows of one gradient; None: all rows. ``least_dim``: the fewest parameters that it can sample.
    ``refuses``: why it cannot sample these; else nothing. ``whole_only``: it cannot leave weights at w0."""

    @property
    def batch_size(self) -> int | None: ...
    @property
    def least_dim(self) -> int: ...
    @property
    def whole_only(self) -> bool: ...
    @property
    def refuses(self) -> Callable[[ModelConfig, DataConfig], list[str]]: ...


@runtime_checkable
class SamplerConfig(Protocol):
    """What planning and the store need of a sampler: :mod:`lambda_hat.samplers.base` has the rest."""

    kernel_version: ClassVar[int]

    @property
    def dtype(self) -> Dtype: ...
    @property
    def num_warmup(self) -> int: ...
    @property
    def traits(self) -> SamplerTraits: ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: target (model, data, teacher, training) x posterior x sampler x num_chains x seed, its budget
    and where it is kept. The schema objects are frozen and validated; ``config`` is their canonical mapping."""

    model: ModelConfig
    data: DataConfig
    teacher: TeacherConfig
    training: TrainingConfig
    posterior: PosteriorConfig
    sampler: SamplerConfig
    num_chains: int
    seed: int
    budget: Budget
    store: StoreConfig
    rerun: bool = False

    @property
    def target_config(self) -> Document:
        """What the target's id hashes. A file of data counts by its bytes, not by its path."""
        config = {name: identity(getattr(self, name)) for name in ("model", "data", "teacher", "training")}
        return {**config, "data": {**config["data"], **self.data.fingerprint()}}

    @property
    def run_config(self) -> Document:
        """What the run's id hashes, beside the id of its target."""
        posterior = self.posterior if self.free is not None else dataclasses.replace(self.posterior, restrict=None)
        return {
            "posterior": identity(posterior),
            "sampler": identity(self.sampler),
            "num_chains": self.num_chains,
            "seed": self.seed,
        }

    @cached_property
    def free(self) -> Free | None:
        """What ``posterior.restrict`` leaves free; None: every weight, however that was said.

        Raises:
            ConfigError: it does not fit the model's parameters.
        """
        if self.posterior.restrict is None:
            return None
        free = free_weights(self.posterior.restrict, self.model.parameters(self.data))
        return None if is_whole(free) else free

    @property
    def num_free(self) -> int:
        """d, the number of free weights: all, or those that ``posterior.restrict`` leaves free."""
        shapes = self.model.parameters(self.data)
        return count_free(dict.fromkeys(shapes, True) if self.free is None else self.free, shapes)

    def exact_llc(self, nbeta: float, gamma: float, report: Node) -> float | None:
        """The LLC at this n, nbeta and gamma, where the model knows it: of all weights, and of the data's labels."""
        if self.free is not None or self.posterior.quantity != "llc":
            return None
        return self.model.exact_llc(nbeta, gamma, report)

    @cached_property
    def target_id(self) -> str:
        return "tgt_" + digest("target", self.target_config)

    @property
    def sampler_name(self) -> str:
        return name_of(self.sampler)

    @cached_property
    def run_id(self) -> str:
        return f"run_{self.sampler_name}_" + digest("run", self.run_config, parents=[self.target_id])

    def to_dict(self) -> Document:
        """The mapping from which :func:`parse_job` makes this job again; what ``config.yaml`` holds."""
        return {field.name: canonical(getattr(self, field.name)) for field in dataclasses.fields(self)}


def drawn_by(sampler: SamplerConfig, posterior: PosteriorConfig) -> SamplerConfig:
    """What makes the draws: the sampler; or, for a control, the localiser's own, whatever the sampler is."""
    return schema_class(LOCALISER)(dtype=sampler.dtype) if posterior.control else sampler


def name_of(sampler: SamplerConfig) -> str:
    """The name of the sampler's file, as a run's id has it: ``hmc``."""
    return canonical(sampler)["_target_"].split(".")[-2]


def canonical(value: Any) -> Any:
    """``value`` as plain JSON types; a schema object names its class under ``_target_``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: canonical(getattr(value, f.name)) for f in dataclasses.fields(value)}
        path = schema_path(type(value))
        return fields if path is None else {"_target_": path, **fields}
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return value


def identity(node: Any) -> Document:
    """What an id hashes of a schema object: :func:`canonical`, without each field that was added later and has its
    ``historic`` value (of the field's metadata), which is what all runs had before, and without those that say where
    something came from (``NOT_HASHED``)."""
    return _hashed(canonical(node), dataclasses.fields(node))


def identity_of(name: str, node: Any) -> Any:
    """What an id hashes of the node ``name`` of a config that was written: :func:`identity` of the object it describes.

    A class that is not of this package is not looked up, because its module would be imported: its node is hashed as it
    stands.
    """
    path = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
    if not isinstance(node, Mapping) or (name not in _PLAIN_NODES and not path.startswith("lambda_hat.")):
        return node
    try:
        fields = dataclasses.fields(_PLAIN_NODES.get(name) or schema_class(path))
    except LookupError:
        return node
    return _hashed(node, fields)


def _hashed(values: Node, fields: Collection[dataclasses.Field[Any]]) -> Document:
    historic = {field.name: canonical(field.metadata["historic"]) for field in fields if "historic" in field.metadata}
    left_out = {field.name for field in fields if not field.metadata.get("hashed", True)}
    return {
        name: value
        for name, value in values.items()
        if name not in left_out and (name not in historic or value != historic[name])
    }


def digest(kind: str, config: Any, parents: list[str] | None = None) -> str:
    """The first 12 hex digits of sha256 over canonical JSON of {kind, schema, config, parents}."""
    document = {"kind": kind, "schema": SCHEMA_VERSION, "config": config, "parents": parents or []}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_PLAIN_NODES = {"posterior": PosteriorConfig, "budget": Budget, "store": StoreConfig}
_TYPED_NODES: dict[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "teacher": TeacherConfig,
    "training": TrainingConfig,
    "sampler": SamplerConfig,
}
_SCALARS: dict[str, Any] = {"num_chains": PositiveInt, "seed": Seed, "rerun": bool}
_IGNORED = {"wait", "dry_run"}  # the launcher's words, consumed before a job is made


def parse_job(config: Node, shared: Document | None = None) -> Job:
    """Validate ``config`` whole and return the job.

    Args:
        config: The job as plain data.
        shared: Schema objects by their mapping as JSON, to which new ones are added: the jobs of a sweep that are
            equal in a node share its object, and so read a file of data once.

    Raises:
        ConfigError: naming every wrong key, type and range at once.
    """
    shared = {} if shared is None else shared
    known = {*_PLAIN_NODES, *_TYPED_NODES, *_SCALARS, *_IGNORED}
    faults = [f"{key}: no such key; the keys are {', '.join(sorted(known))}" for key in config if key not in known]
    parts: dict[str, Any] = {}
    for name in (*_TYPED_NODES, *_PLAIN_NODES, *_SCALARS):
        if name not in config:
            if name != "rerun":
                faults.append(f"{name}: is missing")
            continue
        key = json.dumps([name, config[name]], sort_keys=True, default=repr)
        if key not in shared:
            before = len(faults)
            node = parse_node(name, config[name], faults)
            if len(faults) > before:
                continue
            shared[key] = node
        parts[name] = shared[key]
    if not faults:
        parts["sampler"] = drawn_by(parts["sampler"], parts["posterior"])
        job = Job(**parts)
        faults = cross_faults(job)
        if not faults:
            return job
    raise ConfigError(faults)


def parse_node(name: str, node: Any, faults: list[str]) -> Any:
    """The schema object of one node, or None after adding to ``faults``."""
    schema: Any = _SCALARS.get(name) or _PLAIN_NODES.get(name)
    if schema is None:
        if not isinstance(node, Mapping) or "_target_" not in node:
            faults.append(f"{name}: needs a mapping with _target_, got {node!r}")
            return None
        schema, node = _schema_of(name, node, faults)
        if schema is None:
            return None
    try:
        found = TypeAdapter(schema).validate_python(node)
    except ValidationError as error:
        faults += validation_sentences(name, error, schema)
        return None
    if name in _TYPED_NODES and not isinstance(found, _TYPED_NODES[name]):
        faults.append(f"{name}._target_: needs a schema class of the group {name}, got {schema_path(schema)!r}")
        return None
    return found


def _schema_of(name: str, node: Node, faults: list[str]) -> tuple[type | None, Document]:
    path = str(node["_target_"])
    try:
        schema = schema_class(path)
    except LookupError as error:
        faults.append(f"{name}._target_: needs the dotted path of a schema class, got {path!r} ({error})")
        return None, {}
    fields = {key: value for key, value in node.items() if key != "_target_"}
    older = getattr(schema, "OLDER_NAMES", {})
    for key in fields.keys() & older.keys():
        faults.append(f"{name}.{key}: is an older name; use {older[key]}")
        return None, {}
    return schema, fields
