"""Which checkpoints a path means, at which steps, and which of them are wanted."""

import math
import os
from pathlib import Path

import numpy as np
import pytest

import lambda_hat as lh
from lambda_hat.targets.checkpoints import CheckpointError
from lambda_hat.targets.checkpoints.steps import pattern_of, selected, step_of


def saved(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(folder / name, w=np.zeros(2))
    return folder


def refusal(*arguments: object, **settings: object) -> str:
    with pytest.raises(CheckpointError) as refused:
        lh.checkpoints(*arguments, **settings)  # pyright: ignore[reportArgumentType]
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step_10.npz", 10),
        ("run2_step_5.npz", 5),
        ("3", 3),
        ("checkpoint-500", 500),
        ("epoch3-0007.safetensors", 7),
        ("ckpt.10", 10),
        ("step_5.h5", 5),
        ("12.mp4", 12),
    ],
)
def test_the_step_is_the_last_integer_of_the_last_part(name: str, step: int) -> None:
    assert step_of(Path("run_9") / name, None) == step


@pytest.mark.parametrize("name", ["step_1e4.npz", "step_1.5e-3.npz", "epoch=3-loss=0.12.ckpt", "0.25.npz"])
def test_what_is_no_integer_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="is no integer; give step="):
        step_of(Path(name), None)


def test_steps_are_sorted_as_numbers(tmp_path: Path) -> None:
    saved(tmp_path, "step_9.npz", "step_10.npz", "step_100.npz")
    found = lh.checkpoints(tmp_path / "step_*.npz")
    assert found.steps == (9, 10, 100)
    assert [Path(item.path).name for item in found] == ["step_9.npz", "step_10.npz", "step_100.npz"]
    assert repr(found).startswith("3 checkpoints (npz), steps 9 to 100: ")
    assert found[1:] == found.items[1:]


def test_a_regex_says_where_the_step_is(tmp_path: Path) -> None:
    saved(tmp_path, "checkpoint-500/model.npz", "checkpoint-20/model.npz")
    pattern = tmp_path / "checkpoint-*" / "model.npz"
    assert lh.checkpoints(pattern, step=r"checkpoint-(\d+)").steps == (20, 500)
    told = refusal(pattern)
    assert told.count("its last part has no number") == 2
    assert "checkpoint-20/model.npz" in told
    assert "matches nothing" in refusal(pattern, step=r"epoch_(\d+)")
    assert "needs to match an integer, got 'model'" in refusal(pattern, step=r"(model)")
    assert "needs a regex with one group" in refusal(pattern, step=r"checkpoint-\d+")
    assert "needs a regex, got" in refusal(pattern, step="(")


def test_two_files_with_one_step_are_both_named(tmp_path: Path) -> None:
    saved(tmp_path, "a_1.npz", "b_01.npz")
    told = refusal(tmp_path / "*.npz")
    assert "both have step 1" in told
    assert "a_1.npz" in told
    assert "b_01.npz" in told


def test_a_folder_means_the_checkpoints_in_it(tmp_path: Path) -> None:
    saved(tmp_path, "1.npz", "2.npz")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "3.npz.tmp").write_bytes(b"")
    found = lh.checkpoints(tmp_path)
    assert found.steps == (1, 2)
    assert [Path(path).name for path in found.unfinished] == ["3.npz.tmp"]
    assert "1 unfinished" in repr(found)
    assert lh.checkpoints(tmp_path / "2.npz").steps == (2,)
    assert "config.json: no checkpoint, which is a file .npz" in refusal(f"{tmp_path}/*")


def test_nothing_there_is_said(tmp_path: Path) -> None:
    assert "nothing matches it" in refusal(tmp_path / "*.npz")
    assert "holds no checkpoint" in refusal(tmp_path)
    (tmp_path / "5.npz.tmp").write_bytes(b"")
    assert "none of the 1 checkpoints is finished yet" in refusal(f"{tmp_path}/*.tmp")
    (tmp_path / "5.pkl").write_bytes(b"")
    assert "a pickle runs code as it is read" in refusal(f"{tmp_path}/*.pkl")


def test_a_name_with_brackets_is_found(tmp_path: Path) -> None:
    saved(tmp_path, "run[1]/step_3.npz")
    assert lh.checkpoints(tmp_path / "run[1]").steps == (3,)


def test_selections() -> None:
    steps = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]
    assert selected(steps, "all") == steps
    assert selected(steps, "linear:3") == [0, 5000, 10_000]
    assert selected(steps, "log:5") == [0, 10, 100, 1000, 10_000]
    assert selected(steps, [5, 0, 5]) == [0, 5]
    assert selected([7], "log:30") == [7]


@pytest.mark.parametrize("count", [2, 3, 17, 30, 99, 100, 101])
@pytest.mark.parametrize("scale", ["log", "linear"])
def test_so_many_are_chosen(scale: str, count: int) -> None:
    """As many as asked for, each once, with both ends. Sees near steps that fall together."""
    steps = sorted({round(1.1**k) - 1 for k in range(200)})[:100]
    found = selected(steps, f"{scale}:{count}")
    assert len(found) == len(set(found)) == min(count, 100)
    assert (found[0], found[-1]) == (steps[0], steps[-1])
    assert found == sorted(found)
    if count == 17:
        places = [math.log1p(step) if scale == "log" else step for step in found]
        assert max(np.diff(places)) < 3 * (places[-1] - places[0]) / 16


@pytest.mark.parametrize("select", ["log", "log:1", "linear:0", "every:5", "log:-3", "log:2.5", ""])
def test_an_unknown_selection_is_refused(select: str) -> None:
    with pytest.raises(CheckpointError, match="needs all, log:30, linear:50"):
        selected([1, 2], select)


def test_steps_that_are_not_there_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7, 90; the nearest are 5, 100"):
        selected([5, 100], [5, 7, 90])
    with pytest.raises(CheckpointError, match="no step"):
        selected([5, 100], [])


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    read: list[str] = []

    def load(path: str) -> dict[str, np.ndarray]:
        read.append(os.path.basename(path))  # noqa: PTH119
        return {"w": np.ones(2)}

    for step in (1, 2):
        (tmp_path / f"{step}.dat").write_bytes(b"x")
    found = lh.checkpoints(tmp_path / "*.dat", load=load)
    assert read == []
    assert found[1].read()[("w",)].tolist() == [1, 1]
    assert read == ["2.dat"]
    assert pattern_of(None) is None
