"""What the store holds of a run, read once and in whatever state it is: for reports and notebooks."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from lambda_hat.config.schema import Document, Node
from lambda_hat.store.layout import RunRef, Store, StoreError, in_order_of_epochs, read_config, read_status

# What makes a run the run it is: the rest of a config (budget, store) is no part of its id.
_COMPARED = ("model", "data", "teacher", "training", "posterior", "sampler", "num_chains", "seed")

# The class of model=own, of which a reader wants to know the problem and its arguments.
_OWN = "Own"
_LONGEST_NAME = 60

# A field of a config: its node, the class of the node, its name. The class itself is a field without a name.
Field = tuple[str, str, str]


@dataclass(frozen=True)
class Record:
    """One run.

    Args:
        ref: Where it lives.
        state: What became of it: finished, failed, running, ...
        reason: Why, where it has no result.
        config: The job as config.yaml or analysis.json has it; empty where neither was written.
        analysis: analysis.json; None while there is none.
        status: status.json; empty before its first word.
    """

    ref: RunRef
    state: str
    reason: str = ""
    config: Document = field(default_factory=dict)
    analysis: Document | None = None
    status: Document = field(default_factory=dict)

    @property
    def sampler(self) -> str:
        return self.ref.sampler


def read_record(store: Store, ref: RunRef, known: tuple[str, str] | None = None) -> Record:
    """Read one run. Files that are damaged make a record that says so.

    Args:
        store: Where it is kept.
        ref: Which run.
        known: State and reason, where the caller knows them: a run that was killed could not record its own.
    """
    try:
        status = read_status(ref.folder) or {}
        analysis = store.read_analysis(ref.target_id, ref.run_id)
        # YAML is slow, and a finished run has said it all in JSON.
        config = (read_config(ref.folder) or {}) if analysis is None else analysis["config"]
        status = in_order_of_epochs(ref.folder, status, analysis)
    except StoreError as error:
        return Record(ref, "damaged", str(error), _config_if_whole(ref))
    state, reason = known or _recorded_state(ref, status, analysis)
    return Record(ref, state, reason, config, analysis, status)


def _config_if_whole(ref: RunRef) -> Document:
    with contextlib.suppress(StoreError):
        return read_config(ref.folder) or {}
    return {}


def _recorded_state(ref: RunRef, status: Document, analysis: Document | None) -> tuple[str, str]:
    """State and reason as the run's own files record them."""
    if status:
        return str(status["state"]), str(status.get("error") or "")
    if analysis is not None:
        return "finished", ""
    return ("queued" if (ref.folder / "submitted.json").exists() else "missing"), ""


def model_and_data(config: Node) -> tuple[str, str]:
    """What to call a target's model and data: ``mlp``, ``digits``; own data by their file, ``rows.npz``."""
    model, data = config.get("model", {}), config.get("data", {})
    if _class_of(model) == _OWN:
        args = " ".join(f"{name}={value}" for name, value in (model.get("args") or {}).items())
        return f"{model.get('problem') or 'own'} {args}".strip()[:_LONGEST_NAME], "own"
    file = PurePath(str(data.get("path") or "")).name
    return _class_of(model).lower(), file or str(data.get("name") or _class_of(data)).lower()


def config_fields(config: Node, nodes: Iterable[str] = _COMPARED) -> dict[Field, str]:
    """The fields of a config's ``nodes``, as text."""
    return {key: text for node in nodes if node in config for key, text in _node_fields(node, config[node])}


def _node_fields(node: str, value: Any) -> Iterator[tuple[Field, str]]:
    if not isinstance(value, Mapping):
        yield (node, "", ""), json.dumps(value)
        return
    cls = _class_of(value)
    if cls:
        yield (node, "", ""), cls
    if cls == _OWN:
        saved = value.get("checkpoint") or {}
        place = {"checkpoints": str(PurePath(saved["path"]).parent), "step": saved["step"]} if saved else {}
        value = {"problem": value.get("problem"), **(value.get("args") or {}), **place}
    for name, item in value.items():
        if name != "_target_":
            yield (node, cls, name), item if isinstance(item, str) else json.dumps(item, separators=(",", ":"))


def _class_of(node: Node) -> str:
    return str(node.get("_target_", "")).rpartition(".")[2]


def varying(configs: Iterable[Mapping[Field, str]]) -> set[Field]:
    """The fields that differ among the configs whose node is of the same class.

    HMC and SGLD have different defaults, but another column names the sampler.
    """
    seen: dict[Field, set[str]] = {}
    for fields in configs:
        for key, value in fields.items():
            seen.setdefault(key, set()).add(value)
    return {key for key, values in seen.items() if len(values) > 1}


def words(fields: Mapping[Field, str], keys: set[Field]) -> str:
    """``step_size=0.001 data.n=500``: what ``fields`` say of ``keys``."""
    return " ".join(f"{field_name(key)}={value}" for key, value in fields.items() if key in keys)


def field_name(key: Field) -> str:
    """What to call a field: its name alone where no other node could have it."""
    node, _, name = key
    if not name:
        return node
    return name if node in ("sampler", "posterior") else f"{node}.{name}"


def traceback_of(store: Store, record: Record) -> str:
    """The traceback that ended a run, or else its target; empty if there is none."""
    if record.state == "finished":
        return ""
    if record.status.get("traceback"):
        return str(record.status["traceback"])
    with contextlib.suppress(StoreError):
        status = read_status(store.target_dir(record.ref.target_id)) or {}
        return str(status.get("traceback") or "")
    return ""
