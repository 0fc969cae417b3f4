"""The job: what is to be estimated, how, and how far. Its schema, its validation and its ids.

A job arrives as a plain nested mapping (Hydra composed it, or a frozen ``config.yaml`` was read) and leaves
as a frozen :class:`Job`. Nodes that can be of several kinds (``model``, ``data``, ``sampler``) carry
``_target_``, the dotted path of the schema dataclass that validates them; that path *is* the registry, so a
new sampler or target edits nothing here. Neither this module nor any schema module imports JAX: a sweep is
planned on login nodes.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from lambda_hat.config.presets import config_dir as config_dir
from lambda_hat.config.schema import (
    Budget,
    ConfigError,
    Dtype,
    PositiveInt,
    PosteriorConfig,
    Seed,
    StoreConfig,
    schema_class,
    schema_path,
)

SCHEMA_VERSION = 1


class SamplerConfig(Protocol):
    """What planning needs to know of a sampler: see :mod:`lambda_hat.samplers.base` for the rest."""

    dtype: Dtype
    num_warmup: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: target (model, data, teacher, training) x posterior x sampler x num_chains x seed, its budget
    and where it is kept. The schema objects are frozen and validated; ``config`` is their canonical mapping."""

    model: Any
    data: Any
    teacher: Any
    training: Any
    posterior: PosteriorConfig
    sampler: Any
    num_chains: int
    seed: int
    budget: Budget
    store: StoreConfig
    rerun: bool = False

    @property
    def target_config(self) -> dict[str, Any]:
        """What the target's id hashes. A file of data counts by its bytes, not by its path."""
        config = {name: canonical(getattr(self, name)) for name in ("model", "data", "teacher", "training")}
        fingerprint = getattr(self.data, "fingerprint", None)
        if fingerprint is not None:
            config["data"] = fingerprint(config["data"])
        return config

    @property
    def run_config(self) -> dict[str, Any]:
        """What the run's id hashes, beside the id of its target."""
        return {
            "posterior": canonical(self.posterior),
            "sampler": canonical(self.sampler),
            "num_chains": self.num_chains,
            "seed": self.seed,
        }

    @cached_property
    def target_id(self) -> str:
        return "tgt_" + digest("target", self.target_config)

    @property
    def sampler_name(self) -> str:
        """The name of the sampler's file, as the run's id has it: ``hmc``."""
        return canonical(self.sampler)["_target_"].split(".")[-2]

    @cached_property
    def run_id(self) -> str:
        return f"run_{self.sampler_name}_" + digest("run", self.run_config, parents=[self.target_id])

    def to_dict(self) -> dict[str, Any]:
        """The mapping from which :func:`parse_job` makes this job again; what ``config.yaml`` holds."""
        return {field.name: canonical(getattr(self, field.name)) for field in dataclasses.fields(self)}


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


def digest(kind: str, config: Any, parents: list[str] | None = None) -> str:
    """The first 12 hex digits of sha256 over canonical JSON of {kind, schema, config, parents}."""
    document = {"kind": kind, "schema": SCHEMA_VERSION, "config": config, "parents": parents or []}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_PLAIN_NODES = {"posterior": PosteriorConfig, "budget": Budget, "store": StoreConfig}
_TYPED_NODES = ("model", "data", "teacher", "training", "sampler")
_SCALARS: dict[str, Any] = {"num_chains": PositiveInt, "seed": Seed, "rerun": bool}
_IGNORED = {"wait", "dry_run"}  # the launcher's words, consumed before a job is made


def parse_job(config: Mapping[str, Any], shared: dict[str, Any] | None = None) -> Job:
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
            node = _parse_node(name, config[name], faults)
            if len(faults) > before:
                continue
            shared[key] = node
        parts[name] = shared[key]
    if not faults:
        job = Job(**parts)
        faults = cross_faults(job)
        if not faults:
            return job
    raise ConfigError(faults)


def _parse_node(name: str, node: Any, faults: list[str]) -> Any:
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
        return TypeAdapter(schema).validate_python(node)
    except ValidationError as error:
        faults += _sentences(name, error, schema)
        return None


def cross_faults(job: Job) -> list[str]:
    """What no single node can see: each schema object may judge its place in the whole by ``faults(job)``."""
    faults: list[str] = []
    for name in _TYPED_NODES:
        judge = getattr(getattr(job, name), "faults", None)
        if judge is not None:
            faults += judge(job)
    wide, narrow = job.sampler.dtype == "float64", getattr(job.training, "dtype", "float64") == "float32"
    if wide and narrow:
        faults.append(
            "sampler.dtype: a float64 run needs a target built in float64, got training.dtype=float32; "
            "set training.dtype=float64 or sampler.dtype=float32"
        )
    return faults


def _schema_of(name: str, node: Mapping[str, Any], faults: list[str]) -> tuple[type | None, dict[str, Any]]:
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


def _sentences(name: str, error: ValidationError, schema: Any) -> list[str]:
    sentences: list[str] = []
    for item in error.errors():
        key = ".".join(str(part) for part in (name, *item["loc"]) if not str(part).endswith("]"))
        message = item["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            fields = ", ".join(f.name for f in dataclasses.fields(schema))
            message = f"no such key; {name} has {fields}"
            sentences.append(f"{key}: {message}")
        else:
            got = item["input"] if not isinstance(item["input"], dict | Mapping) else dict(item["input"])
            sentences.append(f"{key}: {message}, got {got!r}")
    return list(dict.fromkeys(sentences))
