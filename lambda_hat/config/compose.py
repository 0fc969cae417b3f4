"""Overrides of the command line to validated jobs. Hydra composes once per distinct choice of presets (about a
quarter of a second each); values are set on copies (about a millisecond). Needs Hydra, not JAX."""

import contextlib
import copy
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.core.utils import env_override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lambda_hat.config.job import Job, parse_job
from lambda_hat.config.override_values import Config, Presets, set_plainly, values_of
from lambda_hat.config.own_models import OwnModels
from lambda_hat.config.presets import config_dir
from lambda_hat.config.restrict_each import one_each
from lambda_hat.config.schema import ConfigError, near_miss, without_secrets
from lambda_hat.config.sentences import OF_SWEEPS

_OURS = ("lambda_hat", "launch", "hydra_plugins")
OverrideSet = tuple[Override, ...]
# A sweep over null alone: Hydra's choice() takes none.
_NULL = "null,null"
_ANY_NAMES = ("model.args.", "model.args=", "checkpoint.rename.", "checkpoint.rename=")


class CommandLine(NamedTuple):
    """What Hydra composed: the config, and the plain node of the backend's preset."""

    config: DictConfig
    launcher: dict[str, Any]


class Composed(NamedTuple):
    """A job, and the plain config it was parsed from (with the launcher's words, ``wait`` and ``dry_run``)."""

    job: Job
    config: Config


class Composer:
    """Makes plain configs of jobs out of overrides.

    Args:
        loader: Hydra's, with the search path of the application.
        config_name: The primary config, ``sample``.
        hydra_overrides: Overrides of Hydra itself (``hydra/launcher=...``), the same for every job.
    """

    def __init__(self, loader: ConfigLoader, config_name: str, hydra_overrides: Sequence[str] = ()):
        self._loader = loader
        self._config_name = config_name
        self._hydra_overrides = list(hydra_overrides)
        self._parser = OverridesParser.create(config_loader=loader)
        self._presets: dict[str, list[str]] = {}
        self._composed: dict[tuple[str, ...], Presets | ConfigError] = {}
        self.own = OwnModels()

    def expand(self, arguments: Sequence[str]) -> list[OverrideSet]:
        """Every combination of the swept values, the last argument varying fastest, as with Hydra's own sweeper.

        Raises:
            ConfigError: an argument cannot be read, or sweeps over an interval.
        """
        axes: dict[str, list[Override]] = {}
        faults: list[str] = []
        for argument in arguments:
            try:
                override = self._read(argument)
            except HydraException as error:
                faults.append(f"{argument}: needs the form key=value or key=value1,value2 ({_first_line(error)})")
                continue
            key = override.get_key_element()
            if not override.is_sweep_override():
                axes[key] = [override]
            elif override.is_discrete_sweep():
                values = list(values_of(override))
                axes[key] = values[:1] if argument == f"{key}={_NULL}" else values
            else:
                faults.append(f"{key}: needs a list of values to sweep over, got {argument}")
        if faults:
            raise ConfigError(faults)
        return list(itertools.product(*axes.values()))

    def _read(self, text: str) -> Override:
        return self._parser.parse_overrides([text])[0]  # not parse_override: its globs know of no presets

    def config(self, overrides: OverrideSet) -> Config:
        """The plain, resolved config of one job, with what its problem is where that is the user's own.

        Raises:
            ConfigError: as :meth:`composed`, or there is no such problem.
        """
        return self.own.planned(self.composed(overrides))

    def composed(self, overrides: OverrideSet) -> Config:
        """The plain, resolved config of one job. An unknown key stays in it: ``parse_job`` names its kin.

        Raises:
            ConfigError: a preset does not exist, a value cannot be set or resolved, a mandatory one is missing.
        """
        choices = [self._is_choice(override) for override in overrides]
        presets = self._presets_config(tuple(itertools.compress(overrides, choices)))
        values = [override for override, is_choice in zip(overrides, choices, strict=True) if not is_choice]
        quickly = set_plainly(presets.plain, values)
        if quickly is not None:
            return _with_absolute_paths(quickly)
        config = copy.deepcopy(presets.config)
        for override in values:
            try:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=True)
            except OmegaConfBaseException as error:
                raise ConfigError([f"{override.key_or_group}: cannot be set: {_first_line(error)}"]) from error
        return plain(config)

    def _is_choice(self, override: Override) -> bool:
        """Whether Hydra must compose for it: a choice of a preset, or a deletion."""
        if override.is_delete() or override.package is not None:
            return True
        return bool(self._presets_of(override.key_or_group)) and not isinstance(override.value(), dict)

    def _presets_of(self, group: str) -> list[str]:
        if group not in self._presets:
            self._presets[group] = self._loader.get_group_options(group)
        return self._presets[group]

    def _presets_config(self, choices: OverrideSet) -> Presets:
        lines = tuple(str(override.input_line) for override in choices)
        if lines not in self._composed:
            try:
                self._composed[lines] = Presets.of(self._load(choices, lines))
            except ConfigError as error:
                self._composed[lines] = error
        composed = self._composed[lines]
        if isinstance(composed, ConfigError):
            raise ConfigError(composed.faults)
        return composed

    def _load(self, choices: OverrideSet, lines: Sequence[str]) -> DictConfig:
        faults = [
            f"{override.key_or_group}: needs one of {', '.join(presets)}, got {override.value()!r}"
            f"{near_miss(str(override.value()), presets)}"
            for override in choices
            if (presets := self._presets_of(override.key_or_group))
            and isinstance(override.value(), str)
            and override.value() not in presets
        ]
        if faults:
            raise ConfigError(faults)
        try:
            config = self._loader.load_configuration(
                self._config_name, [*self._hydra_overrides, *lines], run_mode=RunMode.RUN
            )
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError([one_line(error)]) from error
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        return config


def plain(config: DictConfig) -> Config:
    """``config`` as plain data, resolved.

    Raises:
        ConfigError: an interpolation leads nowhere, or a mandatory value (``???``) was not given.
    """
    try:
        container = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError([one_line(error)]) from error
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError([f"{key}: has no default; set {key}=..." for key in missing])
    return _with_absolute_paths(cast(Config, container))


def _with_absolute_paths(composed: Config) -> Config:
    # What is frozen for an element, or retried from elsewhere, must find the same file; the id hashes its bytes.
    for node in composed.values():
        if isinstance(node, dict) and isinstance(node.get("path"), str):
            node["path"] = str(Path(node["path"]).absolute())
    return composed


def compose_jobs(composer: Composer, sets: Iterable[OverrideSet], over: Config | None = None) -> list[Composed]:
    """The jobs of each override set; ``over``: nodes that take the place of theirs.

    Raises:
        ConfigError: every distinct fault of any job once, with the overrides of the first job that has it.
    """
    composed: list[Composed] = []
    owners: dict[str, list[str]] = {}
    shared: dict[str, Any] = {}

    @contextlib.contextmanager
    def blaming(overrides: OverrideSet) -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            for fault in error.faults:
                owners.setdefault(fault, []).append(" ".join(str(override.input_line) for override in overrides))

    plain_configs: list[tuple[OverrideSet, Config]] = []
    for overrides in sets:
        with blaming(overrides):
            plain_configs.append((overrides, {**composer.composed(overrides), **(over or {})}))
    composer.own.ask(config for _, config in plain_configs)
    for overrides, config in plain_configs:
        with blaming(overrides):
            for planned in composer.own.planned_each(config):
                composed += [Composed(parse_job(one, shared), one) for one in one_each(planned, shared)]
    if owners:
        is_sweep = len(composed) + max(map(len, owners.values())) > 1
        raise ConfigError([_with_owners(fault, texts) if is_sweep else fault for fault, texts in owners.items()])
    return composed


def deferred(arguments: list[str]) -> list[str]:
    """The command line of a sweep with every ``key=value`` written as a sweep over one value, for our sweeper.

    Hydra sets plain values on the default presets before a sweeper is asked, and so refuses
    ``-m sampler=sgld,sgnht sampler.batch_size=16`` because the default sampler has no batches; what is swept over
    it leaves to the sweeper. A preset cannot be swept over, so a comma in one of its fields is part of the value
    (``hydra.launcher.exclude=node1,node2``).
    """
    parser = OverridesParser.create()
    overrides = get_args_parser().parse_args(arguments).overrides

    def defer(argument: str) -> str:
        try:
            override = parser.parse_override(argument)
        except HydraException:
            return argument
        if override.key_or_group.startswith("hydra.launcher.") and override.value_type is ValueType.SIMPLE_CHOICE_SWEEP:
            text = ",".join(map(str, override.sweep_iterator()))
            return f"{override.get_key_element()}='{text}'"
        is_group = (config_dir() / override.key_or_group).is_dir()
        if override.is_sweep_override() or override.is_hydra_override() or override.is_delete() or is_group:
            return argument
        value = override.get_value_element_as_str()
        return f"{override.get_key_element()}={_NULL if override.value() is None else f'choice({value})'}"

    return [defer(argument) if argument in overrides else argument for argument in arguments]


def explain(config_name: str, arguments: list[str]) -> list[str]:
    """Why Hydra could not compose the command line, in the words of our schemas; empty if they find no fault."""
    options = get_args_parser().parse_args(arguments)
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        try:
            of_jobs = [text for text in options.overrides if not text.lstrip("+~").startswith(("hydra.", "hydra/"))]
            sets = Composer(loader, config_name).expand(of_jobs)
            if len(sets) > 1 and not options.multirun:
                return ["one key has several values: add -m to make a run of each"]
            compose_jobs(Composer(loader, config_name), sets)
            keys = {override.key_or_group for override in sets[0]} if not options.multirun else set[str]()
            return [f"{key}: {needs}" for key, needs in OF_SWEEPS.items() if key in keys]
        except ConfigError as error:
            return error.faults


def _with_owners(fault: str, texts: list[str]) -> str:
    others = f" and {len(texts) - 1} more" if len(texts) > 1 else ""
    return f"{fault}  [in {texts[0]}{others}]"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def one_line(error: Exception) -> str:
    """Hydra's words, which fill a screen, as one sentence."""
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, preset = error.missing_cfg_file.rpartition("/")
        return f"{group}: needs one of {', '.join(error.options)}, got {preset!r}"
    return without_secrets(" ".join(str(error).split()))


def command_lines(config_name: str, arguments: list[str]) -> list[CommandLine]:
    """One command line, or none if Hydra itself did what was asked for (a sweep, ``--cfg``).

    The task runs after Hydra has returned, because Hydra adds words of its own to every error of a task.
    """
    composed: list[CommandLine] = []

    def keep(config: DictConfig) -> None:
        launcher = OmegaConf.to_container(HydraConfig.get().launcher, resolve=True)
        composed.append(CommandLine(config, cast(dict[str, Any], launcher)))

    if {"-m", "--multirun"} & set(arguments):
        sys.argv[1:] = deferred(arguments)
    else:  # these have any names, which Hydra would have marked with a +
        sys.argv[1:] = [f"++{text}" if text.startswith(_ANY_NAMES) else text for text in arguments]
    # Else Hydra prints errors in its own words, and a traceback for all but its own, before we see them.
    with env_override({"HYDRA_FULL_ERROR": "1"}):
        hydra.main(config_path=str(config_dir()), config_name=config_name, version_base="1.3")(keep)()
    return composed


def job_of(config: DictConfig) -> Job:
    """The validated job of a config that Hydra composed."""
    return parse_job(OwnModels().planned(plain(config)))


def faults_of(error: Exception, config_name: str, arguments: list[str]) -> list[str] | None:
    """What to tell the user, or None if the error is ours and needs its traceback."""
    if isinstance(error, ConfigError):
        return error.faults
    if isinstance(error, HydraException | OmegaConfBaseException):
        # Only the composition of runs can be explained by their schemas.
        explained = explain(config_name, arguments) if config_name in ("sample", "build") else []
        return explained or [one_line(error)]
    if type(error).__module__.partition(".")[0] in _OURS or isinstance(error, OSError):
        return [str(error)]
    return None
