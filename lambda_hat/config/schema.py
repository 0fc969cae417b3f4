"""Value types with their ranges, the plain nodes of a job, and the mark of a schema class. No JAX here."""

import dataclasses
import functools
import importlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from lambda_hat.config.sentences import near_miss as near_miss
from lambda_hat.config.sentences import validation_sentences

# Plain nested data, as YAML and JSON hold it: a document, and a part of one that is only read.
Document = dict[str, Any]
Node = Mapping[str, Any]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
# Metadata of a field that no id counts: where something came from, not what it is.
NOT_HASHED = {"hashed": False}
# Of a field that planning sets, and so no preset.
PLANNED = {"planned": True}


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
# Of a network's outputs from those at w0, and what an estimate is of.
Distance = Literal["kl", "square"]
Quantity = Literal["llc", "llc_self", "control"]
# One word stands for a list of it.
Words = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]


class ConfigError(ValueError):
    """Every fault found in a configuration, one sentence each: the key, what it needs, what it got."""

    def __init__(self, faults: list[str]):
        super().__init__("\n".join(faults))
        self.faults = faults


def without_secrets(text: str) -> str:
    """``text``, about to be shown, without the rest of each URL that may hold a password."""
    return re.sub(r"://(?=\S*(?:@|pass))\S*", "://***", text, flags=re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PosteriorConfig:
    """The tempered, localised posterior pi(w) ~ exp(-nbeta L_n(w) - gamma/2 ||w - w0||^2).

    Args:
        beta: Inverse temperature; nbeta = n * beta. Null, with ``nbeta`` null: beta = 1 / log n.
        nbeta: The product n * beta itself, instead of ``beta``.
        gamma: Strength of the localiser around w0 (>= 0).
        restrict: Which weights are free, the others staying at w0 (docs/estimator.md); null: all.
        loss: ``self`` puts the model's own outputs at w0 in the place of the data's labels: another quantity than the
            LLC, named llc_self (docs/estimator.md).
        self: The distance from those outputs: ``kl`` of logits, or ``square``; null with loss=data.
        control: Draw the localiser alone, N(w0, I / gamma), exactly and whatever the sampler is: the estimate that
            a loss without a say in where the draws are would have (docs/estimator.md).
    """

    beta: PositiveFloat | None = None
    nbeta: PositiveFloat | None = None
    gamma: NonNegativeFloat = 1.0
    restrict: Words | None = field(default=None, metadata={"historic": None})
    loss: Literal["data", "self"] = field(default="data", metadata={"historic": "data"})
    self: Distance | None = field(default=None, metadata={"historic": None})
    control: bool = field(default=False, metadata={"historic": False})

    def __post_init__(self) -> None:
        if self.beta is not None and self.nbeta is not None:
            raise ValueError("set beta or nbeta, not both: nbeta = n * beta is one number with one owner")
        if self.loss == "self" and self.self is None:
            raise ValueError("loss=self needs self=kl, for logits, or self=square")
        if self.loss == "data" and self.self is not None:
            raise ValueError(f"self={self.self} belongs to loss=self; set both, or neither")

        if self.control and self.gamma == 0:
            raise ValueError("control=true draws N(w0, I / gamma) and needs gamma > 0")

    @property
    def quantity(self) -> Quantity:
        """What is estimated, by the name that it has wherever it is shown."""
        return "control" if self.control else "llc" if self.loss == "data" else "llc_self"

    def resolve_nbeta(self, num_data: int) -> float:
        """The number nbeta for a data set of ``num_data`` rows."""
        if self.nbeta is not None:
            return self.nbeta
        if self.beta is not None:
            return num_data * self.beta
        if num_data < 2:
            raise ConfigError([f"posterior.beta: its default 1 / log n needs n >= 2, got n = {num_data}"])
        return num_data / math.log(num_data)


Class = TypeVar("Class", bound=type)


def told_in_words(cls: Class) -> Class:
    """A pydantic dataclass whose wrong arguments raise a :class:`ConfigError`, one sentence each."""
    build: Any = cls.__init__

    @functools.wraps(build)
    def init(self: Any, *args: Any, **fields: Any) -> None:
        try:
            build(self, *args, **fields)
        except ValidationError as error:
            raise ConfigError(validation_sentences(cls.__name__, error, cls)) from None

    made: Any = cls
    made.__init__ = init
    return cls


@told_in_words
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


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
NAMES = "needs letters, digits, '.', '_' and '-' only, the first a letter or a digit, at most 120 of them"


def is_name(text: str) -> bool:
    """Whether ``text`` can name a folder of the store, and so an experiment, a sweep or a session."""
    return _NAME.fullmatch(text) is not None


def check_tag(tag: str, key: str = "store.experiment") -> None:
    """Refuse a tag that would not stay one folder, because folders are named by it.

    Raises:
        ConfigError: it is not what NAMES says.
    """
    if not is_name(tag):
        raise ConfigError([f"{key}: {NAMES}, got {tag!r}"])


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StoreConfig:
    """Where results live, and the free tag under which a sweep's runs are listed.

    Args:
        root: The folder of the store; made when something is written.
        experiment: The tag of a sweep; changes no run.
        plots: Whether a finished run draws its diagnostics.
        keep_state: Whether a finished run keeps the state of its chains, from which a larger budget goes on. Without it
            a larger budget repeats the run; the trace stays.
    """

    root: str = "runs"
    experiment: str = "dev"
    plots: Literal["all", "none"] = "all"
    keep_state: bool = True


# Ids and stores name a class by the path it declares, wherever it lives; these have moved since.
_MOVED = {
    "lambda_hat.targets.analytic.Quadratic": "lambda_hat.targets.quadratic.Quadratic",
    "lambda_hat.targets.analytic.NormalCrossing": "lambda_hat.targets.normal_crossing.NormalCrossing",
    "lambda_hat.targets.mlp.Teacher": "lambda_hat.targets.teacher.Teacher",
}
_paths: dict[type, str] = {}


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field, Field))
def schema(path: str) -> Callable[[Class], Class]:
    """Makes a class a schema: a frozen dataclass of checked fields that a config may name under ``_target_``.

    Only classes with this mark are ever called for a config; a subclass needs a mark of its own.

    Args:
        path: The dotted path that configs and ids name the class by. It never changes, even if the class moves.
    """

    def mark(cls: Class) -> Class:
        made: Any = told_in_words(dataclass(frozen=True, kw_only=True, config=STRICT)(cls))
        _paths[made] = path
        return made

    return mark


def schema_path(cls: type) -> str | None:
    """The path that a schema class declares; None for any other class."""
    return _paths.get(cls)


def schema_class(path: str) -> type:
    """The schema class that declares ``path``, or that lives there; its module is imported, nothing is called.

    Raises:
        LookupError: nothing is there, or something without the mark, with the reason.
    """
    module, _, name = _MOVED.get(path, path).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise LookupError(str(error)) from error
    declared = schema_path(found) if isinstance(found, type) else None
    if declared is None:
        raise LookupError("it is not marked with lambda_hat.config.schema.schema")
    if declared != path and schema_class(declared) is not found:
        raise LookupError(f"it declares the path {declared!r}, where another class is")
    return found
