"""Which targets name which files of ``data/``."""

from pathlib import Path

from lambda_hat.store.data_files import named_by
from lambda_hat.store.layout import Store, read_json


def targets_by_data(store: Store) -> dict[str, set[Path]]:
    """The folders of the targets that name each file, also of those behind a link.

    Raises:
        StoreError: a ``meta.json`` cannot be read, so that what it names is not known.
    """
    found: dict[str, set[Path]] = {}
    for path in sorted(store.root.glob("targets/tgt_*/meta.json")):
        for name in named_by(read_json(path) or {}):
            found.setdefault(name, set()).add(path.parent)
    return found
