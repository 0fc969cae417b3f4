"""Another version of JAX: a target keeps its id where arrays, source files and probes are equal, and nowhere else."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import lambda_hat as lh
from lambda_hat.config.job import canonical
from lambda_hat.run.earlier_jax import Earlier
from lambda_hat.store.layout import Store, write_json
from lambda_hat.targets.problem.own import Content, Facts, Own
from lambda_hat.targets.problem.probes import agree, probes
from tests.hang import HANG

SOURCES = {"mine.py": "ab" * 32}


@pytest.fixture(scope="module")
def problem() -> lh.Problem:
    x = np.random.default_rng(0).normal(size=(12, 3))
    return lh.Problem(lambda w, batch: jnp.tanh(batch["x"] @ w) ** 2, np.ones(3), {"x": x})


@pytest.fixture(scope="module")
def own(problem: lh.Problem) -> Own:
    made = Own.of(problem)
    assert made.facts is not None
    return replace(made, facts=replace(made.facts, sources=SOURCES))


def planned_before(own: Own, store: Store, **changes: Any) -> None:
    """A target of the store that JAX 0.9.0 planned, but for ``changes`` of its facts or its content."""
    assert own.facts is not None
    assert own.content is not None
    facts: Facts = replace(own.facts, jax="0.9.0", computes="0" * 16)
    content: Content = replace(own.content, loss="0" * 16)
    facts = replace(facts, **{name: value for name, value in changes.items() if hasattr(facts, name)})
    content = replace(content, **{name: value for name, value in changes.items() if hasattr(content, name)})
    document = replace(own, content=content, facts=facts)
    folder = store.target_dir("tgt_0123456789ab")
    folder.mkdir(parents=True)
    write_json(folder / "meta.json", {"num_data": changes.get("n", 12), "own": canonical(document)})


def test_the_same_problem_keeps_its_id(own: Own, problem: lh.Problem, tmp_path: Path) -> None:
    planned_before(own, Store(tmp_path))
    found, sentence = Earlier(Store(tmp_path)).as_before(own, problem)
    assert own.content is not None
    assert found.content == replace(own.content, loss="0" * 16)
    assert found.facts == own.facts, "an element compares what this JAX computes"
    assert sentence.startswith("tgt_0123456789ab, which was planned under JAX 0.9.0, is taken for the same")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sources": {"mine.py": "cd" * 32}}, "mine.py changed since"),
        ({"sources": {**SOURCES, "helper.py": "ab" * 32}}, "helper.py changed since"),
        ({"sources": {}}, "it was made in a session, without a source file"),
        ({"probes": (1.0, 2.0)}, "row losses or gradients differ"),
        ({"params": "0" * 64}, ""),
        ({"state": "0" * 64}, ""),
        ({"data": "0" * 64}, ""),
        ({"polish": "lbfgs"}, ""),
        ({"n": 13}, ""),
    ],
)
def test_what_differs_makes_a_new_target(
    own: Own, problem: lh.Problem, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    planned_before(own, Store(tmp_path), **changes)
    found, sentence = Earlier(Store(tmp_path)).as_before(own, problem)
    assert found == own
    assert told in sentence
    assert bool(sentence) == bool(told)


def test_a_target_of_this_jax_is_not_looked_past(own: Own, problem: lh.Problem, tmp_path: Path) -> None:
    assert own.content is not None
    planned_before(own, Store(tmp_path), loss=own.content.loss)
    assert Earlier(Store(tmp_path)).as_before(own, problem) == (own, "")


def test_probes_see_a_formula_near_w0_and_what_is_not_finite_is_equal_to_nothing(problem: lh.Problem) -> None:
    numbers = probes(problem)
    assert len(numbers) == 2 * (8 + 2)
    assert agree(numbers, [1e-12 + (number or 0.0) for number in numbers], is_coarse=False)
    assert not agree(numbers, [1e-7 + (number or 0.0) for number in numbers], is_coarse=False)
    assert agree(numbers, [1e-7 + (number or 0.0) for number in numbers], is_coarse=True)
    assert not agree([*numbers[:-1], None], [*numbers[:-1], None], is_coarse=True)
    x = np.random.default_rng(0).normal(size=(12, 3))
    other = lh.Problem(lambda w, batch: jnp.sin(batch["x"] @ w) ** 2, np.ones(3), {"x": x})
    assert not agree(numbers, probes(other), is_coarse=True)


MODULE = """
import jax
import numpy as np
import jax.numpy as jnp
import lambda_hat as lh


def loss(params, batch):
    return 0.5 * (jax.nn.relu(batch["x"] @ params["w"]).std(-1) - batch["y"]) ** 2


def problem():
    rng = np.random.default_rng(0)
    return lh.Problem(loss, {"w": rng.normal(size=(3, 4))}, {"x": rng.normal(size=(20, 3)), "y": rng.normal(size=20)})
"""


@pytest.fixture(scope="module")
def older_jax(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder from which JAX 0.9.0 is imported."""
    folder = tmp_path_factory.mktemp("jax")
    wanted = ["jax==0.9.0", "jaxlib==0.9.0"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *wanted]
    subprocess.run(command, check=True, timeout=HANG)
    yield folder


@pytest.mark.slow
def test_a_real_upgrade(tmp_path: Path, older_jax: Path) -> None:
    """A target is built under JAX 0.9.0; under the present one it is found, until the formula is edited."""
    (tmp_path / "mine.py").write_text(MODULE)
    question: dict[str, Any] = {"problem": "mine.problem", "args": {}, "folder": str(tmp_path)}
    question |= {"store": str(tmp_path / "runs"), "places": [None]}

    def planned(*import_path: Path) -> dict[str, Any]:
        root = Path(lh.__file__).parents[1]
        environment = {"PYTHONPATH": ":".join(map(str, [*import_path, root])), "JAX_PLATFORMS": "cpu", "PATH": ""}
        answer = tmp_path / "answer.json"
        command = [sys.executable, "-P", "-m", "lambda_hat.run.planned_problem", str(answer)]
        subprocess.run(command, input=json.dumps([question]), text=True, env=environment, check=True, timeout=HANG)
        return json.loads(answer.read_text())[0][0]["models"][0]

    before = planned(older_jax)
    assert before["facts"]["jax"] == "0.9.0"
    folder = tmp_path / "runs" / "targets" / "tgt_0123456789ab"
    folder.mkdir(parents=True)
    write_json(folder / "meta.json", {"num_data": 20, "own": before})
    now = planned()
    assert now["facts"]["computes"] != before["facts"]["computes"], "choose a loss whose text differs"
    assert now["content"] == before["content"]
    (tmp_path / "mine.py").write_text(MODULE.replace("0.5 *", "0.25 *"))
    assert planned()["content"] != before["content"]
