"""``python -m lambda_hat.launch.workflows.metrics_process FILE``: numbers of the user's own at their checkpoints.

A process of its own, because it runs the user's code and JAX. It reads a question as JSON from its standard input and
writes the answer to FILE.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lambda_hat.config.schema import ConfigError, Document
from lambda_hat.config.user_module import user_function
from lambda_hat.targets.problem.own import Own
from lambda_hat.targets.problem.tracing import told


def main(answer: Path) -> None:
    question = json.load(sys.stdin)
    try:
        found: Document = {"values": _values(question["models"], question["metrics"])}
    except ConfigError as error:
        found = {"faults": error.faults}
    answer.write_text(json.dumps(found))


def _values(models: Sequence[Document], metrics: Mapping[str, str]) -> list[dict[str, str]]:
    """Each metric at each model, as text: JSON has no NaN."""
    owns = [Own(**{name: value for name, value in model.items() if name != "_target_"}) for model in models]
    functions = {name: _function(path, owns[0].folder or str(Path.cwd())) for name, path in metrics.items()}
    return [{name: _number(own, name, path, functions[name]) for name, path in metrics.items()} for own in owns]


def _function(path: str, folder: str) -> Any:
    try:
        return user_function(path, folder, told).value
    except ConfigError as error:
        raise ConfigError([fault.replace("model.problem: ", "metrics: ", 1) for fault in error.faults]) from error


def _number(own: Own, name: str, path: str, function: Any) -> str:
    try:
        return repr(own.value_of(function))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            [f"metrics.{name}: {path}(params) needs to return a number, but raised {told(error)}"]
        ) from error


if __name__ == "__main__":
    main(Path(sys.argv[1]))
