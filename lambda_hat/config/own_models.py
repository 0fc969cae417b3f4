"""What a problem of the user's own is, as planning needs to know it: one process asks it, for all runs of a command.

This process imports nothing of the user's, and no JAX; the child does, on the CPU, and answers in JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lambda_hat.config.override_values import Config
from lambda_hat.config.schema import ConfigError, Document
from lambda_hat.config.user_module import import_path

OWN = "lambda_hat.targets.problem.own.Own"
_CHILD = "lambda_hat.run.planned_problem"


class OwnModels:
    """The problems of one command, each asked once."""

    def __init__(self) -> None:
        self._answers: dict[str, Document] = {}

    def ask(self, configs: Iterable[Config]) -> None:
        """Find out about every problem that these configs name, in one process."""
        asked = {_key(config): _question(config) for config in configs if _is_unplanned(config)}
        new = {key: question for key, question in asked.items() if key not in self._answers}
        if new:
            self._answers |= zip(new, _answers(list(new.values())), strict=True)

    def planned(self, config: Config) -> Config:
        """``config`` with what its problem is.

        Raises:
            ConfigError: why there is no such problem, or what is wrong with it.
        """
        if not _is_unplanned(config):
            return config
        self.ask([config])
        answer = self._answers[_key(config)]
        if "faults" in answer:
            raise ConfigError(answer["faults"])
        data, n = config.get("data"), answer["num_data"]
        if not isinstance(data, Mapping) or data.get("_target_") != "lambda_hat.targets.problem.own.GivenData":
            return {**config, "model": {**config["model"], **answer["model"]}}
        if data.get("n") not in (None, n):
            raise ConfigError([f"data.n: the problem has n = {n}, got {data['n']}; leave it out"])
        return {**config, "model": {**config["model"], **answer["model"]}, "data": {**data, "n": n}}


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


def _key(config: Config) -> str:
    return json.dumps(_question(config), sort_keys=True, default=repr)


def _answers(questions: Sequence[Document]) -> list[Document]:
    """What the child says of each, in their order.

    Raises:
        ConfigError: it ended without an answer.
    """
    with tempfile.TemporaryDirectory(prefix="lambda_hat-") as folder:
        answer = Path(folder, "answer.json")
        environment = {**os.environ, "PYTHONPATH": import_path(), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
        # -P: a user's random.py or jax.py in the working directory must not take the place of the real one.
        command = [sys.executable, "-P", "-m", _CHILD, str(answer)]
        # What the user's module prints belongs to no command's output.
        child = subprocess.run(
            command, input=json.dumps(questions), text=True, env=environment, stdout=sys.__stderr__, check=False
        )
        if not answer.exists():
            names = ", ".join(dict.fromkeys(str(question["problem"]) for question in questions))
            end = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
            fault = f"the process that imports {names} ended without an answer ({end}); its words are above"
            raise ConfigError([f"model.problem: {fault}"])
        return json.loads(answer.read_text())
