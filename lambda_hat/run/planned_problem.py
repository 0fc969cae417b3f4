"""``python -m lambda_hat.run.planned_problem FILE``: what the problems are that a command names.

A process of its own, because it runs the user's code and JAX; see :mod:`lambda_hat.config.own_models`. It reads
questions as JSON from its standard input and writes the answers to FILE.
"""

import json
import sys
import time
from pathlib import Path

from lambda_hat.config.job import canonical
from lambda_hat.config.schema import ConfigError, Document
from lambda_hat.config.user_module import user_function
from lambda_hat.run.earlier_jax import as_before
from lambda_hat.run.progress import PlainReporter
from lambda_hat.store.layout import Store
from lambda_hat.targets.problem import Problem
from lambda_hat.targets.problem.own import Own, content_of, facts_of, problem_of
from lambda_hat.targets.problem.tracing import told


def main(answer: Path) -> None:
    answer.write_text(json.dumps([_answer(**question) for question in json.load(sys.stdin)]))


def _answer(problem: str, args: Document, folder: str, store: str) -> Document:
    try:
        return _planned(problem, args, folder, Store(store))
    except ConfigError as error:
        return {"faults": error.faults}


def _planned(path: str, args: Document, folder: str, store: Store) -> Document:
    started = time.monotonic()
    function = user_function(path, folder, told)
    imported = time.monotonic() - started
    made = problem_of(path, function, args)
    seconds = time.monotonic() - started - imported
    if not isinstance(function.value, Problem):
        _refuse_chance(path, made, problem_of(path, function, args))
    _ = made.checked
    PlainReporter().line(
        f"{path}: imported from {function.file} in {imported:.1f} s, made in {seconds:.1f} s, "
        f"looked at in {time.monotonic() - started - imported - seconds:.1f} s"
    )
    facts = facts_of(made, function)
    named = Own(problem=path, args=args, folder=function.folder, content=content_of(made), facts=facts)
    own, sentence = as_before(named, made, store)
    if sentence:
        PlainReporter().line(f"{path}: {sentence}")
    return {"model": canonical(own), "num_data": made.num_data}


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
