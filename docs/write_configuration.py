"""Write docs/configuration.md from the schema dataclasses: `make docs`. A test holds the page to what this returns."""

import dataclasses
import inspect
import re
import types
import typing
from pathlib import Path
from typing import Any

import yaml

from lambda_hat.config.checkpoint_axis import CheckpointAxis
from lambda_hat.config.presets import config_dir
from lambda_hat.config.schema import Budget, PosteriorConfig, StoreConfig, schema_class

PAGE = Path(__file__).with_name("configuration.md")
INTRODUCTION = """# Configuration

Hydra composes a run from `conf/sample.yaml` and one YAML file a group: `sampler=hmc` reads `conf/sampler/hmc.yaml`.
`sampler.num_warmup=200` changes one key of it, and `python -m lambda_hat.sample --cfg job` prints the result.
An unknown key, a wrong type or a value out of range is refused before anything is computed.

These keys say what a run *is* and determine its id:
`model`, `data`, `teacher`, `training`, `posterior`, `sampler`, `num_chains`, `seed`.
The others say how far it goes and where it is stored (`budget`, `store`, ...): a larger budget continues the same run.
`checkpoint` names files that hold the w0 of an own problem: their content counts in the id, their paths do not.

`make docs` writes this page from the schema classes; edit their docstrings, not this file.
"""
TOP_LEVEL = {
    "num_chains": ("integer > 0", "Chains, which advance together."),
    "seed": ("integer >= 0", "Seed of all random numbers of the run."),
    "rerun": ("true or false", "Compute a finished run again; the old result is set aside."),
    "wait": ("true or false", "A sweep: wait for its runs and print their table."),
    "dry_run": ("true or false", "Print what would run, and run nothing."),
}
# Fields that mean the same in every schema.
COMMON = {"dtype": "Floating-point type of the computation."}
PLAIN = {"checkpoint": CheckpointAxis, "posterior": PosteriorConfig, "budget": Budget, "store": StoreConfig}
TYPED = ("model", "data", "teacher", "training", "sampler")


def presets(group: str) -> dict[str, dict[str, Any]]:
    """The YAML files of a group by name, hidden ones such as `_null` included."""
    return {file.stem: yaml.safe_load(file.read_text()) for file in sorted((config_dir() / group).glob("*.yaml"))}


def meanings(schema: type) -> dict[str, str]:
    """Each argument's sentence, from the `Args:` paragraph of the class's docstring."""
    _, _, block = (inspect.getdoc(schema) or "").partition("Args:\n")
    entries = re.findall(r"^    ([\w, ]+): (.*(?:\n {5,}.*)*)", block, flags=re.MULTILINE)
    found: dict[str, str] = {}
    for names, text in entries:
        for name in str(names).split(","):
            found[name.strip()] = " ".join(str(text).split())
    return found


def summary(schema: type) -> str:
    """The docstring's first paragraph, on one line."""
    return " ".join((inspect.getdoc(schema) or "").partition("\n\n")[0].split())


def kind(hint: Any) -> str:
    """A field's annotation in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        limits = [limit for item in arguments[1:] for limit in getattr(item, "metadata", [item])]
        signs = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
        words = [f"{sign} {getattr(limit, key):g}" for limit in limits for key, sign in signs if hasattr(limit, key)]
        return " ".join([kind(arguments[0]), " and ".join(words)]).strip()
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(kind, arguments))
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (list, tuple):
        return f"list of {kind(arguments[0])}"
    if origin is dict or dataclasses.is_dataclass(hint):
        return "mapping"
    words = {bool: "true or false", int: "integer", float: "number", str: "text", types.NoneType: "null"}
    return words.get(hint, str(hint))


def show(value: Any) -> str:
    """A default in YAML."""
    return "`" + yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip() + "`"


def table(schema: type) -> str:
    """One row a key: type, default, meaning."""
    hints, meaning = typing.get_type_hints(schema, include_extras=True), COMMON | meanings(schema)
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, default in defaults(schema).items():
        shown = "required" if default is dataclasses.MISSING else show(default)
        cells = [f"`{name}`", kind(hints[name]), shown, meaning.get(name, "")]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def defaults(schema: type) -> dict[str, Any]:
    """Each field's default, MISSING where it must be given."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(schema):
        factory = field.default_factory
        found[field.name] = field.default if factory is dataclasses.MISSING else factory()
    return found


def differences(preset: dict[str, Any], schema: type) -> str:
    """The fields in which a preset differs from its schema's defaults."""
    own = defaults(schema)
    changed = {key: value for key, value in preset.items() if key in own and own[key] != value}
    return ", ".join(f"`{key}: {show(value).strip('`')}`" for key, value in changed.items()) or "the defaults"


def group_section(group: str) -> str:
    """One heading for each schema class, with the presets that use it."""
    files = presets(group)
    by_schema: dict[str, list[str]] = {}
    for name, preset in files.items():
        by_schema.setdefault(preset["_target_"], []).append(name)
    parts = [f"## {group}"]
    for path, names in by_schema.items():
        schema = schema_class(path)
        parts += ["### " + " · ".join(f"`{group}={name}`" for name in names), summary(schema), table(schema)]
        if len(names) > 1:
            parts.append("\n".join(f"- `{name}`: {differences(files[name], schema)}" for name in names))
    return "\n\n".join(parts)


def page() -> str:
    """The whole page."""
    job = yaml.safe_load((config_dir() / "sample.yaml").read_text())
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    rows += [f"| `{key}` | {words} | {show(job[key])} | {meaning} |" for key, (words, meaning) in TOP_LEVEL.items()]
    parts = [INTRODUCTION.strip(), "## Top level", "\n".join(rows)]
    parts += [group_section(group) for group in TYPED]
    for name, schema in PLAIN.items():
        parts += [f"## {name}", summary(schema), table(schema)]
        parts += [f"- `{name}={preset}`: {differences(values, schema)}" for preset, values in presets(name).items()]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
