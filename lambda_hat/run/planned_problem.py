"""``python -m lambda_hat.run.planned_problem FILE``: what the problems are that a command names.

A process of its own, because it runs the user's code and JAX; see :mod:`lambda_hat.config.own_models`. It reads
questions as JSON from its standard input and writes the answers to FILE.
"""

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lambda_hat.config.job import canonical
from lambda_hat.config.schema import ConfigError, Document
from lambda_hat.config.user_module import UserFunction, user_function
from lambda_hat.run.earlier_jax import Earlier
from lambda_hat.run.progress import PlainReporter
from lambda_hat.store.layout import Store
from lambda_hat.targets.checkpoints import StillWritten, checkpoints
from lambda_hat.targets.checkpoints.saved import Saved
from lambda_hat.targets.problem import Problem
from lambda_hat.targets.problem.imported import problem_of
from lambda_hat.targets.problem.own import Facts, Own, content_of, facts_of
from lambda_hat.targets.problem.probes import probes
from lambda_hat.targets.problem.tracing import told

# Of sentences of one kind, so many are told.
_NAMED = 3


def main(answer: Path) -> None:
    answer.write_text(json.dumps([_answers(**question) for question in json.load(sys.stdin)]))


def _answers(problem: str, args: Document, folder: str, store: str, places: list[Document | None]) -> list[Document]:
    """One for each place: at the problem's own params (null), or at the checkpoints of a glob."""
    try:
        found = _Planned.of(problem, args, folder, store)
    except ConfigError as error:
        return [{"faults": error.faults} for _ in places]
    return [_answer(found, place) for place in places]


def _answer(found: "_Planned", place: Document | None) -> Document:
    try:
        models = [found.at_its_own()] if place is None else found.at_each(**place)
    except ConfigError as error:
        return {"faults": error.faults}
    return {"models": models, "num_data": found.problem.num_data}


@dataclass(frozen=True)
class _Planned:
    """A problem that a function of the user's has made.

    facts: of it at any w0. folder: in which the command was given.
    """

    path: str
    args: Document
    folder: str
    function: UserFunction
    problem: Problem
    facts: Facts
    earlier: Earlier
    seconds: str

    @classmethod
    def of(cls, path: str, args: Document, folder: str, store: str) -> "_Planned":
        started = time.monotonic()
        function = user_function(path, folder, told)
        imported = time.monotonic() - started
        made = problem_of(path, function, args)
        words = f"{path}: imported from {function.file} in {imported:.1f} s, made in "
        words += f"{time.monotonic() - started - imported:.1f} s"
        if not isinstance(function.value, Problem):
            _refuse_chance(path, made, problem_of(path, function, args))
        return cls(path, args, folder, function, made, facts_of(made, function), Earlier(Store(store)), words)

    def at_its_own(self) -> Document:
        """The model at the params that the function has returned, once its loss has kept its contract there."""
        model = self._model(self.problem, self.facts)
        self._look(self.problem)
        return model

    def at_each(self, path: str, load: str | None, **rules: Any) -> list[Document]:
        """The models at the finished checkpoints of a glob. The loss is looked at closely at the first of them.

        Raises:
            ConfigError: there is none, or one does not fit.
        """
        started = time.monotonic()
        listed = checkpoints(path, load=load, **rules)
        models: list[Document] = []
        faults: list[str] = []
        left = [f"{one}: is unfinished" for one in listed.unfinished]
        for checkpoint in listed:
            try:
                problem = self.problem.at(checkpoint)
                saved = Saved(
                    path=checkpoint.path,
                    step=checkpoint.step,
                    load=load,
                    folder=None if load is None else self.folder,
                    rename=rules["rename"],
                    transpose=rules["transpose"],
                )
                if not models:
                    self._look(problem)
                models.append(self._model(problem, replace(self.facts, probes=probes(problem)), saved))
            except StillWritten as error:
                left += error.faults
            except ConfigError as error:
                faults += error.faults
        if faults or not models:
            raise ConfigError(_first(faults or left))
        told = f"; left for the next call: {', '.join(_first(left))}" if left else ""
        PlainReporter().line(f"{path}: {len(models)} checkpoints read in {time.monotonic() - started:.1f} s{told}")
        return models

    def _look(self, problem: Problem) -> None:
        started = time.monotonic()
        _ = problem.checked
        PlainReporter().line(f"{self.seconds}, looked at in {time.monotonic() - started:.1f} s")

    def _model(self, problem: Problem, facts: Facts, saved: Saved | None = None) -> Document:
        named = Own(
            problem=self.path,
            args=self.args,
            folder=self.function.folder,
            content=content_of(problem),
            facts=facts,
            checkpoint=saved,
        )
        own, sentence = self.earlier.as_before(named, problem)
        if sentence:
            PlainReporter().line(f"{self.path}: {sentence}")
        return canonical(own)


def _first(sentences: list[str]) -> list[str]:
    more = len(sentences) - _NAMED
    return [*sentences[:_NAMED], f"and {more} more like these"] if more > 0 else sentences


def _refuse_chance(path: str, first: Problem, second: Problem) -> None:
    """Refuse a function whose second call returns another problem: an element would find neither."""
    if first.loss_id != second.loss_id:
        raise ConfigError([f"model.problem: two calls of {path} give two losses: not its arguments alone decide them"])
    for name in ("params", "state", "data"):
        one, other = first.id_content[name], second.id_content[name]
        changed = [array for array in one if one[array] != other.get(array)]
        if changed or one.keys() != other.keys():
            raise ConfigError(
                [
                    f"model.problem: two calls of {path} give other {name} ({', '.join(changed)}): it draws random "
                    "numbers without a seed; give it one, or read the arrays from a file"
                ]
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
