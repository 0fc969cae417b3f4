"""lambda_hat.llc in memory: the numbers of a run, a session left as it was, Ctrl-C, and what the result shows."""

import contextlib
import json
import math
import os
import signal
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lambda_hat as lh
from lambda_hat.config.compose import Composer, compose_jobs
from lambda_hat.config.job import Job
from lambda_hat.config.presets import presets_of
from lambda_hat.config.schema import ConfigError
from lambda_hat.config.settings import settings_of
from lambda_hat.config.yaml_file import presets_loader
from lambda_hat.report.result import Result
from lambda_hat.run import in_memory
from lambda_hat.run.loop import RunError, execute
from lambda_hat.run.progress import PlainReporter, session_reporter
from lambda_hat.store.layout import Store
from lambda_hat.targets.problem import BuiltIn
from tests.jobs import HMC, SGLD, make_job, warm_store

SHORT = lh.samplers.HMC(num_integration_steps=4, num_warmup=60)
SGLD_FIELDS: dict[str, Any] = {name: value for name, value in SGLD.items() if name != "_target_"}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("runs"), sampler=HMC)


@pytest.fixture(scope="module")
def problem(job: Job) -> Any:
    return BuiltIn(job)


@pytest.fixture(scope="module")
def result(problem: Any) -> Result:
    return lh.llc(problem, SHORT, num_chains=3, budget=lh.Budget(draws=200), progress=False)


def session() -> tuple[Any, ...]:
    """What belongs to whoever calls."""
    names = ("jax_enable_x64", "jax_compilation_cache_dir", "jax_debug_nans", "jax_threefry_partitionable")
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return *(getattr(jax.config, name) for name in names), *handlers, jnp.ones(1).dtype


def test_the_draws_are_those_of_a_run(job: Job, result: Result) -> None:
    """To the last bit, warm-up's too: sees a dtype, a key, a chunk or a setting that differs."""
    analysis = json.loads(execute(job, Store(job.store.root)).analysis.read_text())
    folder = Store(job.store.root).run_dir(job.target_id, job.run_id)
    assert result.trace.equals(lh.load(folder).trace())
    document = result.to_dict()
    assert document == json.loads(json.dumps(document)), "not JSON"
    costs = {"seconds", "progress", "history", "ess_per_second", "time_normalised_variance"}
    of_stores = {"config", "places", "provenance"}
    for name in document.keys() - costs - of_stores:
        assert document[name] == analysis[name], name
    assert document["config"] == {name: analysis["config"][name] for name in document["config"]}
    assert analysis.keys() - document.keys() == {"schema", "format", "run_id", "target_id", "epoch", "digest"}


def test_a_built_in_problem_has_the_words_and_the_runs_of_a_command_line(tmp_path: Path) -> None:
    """Also of some weights, and its exact value where all are free."""
    words = ("model=quadratic", "model.curvatures=[0.01,0.1,1.0,10.0]", "data=population", "data.n=5000")
    problem = lh.built_in(*words)
    asked: dict[str, Any] = {"num_chains": 3, "budget": lh.Budget(draws=40), "progress": False}
    for restrict in (None, ["w@1:3"]):
        memory = lh.llc(problem, SHORT, restrict=restrict, **asked)
        stored = lh.llc(problem, SHORT, restrict=restrict, store=warm_store(tmp_path / "runs"), **asked)
        assert memory.trace.equals(stored.trace)
        assert memory.to_dict()["exact"] == stored.to_dict()["exact"]
        assert (memory.to_dict()["exact"] is None) == (restrict is not None)
    assert len({run.target_id for run in Store(tmp_path / "runs").iter_runs()}) == 1
    with presets_loader() as loader:
        composer = Composer(loader, "sample")
        (composed,) = compose_jobs(composer, composer.expand(words))
    assert composed.job.target_id in repr(problem)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sampler=hmc"], "sampler=hmc: a built-in problem has model, data, teacher, training; give the rest to"),
        (["model=own"], "model=own: is a problem of one's own; make a lambda_hat.Problem"),
        (["model=quadratic,small"], "needs one problem, got 2"),
        (["model=quadratik"], "model: needs one of .*, got 'quadratik'; did you mean quadratic?"),
        (["model=quadratic", "model.curvature=[1]"], "model.curvature: .*did you mean curvatures?"),
    ],
)
def test_no_built_in_problem(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lh.built_in(*words)


def test_a_built_in_problem_refuses_what_its_run_would() -> None:
    with pytest.raises(ConfigError, match="sampler: gibbs"):
        lh.llc(lh.built_in("model=normal_crossing"), "gibbs", progress=False)


def test_the_result_says_all_of_it(result: Result) -> None:
    text = repr(result)
    assert f"LLC       {result.llc:.2f} ± {result.llc_mcse:.2f}" in text
    assert all(f"unreliable: {reason}" in text for reason in result.reasons)
    assert "n = 5,000 (of a population), nbeta = 587 (n / log n), gamma = 1 (the default)" in text
    assert "3 chains x 200 draws by hmc in float64, d = 4, " in text
    assert "L_n(w0) = 0, |grad| = 0, Hessian from 0.01 to 10" in text
    assert 5 <= len(text.splitlines()) <= 8
    assert result.interval90 == result.llc_interval90
    assert result.ess == min(result.ess_bulk, result.ess_tail)
    assert not result.reliable


def test_a_notebook_shows_a_table_and_a_picture(result: Result) -> None:
    shown = result._repr_html_()
    assert shown.count("<tr>") == len(repr(result).splitlines())
    assert "n = 5,000 (of a population)" in shown
    assert "://" not in shown
    verdict = {**result.to_dict()["verdict"], "reasons": ["<script>alert(1)</script>"]}
    hostile = Result.of(result, result.draws, result.warmup, result.setting, {**result.to_dict(), "verdict": verdict})
    assert "<script>" not in hostile._repr_html_()
    assert "&lt;script&gt;" in hostile._repr_html_()
    picture: Any = result.plot()
    assert picture._repr_png_().startswith(b"\x89PNG")
    labels = {axes.get_ylabel() for axes in picture.axes}
    assert "running LLC" in labels


def test_a_loss_of_ones_own() -> None:
    """In a few lines; what is remarkable about its w0 is told, and its state is only read."""
    inputs = np.linspace(-1.0, 1.0, 40)
    data = {"x": inputs, "y": 2.0 * inputs}

    state = {"scale": np.ones(3, np.float32), "key": jax.random.key(0)}

    def loss(params: dict[str, Any], state: Any, batch: dict[str, Any]) -> jax.Array:
        prediction = params["slope"] * batch["x"] * state["scale"][1] + params["offset"]
        return 0.5 * (prediction - batch["y"]) ** 2

    line = lh.Problem(loss, {"slope": jnp.float32(2.0), "offset": jnp.float32(0.0)}, data, state=state, examine="none")
    before = [leaf.tobytes() for leaf in line.built().data.state]  # pyright: ignore[reportAttributeAccessIssue]
    found = lh.llc(line, SHORT, num_chains=3, budget=lh.Budget(draws=4), progress=False)
    assert "n = 40, nbeta = 10.84 (n / log n)" in repr(found)
    assert "params are float32" in repr(found)
    assert [leaf.tobytes() for leaf in line.built().data.state] == before  # pyright: ignore[reportAttributeAccessIssue]
    assert state["scale"].tolist() == [1, 1, 1]
    assert found.setting.dim == 2
    assert found.draws["loss"].dtype == np.float64


def test_settings_of_the_posterior_and_a_preset_are_told(problem: Any) -> None:
    found = lh.llc(
        problem, "sgld", nbeta=100.0, gamma=2, num_chains=3, budget=lh.Budget(draws=4), progress=False, **SGLD_FIELDS
    )
    assert "nbeta = 100 (as set: 0.17 n / log n), gamma = 2 (as set)" in repr(found)
    assert found.to_dict()["config"]["sampler"]["batch_size"] == 16
    assert math.isfinite(found.llc)


def test_the_session_stays_as_it_was(problem: Any) -> None:
    before = session()
    kept: Any = jax.jit(lambda x: x + 1)
    diverging: dict[str, Any] = {**SGLD_FIELDS, "step_size": 1e3}
    kept(1.0)
    with pytest.raises(RunError, match=r"sgld: L_n\(w\) needs to be finite"):
        lh.llc(problem, "sgld", num_chains=3, progress=False, **diverging)
    lh.llc(problem, SHORT, num_chains=3, budget=lh.Budget(draws=4), progress=False)
    assert session() == before
    assert kept._cache_size() == 1, "the caches of the session were cleared"


class Interrupting:
    """A reporter that presses Ctrl-C when ``phase`` is told."""

    def __init__(self, phase: str):
        self._phase = phase

    def line(self, text: str) -> None: ...

    def status(self, text: str) -> None:
        if self._phase in text:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def at(phase: str) -> None:
        monkeypatch.setattr("lambda_hat.api.session_reporter", lambda: contextlib.nullcontext(Interrupting(phase)))

    return at


def test_ctrl_c_returns_the_estimate_so_far(problem: Any, result: Result, interrupt: Callable[[str], None]) -> None:
    before = session()
    interrupt("sampling")
    found = lh.llc(problem, SHORT, num_chains=3, budget=lh.Budget(draws=200))
    assert found.reasons[0].startswith(f"interrupted after {found.num_draws} draws of 200 a chain: ")
    assert 0 < found.num_draws < 200
    np.testing.assert_array_equal(found.draws["loss"], result.draws["loss"][:, : found.num_draws])
    assert found.to_dict()["stopped_by"] is None
    assert found.reasons[0] in repr(found)
    assert session() == before


def test_ctrl_c_before_the_first_draw_ends_the_call(problem: Any, interrupt: Callable[[str], None]) -> None:
    before = session()
    interrupt("warmup")
    with pytest.raises(KeyboardInterrupt, match="before the first draw"):
        lh.llc(problem, SHORT, num_chains=3, budget=lh.Budget(draws=200))
    assert session() == before


def test_another_thread_can_ask(problem: Any) -> None:
    """Python lets the main thread alone set signal handlers."""
    found: list[Result] = []

    def ask() -> None:
        found.append(lh.llc(problem, SHORT, num_chains=3, budget=lh.Budget(draws=4), progress=False))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert [one.num_draws for one in found] == [4]


def test_chains_that_take_turns_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(in_memory, "usable_cores", lambda: [0, 1])
    in_memory._tell_devices(10_000, PlainReporter())
    assert not capsys.readouterr().err, "this session has two devices"
    monkeypatch.setattr(jax, "devices", lambda: ["cpu:0"])
    in_memory._tell_devices(10, PlainReporter())
    assert not capsys.readouterr().err, "a small target's chains share one anyway"
    in_memory._tell_devices(10_000, PlainReporter())
    assert "one_a_core() before JAX computes" in capsys.readouterr().err


def test_what_the_session_has_changed_is_noted_or_refused(problem: Any, result: Result) -> None:
    """A trace has NaN in columns that a sampler does not define; other random bits would be another run."""
    with jax.debug_nans(True), jax.threefry_partitionable(False), jax.numpy_dtype_promotion("strict"):
        found = lh.llc(problem, SHORT, num_chains=3, budget=lh.Budget(draws=4), progress=False)
    noted = {"jax_debug_nans": True, "jax_threefry_partitionable": False, "jax_numpy_dtype_promotion": "strict"}
    assert found.to_dict()["provenance"]["jax_settings"] == noted
    np.testing.assert_array_equal(found.draws["loss"], result.draws["loss"][:, :4])
    with jax.disable_jit(), pytest.raises(ConfigError, match="jax_disable_jit is set"):
        lh.llc(problem, SHORT, progress=False)


def test_the_samplers_are_those_with_presets() -> None:
    samplers = {getattr(lh.samplers, name) for name in dir(lh.samplers)}
    assert {sampler.__module__.rpartition(".")[2] for sampler in samplers} == {*presets_of("sampler")} - {"reference"}
    with pytest.raises(AttributeError, match="no attribute 'HCM'"):
        _ = lh.samplers.HCM


class Display:
    """IPython's, as far as it is called: what a cell shows, by the order of its outputs."""

    def __init__(self, shown: list[str]):
        self._shown = shown

    def __call__(self, data: dict[str, str], *, raw: bool, display_id: bool = False) -> Any:
        assert raw
        self._shown.append(data["text/plain"])
        place = len(self._shown) - 1

        def update(data: dict[str, str], *, raw: bool) -> None:
            assert raw
            self._shown[place] = data["text/plain"]

        return types.SimpleNamespace(update=update) if display_id else None


def test_a_notebook_has_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=Display(shown)))
    with session_reporter() as reporter:
        reporter.status("warmup 8 of 60")
        reporter.line("a sentence that stays")
        reporter.status("sampling 8 of 200")
        assert shown == ["sampling 8 of 200", "a sentence that stays"]
    assert shown == ["", "a sentence that stays"]


def test_elsewhere_there_are_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where IPython was imported, but no notebook runs."""
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    with session_reporter() as reporter:
        reporter.line("a sentence that stays")
    assert capsys.readouterr().err == "a sentence that stays\n"


def test_a_preset_brings_its_budget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nodes: dict[str, Any] = {"posterior": {}, "num_chains": 4, "seed": 0}
    assert settings_of("hmc", {}, None, **nodes).budget == lh.Budget(seconds=300, mcse=0.004)
    assert settings_of("reference", {}, None, **nodes).budget == lh.Budget(seconds=3600, mcse=0.0025)
    monkeypatch.setenv("LAMBDA_HAT_CONFIG", str(tmp_path))
    (tmp_path / "sampler").mkdir()
    (tmp_path / "sampler" / "mine.yaml").write_text("defaults: [hmc, _self_]\nstep_size: 0.5\n")
    assert settings_of("mine", {}, None, **nodes).sampler == lh.samplers.HMC(step_size=0.5)
