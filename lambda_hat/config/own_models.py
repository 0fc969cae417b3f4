"""What a problem of the user's own is, as planning needs to know it: one process asks it, for all runs of a command.

This process imports nothing of the user's, and no JAX; the child does, on the CPU, and answers in JSON.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lambda_hat.config.checkpoint_axis import KEY, CheckpointAxis, without_axis
from lambda_hat.config.override_values import Config
from lambda_hat.config.schema import ConfigError, Document
from lambda_hat.config.user_module import import_path

OWN = "lambda_hat.targets.problem.own.Own"
_CHILD = "lambda_hat.run.planned_problem"


class OwnModels:
    """The problems of one command, each asked once, with all checkpoints of it."""

    def __init__(self) -> None:
        self._answers: dict[str, Document] = {}

    def ask(self, configs: Iterable[Config]) -> None:
        """Find out about every problem that these configs name, in one process; those at fault are passed over."""
        places: dict[str, dict[str, Document | None]] = {}
        questions: dict[str, Document] = {}
        for config in configs:
            with contextlib.suppress(ConfigError):
                rest, axis = without_axis(config)
                if _is_unplanned(rest):
                    key = _text(question := _question(rest))
                    questions[key] = question
                    places.setdefault(key, {}).update((_text([question, place]), place) for place in _places(axis))
        new = {
            key: fresh
            for key, known in places.items()
            if (fresh := {text: place for text, place in known.items() if text not in self._answers})
        }
        if new:
            asked = [{**questions[key], "places": list(fresh.values())} for key, fresh in new.items()]
            for fresh, answers in zip(new.values(), _answers(asked), strict=True):
                self._answers |= zip(fresh, answers, strict=True)

    def planned_each(self, config: Config) -> list[Config]:
        """What ``config`` stands for: a config with what its problem is, or one for each of its checkpoints.

        Raises:
            ConfigError: why there is no such problem or checkpoint, or what is wrong with it.
        """
        rest, axis = without_axis(config)
        if not _is_unplanned(rest):
            if axis is not None:
                raise ConfigError([f"{KEY}: is of a problem of your own (model=own); leave {KEY}.* out"])
            return [rest]
        self.ask([config])
        question = _question(rest)
        answers = [self._answers[_text([question, place])] for place in _places(axis)]
        faults = [fault for answer in answers for fault in answer.get("faults", ())]
        if faults:
            raise ConfigError(list(dict.fromkeys(faults)))
        return [_with(rest, model, answer["num_data"]) for answer in answers for model in answer["models"]]

    def planned(self, config: Config) -> Config:
        """The one config that ``config`` stands for.

        Raises:
            ConfigError: as :meth:`planned_each`, or there are several.
        """
        found = self.planned_each(config)
        if len(found) != 1:
            raise ConfigError(
                [f"{KEY}.path: a run takes one checkpoint, and these are {len(found)}; add -m to make a run of each"]
            )
        return found[0]


def _with(config: Config, model: Document, n: int) -> Config:
    planned = {**config, "model": {**config["model"], **model}}
    data = config.get("data")
    if not isinstance(data, Mapping) or data.get("_target_") != "lambda_hat.targets.problem.own.GivenData":
        return planned
    if data.get("n") not in (None, n):
        raise ConfigError([f"data.n: the problem has n = {n}, got {data['n']}; leave it out"])
    return {**planned, "data": {**data, "n": n}}


def _is_unplanned(config: Config) -> bool:
    model = config.get("model")
    if not isinstance(model, Mapping) or model.get("_target_") != OWN:
        return False
    return isinstance(model.get("problem"), str) and model.get("content") is None


def _question(config: Config) -> Document:
    model = config["model"]
    folder = model.get("folder") or str(Path.cwd())
    store = config.get("store")
    root = store.get("root") if isinstance(store, Mapping) else None
    args = model.get("args") or {}
    return {"problem": model["problem"], "args": args, "folder": folder, "store": str(root or "runs")}


def _places(axis: CheckpointAxis | None) -> list[Document | None]:
    """Where a problem is looked at: at its own params, or at checkpoints."""
    return [None] if axis is None else [*axis.question()]


def _text(question: Any) -> str:
    return json.dumps(question, sort_keys=True, default=repr)


def _answers(questions: Sequence[Document]) -> list[list[Document]]:
    """What the child says of each of their places, in their order.

    Raises:
        ConfigError: it ended without an answer.
    """
    names = ", ".join(dict.fromkeys(str(question["problem"]) for question in questions))
    return in_a_child(_CHILD, questions, names, "model.problem")


def in_a_child(module: str, question: Any, names: str, key: str) -> Any:
    """What a process that imports the user's code answers; both are JSON.

    Args:
        module: Of this package, run with a file for the answer.
        question: Its standard input.
        names: Of what it imports.
        key: At which a process that died is told.

    Raises:
        ConfigError: it ended without an answer.
    """
    with tempfile.TemporaryDirectory(prefix="lambda_hat-") as folder:
        answer = Path(folder, "answer.json")
        environment = {**os.environ, "PYTHONPATH": import_path(), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
        # -P: a user's random.py or jax.py in the working directory must not take the place of the real one.
        command = [sys.executable, "-P", "-m", module, str(answer)]
        # What the user's module prints belongs to no command's output.
        child = subprocess.run(
            command, input=json.dumps(question), text=True, env=environment, stdout=sys.__stderr__, check=False
        )
        if not answer.exists():
            end = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
            fault = f"the process that imports {names} ended without an answer ({end}); its words are above"
            raise ConfigError([f"{key}: {fault}"])
        return json.loads(answer.read_text())
