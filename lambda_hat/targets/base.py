"""What is sampled, a loss L_n with its data and its trained w0, and the contracts of all that it is built from.

Four schema objects make a target: a *model* (the loss), a *data source*, a *teacher* (what synthetic data follow) and
the *training*. Each is a frozen, hashable dataclass with the mark of :func:`lambda_hat.config.schema.schema`. What the
job needs of them is declared in :mod:`lambda_hat.config.job`; the protocols here add all the rest.

A :class:`Target` binds a model to a data set. The arrays are leaves and the model is static, so compiled code is
shared by all targets of one shape, and no data set is ever a constant of a program.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, dataclass_transform, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, Shaped

from lambda_hat.config.job import DataConfig, Job, ModelConfig, TeacherConfig
from lambda_hat.config.schema import ConfigError, Distance
from lambda_hat.targets.training import Training

Class = TypeVar("Class", bound=type)
# On the host while a target is built, on the device afterwards.
Leaf = Array | np.ndarray
# What one minibatch is made from: the indices of its rows, or a population's gradient noise.
Batch = Shaped[Array, "..."]


class Rows(NamedTuple):
    """What a data source gives, in float64.

    inputs: (n, p). outputs: (n, q), or labels (n,) from 0. num_classes: None for regression.
    sigma: the regression loss is 0.5 ||y - f(x)||^2 / sigma^2.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    num_classes: int | None
    sigma: float


class Truth(NamedTuple):
    """What synthetic outputs follow: ``function`` of inputs (n, p) to (n, q), and the stream that drew it."""

    function: Callable[[np.ndarray], np.ndarray]
    num_inputs: int
    rng: np.random.Generator


# Of the numbers of inputs and outputs that the data ask for; None leaves the choice to the truth.
MakeTruth = Callable[[int | None, int | None], Truth]


@runtime_checkable
class RowSource(Protocol):
    """A data source with rows; a population is a :class:`DataConfig` without them.

    ``rows``        all rows, deterministic. Synthetic data ask ``make_truth`` what they follow; real data ignore it.
    ``widths``      the numbers of inputs p and of outputs q (or classes), known without a truth.
    ``has_labels``  whether the outputs are classes: a classification, known without reading the rows.
    """

    @property
    def has_labels(self) -> bool: ...
    def rows(self, make_truth: MakeTruth) -> Rows: ...
    def widths(self) -> tuple[int, int]: ...


@runtime_checkable
class Teacher(TeacherConfig, Protocol):
    """What synthetic data of a network follow.

    ``truth``  makes the function for a student network, whose architecture is the default of its own.
    """

    def truth(self, student: Any) -> MakeTruth: ...


@runtime_checkable
class DataSet(Protocol):
    """What a model's functions read: a dataclass of arrays, made by :func:`data_set_kind`.

    The store keeps each field under its own name. A field with the default None is made on the device, not stored.
    ``has_rows`` says whether a minibatch is drawn from rows.
    """

    has_rows: ClassVar[bool]
    __dataclass_fields__: ClassVar[dict[str, Any]]


# Metadata of a data set's field: a tuple of arrays, which may be empty; an array or None.
SEVERAL, OPTIONAL = {"arrays": "several"}, {"arrays": "one or none"}


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def data_set_kind(cls: Class) -> Class:
    """Makes a class a frozen dataclass of keyword arguments, and a pytree of its fields.

    A pytree is also rebuilt around what is no array, which ``__init__`` may refuse; so it is not called then.
    """
    made: Any = dataclass(frozen=True, kw_only=True)(cls)
    names = [f.name for f in dataclasses.fields(made)]

    def rebuild(_: None, leaves: Iterable[Any]) -> Any:
        new = object.__new__(made)
        for name, leaf in zip(names, leaves, strict=True):
            object.__setattr__(new, name, leaf)
        return new

    jax.tree_util.register_pytree_node(made, lambda new: ([getattr(new, name) for name in names], None), rebuild)
    return made


@runtime_checkable
class Loss(Protocol):
    """The pure functions of a loss; hashable, because it is static in compiled code. Every array is an argument.

    ``loss``            L_n(w): the mean loss over all rows, or the exact expectation of a population.
    ``minibatch``       draws what ``minibatch_loss`` reads: ``batch_size`` row indices, or a population's noise.
    ``minibatch_loss``  the mean loss over a minibatch: its gradient is an unbiased estimate of that of L_n.
    ``unravel``         the flat w as named arrays.
    """

    def loss(self, data: PyTree, w: Float[Array, " d"], /) -> Float[Array, ""]: ...
    def minibatch(self, key: Key[Array, ""], target: "Target", batch_size: int, /) -> Batch: ...
    def minibatch_loss(self, data: PyTree, w: Float[Array, " d"], batch: Batch, /) -> Float[Array, ""]: ...
    def unravel(self, data: PyTree, w: Float[Array, " d"], /) -> PyTree: ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Target:
    """A loss L_n with its data and its trained parameter w0.

    Args:
        w0: The trained parameter, flat, shape (d,).
        data: What the model's functions read: rows, exact second moments, curvatures.
        model: The schema object that owns the functions (static).
        num_data: n, the number of rows, or the n that stands for it when the loss is a population's (static).
    """

    w0: Float[Array, " d"]
    data: PyTree
    model: Loss = field(metadata={"static": True})
    num_data: int = field(metadata={"static": True})

    @property
    def dim(self) -> int:
        return self.w0.shape[0]

    def loss(self, w: Float[Array, " d"]) -> Float[Array, ""]:
        """L_n(w), the full-data loss."""
        return self.model.loss(self.data, w)

    def minibatch(self, key: Key[Array, ""], batch_size: int) -> Batch:
        """Draw a minibatch of ``batch_size`` rows, with replacement."""
        return self.model.minibatch(key, self, batch_size)

    def minibatch_loss(self, w: Float[Array, " d"], batch: Batch) -> Float[Array, ""]:
        """The mean loss over ``batch``."""
        return self.model.minibatch_loss(self.data, w, batch)

    def unravel(self, w: Float[Array, " d"]) -> PyTree:
        """The flat ``w`` as named arrays."""
        return self.model.unravel(self.data, w)

    def astype(self, dtype: str) -> "Target":
        """The target with every floating-point leaf in ``dtype``."""

        def cast(leaf: Leaf) -> Array:
            return jnp.asarray(leaf, dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.asarray(leaf)

        return jax.tree.map(cast, self)


class Built(NamedTuple):
    """A target as it leaves the build, on the host, in float64.

    w0: the trained parameter (d,). data: what the model's functions read. num_data: n.
    report: what w0 is, as JSON types: ``loss``, ``gradient_norm``, ``hessian_max``, ``hessian_min``, ``dim``,
    ``training`` (steps, seconds-free facts of the optimisation) and ``warnings`` (sentences to be shown).
    """

    w0: np.ndarray
    data: DataSet
    num_data: int
    report: dict[str, Any]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The data set as named arrays, which is how the store keeps it."""
        found: dict[str, np.ndarray] = {}
        for f in dataclasses.fields(self.data):
            value = getattr(self.data, f.name)
            if isinstance(value, tuple):
                found |= {f"{f.name}.{index}": _storable(array) for index, array in enumerate(value)}
            elif value is not None:
                found[f.name] = value
        return found


def _storable(array: np.ndarray) -> np.ndarray:
    """bfloat16 and its kin, whose names NumPy's files lose, in float32, which holds them."""
    is_own = array.dtype.kind == "V" and jnp.issubdtype(array.dtype, jnp.floating)
    return array.astype(np.float32) if is_own else array


@runtime_checkable
class Model(ModelConfig, Loss, Protocol):
    """The schema of one kind of target: its loss, its build, and the kinds of data set that these read.

    ``data_kinds``  the classes of :class:`DataSet` that ``build`` may choose from.
    ``build``       the trained target, on the host in float64; called under ``jax.enable_x64(True)``.

    :class:`ModelConfig` has what is known of its LLC, None where nothing is: ``known_lambda`` and ``exact_llc``.
    """

    data_kinds: ClassVar[tuple[type[DataSet], ...]]

    def build(self, data: DataConfig, teacher: Teacher, training: Training) -> "Built": ...


class Curvature(NamedTuple):
    """The Hessian of L_n in one layer: left (x) right on its entries in row-major order. None: the identity."""

    left: Float[Array, "out out"] | None
    right: Float[Array, "in in"] | None


@runtime_checkable
class LinearInLayers(Protocol):
    """What a model has whose L_n is quadratic in each layer while the others stay: the square loss of a network that
    is linear in each layer. Not a part of every :class:`Model`.

    ``layered_data``  the kinds of its data set for which this is so.
    ``nonlinear``     why it is not so with these data, as the end of a sentence; None where it is.
    ``layers``        the flat w, or a gradient in it, as one matrix (out, in) a layer, from the inputs to the outputs.
    ``flat``          the flat w of such matrices.
    ``curvature``     of the layer ``index``. From rows it takes one more pass over them, as a gradient does. The right
                      factor of layer 0 is that of the inputs, whatever the layers.
    """

    layered_data: ClassVar[tuple[type, ...]]

    def nonlinear(self, data: DataConfig, /) -> str | None: ...
    def layers(self, data: PyTree, w: Float[Array, " d"], /) -> list[Array]: ...
    def flat(self, layers: Sequence[Array], /) -> Float[Array, " d"]: ...
    def curvature(self, data: PyTree, layers: Sequence[Array], index: int, /) -> Curvature: ...


@runtime_checkable
class SelfLabelled(Protocol):
    """What a model has whose outputs at w0 can stand in the place of its data's labels (``posterior.loss=self``).

    ``self_loss``  the loss of such a target.
    ``self_data``  its data set, on the host. ``target``: with the data's labels, all weights, in float64; ``data``: its
                   data set on the host.
    """

    def self_loss(self, distance: Distance, /) -> Loss: ...
    def self_data(self, target: Target, data: DataSet, distance: Distance, /) -> DataSet: ...


@runtime_checkable
class OwnModel(ModelConfig, Protocol):
    """A model whose loss is a user's, found when it is needed.

    ``loss_functions``  the loss; refused where it computes anything but what was planned.
    ``built``           the target, likewise.
    ``described``       what w0 is, of a target of this loss that has some of its weights or all.
    ``gradient_groups`` which rows the gradient at its w0 comes from, likewise.
    ``provenance``      where it came from, as JSON types.
    """

    def loss_functions(self) -> "StoredLoss": ...
    def built(self) -> Built: ...
    def described(self, target: Target) -> dict[str, Any]: ...
    def gradient_groups(self, target: Target) -> list[dict[str, Any]]: ...
    def provenance(self) -> dict[str, Any]: ...


@runtime_checkable
class StoredLoss(Loss, Protocol):
    """A loss whose data set is one of these kinds, which a store keeps as named arrays."""

    data_kinds: ClassVar[tuple[type[DataSet], ...]]


def data_set(loss: StoredLoss, arrays: Mapping[str, Leaf]) -> DataSet:
    """The data set of which ``arrays`` are the stored fields; those of a tuple are ``name.0``, ``name.1``, ...

    Raises:
        ConfigError: no kind of the loss's data set has these fields.
    """
    stored = {name.partition(".")[0] for name in arrays}
    for kind in loss.data_kinds:
        fields = {f.name: f.metadata for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
        if {name for name, metadata in fields.items() if not metadata} <= stored <= fields.keys():
            return kind(**{name: _field(name, metadata, arrays) for name, metadata in fields.items()})
    raise ConfigError([f"model: {type(loss).__name__} has no data set of the arrays {', '.join(sorted(arrays))}"])


def _field(name: str, metadata: Mapping[str, Any], arrays: Mapping[str, Leaf]) -> Any:
    if metadata == SEVERAL:
        return tuple(arrays[f"{name}.{index}"] for index in range(sum(key.startswith(f"{name}.") for key in arrays)))
    return arrays.get(name) if metadata == OPTIONAL else arrays[name]


def loss_of(job: Job) -> StoredLoss:
    """The functions of the job's loss: its model, or what its model stands for.

    Raises:
        ConfigError: a user's loss is another than planned, or the schema class lacks functions of a :class:`Model`.
    """
    return job.model.loss_functions() if isinstance(job.model, OwnModel) else model_of(job)


def model_of(job: Job) -> Model:
    """The job's model, by its whole contract.

    Raises:
        ConfigError: the schema class lacks functions of a :class:`Model`.
    """
    if isinstance(job.model, Model):
        return job.model
    raise ConfigError([f"model._target_: needs a model (lambda_hat.targets.base), got {type(job.model).__name__}"])


def build(job: Job) -> Built:
    """The job's target, trained.

    Raises:
        ConfigError: a part of the job lacks functions of its contract.
    """
    if isinstance(job.model, OwnModel):
        return job.model.built()
    if not isinstance(job.teacher, Teacher):
        raise ConfigError([f"teacher: needs what lambda_hat.targets.base declares, got {type(job.teacher).__name__}"])
    return model_of(job).build(job.data, job.teacher, training_of(job))


def training_of(job: Job) -> Training:
    """The job's training, by its whole contract.

    Raises:
        ConfigError: the schema class is another one.
    """
    if isinstance(job.training, Training):
        return job.training
    raise ConfigError([f"training._target_: needs Training, got {type(job.training).__name__}"])


def unflatten(w: Float[Array, " d"], shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """The flat ``w`` as arrays of the given shapes, one after another.

    Split, not sliced: the gradient of slices is a sum of as many vectors of length d, that of a split puts its pieces
    side by side. With 10k parameters that is a tenth of an MLP's gradient (docs/benchmark.md).
    """
    pieces = jax.lax.split(w, [math.prod(shape) for shape in shapes.values()])
    return {name: piece.reshape(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
