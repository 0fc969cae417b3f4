"""The YAML file of a workflow or a tuning session, with `--set` on top, and Hydra's loader of the presets."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import hydra
import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lambda_hat.config.compose import Composer, Config, one_line
from lambda_hat.config.foreign_code import refuse_foreign_code
from lambda_hat.config.override_values import override_text
from lambda_hat.config.presets import config_dir, presets_of
from lambda_hat.config.schema import ConfigError, Document, Node, without_secrets

# Below it keys are written as on the command line, and dots are part of them.
OVERRIDES = "overrides"


def read_document(path: str | Path) -> Document:
    """Read the mapping in a YAML file and resolve interpolations (``${oc.env:NAME,default}``).

    A path that begins with ``conf/`` and does not exist is looked up among the shipped files.

    Raises:
        ConfigError: there is no such file, it holds no mapping, or another user's file names code to import.
    """
    path = Path(path)
    if not path.exists() and path.parts[:1] == ("conf",):
        path = config_dir().joinpath(*path.parts[1:])
    try:
        document = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except OSError as error:
        raise ConfigError([f"--config: needs a YAML file, got {path} ({error.strerror or error})"]) from error
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError([f"--config: cannot read {path}: {one_line(error)}"]) from error
    if not isinstance(document, dict):
        raise ConfigError([f"--config: needs a mapping, got {type(document).__name__} in {path}"])
    refuse_foreign_code(path, cast(dict[str, Any], document))
    return cast(dict[str, Any], document)


def apply_sets(document: Document, sets: Iterable[str]) -> None:
    """Set ``key=value`` pairs in ``document``: ``experiment=x``, ``targets[0].model=wide``, ``overrides.budget=quick``.

    Values are read as on the command line of `lambda_hat.sample`. Unknown keys are set too; validation refuses them and
    suggests similar ones.

    Raises:
        ConfigError: every pair that cannot be read or set.
    """
    faults: list[str] = []
    for text in sets:
        key, equals, _ = text.partition("=")
        try:
            override = OverridesParser.create().parse_override("value" + text[len(key) :])
            if not equals or override.is_sweep_override():
                raise ValueError("one value")
            _put(document, _parts(key), override.value())
        except (HydraException, ValueError) as error:
            faults.append(
                f"--set {without_secrets(text)}: needs the form key=value with one value ({str(error).splitlines()[0]})"
            )
        except (LookupError, TypeError):
            faults.append(f"--set {without_secrets(text)}: has no place: there is no {key.rpartition('.')[0] or key}")
    if faults:
        raise ConfigError(faults)


def _parts(key: str) -> list[str]:
    parts = re.findall(r"[^.\[\]]+", key)
    if OVERRIDES in parts[:-1]:
        end = parts.index(OVERRIDES) + 1
        parts[end:] = [".".join(parts[end:])]
    if not parts:
        raise ValueError("a key")
    return parts


def _put(node: Any, parts: list[str], value: Any) -> None:
    *parents, last = parts
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
    if isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value


def flatten(node: Node, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf; ``{training: {steps: 5}}`` and ``{training.steps: 5}`` are equal."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(cast(Mapping[str, Any], value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@contextmanager
def presets_loader() -> Iterator[ConfigLoader]:
    """Hydra's loader of conf/ while the block lasts."""
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def ask_about_own_models(composer: Composer, lines: Iterable[Iterable[str]]) -> None:
    """Find out, in one process, what the own problems of these command lines are.

    A line that is at fault says so when its run is composed.

    Raises:
        ConfigError: the process ended without an answer.
    """
    configs: list[Config] = []
    for line in lines:
        with suppress(ConfigError):
            configs += [composer.composed(overrides) for overrides in composer.expand(list(line))]
    composer.own.ask(configs)


def launcher_preset(loader: ConfigLoader, name: str | None, fields: Node) -> Document:
    """The plain ``hydra.launcher`` node of a backend's preset.

    Args:
        loader: Hydra's.
        name: ``local``, ``slurm_cpu``, ``slurm-gpu``, ...; None: ``LAMBDA_HAT_BACKEND``, or else local.
        fields: Values to set in it (``partition``, ``timeout_min``).

    Raises:
        ConfigError: there is no such preset or field, or a value has the wrong type.
    """
    known = presets_of("hydra/launcher")
    if name is None:
        name = os.environ.get("LAMBDA_HAT_BACKEND", "local")
    if name not in known:
        raise ConfigError([f"--backend: needs one of {', '.join(known)}, got {name!r}"])
    overrides = [override_text(f"hydra.launcher.{key}", value) for key, value in flatten(fields)]
    try:
        config = loader.load_configuration("sample", [f"hydra/launcher={name}", *overrides], RunMode.MULTIRUN)
        return cast(dict[str, Any], OmegaConf.to_container(config.hydra.launcher, resolve=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([f"hydra.launcher: {one_line(error)}"]) from error
