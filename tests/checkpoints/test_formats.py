"""Each format as its real library writes it, whole, cut off, and with what no checkpoint holds."""

import os
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.serialization
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy

import lambda_hat as lh
from lambda_hat.targets.checkpoints import Checkpoint, CheckpointError, StillWritten
from lambda_hat.targets.checkpoints.arrays import Arrays

rng = np.random.default_rng(0)
# Nested as networks are, with awkward names, and all dtypes that are stored.
TREE: dict[str, Any] = {
    "batch_norm/~/mean_ema": {"average": rng.standard_normal(3).astype(np.float16)},
    "layer": {"kernel": rng.standard_normal((2, 3)), "bias": rng.standard_normal(3).astype(np.float32)},
    "half": rng.standard_normal((2, 2)).astype(ml_dtypes.bfloat16),
    "one": rng.standard_normal(()).astype(np.float32),
    "empty": np.zeros((0, 4)),
    "count": np.arange(3, dtype=np.int64),
    "mask": np.array([True, False]),
}


def by_name(tree: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def write_npz(path: Path, tree: Any) -> Path:
    named = by_name(tree)
    named |= {f"{name}.dtype": "bfloat16" for name, leaf in by_name(tree).items() if leaf.dtype == ml_dtypes.bfloat16}
    np.savez(path.with_suffix(".npz"), **named)
    return path.with_suffix(".npz")


def write_safetensors(path: Path, tree: Any) -> Path:
    named = {name.replace("/", "."): np.ascontiguousarray(leaf) for name, leaf in by_name(tree).items()}
    named["one"] = named["one"].reshape(()) if "one" in named else np.zeros(1)
    safetensors.numpy.save_file(named, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def write_msgpack(path: Path, tree: Any) -> Path:
    path.with_suffix(".msgpack").write_bytes(flax.serialization.to_bytes(tree))
    return path.with_suffix(".msgpack")


def write_flax_legacy(path: Path, tree: Any) -> Path:
    path.write_bytes(flax.serialization.to_bytes(tree))
    return path


def write_orbax(path: Path, tree: Any) -> Path:
    with ocp.StandardCheckpointer() as writer:
        writer.save(path, without_empty(tree))
    return path


def write_manager(path: Path, tree: Any) -> Path:
    root = path.with_name("manager")
    with ocp.CheckpointManager(root) as manager:
        manager.save(5, args=ocp.args.StandardSave(without_empty(tree)))
        manager.wait_until_finished()
    return root / "5"


def without_empty(tree: Any) -> Any:
    """Orbax refuses arrays without elements."""
    return {name: leaf for name, leaf in tree.items() if name != "empty"}


WRITERS: dict[str, Callable[[Path, Any], Path]] = {
    "npz": write_npz,
    "safetensors": write_safetensors,
    "msgpack": write_msgpack,
    "flax_legacy": write_flax_legacy,
    "orbax": write_orbax,
    "manager": write_manager,
}


def only(path: Path, **settings: Any) -> Checkpoint:
    (found,) = lh.checkpoints(path, **settings)
    return found


@pytest.mark.parametrize("name", WRITERS)
def test_every_array_comes_back(name: str, tmp_path: Path) -> None:
    """By name, with its dtype, shape and bytes."""
    checkpoint = only(WRITERS[name](tmp_path / "step_5", TREE))
    found = {".".join(path).replace("/", "."): array for path, array in checkpoint.read().items()}
    expected = {path.replace("/", "."): leaf for path, leaf in by_name(TREE).items()}
    if name in ("orbax", "manager"):
        del expected["empty"]
    assert checkpoint.step == 5
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        assert found[path].dtype == leaf.dtype, path
        assert found[path].shape == leaf.shape, path
        assert found[path].tobytes() == leaf.tobytes(), path


def test_a_folder_of_a_manager_is_a_listing(tmp_path: Path) -> None:
    with ocp.CheckpointManager(tmp_path / "m") as manager:
        for step in (9, 10):
            manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave({"w": np.full(2, step)}),
                    state=ocp.args.StandardSave({"m": np.ones(1)}),
                ),
            )
        manager.wait_until_finished()
    (tmp_path / "m" / "11.orbax-checkpoint-tmp-3").mkdir()
    (tmp_path / "m" / "12" / "params").mkdir(parents=True)
    (tmp_path / "m" / "12" / "params" / "_METADATA").write_text("{}")
    found = lh.checkpoints(tmp_path / "m")
    assert found.steps == (9, 10)
    assert [Path(path).name for path in found.unfinished] == ["11.orbax-checkpoint-tmp-3", "12"]
    arrays = found[1].read()
    assert arrays.keys() == {("params", "w"), ("state", "m")}
    assert arrays["params", "w"].tolist() == [10, 10]


def test_equinox_files_have_an_order(tmp_path: Path) -> None:
    model = (eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0)), eqx.nn.Dropout(0.5), jnp.ones(2, jnp.bfloat16))
    plain, with_line = tmp_path / "1.eqx", tmp_path / "2.eqx"
    eqx.tree_serialise_leaves(plain, model)
    with with_line.open("wb") as file:
        file.write(b'{"width": 3}\n')
        eqx.tree_serialise_leaves(file, model)
    one, other = (list(checkpoint.read().values()) for checkpoint in lh.checkpoints(tmp_path))
    assert [(array.shape, str(array.dtype)) for array in one] == [
        ((3, 2), "float32"), ((3,), "float32"), ((1, 3), "float32"), ((1,), "float32"), ((), "float64"), ((), "bool"),
        ((2,), "bfloat16"),
    ]  # fmt: skip
    assert [array.tobytes() for array in one] == [array.tobytes() for array in other]
    assert one[0].tobytes() == np.asarray(model[0].layers[0].weight).tobytes()


def files_of(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and "d" in file.parts]


def aged(path: Path) -> Path:
    """As if its writer had left it long ago."""
    os.utime(path, (1e9, 1e9))
    return path


@pytest.mark.parametrize("name", [*WRITERS, "equinox"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.999])
def test_a_cut_off_file_is_one_sentence(name: str, share: float, tmp_path: Path) -> None:
    """Of a file that just changed, that its writer may still be at it; of an old one, that it is damaged."""
    path = tmp_path / "step_5.eqx"
    if name == "equinox":
        eqx.tree_serialise_leaves(path, {"a": jnp.ones((40, 3)), "b": jnp.ones(50)})
    else:
        # Of several arrays in one folder, Orbax would leave the others' futures behind.
        path = WRITERS[name](tmp_path / "step_5", TREE if name not in ("orbax", "manager") else {"w": np.ones(50)})
    checkpoint = only(path)
    for file in files_of(path):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share * len(whole))])
    if path.is_file():
        with pytest.raises(StillWritten, match=r"^step 5 is still being written: left for the next call"):
            checkpoint.read()
    with pytest.raises(CheckpointError, match="cannot be read as") as refused:
        aged(path)
        checkpoint.read()
    assert len(str(refused.value).splitlines()) == 1
    assert not isinstance(refused.value, StillWritten)


def test_a_file_that_changes_while_it_is_read_is_left(tmp_path: Path) -> None:
    path = tmp_path / "5.dat"
    path.write_bytes(b"a")

    def load(path: str) -> Any:
        with Path(path).open("ab") as file:
            file.write(b"b")
        return {"w": np.zeros(1)}

    with pytest.raises(StillWritten, match="step 5 is still being written"):
        only(path, load=load).read()


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "5.npz", w=np.zeros(1))
    checkpoint = only(tmp_path / "5.npz")
    (tmp_path / "5.npz").unlink()
    with pytest.raises(CheckpointError, match=r"5\.npz: cannot be looked at \(No such file"):
        checkpoint.read()


class Trap:
    """What runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was run",))


def test_no_pickle_is_run(tmp_path: Path) -> None:
    trapped = np.empty(1, object)
    trapped[0] = Trap()
    np.savez(tmp_path / "5.npz", w=trapped)
    with pytest.raises(CheckpointError, match="w holds Python objects, which are pickled and could run code"):
        only(tmp_path / "5.npz").read()
    for name in ("6.npz", "6.msgpack", "6.safetensors", "6.eqx"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(CheckpointError, match="cannot be read as"):
            only(aged(tmp_path / name)).read()


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"w": np.ones(2, ml_dtypes.bfloat16)}, r"w has lost its dtype \(\|V2\): .npz stores bfloat16 as bare bytes"),
        ({"w": np.ones(2, ml_dtypes.bfloat16), "w.dtype": "bfloat17"}, "needs the name of a dtype, got 'bfloat17'"),
        ({"w": np.ones(2, ml_dtypes.bfloat16), "w.dtype": "float32"}, "says float32, but w has 2 bytes a number"),
    ],
)
def test_a_lost_dtype_is_not_guessed(arrays: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "5.npz", **arrays)
    with pytest.raises(CheckpointError, match=sentence):
        only(tmp_path / "5.npz").read()


@pytest.mark.parametrize("endings", [(".npz", ".safetensors"), (".safetensors", ".msgpack"), (".msgpack", ".npz")])
def test_a_wrong_ending_is_one_sentence(endings: tuple[str, str], tmp_path: Path) -> None:
    path = WRITERS[endings[0][1:]](tmp_path / "step_5", TREE)
    renamed = aged(path.rename(path.with_suffix(endings[1])))
    with pytest.raises(CheckpointError, match="so it is damaged or something else"):
        only(renamed).read()


def test_torch_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "5.pt").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"needs torch, which cannot be imported .*; pip install torch$"):
        only(tmp_path / "5.pt").read()


class Tensor:
    """As far as the reader looks at one."""

    def __init__(self, array: np.ndarray, dtype: str):
        self.array, self.dtype = array, dtype

    def detach(self) -> "Tensor":
        return self

    def view(self, dtype: str) -> "Tensor":
        return Tensor(self.array.view(dtype), dtype)

    def numpy(self) -> np.ndarray:
        return self.array


def test_torch_files_are_read_without_running_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    half = np.array([1.5, -2], ml_dtypes.bfloat16)
    state = {"fc.weight": Tensor(np.ones((2, 3)), "float64"), "half": Tensor(half, "bfloat16"), "epoch": 3, "name": "x"}

    def load(path: str, **settings: Any) -> Any:
        asked.update(settings)
        if path.endswith("6.pt"):
            raise pickle.UnpicklingError("Weights only load failed")
        return state

    torch: Any = types.ModuleType("torch")
    torch.load, torch.Tensor, torch.bfloat16, torch.int16 = load, Tensor, "bfloat16", "int16"
    monkeypatch.setitem(sys.modules, "torch", torch)
    for step in (5, 6):
        (tmp_path / f"{step}.pt").write_bytes(b"PK")
    first, second = lh.checkpoints(tmp_path)
    found = first.read()
    assert asked["weights_only"] is True
    assert found.keys() == {("fc.weight",), ("half",), ("epoch",)}
    assert found["half",].tolist() == [1.5, -2]
    assert found["half",].dtype == ml_dtypes.bfloat16
    with pytest.raises(CheckpointError, match=r"holds more than tensors.*; save model.state_dict\(\)"):
        second.read()


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = [WRITERS[name](tmp_path / name / "step_5", TREE) for name in ("safetensors", "msgpack", "orbax")
               if (tmp_path / name).mkdir() is None]  # fmt: skip
    for module, package, path in zip(
        ("safetensors", "flax.serialization", "orbax.checkpoint"), ("safetensors", "flax", "orbax-checkpoint"), written,
        strict=True,
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(CheckpointError, match=f"pip install {package}$"):
            only(path).read()


def test_a_reader_of_ones_own(tmp_path: Path) -> None:
    np.save(tmp_path / "5.npy", np.ones(2))
    found: Arrays = only(tmp_path / "5.npy", load=lambda path: {"a": [np.load(path), 2.0], "text": "left out"}).read()
    assert found.keys() == {("a", "0"), ("a", "1")}
    assert list(only(tmp_path / "5.npy", load="numpy.load").read()) == [()]


def raises(path: str) -> Any:
    raise KeyError(path)


@pytest.mark.parametrize(
    ("load", "sentence"),
    [
        ("nowhere.read", r"load: needs the dotted path of a function, such as my_pkg.read, got 'nowhere.read'"),
        ("read", "load: needs the dotted path of a function"),
        ("numpy.nothing", "load: needs the dotted path of a function"),
        ("numpy.pi", "load: numpy.pi needs to be a function of a path, got float"),
        (lambda path: "text", "load needs to return a pytree of arrays, got str"),
        (raises, r"raises raised KeyError"),
    ],
)
def test_a_wrong_reader_is_one_sentence(load: Any, sentence: str, tmp_path: Path) -> None:
    np.save(tmp_path / "5.npy", np.ones(2))
    with pytest.raises(CheckpointError, match=sentence):
        only(aged(tmp_path / "5.npy"), load=load).read()
