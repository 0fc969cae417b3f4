"""``lambda_hat.checkpoints``: which checkpoints there are, read one at a time."""

import glob
import os
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from lambda_hat.targets.checkpoints.arrays import Arrays, CheckpointError, StillWritten
from lambda_hat.targets.checkpoints.fit import Wanted
from lambda_hat.targets.checkpoints.formats import Format, format_of, is_pickle, is_unfinished, known
from lambda_hat.targets.checkpoints.mapping import Mapped, Source, mapped
from lambda_hat.targets.checkpoints.readers.own import Load, function_of, reader_of
from lambda_hat.targets.checkpoints.rules import Rules, rules_of
from lambda_hat.targets.checkpoints.steps import by_step, pattern_of, selected

# What the readers of damaged files raise.
_UNREADABLE = (
    ValueError, OSError, EOFError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# Seconds within which a file that cannot be read may still grow.
_FRESH = 60.0
_NAMED = 3


@dataclass(frozen=True)
class Checkpoint:
    """Saved parameters at a training step. Nothing is read before :meth:`read`.

    Args:
        step: Of the training.
        path: Of the file or folder.
        format: How it is read.
        rules: What is renamed and transposed.
    """

    step: int
    path: str
    format: Format = field(repr=False)
    rules: Rules = field(repr=False)

    def read(self) -> Arrays:
        """All its arrays by the names in the file, such as ``("layer", "kernel")``.

        Raises:
            StillWritten: it changes, or cannot be read and is younger than a minute.
            CheckpointError: it is damaged, of another format, or its library is not installed.
        """
        before = self._look()
        try:
            found = self.format.read(self.path)
        except CheckpointError:
            raise
        except _UNREADABLE as error:
            # Of a clock ahead of this one, too.
            if self._look() != before or time.time() - before[1] / 1e9 < _FRESH:
                raise self._still_written() from error
            told = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                [f"{self.path}: cannot be read as {self.format.name}, so it is damaged or something else ({told:.200})"]
            ) from error
        if self._look() != before:
            raise self._still_written()
        return found

    def onto(self, params: Sequence[Wanted], state: Sequence[Wanted]) -> Mapped:
        """Its arrays for these leaves: see :func:`lambda_hat.targets.checkpoints.mapping.mapped`.

        Raises:
            CheckpointError: it cannot be read, or does not fit.
        """
        return mapped(Source(self.path, self.read(), self.format.has_names, self.rules), params, state)

    def _look(self) -> tuple[int, int]:
        try:
            found = os.stat(self.path)  # noqa: PTH116 - the path is text, for its repr
        except OSError as error:
            raise CheckpointError([f"{self.path}: cannot be looked at ({error.strerror})"]) from error
        return found.st_size, found.st_mtime_ns

    def _still_written(self) -> StillWritten:
        return StillWritten([f"step {self.step} is still being written: left for the next call ({self.path})"])


@dataclass(frozen=True)
class Checkpoints(Sequence[Checkpoint]):
    """Checkpoints in the order of their steps.

    Args:
        items: These.
        unfinished: Paths that were passed over, because their writers have not closed them.
    """

    items: tuple[Checkpoint, ...]
    unfinished: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(item.step for item in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> Checkpoint: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Checkpoint, ...]: ...
    def __getitem__(self, index: int | slice) -> Checkpoint | tuple[Checkpoint, ...]:
        return self.items[index]

    def __repr__(self) -> str:
        first, last = self.items[0], self.items[-1]
        formats = " and ".join(sorted({item.format.name for item in self.items}))
        left = f"; {len(self.unfinished)} unfinished" if self.unfinished else ""
        return f"{len(self)} checkpoints ({formats}), steps {first.step} to {last.step}: {first.path} ...{left}"


def checkpoints(
    path: str | os.PathLike[str],
    step: str | None = None,
    select: str | Sequence[int] = "all",
    load: Load | str | None = None,
    rename: Mapping[str, str | None] | None = None,
    transpose: str | Sequence[str] = (),
) -> Checkpoints:
    r"""The saved parameters of a training, for ``problem.at(checkpoint)``. Each is read when it is used.

    Args:
        path: A glob such as ``ckpts/step_*.npz``, one checkpoint, or a folder of them: NumPy's .npz, .safetensors,
            Flax's .msgpack, Equinox's .eqx, a state dict of PyTorch (.pt, .pth, .bin), folders of Orbax.
        step: A regex with one group, the step, searched for in the path; None: the last integer of its last part.
        select: ``all``; ``log:30`` or ``linear:50``: so many, about evenly spaced; or a list of steps.
        load: A reader of your own: a function of a path that returns a pytree of arrays, or its dotted path.
        rename: Regexes of whole names in the file (``a/b/c``) to names of parameters, with groups as ``\1``; None
            leaves an array out.
        transpose: Regexes of whole names of parameters whose matrices the file has transposed.

    Raises:
        lambda_hat.targets.checkpoints.CheckpointError: one sentence for each thing that is wrong.
    """
    rules, pattern = rules_of(rename, transpose), pattern_of(step)
    own = None if load is None else Format("load", reader_of(function_of(load)))
    there = _expanded(os.fspath(path), is_any=own is not None)
    unfinished = [one for one in there if is_unfinished(one)]
    finished = [one for one in there if one not in unfinished]
    formats = {one: own or format_of(one) for one in finished}
    unknown = [one for one, found in formats.items() if found is None]
    if unknown:
        raise CheckpointError([_no_checkpoints(unknown)])
    if not finished:
        raise CheckpointError([f"{os.fspath(path)}: none of the {len(unfinished)} checkpoints is finished yet"])
    steps = by_step(finished, pattern)
    items = [(one, steps[one], formats[steps[one]]) for one in selected(list(steps), select)]
    return Checkpoints(
        tuple(Checkpoint(one, str(file), found, rules) for one, file, found in items if found is not None),
        tuple(map(str, unfinished)),
    )


def checkpoint_at(
    path: str, step: int, load: str | None, rename: Mapping[str, str | None], transpose: Sequence[str]
) -> Checkpoint:
    """The checkpoint of ``step`` of a planned run; the other arguments as of :func:`checkpoints`.

    Raises:
        CheckpointError: it is gone, of no known format, or the reader cannot be found.
    """
    if not Path(path).exists():
        raise CheckpointError(
            [
                f"{path}: the checkpoint of step {step} is gone since its runs were planned; put it back, or submit "
                "the sweep again"
            ]
        )
    found = format_of(Path(path)) if load is None else Format("load", reader_of(function_of(load)))
    if found is None:
        raise CheckpointError([_no_checkpoints([Path(path)])])
    return Checkpoint(step, path, found, rules_of(rename, transpose))


def _no_checkpoints(paths: Sequence[Path]) -> str:
    pickles = [one for one in paths if is_pickle(one)]
    if pickles:
        return f"{_listed(pickles)}: a pickle runs code as it is read; save the arrays with numpy.savez, or give load="
    return f"{_listed(paths)}: no checkpoint, which is {known()}; narrow the pattern, or give load="


def _listed(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(map(str, paths[:_NAMED])) + more


def _expanded(path: str, *, is_any: bool) -> list[Path]:
    """The paths that ``path`` means: itself, what it matches, or what is a checkpoint in the folder."""
    there = Path(path)
    if not there.exists():
        found = [Path(name) for name in sorted(glob.glob(path, recursive=True))]  # noqa: PTH207 - an absolute pattern
        if not found:
            raise CheckpointError([f"{path}: no such file or folder, and nothing matches it"])
        return found
    if is_any or not there.is_dir() or format_of(there) is not None:
        return [there]
    found = [one for one in sorted(there.iterdir()) if is_unfinished(one) or format_of(one) is not None]
    if not found:
        raise CheckpointError([f"{path}: holds no checkpoint, which is {known()}"])
    return found
