"""A user's own module: where it is, and the function that a dotted path names. Importing it runs its code, which only
those commands do that compute; see :mod:`lambda_hat.config.foreign_code`."""

import hashlib
import importlib
import importlib.util
import os
import socket
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lambda_hat
from lambda_hat.config.schema import ConfigError, near_miss


class UserFunction(NamedTuple):
    """What a dotted path names.

    folder: from which its module is imported; None: where Python's packages are installed. file: of its top-level
    module.
    """

    value: Any
    folder: str | None
    file: str

    def sources(self) -> dict[str, str]:
        """The SHA-256 of the files that were imported from its folder, or from its package, by their paths there."""
        root = Path(self.file).parent if self.folder is None else Path(self.folder)
        top = Path(self.file).stem
        found: dict[str, str] = {}
        for name, module in list(sys.modules.items()):
            path = getattr(module, "__file__", None)
            if path is None or (self.folder is None and name.partition(".")[0] != top):
                continue
            file = Path(path).resolve()
            if file.is_relative_to(root):
                found[str(file.relative_to(root))] = hashlib.sha256(file.read_bytes()).hexdigest()
        return found


def user_function(path: str, folder: str | None, told: Callable[[Exception], str]) -> UserFunction:
    """The object at ``path``, whose module is imported.

    Args:
        path: Such as ``grok.problem``.
        folder: Is searched after all others, so that it hides nothing; None: only where Python looks anyway.
        told: Puts an error of the module's own code into words.

    Raises:
        ConfigError: there is no such module or name, another module hides it, or its code raised.
    """
    module, _, name = path.rpartition(".")
    if not module or not all(part.isidentifier() for part in path.split(".")):
        raise ConfigError([f"model.problem: needs module.function, such as grok.problem, got {path!r}"])
    file = _file_of(module.partition(".")[0], path, folder)
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError([f"model.problem: {file} has no module {error.name}, which {path} names"]) from error
        raise ConfigError([f"model.problem: importing {module} raised {told(error)}"]) from error
    except Exception as error:
        raise ConfigError([f"model.problem: importing {module} raised {told(error)}"]) from error
    if not hasattr(imported, name):
        miss = near_miss(name, [known for known in vars(imported) if not known.startswith("_")])
        raise ConfigError([f"model.problem: {file} has no {name}{miss}"])
    return UserFunction(getattr(imported, name), _folder_of(file), str(file))


def search_last(folder: str) -> None:
    """Have Python look for modules in ``folder`` (empty: where this process is), after all other places."""
    if folder not in sys.path:
        sys.path.append(folder)


def import_path() -> str:
    """PYTHONPATH of processes that this one starts: its own code, wherever they start."""
    here = str(Path(lambda_hat.__file__).resolve().parents[1])
    inherited = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return os.pathsep.join(dict.fromkeys([here, *inherited]))


def _file_of(top: str, path: str, folder: str | None) -> Path:
    """The file, or folder, of the top-level module ``top``; nothing is imported.

    Raises:
        ConfigError: there is none, or it is not the one of ``folder``, which has one too.
    """
    if folder is not None:
        search_last(folder)
    importlib.invalidate_caches()
    here = [] if folder is None else [Path(folder, f"{top}.py"), Path(folder, top)]
    own = next((found for found in here if found.is_file() or (found.is_dir() and any(found.glob("*.py")))), None)
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # of a module without a spec, such as __main__
        spec = None
    if spec is None:
        looked = "" if folder is None else f"in {folder} nor "
        raise ConfigError(
            [
                f"model.problem: {socket.gethostname()} has no module {top}, which {path} names, neither {looked}"
                "where its Python packages are; give the command in the module's folder, or install it"
            ]
        )
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or [])
    found = Path(str(places[0])).resolve() if places else Path(spec.origin or top)
    found = found.parent if found.name == "__init__.py" else found
    if own is not None and found != own.resolve():
        raise ConfigError(
            [f"model.problem: {top} is both {own} and {found}, which Python takes; give the first another name"]
        )
    return found


def _folder_of(file: Path) -> str | None:
    """The folder that has to be searched for a module; None where Python searches it anyway."""
    installed = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    folder = file.parent
    return None if any(folder.is_relative_to(Path(place).resolve()) for place in installed) else str(folder)
