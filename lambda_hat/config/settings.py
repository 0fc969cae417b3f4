"""What is asked of one estimate beside its target, where no command line is: presets and values, without Hydra."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lambda_hat.config.cross_faults import batch_faults, dim_faults
from lambda_hat.config.job import SamplerConfig, canonical, drawn_by, name_of, parse_node
from lambda_hat.config.presets import config_dir, own_config_dirs, presets_of
from lambda_hat.config.schema import Budget, ConfigError, Document, Node, PosteriorConfig, near_miss, schema_path

# A preset of one group may choose that of another: `override /budget@_global_.budget: reference`.
_CHOICE = re.compile(r"override /(\w+)@_global_\.\1")


class Preset(NamedTuple):
    """A preset's fields, and the presets of other groups that it chooses, by group."""

    fields: Document
    chosen: dict[str, str]


def read_preset(group: str, name: str) -> Preset:
    """The preset ``name`` of conf/, or else of a user's own folders.

    Raises:
        ConfigError: there is none, or it uses more of Hydra than other presets of its group and a budget.
    """
    known = presets_of(group)
    if name not in known:
        raise ConfigError([f"{group}: needs one of {', '.join(known)}, got {name!r}{near_miss(name, known)}"])
    path = _path(group, name)
    own = yaml.safe_load(path.read_text())
    fields: Document = {}
    chosen: dict[str, str] = {}
    for entry in own.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            base = read_preset(group, entry)
            fields, chosen = fields | base.fields, chosen | base.chosen
        elif isinstance(entry, dict):
            ((key, value),) = entry.items()
            choice = _CHOICE.fullmatch(str(key))
            if choice is None:
                raise ConfigError([f"{group}: {path} needs Hydra for its {key!r}; use it on the command line"])
            chosen[choice[1]] = value
    return Preset(fields | own, chosen)


def _path(group: str, name: str) -> Path:
    paths = [folder / group / f"{name}.yaml" for folder in (config_dir(), *own_config_dirs())]
    return next(path for path in paths if path.exists())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an LLC is estimated: the nodes of a job that are not its target."""

    posterior: PosteriorConfig
    sampler: SamplerConfig
    num_chains: int
    seed: int
    budget: Budget

    def to_dict(self) -> Document:
        """The mapping that a job's config holds of them."""
        return {name: canonical(getattr(self, name)) for name in self.__dataclass_fields__}

    def check(self, num_data: int, dim: int) -> None:
        """Refuse a target of n = ``num_data`` and d = ``dim``.

        Raises:
            ConfigError: every reason.
        """
        traits = self.sampler.traits
        faults = batch_faults(traits, num_data) + dim_faults(name_of(self.sampler), traits, dim)
        try:
            self.posterior.resolve_nbeta(num_data)
        except ConfigError as error:
            faults += error.faults
        if faults:
            raise ConfigError(faults)


def settings_of(sampler: object, fields: Node, budget: object, **nodes: Any) -> Settings:
    """The settings of these values, each validated as in a job.

    Args:
        sampler: A preset's name, or a sampler.
        fields: Fields of the sampler, beside a preset's name.
        budget: None: the one that the sampler's preset chooses, or the default.
        nodes: ``posterior``, ``num_chains`` and ``seed``.

    Raises:
        ConfigError: every wrong key, type and range.
    """
    faults: list[str] = []
    found, chosen = _sampler(sampler, fields, faults)
    parsed: Any = {name: parse_node(name, node, faults) for name, node in nodes.items()}
    if budget is None:
        parsed["budget"] = parse_node("budget", read_preset("budget", chosen).fields, faults)
    elif isinstance(budget, Budget):
        parsed["budget"] = budget
    else:
        faults.append(f"budget: needs a Budget such as Budget(mcse=0.02), got {budget!r}")
    if faults:
        raise ConfigError(faults)
    return Settings(**parsed, sampler=drawn_by(found, parsed["posterior"]))


def _sampler(sampler: object, fields: Node, faults: list[str]) -> tuple[Any, str]:
    """The sampler, or None after adding to ``faults``, and the preset of the budget that belongs to it."""
    if isinstance(sampler, str):
        preset = read_preset("sampler", sampler)
        return parse_node("sampler", {**preset.fields, **fields}, faults), preset.chosen.get("budget", "default")
    if not isinstance(sampler, SamplerConfig) or schema_path(type(sampler)) is None:
        got = f"the class {sampler.__name__}" if isinstance(sampler, type) else repr(sampler)
        faults.append(
            f"sampler: needs a preset's name such as 'hmc', or a sampler such as HMC(step_size=0.1), got {got}"
        )
    elif fields:
        faults.append(
            f"{', '.join(fields)}: no such argument; set fields of a sampler in {type(sampler).__name__}(...)"
        )
    return sampler, "default"
