"""The job: what is to be estimated, how, and how far. Its schema, its validation and its ids.

A job arrives as a plain nested mapping (Hydra composed it, or a frozen ``config.yaml`` was read) and leaves
as a frozen :class:`Job`. Nodes that can be of several kinds (``model``, ``data``, ``sampler``) carry
``_target_``, the dotted path of the schema dataclass that validates them; that path *is* the registry, so a
new sampler or target edits nothing here. Neither this module nor any schema module imports JAX: a sweep is
planned on login nodes.
"""

import dataclasses
import hashlib
import importlib
import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from lambda_hat.config.presets import config_dir as config_dir

SCHEMA_VERSION = 1
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("needs a number, not true or false")
    return value


# YAML's `true` must not pass for the number 1, which pydantic would allow.
Int = Annotated[int, BeforeValidator(_refuse_bool)]
Float = Annotated[float, BeforeValidator(_refuse_bool)]
PositiveInt = Annotated[Int, Field(gt=0)]
NonNegativeInt = Annotated[Int, Field(ge=0)]
# Beyond 32 bits a seed would be cut, and two ids would share one stream.
Seed = Annotated[Int, Field(ge=0, lt=2**32)]
PositiveFloat = Annotated[Float, Field(gt=0)]
NonNegativeFloat = Annotated[Float, Field(ge=0)]
Fraction = Annotated[Float, Field(gt=0, lt=1)]
Dtype = Literal["float32", "float64"]


class ConfigError(ValueError):
    """Every fault found in a configuration, one sentence each: the key, what it needs, what it got."""

    def __init__(self, faults: list[str]):
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PosteriorConfig:
    """The tempered, localised posterior pi(w) ~ exp(-nbeta L_n(w) - gamma/2 ||w - w0||^2).

    Args:
        beta: Inverse temperature; nbeta = n * beta. Null, with ``nbeta`` null: beta = 1 / log n.
        nbeta: The product n * beta itself, instead of ``beta``.
        gamma: Strength of the localiser around w0 (>= 0).
    """

    beta: PositiveFloat | None = None
    nbeta: PositiveFloat | None = None
    gamma: NonNegativeFloat = 1.0

    def __post_init__(self) -> None:
        if self.beta is not None and self.nbeta is not None:
            raise ValueError("set beta or nbeta, not both: nbeta = n * beta is one number with one owner")

    def resolve_nbeta(self, num_data: int) -> float:
        """The number nbeta for a data set of ``num_data`` rows."""
        if self.nbeta is not None:
            return self.nbeta
        if self.beta is not None:
            return num_data * self.beta
        if num_data < 2:
            raise ConfigError([f"posterior.beta: its default 1 / log n needs n >= 2, got n = {num_data}"])
        return num_data / math.log(num_data)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Budget:
    """How far a run goes: it stops at the first limit it reaches. Not part of the run's id, so a larger
    budget continues the same run.

    Args:
        draws: Recorded draws per chain, after warm-up.
        gradients: Per-row gradients over all chains, warm-up included.
        seconds: Seconds of computation, warm-up included, compilation not.
        mcse: Monte Carlo standard error of the LLC as a fraction of |LLC|; counts only once R-hat and ESS
            pass the checks of the verdict.
    """

    draws: PositiveInt | None = None
    gradients: PositiveInt | None = None
    seconds: PositiveFloat | None = None
    mcse: PositiveFloat | None = None

    def __post_init__(self) -> None:
        if self.draws is self.gradients is self.seconds is self.mcse is None:
            raise ValueError("needs at least one of draws, gradients, seconds, mcse; all are null")

    def spent(self, progress: "Progress") -> str | None:
        """The name of a limit that ``progress`` has reached, or None while there is more to do."""
        for name in ("draws", "gradients", "seconds"):
            limit, done = getattr(self, name), getattr(progress, name)
            if limit is not None and done >= limit:
                return name
        if self.mcse is not None and progress.mcse is not None and progress.mcse <= self.mcse:
            return "mcse"
        return None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come, in the units of :class:`Budget` (``mcse`` None while its checks fail)."""

    draws: int
    gradients: int
    seconds: float
    mcse: float | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StoreConfig:
    """Where results live, and the free tag under which a sweep's runs are listed.

    Args:
        root: The folder of the store; made when something is written.
        experiment: The tag of a sweep; changes no run.
        plots: Whether a finished run draws its diagnostics.
    """

    root: str = "runs"
    experiment: str = "dev"
    plots: Literal["all", "none"] = "all"


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
        return type(self.sampler).__module__.rpartition(".")[2]

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
        if type(value).__module__ == __name__:
            return fields
        return {"_target_": f"{type(value).__module__}.{type(value).__qualname__}", **fields}
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
    module, _, cls = path.rpartition(".")
    try:
        schema = getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError, ValueError) as error:
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
