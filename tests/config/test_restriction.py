"""The words of posterior.restrict: what they name, how Hydra reads them, what they do to ids."""

from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lambda_hat.config.job import identity_of, parse_job
from lambda_hat.config.restrict_each import one_each
from lambda_hat.config.restriction import count_free, free_weights, is_whole, parts
from lambda_hat.config.schema import ConfigError
from tests.jobs import job_config, make_job

SHAPES = {
    "blocks/0/attn/q": (4, 8),
    "blocks/0/mlp": (3,),
    "blocks/1/attn/q": (4, 8),
    "blocks/1/mlp": (3,),
    "head": (),
}


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["head"], 1),
        (["blocks/0"], 35),
        (["blocks/*/attn"], 64),
        (["blocks/*", "-*/mlp"], 64),
        (["-head"], 70),
        (["-blocks/1", "-head"], 35),
        (["blocks/0/attn/q@1"], 8),
        (["blocks/0/attn/q@:/0:4"], 16),
        (["blocks/*/attn/q@-1/-2:"], 4),
        (["blocks/0/attn/q", "-blocks/0/attn/q@0"], 24),
        (["-blocks/0/attn/q@0"], 63),
        (["blocks/0/attn/q@0", "blocks/0/attn/q@0/0"], 8),
        (["blocks/0/attn/q@0", "blocks/0/attn/q"], 32),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_what_words_leave_free(words: list[str], count: int) -> None:
    free = free_weights(words, SHAPES)
    assert count_free(free, SHAPES) == count
    assert not is_whole(free)


@pytest.mark.parametrize("words", [["*"], ["blocks", "head"], ["-head", "head"], ["blocks/*", "*"]], ids=" ".join)
def test_words_for_everything(words: list[str]) -> None:
    assert is_whole(free_weights(words, SHAPES))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["heda"], "heda names no parameter; did you mean head?; the parameters are blocks/0/attn/q"),
        (["head", "-nothing*"], "-nothing* names no parameter"),
        (["blocks/0/mlp@3"], "takes nothing: 3 of an axis of 3; blocks/0/mlp has the shape 3"),
        (["blocks/0/mlp@2:2"], "takes nothing: 2:2 of an axis of 3"),
        (["blocks/0/mlp@0/0"], "needs at most 1 axes after @, got 2"),
        (["head@0"], "head has the shape of one number"),
        (["blocks/0/mlp@a"], "needs numbers and start:stop after @"),
        (["blocks/0/mlp@"], "needs numbers and start:stop after @"),
        (["head", "-*"], "needs to leave a weight free, got head, -*"),
        (["-blocks", "-head"], "needs to leave a weight free"),
        (["blocks/0/mlp@0:2", "-blocks/0/mlp@0:2"], "needs to leave a weight free"),
        ([], "needs to leave a weight free, got no word"),
    ],
)
def test_words_that_are_refused(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        free_weights(words, SHAPES)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("weight1", "weight1"),
        ("-bias*", "-bias*"),
        ("[blocks/*/attn,-blocks/0]", ["blocks/*/attn", "-blocks/0"]),
        ("[weight1@:/0:4,-weight1@0]", ["weight1@:/0:4", "-weight1@0"]),
        ("[weight1@-1]", ["weight1@-1"]),
    ],
)
def test_hydra_reads_them_without_quotes(written: str, read: Any) -> None:
    override = OverridesParser.create().parse_override(f"posterior.restrict={written}")
    assert not override.is_sweep_override()
    assert override.value() == read


def test_a_restriction_is_part_of_the_run_and_everything_is_none(tmp_path: Path) -> None:
    def job(restrict: Any) -> Any:
        return make_job(tmp_path, posterior={"gamma": 1.0, "restrict": restrict})

    whole = make_job(tmp_path, posterior={"gamma": 1.0})
    part = job("w@0:2")
    assert part.target_id == whole.target_id
    assert part.run_id != whole.run_id
    assert part.num_free == 2
    assert job(["w@0:2"]).run_id == part.run_id
    assert job(["*"]).run_id == job("w@0:4").run_id == job(None).run_id == whole.run_id
    assert identity_of("posterior", whole.to_dict()["posterior"]) == {"beta": None, "nbeta": None, "gamma": 1.0}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"posterior": {"restrict": ["weight1"]}}, "weight1 names no parameter; the parameters are w"),
        ({"posterior": {"restrict": [1]}}, "posterior.restrict"),
        ({"posterior": {"restrict": [""]}}, "posterior.restrict"),
        (
            {
                "posterior": {"restrict": "w@0"},
                "sampler": {"_target_": "lambda_hat.samplers.mclmc.MCLMC"},
            },
            "mclmc needs at least 2 parameters that are free, got 1; use sampler=hmc",
        ),
        (
            {
                "model": {"_target_": "lambda_hat.targets.deep_linear.DeepLinear"},
                "posterior": {"restrict": "weight1"},
                "sampler": {"_target_": "lambda_hat.samplers.gibbs.Gibbs"},
            },
            "posterior.restrict: gibbs draws all weights; set posterior.restrict=null or use sampler=hmc",
        ),
    ],
)
def test_restrictions_that_a_job_refuses(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make_job(tmp_path, **changes)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("blocks/*", ["blocks/0", "blocks/1"]),
        ("blocks/*/attn", ["blocks/0/attn", "blocks/1/attn"]),
        ("*", ["blocks", "head"]),
        ("blocks/1/*", ["blocks/1/attn", "blocks/1/mlp"]),
    ],
)
def test_the_parts_that_a_glob_matches(glob: str, found: list[str]) -> None:
    assert parts(glob, SHAPES) == found


def test_a_glob_that_matches_no_part() -> None:
    with pytest.raises(ConfigError, match="layers/\\* matches no parameter; the parameters are blocks/0/attn/q"):
        parts("layers/*", SHAPES)


def test_each_match_is_a_run(tmp_path: Path) -> None:
    """And the config that made them is left as it was."""
    network = {"_target_": "lambda_hat.targets.deep_linear.DeepLinear", "widths": [3, 2, 4]}
    config = job_config(tmp_path, model=network, posterior={"gamma": 1.0, "restrict_each": "weight*"})
    jobs = [parse_job(one) for one in one_each(config, {})]
    assert [job.posterior.restrict for job in jobs] == [("weight1",), ("weight2",)]
    assert [job.num_free for job in jobs] == [6, 8]
    assert config["posterior"] == {"gamma": 1.0, "restrict_each": "weight*"}
    plain = job_config(tmp_path)
    assert one_each(plain, {}) == [plain]


@pytest.mark.parametrize(
    ("posterior", "says"),
    [
        ({"restrict_each": "w", "restrict": ["w"]}, "sets posterior.restrict for each match; leave one of the two"),
        ({"restrict_each": ["w"]}, "posterior.restrict_each: needs a glob such as blocks/*, got ['w']"),
        ({"restrict_each": "v*"}, "v* matches no parameter"),
    ],
)
def test_what_each_refuses(tmp_path: Path, posterior: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        one_each(job_config(tmp_path, posterior=posterior), {})
    assert says in str(refused.value)


def test_one_run_says_that_each_is_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"posterior.restrict_each: makes a run for each match, which is a sweep"):
        make_job(tmp_path, posterior={"restrict_each": "w"})
