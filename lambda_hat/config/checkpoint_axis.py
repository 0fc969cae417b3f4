"""``checkpoint.path=ckpts/step_*.npz``: in a sweep, a run of a problem of one's own at each checkpoint that it matches.

The node is no part of a job: planning sets the model's own ``checkpoint`` for each run, and takes the node away.
"""

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from lambda_hat.config.override_values import Config, override_text
from lambda_hat.config.schema import STRICT, ConfigError, Document, NonNegativeInt, Words
from lambda_hat.config.sentences import validation_sentences

KEY = "checkpoint"
# Of these, what Hydra's grammar cannot read is taken as it stands: file names with = or (, regexes.
_AS_TEXT = tuple(f"{KEY}.{name}=" for name in ("path", "step", "transpose"))
_Patterns = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    Field(min_length=1),
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CheckpointAxis:
    """Which checkpoints a problem is measured at, and how they are read.

    Args:
        path: A glob, a file or a folder, or a list of them.
        step: A regex whose one group is the step; null: the last integer of the path's last part.
        select: ``all``, ``log:30`` or ``linear:50`` of each path's steps, or a list of steps.
        load: The dotted path of a reader of your own; null: by the file's ending.
        rename: Regexes of whole names in the file, and what these become; null leaves an array out.
        transpose: Regexes of whole names of parameters that the file has transposed.
    """

    path: _Patterns
    step: str | None = None
    select: str | tuple[NonNegativeInt, ...] = "all"
    load: str | None = None
    rename: dict[str, str | None] = field(default_factory=dict[str, str | None])
    transpose: Words = ()

    def question(self) -> list[Document]:
        """One for each path, as the arguments of :func:`lambda_hat.checkpoints`, in JSON types."""
        shared = {"step": self.step, "load": self.load, "rename": dict(self.rename), "transpose": list(self.transpose)}
        select = self.select if isinstance(self.select, str) else list(self.select)
        return [{"path": str(Path(path).absolute()), "select": select, **shared} for path in self.path]


def without_axis(config: Config) -> tuple[Config, CheckpointAxis | None]:
    """The config of a job, and at which checkpoints it is asked for; None: at none.

    Raises:
        ConfigError: a key of the node is wrong.
    """
    node = config.get(KEY)
    rest = {name: value for name, value in config.items() if name != KEY}
    if node is None:
        return rest, None
    if not isinstance(node, dict):
        raise ConfigError([f"{KEY}: needs its keys, such as {KEY}.path=ckpts/step_*.npz, got {node!r}"])
    given: dict[str, Any] = {name: value for name, value in node.items() if name != "path" or value is not None}
    if "path" not in given and given == _DEFAULTS:
        return rest, None
    try:
        return rest, TypeAdapter(CheckpointAxis).validate_python(given)
    except ValidationError as error:
        raise ConfigError(validation_sentences(KEY, error, CheckpointAxis)) from error


_DEFAULTS: Config = {"step": None, "select": "all", "load": None, "rename": {}, "transpose": []}


def as_text(arguments: Sequence[str]) -> list[str]:
    """A command line whose file names and regexes of checkpoints are quoted where Hydra's grammar cannot read them."""
    parser = OverridesParser.create()

    def quoted(argument: str) -> str:
        if not argument.startswith(_AS_TEXT):
            return argument
        try:
            parser.parse_override(argument)
        except HydraException:
            key, _, value = argument.partition("=")
            return override_text(key, value)
        return argument

    return [quoted(argument) for argument in arguments]
