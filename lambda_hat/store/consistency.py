"""Whether the numbers of a target's meta.json, on which every LLC depends, are those of its config and its arrays."""

from pathlib import Path
from typing import Any

from lambda_hat.config.job import digest
from lambda_hat.config.schema import Document
from lambda_hat.store.files import StoreError, read_config
from lambda_hat.store.layout import StoredTarget

TARGET_NODES = ("model", "data", "teacher", "training")


def check_target(folder: Path, stored: StoredTarget) -> None:
    """Refuse a target whose files do not say the same.

    Raises:
        StoreError: naming the file, what it needed to be and what it is.
    """
    config = read_config(folder)
    reason = config_fault(folder.name, config) or numbers_fault(config or {}, stored)
    if reason is not None:
        raise StoreError(f"cannot use {folder}: {reason}; remove {folder / 'meta.json'} and run the same command again")


def config_fault(target_id: str, config: Document | None) -> str | None:
    """Why ``config`` is not the config.yaml of the target; its id is the hash of it."""
    if config is None:
        return "config.yaml is missing"
    try:
        found = "tgt_" + digest("target", {name: config[name] for name in TARGET_NODES})
    except (KeyError, TypeError) as error:
        return f"config.yaml needs the nodes {', '.join(TARGET_NODES)} ({error!r})"
    return None if found == target_id else f"config.yaml is that of {found}: it was changed, or copied here"


def numbers_fault(config: Document, stored: StoredTarget) -> str | None:
    """Why ``num_data`` and ``dim`` of meta.json are not those of the config and of the arrays."""
    dim, num_data = stored.meta.get("dim"), stored.meta.get("num_data")
    if stored.w0.shape != (dim,):
        return f"meta.json needs dim = {stored.w0.size}, the length of w0, got {dim}"
    said = _rows_of_config(config)
    if said is not None and said != num_data:
        return f"meta.json needs num_data = {said}, the n of config.yaml, got {num_data}"
    lengths = {array.shape[0] for array in stored.arrays.values() if array.ndim}
    if said is None and num_data not in lengths:
        return f"meta.json needs num_data to be the length of an array of data.npz ({sorted(lengths)}), got {num_data}"
    return None


def _rows_of_config(config: Document) -> Any:
    return config.get("data", {}).get("n")
