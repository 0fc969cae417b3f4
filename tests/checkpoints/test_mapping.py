"""Which array of a checkpoint becomes which parameter, and what is said where that cannot be told."""

import itertools
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lambda_hat.targets.checkpoints import CheckpointError
from lambda_hat.targets.checkpoints.arrays import Arrays
from lambda_hat.targets.checkpoints.fit import Wanted
from lambda_hat.targets.checkpoints.mapping import Mapped, Source, mapped
from lambda_hat.targets.checkpoints.names import normal
from lambda_hat.targets.checkpoints.rules import rules_of

FLOAT, HALF, INT = np.dtype(float), np.dtype(np.float16), np.dtype(np.int32)


def wanted(shapes: dict[str, tuple[int, ...]], dtype: np.dtype = FLOAT) -> list[Wanted]:
    return [Wanted(path, shape, dtype) for path, shape in shapes.items()]


PARAMS = wanted({"a/kernel": (2, 3), "a/bias": (3,), "b/kernel": (3, 3)})
STATE = wanted({"bn/mean": (3,)})


def arrays_of(names: Sequence[tuple[str, ...] | str], leaves: Sequence[Wanted], first: int = 0) -> Arrays:
    """Arrays that fit, each of other numbers."""
    return {
        (name,) if isinstance(name, str) else name: (np.arange(np.prod(leaf.shape)) + 100.0 * place).reshape(leaf.shape)
        for place, (name, leaf) in enumerate(zip(names, leaves, strict=True), first)
    }


def map_of(
    arrays: Arrays,
    params: Sequence[Wanted] = PARAMS,
    state: Sequence[Wanted] = (),
    *,
    rename: dict[str, str | None] | None = None,
    transpose: Sequence[str] = (),
    has_names: bool = True,
) -> Mapped:
    return mapped(Source("step_5.npz", arrays, has_names, rules_of(rename, transpose)), params, state)


def refusal(*arguments: Any, **settings: Any) -> str:
    with pytest.raises(CheckpointError) as refused:
        map_of(*arguments, **settings)
    return str(refused.value)


def firsts(arrays: Sequence[np.ndarray]) -> list[float]:
    return [float(array.ravel()[0]) for array in arrays]


SPELLINGS = {
    "tuples": [("a", "kernel"), ("a", "bias"), ("b", "kernel")],
    "slashes": ["a/kernel", "a/bias", "b/kernel"],
    "dots": ["a.kernel", "a.bias", "b.kernel"],
    "keystr": ["['a']['kernel']", "['a']['bias']", "['b']['kernel']"],
    "attributes": [".a['kernel']", ".a['bias']", ".b['kernel']"],
    "nnx": [("a", "kernel", "value"), ("a", "bias", "value"), ("b", "kernel", "value")],
    "flax": [("params", "a", "kernel"), ("params", "a", "bias"), ("params", "b", "kernel")],
    "variables": [("params", "params", "a", "kernel"), ("params", "params", "a", "bias"), "params/params/b/kernel"],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("ours", ["plain", "variables"])
def test_names_of_all_libraries_are_one(spelling: str, ours: str) -> None:
    prefix = "" if ours == "plain" else "params/"
    leaves = [leaf._replace(path=prefix + leaf.path) for leaf in PARAMS]
    arrays = arrays_of(SPELLINGS[spelling], PARAMS)
    for order in itertools.permutations(arrays):
        found = map_of({name: arrays[name] for name in order}, leaves)
        assert firsts(found.params) == [0, 100, 200]
        assert found.state is None


@pytest.mark.parametrize(
    "name", ["batch_norm/~/mean_ema", "mlp/~/linear_0/w", "layers.0.weight", "scale.", "a b", "ü/µ", "x['y", "value"]
)
def test_awkward_names_find_themselves(name: str) -> None:
    """However the file cuts the path at its slashes."""
    leaf = wanted({name: (2,)})
    parts = name.split("/")
    for cut in range(len(parts)):
        stored = ("/".join(parts[: cut + 1]), *parts[cut + 1 :])
        assert firsts(map_of(arrays_of([stored], leaf), leaf).params) == [0]
    assert normal((name,)) == normal(tuple(parts))


def test_a_pytree_that_is_one_array() -> None:
    assert firsts(map_of({(): np.ones(2)}, wanted({"": (2,)})).params) == [1]


def test_what_is_beside_params_is_the_training_s() -> None:
    arrays = arrays_of(SPELLINGS["flax"], PARAMS)
    beside = {("opt_state", "0", "mu", *name[1:]): array + 7 for name, array in arrays.items()}
    found = map_of({("step",): np.array(3), **beside, **arrays})
    assert firsts(found.params) == [0, 100, 200]


STATES = {
    "root": ["bn/mean"],
    "batch_stats": [("batch_stats", "bn", "mean")],
    "state": ["state.bn.mean"],
    "nnx": [("bn", "mean", "value")],
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("params", ["tuples", "flax"])
def test_state_is_found(state: str, params: str) -> None:
    arrays = arrays_of(SPELLINGS[params], PARAMS) | arrays_of(STATES[state], STATE, first=3)
    found = map_of(arrays, PARAMS, STATE)
    assert found.state is not None
    assert firsts(found.state) == [300]
    assert firsts(found.params) == [0, 100, 200]


def test_state_that_the_file_has_in_part_or_twice() -> None:
    arrays = arrays_of(SPELLINGS["flax"], PARAMS)
    state = wanted({"bn/mean": (3,), "bn/var": (3,)})
    assert "lacks bn/var" in refusal(arrays | {("batch_stats", "bn", "mean"): np.ones(3)}, PARAMS, state)
    twice = {(root, "bn", "mean"): np.ones(3) for root in ("batch_stats", "ema")}
    told = refusal(arrays | twice, PARAMS, STATE)
    assert "the state may be below batch_stats or ema" in told
    found = map_of(arrays | twice, PARAMS, STATE, rename={"ema/.*": None})
    assert found.state is not None


def test_both_sides_are_named() -> None:
    told = refusal(arrays_of(["a/kernal", "a/bias", "b/kernel"], PARAMS))
    assert told.startswith("step_5.npz: lacks a/kernel (did you mean a/kernal?) and has a/kernal, which params lack; ")
    assert "rename=" in told
    assert "\n" not in told
    assert "has c/w, which params lack" in refusal(arrays_of(SPELLINGS["dots"], PARAMS) | {("c", "w"): np.ones(1)})
    many = {(f"x{k}",): np.ones(1) for k in range(9)}
    assert "lacks a/kernel, a/bias, b/kernel and has x0, x1, x2 and 6 more, which" in refusal(many)


def test_names_that_come_to_one_are_refused() -> None:
    """A key with a slash beside the same path in two parts: which of them is meant is not guessed."""
    arrays = arrays_of(SPELLINGS["tuples"], PARAMS) | {("a/bias",): np.ones(3)}
    assert "('a', 'bias') and ('a/bias',) are both a/bias" in refusal(arrays)
    same = wanted({"a/b": (2,), "a.b": (2,)})
    assert "two arrays of params are both a/b" in refusal(arrays_of(["a/b"], same[:1]), same)


def test_rules_of_renaming() -> None:
    torch = arrays_of(["fc1.kernel", "fc1.bias", "fc2.kernel"], PARAMS) | {("epoch",): np.array(3)}
    rules: dict[str, str | None] = {"fc1.(.*)": r"a/\1", "fc2.(.*)": r"b/\1", "epoch": None}
    assert firsts(map_of(torch, rename=rules).params) == [0, 100, 200]
    assert "rename: 'fc3.*' matches no array of step_5.npz" in refusal(torch, rename={**rules, "fc3.*": "c"})
    assert "did you mean fc1/bias?" in refusal(torch, rename={**rules, "fc1/bais": "c"})
    assert "cannot become" in refusal(torch, rename={"fc1.(.*)": r"\2"})
    assert "rename: needs a regex" in refusal(torch, rename={"fc1.(": "a"})
    both: dict[str, str | None] = {"fc1.kernel": "a/bias", "epoch": None}
    assert "lacks a/kernel" in refusal(torch, rename=both)


def test_a_transposed_matrix_is_never_guessed() -> None:
    arrays = arrays_of(SPELLINGS["tuples"], PARAMS)
    turned = {name: array.T for name, array in arrays.items()}
    told = refusal(turned)
    assert "a/kernel needs the shape 2 x 3, got 3 x 2; if it is stored transposed, give transpose='a/kernel'" in told
    found = map_of(turned, transpose=[".*/kernel"])
    for array, name in zip(found.params, SPELLINGS["tuples"], strict=True):
        assert np.array_equal(array, arrays[tuple(name)])
        assert array.flags.c_contiguous
    assert np.array_equal(map_of(arrays, transpose=["b/kernel"]).params[2], arrays["b", "kernel"].T), "square, as told"
    assert "transpose: 'c/.*' matches no array of params" in refusal(arrays, transpose=["c/.*"])
    assert "a/bias is to be transposed, but has the shape 3; transpose= takes" in refusal(arrays, transpose=["a/.*"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_parameters_keep_the_precision_that_they_were_saved_in(dtype: Any) -> None:
    arrays = {name: array.astype(dtype) for name, array in arrays_of(SPELLINGS["tuples"], PARAMS).items()}
    found = map_of(arrays)
    assert [array.dtype for array in found.params] == [np.dtype(dtype)] * 3
    assert [array.tobytes() for array in found.params] == [array.tobytes() for array in arrays.values()]


@pytest.mark.parametrize(("dtype", "got"), [(np.int32, "int32"), (bool, "bool"), (complex, "complex128")])
def test_other_kinds_of_numbers_are_refused(dtype: Any, got: str) -> None:
    arrays = arrays_of(SPELLINGS["tuples"], PARAMS)
    arrays["a", "bias"] = np.ones(3, dtype)
    assert f"step_5.npz: a/bias needs floating-point numbers, got {got}" in refusal(arrays)


def test_state_keeps_its_kind() -> None:
    counts = wanted({"count": (2,)}, INT)
    arrays = arrays_of(SPELLINGS["flax"], PARAMS)
    found = map_of(arrays | {("rest", "count"): np.array([1, 2])}, PARAMS, counts)
    assert found.state is not None
    assert found.state[0].dtype == INT
    assert "needs int32, got int64 with numbers beyond it" in refusal(
        arrays | {("rest", "count"): np.array([1, 2**40])}, PARAMS, counts
    )
    assert "count needs int32, got float64" in refusal(arrays | {("rest", "count"): np.ones(2)}, PARAMS, counts)


def test_a_wrong_shape_is_named_with_both() -> None:
    arrays = {name: np.ones((*array.shape, 2)) for name, array in arrays_of(SPELLINGS["tuples"], PARAMS).items()}
    told = refusal(arrays).splitlines()
    assert len(told) == 3
    assert told[1] == "step_5.npz: a/bias needs the shape 3, got 3 x 2"


def test_arrays_without_names_go_by_their_order() -> None:
    """Whole numbers, and single ones such as a dropout's rate, are left out where the count asks for it."""
    arrays = arrays_of(SPELLINGS["tuples"], PARAMS)
    values = [np.array(0.5), np.arange(3), *arrays.values(), np.array(True)]
    found = map_of({(str(k),): array for k, array in enumerate(values)}, has_names=False)
    assert firsts(found.params) == [0, 100, 200]
    assert found.state is None
    one = {(str(k),): array for k, array in enumerate(values[2:4])}
    assert "holds 2 arrays of floating-point numbers by order, without names, but params have 3" in refusal(
        one, has_names=False
    )
    swapped = {(str(k),): array for k, array in enumerate(list(arrays.values())[::-1])}
    assert "a/kernel needs the shape 2 x 3, got 3 x 3" in refusal(swapped, has_names=False)
    named = {(str(k),): array for k, array in enumerate(values)}
    assert "have no names, only an order" in refusal(named, has_names=False, rename={"0": "a"})
